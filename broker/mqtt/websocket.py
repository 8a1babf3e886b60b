"""MQTT over WebSocket: a wire for connections whose clients are browsers.

The frames are those of the `websockets` library, used without its tasks, so that a browser costs little more than a
socket. A page of another site may not connect, since browsers would lend it the user's reach into this network.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from broker.mqtt.connection import LARGE_BYTES, UNREAD_REPLIES_BYTES, Connection
from broker.mqtt.limits import CONNECT_BYTES, WRITE_BYTES
from broker.mqtt.wiring import House

_quiet = logging.getLogger("spile.mqtt.websocket")
_quiet.setLevel(logging.WARNING)  # the library tells every opening and closing
FRAME_OVERHEAD_BYTES = 5  # the fixed header of the largest packet


def origin_allowed(origin: str | None, host: str | None, allowed: Sequence[str]) -> bool:
    """Whether a page from `origin` may connect to a service it reached as `host`.

    Programs send no origin. A page may when it comes from the same host name, whatever the port, or from an
    allowed origin; `*` allows every one.
    """
    if origin is None or "*" in allowed or origin in allowed:
        return True
    name = urlsplit(origin).hostname
    return name is not None and host is not None and name == urlsplit(f"//{host}").hostname


class WebSocketWire(asyncio.BufferedProtocol):
    """The protocol of a socket that begins with a WebSocket handshake, and the wire of its `Connection`."""

    def __init__(self, house: House, loop: asyncio.AbstractEventLoop, origins: Sequence[str]) -> None:
        self._house = house
        self._loop = loop
        self._origins = origins
        self._frames = ServerProtocol(
            subprotocols=[Subprotocol("mqtt")],
            max_size=house.limits.packet_bytes + FRAME_OVERHEAD_BYTES,
            logger=_quiet,
        )
        self._connection: Connection | None = None
        self._transport: Any = None
        self._deadline: asyncio.TimerHandle | None = None
        self._arriving_bytes = 0  # of a frame that is not complete
        self._counted = 0

    # The transport's calls.

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=WRITE_BYTES)
        if not self._house.shaking_hands(self):
            transport.abort()
            return
        self._deadline = self._loop.call_later(self._house.limits.connect_s, transport.abort)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._house.receive_buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._frames.eof_sent:
            return
        self._frames.receive_data(bytes(self._house.receive_buffer[:nbytes]))
        self._handle(nbytes)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._count(0)
        self._house.shook_hands(self)
        if self._connection is not None:
            self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._connection is not None:
            self._connection.pause_writing()

    def resume_writing(self) -> None:
        if self._connection is not None:
            self._connection.resume_writing()

    # The wire of the connection.

    def write(self, data: bytes) -> None:
        if self._frames.state is State.OPEN:
            self._frames.send_binary(data)
            self._flush()

    def close(self) -> None:
        if self._frames.state is State.OPEN:
            self._frames.send_close(CloseCode.NORMAL_CLOSURE)
            self._flush()
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def is_closing(self) -> bool:
        closing: bool = self._transport.is_closing()
        return closing

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_write_buffer_size(self) -> int:
        size: int = self._transport.get_write_buffer_size()
        return size

    # Frames.

    def _handle(self, nbytes: int) -> None:
        events = self._frames.events_received()
        self._arriving_bytes = 0 if events else self._arriving_bytes + nbytes
        self._count(self._arriving_bytes if self._arriving_bytes > LARGE_BYTES else 0)
        unknown = self._connection is None or self._connection.client is None
        if (unknown and self._arriving_bytes > CONNECT_BYTES) or (
            self._house.receiving_bytes > self._house.limits.receiving_bytes
        ):
            self._transport.abort()
            return
        for event in events:
            if isinstance(event, Request):
                self._shake_hands(event)
            elif isinstance(event, Frame):
                self._frame(event)
        self._flush()
        if self._transport.get_write_buffer_size() > UNREAD_REPLIES_BYTES * 2:
            self._transport.abort()  # it sends pings, and does not read the pongs
        elif self._frames.close_expected():
            self._transport.close()

    def _shake_hands(self, request: Request) -> None:
        headers = request.headers
        origin = next(iter(headers.get_all("Origin")), None)
        host = next(iter(headers.get_all("Host")), None)
        if not origin_allowed(origin, host, self._origins):
            response = self._frames.reject(
                HTTPStatus.FORBIDDEN, f"Pages of {origin} may not connect; the setting for origins allows more.\n"
            )
        else:
            response = self._frames.accept(request)
        self._frames.send_response(response)
        self._flush()
        if self._frames.state is State.OPEN:
            if self._deadline is not None:
                self._deadline.cancel()
            self._house.shook_hands(self)
            self._connection = Connection(self._house, self._loop)
            self._connection.attach(self)

    def _frame(self, frame: Frame) -> None:
        if self._connection is None:
            return
        if frame.opcode is Opcode.BINARY or frame.opcode is Opcode.CONT:
            self._connection.receive(bytes(frame.data))
        elif frame.opcode is Opcode.TEXT:
            self._connection.abort("MQTT over WebSocket has binary frames only")

    def _flush(self) -> None:
        for data in self._frames.data_to_send():
            if data:
                self._transport.write(data)

    def _count(self, large_bytes: int) -> None:
        self._house.receiving_bytes += large_bytes - self._counted
        self._counted = large_bytes
