"""One connection to a broker, from CONNECT to its end. It never connects again: whoever opened it decides that.

paho speaks MQTT, on the event loop and without a thread; see `wire`. Acknowledgements belong to the connection that
a message came or went on, so that none can be taken for another's after a reconnect.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from broker.external.access import BrokerAccess
from broker.external.limits import ExternalLimits
from broker.external.patience import Patience
from broker.external.reasons import Refuses, no_connection, no_greeting
from broker.external.window import Window
from broker.external.wire import GREETING, Wire
from broker.mqtt.contract import Message
from feeds.errors import BadRequest, Unavailable

log = logging.getLogger("spile.mqtt")

TICK_S = 0.5  # between looks at the clock: pings, and messages without an acknowledgement
_BREATH_MESSAGES, _BREATH_BYTES = 100, 64 << 10  # sent before others on the event loop have their turn
_MESSAGE_BYTES = 16  # of a PUBLISH beside its topic and payload
_CLOSE_S = 1.0
_CLOSED = "closed by Spile"


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message that came; `mid` is what it is acknowledged by, 0 at QoS 0."""

    topic: str
    payload: bytes
    mid: int
    is_retained: bool = False
    """Whether the broker had kept it, and sends it since somebody subscribes."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a connection ended. `unacknowledged` are the topics of what was under way, oldest first, by window."""

    reason: str
    by_broker: bool
    unacknowledged: dict[str, list[str]] = field(default_factory=dict)


class _Batch:
    """Messages of one call that are not yet acknowledged."""

    __slots__ = ("done", "left")

    def __init__(self) -> None:
        self.left = 0
        self.done: asyncio.Future[None] | None = None


@dataclass(slots=True)
class _Flight:
    topic: str
    size: int
    window: Window
    batch: _Batch
    sent_at: float


class _Client(paho.Client):
    """paho on a wire that stands already."""

    def __init__(self, wire: Wire, client_id: str, clean: bool) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=clean,
            protocol=paho.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        self._wire = wire
        self.max_inflight_messages = 0  # the windows bound what is under way; paho would search all of it for each

    def _create_socket(self) -> Any:
        return self._wire


class Connection:
    """A connection that stands. Made by `open`; when `ended` is done it takes and brings nothing more."""

    def __init__(
        self, access: BrokerAccess, limits: ExternalLimits, wire: Wire, on_message: Callable[[Arrived], None]
    ) -> None:
        """Use `open`."""
        loop = self._loop = asyncio.get_running_loop()
        self.address = access.address
        self.ended: asyncio.Future[Ended] = loop.create_future()
        self.on_ended: Callable[[Ended], None] = _unheard
        """Called once, before those who wait hear of the end."""
        self.began_at = time.monotonic()
        self.acknowledged = 0
        self._limits = limits
        self._wire = wire
        self._on_message = on_message
        self._greeted: asyncio.Future[None] = loop.create_future()
        self._subscribed: dict[int, asyncio.Future[None]] = {}
        self._flights: dict[int, _Flight] = {}
        self._patience = Patience(limits.ack_s)
        self._quiet: asyncio.Future[None] | None = None
        self._writing_soon = False
        self._writing = False
        self._closing = False
        self._client = client = _Client(wire, access.client_id, access.clean)
        if access.user is not None:
            client.username_pw_set(access.user, access.password)
        client.on_connect = self._connected
        client.on_publish = self._published
        client.on_subscribe = self._suback
        client.on_message = self._message
        client.on_disconnect = self._disconnected
        client.on_socket_register_write = self._write_soon
        wire.on_data = self._read
        wire.on_lost = self._lost
        client.connect(access.address.host, access.address.port, access.keepalive_s)
        self._timer = loop.call_later(TICK_S, self._tick)

    @classmethod
    async def open(
        cls,
        access: BrokerAccess,
        limits: ExternalLimits,
        on_message: Callable[[Arrived], None] | None = None,
    ) -> Connection:
        """Connect and log in. Raises Unreachable, or Refuses where an operator has to mend something."""
        loop = asyncio.get_running_loop()
        address = access.address
        deadline = loop.time() + limits.connect_s
        wire = Wire()
        try:
            async with asyncio.timeout_at(deadline):
                await loop.create_connection(lambda: wire, address.host, address.port, ssl=access.tls)
        except (OSError, UnicodeError) as fault:  # TimeoutError and ssl.SSLError too; no name of a host
            raise no_connection(address, fault) from None
        connection = cls(access, limits, wire, on_message or _unheard)
        try:
            async with asyncio.timeout_at(deadline):
                both: list[asyncio.Future[Any]] = [connection._greeted, connection.ended]
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            connection.end("no CONNACK came in time")
            raise no_greeting(address, wire.greeting, None) from None
        except asyncio.CancelledError:
            connection.end("cancelled")
            raise
        if connection.ended.done():
            raise no_greeting(address, wire.greeting, connection.ended.result().reason)
        return connection

    # What it is for

    async def quiet(self) -> None:
        """Return when everything sent is acknowledged, or after a turn of the event loop, or at the end."""
        if not self._flights:
            await asyncio.sleep(0)
            return
        self._quiet = self._loop.create_future()
        await self._quiet

    async def publish(self, messages: Iterable[Message], window: Window, outward: Callable[[str], str]) -> None:
        """Send messages, and return when every one of QoS 1 is acknowledged; Unavailable when the connection ends.

        BadRequest for one that is too large; those before it are sent.

        `outward` is applied to topics. At QoS 0 a message is handed to the socket, of whose backlog it is a part.
        """
        batch = _Batch()
        sent = size_sent = 0
        for message in messages:
            payload = message.payload if isinstance(message.payload, bytes) else message.payload()
            topic = outward(message.topic)
            size = len(topic) + len(payload) + _MESSAGE_BYTES
            if size > self._limits.packet_bytes:
                raise BadRequest(f"A message to {topic[:200]!r} has {size} bytes; the broker takes fewer.")
            if message.qos and not window.enter(size):
                await window.wait(size)
            if self.ended.done():
                if message.qos:
                    window.leave(size)
                raise self._unavailable()
            if message.qos:
                self._send(message, topic, payload, size, window, batch)
            else:
                self._hand_over(message, topic, payload)
            sent += 1
            size_sent += size
            if sent >= _BREATH_MESSAGES or size_sent >= _BREATH_BYTES:
                sent = size_sent = 0
                await asyncio.sleep(0)
                if not self._wire.writable.is_set():
                    await self._wire.writable.wait()
        if self.ended.done():
            raise self._unavailable()
        if batch.left:
            batch.done = self._loop.create_future()
            await batch.done

    async def subscribe(self, topic_filter: str) -> None:
        """Subscribe at QoS 1; Refuses where the broker denies it."""
        result, mid = self._client.subscribe(topic_filter, 1)
        if result != MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None:
            raise self._unavailable()
        granted = self._subscribed[mid] = self._loop.create_future()
        try:
            async with asyncio.timeout(self._limits.connect_s):
                await granted
        except TimeoutError:
            raise Unavailable(f"{self.address} does not answer a subscription in time.") from None
        except PermissionError:
            raise Refuses(
                f"{self.address} denies a subscription to {topic_filter!r}.",
                hint="Let Spile's user read its topics in the broker's access file.",
            ) from None
        finally:
            self._subscribed.pop(mid, None)

    def acknowledge(self, mid: int) -> None:
        """Acknowledge a message that came on this connection; one that has ended needs none."""
        if not self.ended.done():
            self._client.ack(mid, 1)

    async def close(self) -> None:
        """Say goodbye, and end."""
        if not self.ended.done():
            self._closing = True
            self._client.disconnect()
            self._write()
            await asyncio.wait([self.ended], timeout=_CLOSE_S)
        self.end(_CLOSED)
        await asyncio.sleep(0)  # for the socket to be closed

    def end(self, reason: str, *, by_broker: bool = False) -> None:
        """End it at once, and tell everybody who waits."""
        if self.ended.done():
            return
        self._timer.cancel()
        unacknowledged: dict[str, list[str]] = {}
        for flight in self._flights.values():
            unacknowledged.setdefault(flight.window.name, []).append(flight.topic)
        ended = Ended(reason, by_broker, unacknowledged)
        self.ended.set_result(ended)
        self.on_ended(ended)
        error = self._unavailable()
        flights, self._flights = self._flights, {}
        for flight in flights.values():
            flight.window.leave(flight.size)
            _fail(flight.batch.done, error)
        for waiting in self._subscribed.values():
            _fail(waiting, error)
        for told in (self._greeted, self._quiet):
            if told is not None and not told.done():
                told.set_result(None)
        self._wire.abort()

    # Sending

    def _send(self, message: Message, topic: str, payload: bytes, size: int, window: Window, batch: _Batch) -> None:
        try:
            info = self._hand_over(message, topic, payload)
        except BadRequest:
            window.leave(size)
            raise
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            window.leave(size)
            self.end(paho.error_string(info.rc))
            raise self._unavailable()
        self._flights[info.mid] = _Flight(message.topic, size, window, batch, time.monotonic())
        batch.left += 1

    def _hand_over(self, message: Message, topic: str, payload: bytes) -> paho.MQTTMessageInfo:
        try:
            return self._client.publish(topic, payload, min(message.qos, 1), message.retain)
        except ValueError as fault:  # its topic or itself is longer than MQTT can say
            raise BadRequest(f"A message to {topic[:200]!r} cannot be sent: {fault}") from None

    def _unavailable(self) -> Unavailable:
        reason = self.ended.result().reason if self.ended.done() else "it takes nothing more"
        return Unavailable(
            f"The connection to {self.address} was lost: {reason}.",
            hint="It is made again by itself; see that the broker runs and can be reached.",
        )

    def _write_soon(self, *_: Any) -> None:
        if not self._writing_soon:
            self._writing_soon = True
            self._loop.call_soon(self._write)

    def _write(self) -> None:
        self._writing_soon = False
        self._writing = True
        try:
            self._client.loop_write()
        finally:
            self._writing = False
        self._wire.flush()

    # What paho tells

    def _read(self) -> None:
        if not self._wire.greeting.startswith(GREETING[: len(self._wire.greeting)]):
            self.end("it speaks another protocol")
        while self._wire.pending() and not self.ended.done():
            before = self._wire.pending()
            self._client.loop_read()
            if self._wire.pending() == before:
                return

    def _connected(self, _client: Any, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if not reason.is_failure and not self._greeted.done():
            self._greeted.set_result(None)

    def _published(self, _client: Any, _data: Any, mid: int, _reason: Any, _properties: Any) -> None:
        if self._writing:
            return  # of QoS 0: it was handed to the wire
        flight = self._flights.pop(mid, None)
        if flight is None:
            return
        self.acknowledged += 1
        batch = flight.batch
        batch.left -= 1
        if not batch.left and batch.done is not None and not batch.done.done():
            batch.done.set_result(None)
        flight.window.leave(flight.size)
        if not self._flights and self._quiet is not None and not self._quiet.done():
            self._quiet.set_result(None)

    def _suback(self, _client: Any, _data: Any, mid: int, reasons: list[ReasonCode], _properties: Any) -> None:
        waiting = self._subscribed.get(mid)
        if waiting is None or waiting.done():
            return
        if any(reason.is_failure for reason in reasons):
            waiting.set_exception(PermissionError())
        else:
            waiting.set_result(None)

    def _message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        mid = message.mid if message.qos else 0
        try:
            topic = message.topic
        except UnicodeDecodeError:
            log.warning("a message from %s has a topic that is no UTF-8; it is passed", self.address)
            if mid:
                self.acknowledge(mid)
            return
        self._on_message(Arrived(topic, bytes(message.payload), mid, message.retain))

    def _disconnected(self, _client: Any, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        # The broker's closing is told by `_lost`; here it is paho that gives up: no answer to a ping, bad packets.
        if not self._closing:
            self.end(str(reason).lower())

    def _lost(self, fault: Exception | None) -> None:
        said = "the broker closed it" if fault is None else str(fault) or type(fault).__name__
        self.end(_CLOSED if self._closing else said, by_broker=not self._closing)

    def _tick(self) -> None:
        self._timer = self._loop.call_later(TICK_S, self._tick)
        self._client.loop_misc()
        if self.ended.done():
            return
        oldest = next(((mid, flight.sent_at) for mid, flight in self._flights.items()), None)
        if self._patience.is_over(oldest, self._wire.heard_at, time.monotonic()):
            self.end(f"a message was not acknowledged for {self._limits.ack_s:.0f} s", by_broker=True)


def _fail(waiting: asyncio.Future[None] | None, error: Exception) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_exception(error)


def _unheard(_told: Arrived | Ended) -> None:
    """What nobody wants to hear."""
