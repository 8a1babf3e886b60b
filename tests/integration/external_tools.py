"""External brokers for tests: a publisher connected to a broker that runs as a process."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from brokers import BrokerProcess, Mosquitto, Nats
from mqtt_tools import (
    CONNACK,
    PINGRESP,
    PUBACK,
    PUBLISH,
    SUBACK,
    Packet,
    ack_packet,
    leave_no_client,
    packet,
    read_heard,
)

from broker.external import BrokerAccess, BrokerAddress, ExternalBroker, ExternalLimits
from broker.mqtt.contract import Requests

KINDS: dict[str, type[BrokerProcess]] = {"mosquitto": Mosquitto, "nats": Nats}
QUICK = ExternalLimits(retry_first_s=0.05, retry_max_s=0.2, wait_s=10.0, connect_s=5.0)


def access(process: BrokerProcess | ScriptedBroker, **more: Any) -> BrokerAccess:
    """How the process is reached."""
    return BrokerAccess(**{"address": BrokerAddress.parse(process.url), "client_id": "spile-test", **more})


@asynccontextmanager
async def connected(
    process: BrokerProcess | ScriptedBroker,
    *,
    requests: Requests | None = None,
    limits: ExternalLimits = QUICK,
    login: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[ExternalBroker]:
    """A publisher that is connected to the process, stopped at the end."""
    broker = ExternalBroker(access(process, **(login or {})), requests=requests, limits=limits, **options)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()
        await leave_no_client()


@asynccontextmanager
async def running(
    kind: str, place: Path, *lines: str, **options: Any
) -> AsyncIterator[tuple[BrokerProcess, ExternalBroker]]:
    """A process of this kind, and a publisher that is connected to it."""
    async with AsyncExitStack() as stack:
        process = KINDS[kind](place, *lines)
        stack.callback(process.kill)
        yield process, await stack.enter_async_context(connected(process, **options))


class ScriptedBroker:
    """A broker that does what a test says: what it answers to a CONNECT, and to each message by its topic."""

    def __init__(self) -> None:
        self.port = 0
        self.greeting: bytes | None = packet(CONNACK << 4, b"\0\0")
        """What is sent first; None: nothing, "" closes."""
        self.greeting_of: Callable[[str], bytes | None] = lambda _client_id: self.greeting
        """The same, for a client by its id."""
        self.on_publish: Callable[[str], str] = lambda _topic: "ack"
        """`ack`, `close` or `ignore`."""
        self.answers_subscriptions = True
        self.subscriptions = 0
        self.connects = 0
        self.came: Counter[str] = Counter()
        self.client_ids: list[str] = []
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def present(self) -> int:
        """How many connections there are."""
        return len(self._writers)

    def cut(self) -> None:
        """Close every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    def send(self, data: bytes) -> None:
        """Send this on every connection."""
        for writer in list(self._writers):
            writer.write(data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.connects += 1
        with suppress(OSError, asyncio.IncompleteReadError):
            await self._talk(reader, writer)
        self._writers.discard(writer)
        writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connect = await _packet(reader)
        size = int.from_bytes(connect.body[10:12], "big")
        self.client_ids.append(connect.body[12 : 12 + size].decode())
        greeting = self.greeting_of(self.client_ids[-1])
        if greeting is not None:
            writer.write(greeting)
            if not greeting:
                return
        while True:
            came = await _packet(reader)
            if came.kind == PUBLISH:
                heard = read_heard(came)
                self.came[heard.topic] += 1
                what = self.on_publish(heard.topic)
                if what == "close":
                    return
                if what == "ack" and heard.qos:
                    writer.write(ack_packet(PUBACK, heard.packet_id))
            elif came.kind == 8:
                self.subscriptions += 1
                if self.answers_subscriptions:
                    writer.write(packet(SUBACK << 4, came.body[:2] + b"\1"))
            elif came.kind == 12:
                writer.write(packet(PINGRESP << 4, b""))
            elif came.kind == 14:
                return


async def _packet(reader: asyncio.StreamReader) -> Packet:
    first = (await reader.readexactly(1))[0]
    length = shift = 0
    while True:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return Packet(first >> 4, first & 15, await reader.readexactly(length))


@asynccontextmanager
async def scripted() -> AsyncIterator[ScriptedBroker]:
    """A scripted broker for the length of the block."""
    broker = ScriptedBroker()
    server = await asyncio.start_server(broker._serve, "127.0.0.1", 0)
    broker.port = server.sockets[0].getsockname()[1]
    try:
        yield broker
    finally:
        server.close()
        broker.cut()
        while broker._writers:
            await asyncio.sleep(0)
