"""The seams of a connection: the transport below it, and the house it belongs to."""

from __future__ import annotations

import asyncio
from enum import IntFlag
from typing import TYPE_CHECKING, Protocol

from broker.mqtt.limits import BrokerLimits
from broker.mqtt.packets import Connect
from broker.mqtt.session import Counters

if TYPE_CHECKING:
    from broker.mqtt.connection import Connection


class Wire(Protocol):
    """What a connection needs of a transport; a WebSocket offers the same."""

    def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def is_closing(self) -> bool: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def get_write_buffer_size(self) -> int: ...


class House(Protocol):
    """Whom a connection turns to with what it has read."""

    limits: BrokerLimits
    counters: Counters
    receive_buffer: memoryview
    receiving_bytes: int

    def shaking_hands(self, wire: object) -> bool: ...
    def shook_hands(self, wire: object) -> None: ...
    def opened(self, connection: Connection) -> bool: ...
    def login(self, connection: Connection, connect: Connect) -> None: ...
    def published(
        self, connection: Connection, topic: str, payload: bytes, qos: int, retain: bool, packet_id: int
    ) -> asyncio.Future[None] | None: ...
    def released(self, connection: Connection, packet_id: int) -> asyncio.Future[None] | None: ...
    def subscribe(self, connection: Connection, packet_id: int, filters: list[tuple[str, int]]) -> None: ...
    def unsubscribe(self, connection: Connection, packet_id: int, filters: list[str]) -> None: ...
    def lost(self, connection: Connection) -> None: ...
    def schedule(self, connection: Connection) -> None: ...


class Hold(IntFlag):
    """Why a connection is not read from for now."""

    STORING = 1  # its session is being fetched, or its filters written
    WINDOW = 2  # too many of its publications are unacknowledged
    ROUTING = 4  # a receiver of its last publication is full
    TURN = 8  # others have their turn first
    REPLIES = 16  # it does not read its acknowledgements
    REQUESTS = 32  # too many requests are under way
    STOPPING = 64  # the broker is going down
