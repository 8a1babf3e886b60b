"""MQTT clients for tests, on raw sockets and with a codec of their own, so that the broker does not check itself."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker.mqtt.contract import Gate, Message, Requests
from broker.mqtt.embedded import EmbeddedBroker
from broker.mqtt.gate import OpenGate
from broker.mqtt.limits import BrokerLimits

CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, PINGRESP = 2, 3, 4, 5, 6, 7, 9, 11, 13
PATIENCE_S = 30.0


class Closed(Exception):
    """The broker has closed the connection."""


@dataclass(frozen=True)
class Packet:
    """A packet as it came."""

    kind: int
    flags: int
    body: bytes


@dataclass(frozen=True)
class Heard:
    """A PUBLISH as it came."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    again: bool = False
    packet_id: int = field(default=0, compare=False)


def text(value: str | bytes) -> bytes:
    """A text with its length before it."""
    raw = value.encode() if isinstance(value, str) else value
    return len(raw).to_bytes(2, "big") + raw


def packet(first: int, body: bytes) -> bytes:
    """A packet with its length."""
    length, out = len(body), bytearray([first])
    while True:
        length, low = divmod(length, 128)
        out.append(low | (0x80 if length else 0))
        if not length:
            return bytes(out) + body


def connect_packet(
    client_id: str,
    *,
    clean: bool = True,
    keepalive_s: int = 0,
    user: str | None = None,
    password: bytes | None = None,
    will: tuple[str, bytes, int, bool] | None = None,
    level: int = 4,
    name: str = "MQTT",
) -> bytes:
    """A CONNECT."""
    flags = 2 if clean else 0
    payload = text(client_id)
    if will is not None:
        flags |= 4 | will[2] << 3 | will[3] << 5
        payload += text(will[0]) + text(will[1])
    if user is not None:
        flags |= 0x80
        payload += text(user)
    if password is not None:
        flags |= 0x40
        payload += text(password)
    return packet(0x10, text(name) + bytes([level, flags]) + keepalive_s.to_bytes(2, "big") + payload)


def publish_packet(
    topic: str | bytes,
    payload: bytes = b"",
    qos: int = 0,
    packet_id: int = 0,
    retain: bool = False,
    again: bool = False,
) -> bytes:
    """A PUBLISH."""
    ids = packet_id.to_bytes(2, "big") if qos else b""
    return packet(0x30 | again << 3 | qos << 1 | retain, text(topic) + ids + payload)


def subscribe_packet(packet_id: int, *filters: tuple[str | bytes, int]) -> bytes:
    """A SUBSCRIBE."""
    return packet(0x82, packet_id.to_bytes(2, "big") + b"".join(text(f) + bytes([qos]) for f, qos in filters))


def ack_packet(kind: int, packet_id: int) -> bytes:
    """A PUBACK, PUBREC, PUBREL or PUBCOMP."""
    return packet(kind << 4 | (2 if kind == PUBREL else 0), packet_id.to_bytes(2, "big"))


def read_heard(came: Packet) -> Heard:
    """A PUBLISH taken apart."""
    size = int.from_bytes(came.body[:2], "big")
    topic, rest = came.body[2 : 2 + size].decode(), came.body[2 + size :]
    qos = came.flags >> 1 & 3
    packet_id = int.from_bytes(rest[:2], "big") if qos else 0
    again, retain = bool(came.flags & 8), bool(came.flags & 1)
    return Heard(topic, rest[2:] if qos else rest, qos, retain, again, packet_id)


_clients: list[RawClient] = []  # the running test's, to be closed at its end


class RawClient:
    """A client that does exactly what a test says; with `acking` it acknowledges deliveries by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, acking: bool) -> None:
        self.reader = reader
        self.writer = writer
        self.acking = acking
        self.present = False
        self.code = -1
        self._last_id = 0
        self._later: list[Packet] = []  # came while something else was waited for
        _clients.append(self)

    @classmethod
    async def open(cls, port: int, *, acking: bool = True, receive_bytes: int | None = None) -> RawClient:
        """A socket to the broker, and nothing sent yet."""
        sock = socket.socket()
        if receive_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=2**16)
        return cls(reader, writer, acking)

    @classmethod
    async def connect(
        cls, port: int, client_id: str, *, acking: bool = True, receive_bytes: int | None = None, **options: Any
    ) -> RawClient:
        """A client that is connected, or was refused: see `code`."""
        client = await cls.open(port, acking=acking, receive_bytes=receive_bytes)
        await client.send(connect_packet(client_id, **options))
        answer = await client.expect(CONNACK)
        client.present, client.code = bool(answer.body[0]), answer.body[1]
        return client

    def next_id(self) -> int:
        """A packet id not used yet."""
        self._last_id += 1
        return self._last_id

    async def send(self, data: bytes) -> None:
        """Write bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self, patience_s: float = PATIENCE_S) -> Packet:
        """The next packet; raises Closed when there is none, TimeoutError when none comes."""
        if self._later:
            return self._later.pop(0)
        return await asyncio.wait_for(self._receive(), patience_s)

    async def _receive(self) -> Packet:
        try:
            first = (await self.reader.readexactly(1))[0]
            length = shift = 0
            while True:
                byte = (await self.reader.readexactly(1))[0]
                length |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            return Packet(first >> 4, first & 15, await self.reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError) as fault:
            raise Closed from fault

    async def expect(self, kind: int, patience_s: float = PATIENCE_S) -> Packet:
        """The next packet, which is of this kind."""
        came = await self.receive(patience_s)
        assert came.kind == kind, came
        return came

    async def heard(self, patience_s: float = PATIENCE_S) -> Heard:
        """The next message, acknowledged if the client does that."""
        heard = read_heard(await self.expect(PUBLISH, patience_s))
        if self.acking and heard.qos == 1:
            await self.send(ack_packet(PUBACK, heard.packet_id))
        elif self.acking and heard.qos == 2:
            await self.send(ack_packet(PUBREC, heard.packet_id))
            between: list[Packet] = []
            while (came := await self.receive(patience_s)).kind != PUBREL:
                between.append(came)
            self._later += between
            await self.send(ack_packet(PUBCOMP, heard.packet_id))
        return heard

    async def hear(self, count: int) -> list[Heard]:
        """The next messages."""
        return [await self.heard() for _ in range(count)]

    async def hear_until_quiet(self) -> list[Heard]:
        """Everything the broker has for this client by now: what comes before the answer to a ping."""
        found: list[Heard] = []
        await self.send(packet(0xC0, b""))
        while (came := await self.receive()).kind != PINGRESP:
            heard = read_heard(came)
            found.append(heard)
            if self.acking and heard.qos == 1:
                await self.send(ack_packet(PUBACK, heard.packet_id))
        return found

    async def subscribe(self, *filters: tuple[str, int]) -> list[int]:
        """Subscribe; returns the codes. Nothing else may be on its way."""
        packet_id = self.next_id()
        await self.send(subscribe_packet(packet_id, *filters))
        answer = await self.expect(SUBACK)
        assert answer.body[:2] == packet_id.to_bytes(2, "big")
        return list(answer.body[2:])

    async def publish(self, topic: str, payload: bytes = b"", qos: int = 0, retain: bool = False) -> None:
        """Publish, and see it acknowledged. Nothing else may be on its way."""
        packet_id = self.next_id() if qos else 0
        await self.send(publish_packet(topic, payload, qos, packet_id, retain))
        if qos == 1:
            assert (await self.expect(PUBACK)).body == packet_id.to_bytes(2, "big")
        elif qos == 2:
            assert (await self.expect(PUBREC)).body == packet_id.to_bytes(2, "big")
            await self.send(ack_packet(PUBREL, packet_id))
            assert (await self.expect(PUBCOMP)).body == packet_id.to_bytes(2, "big")

    async def closed(self, patience_s: float = PATIENCE_S) -> None:
        """Return when the broker has closed the connection, whatever it sends before."""
        with contextlib.suppress(Closed):
            while True:
                await self.receive(patience_s)

    async def disconnect(self) -> None:
        """Leave politely."""
        await self.send(packet(0xE0, b""))
        await self.closed()
        await self.vanish()

    async def vanish(self) -> None:
        """Close the socket without a word."""
        self.writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


async def until(
    holds: Callable[[], Any] | Callable[[], Awaitable[Any]], what: str = "", patience_s: float = PATIENCE_S
) -> None:
    """Wait for a state."""
    deadline = time.monotonic() + patience_s
    while True:
        answer = holds()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer:
            return
        assert time.monotonic() < deadline, f"it did not happen: {what or holds}"
        await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def serving(
    state: Path | None = None,
    *,
    limits: BrokerLimits | None = None,
    gate: Gate | None = None,
    requests: Requests | None = None,
    websocket: bool = False,
) -> AsyncIterator[EmbeddedBroker]:
    """A broker on a free port, stopped at the end."""
    broker = EmbeddedBroker(
        host="127.0.0.1",
        port=0,
        websocket=("127.0.0.1", 0) if websocket else None,
        gate=gate or OpenGate(),
        requests=requests,
        state=state,
        limits=limits or BrokerLimits(),
    )
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()
        await leave_no_client()


async def leave_no_client() -> None:
    """Close the sockets of every client made so far."""
    while _clients:
        await _clients.pop().vanish()


def messages(count: int, topic: str = "barrels/b/x", qos: int = 1, size: int = 0) -> list[Message]:
    """Numbered messages."""
    return [Message(topic, str(number).encode().ljust(size, b"."), qos) for number in range(count)]


def numbers(heard: list[Heard]) -> list[int]:
    """What `messages` numbered."""
    return [int(each.payload.rstrip(b".")) for each in heard]
