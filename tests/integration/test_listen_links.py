"""One suite for every link: in process, over WebSocket and over MQTT a listener hears the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from broker.http import OpenAccess, Services, create_app, serve_http
from broker.mqtt.contract import Client, Message
from broker.mqtt.embedded import EmbeddedBroker
from broker.mqtt.gate import OpenGate
from feeds import Barrel, Store
from feeds.errors import BadRequest, NotFound, SpileError, Unauthorized, Unavailable
from feeds.positions import Position
from listeners import Change, Snapshot, listen, listen_async
from listeners.errors import Replaced
from listeners.source import Source
from listeners.stream.service import StreamService


class Proxy:
    """A TCP connection in between, that can be cut."""

    def __init__(self) -> None:
        self.target = 0
        self.port = 0
        self.connections = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    def cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            there, out = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, out}
        await asyncio.wait([asyncio.create_task(_copy(reader, out)), asyncio.create_task(_copy(there, writer))])
        self._writers -= {writer, out}
        for each in (writer, out):
            each.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # cut
    writer.close()


class Requests:
    """What a service does with a stream's requests over MQTT."""

    def __init__(self, streams: StreamService) -> None:
        self.streams = streams
        self.broker: EmbeddedBroker | None = None

    def accepts(self, topic: str) -> bool:
        return topic.startswith("from/")

    def room(self) -> int:
        return 1

    def begin(self, client: Client, topic: str, payload: bytes) -> Coroutine[Any, Any, None]:
        return self.handle(client, topic, payload)

    async def handle(self, client: Client, topic: str, payload: bytes) -> None:
        _, user, name, verb, barrel, stream = topic.split("/")
        answers = f"to/{user}/{name}/stream/{barrel}/{stream}"

        async def send(array: bytes) -> None:
            assert self.broker is not None
            await self.broker.publish_to(client.name, Message(answers, array, qos=1))

        if verb == "stream":
            await self.streams.open(client.name, barrel, stream, payload, send, doc_bytes_max=256 << 10)
        elif (answer := self.streams.credit(client.name, barrel, stream, payload)) is not None:
            await send(answer)

    async def refused(self, client: Client, topic: str, payload: bytes, reason: str) -> None:
        raise AssertionError(reason)

    def gone(self, client: Client) -> None:
        self.streams.gone(client.name)


class World:
    """A store, a service on it that can be restarted, and the address at which it is listened to."""

    def __init__(self, kind: str, store: Store, pool: ThreadPoolExecutor) -> None:
        self.kind, self.store, self.pool = kind, store, pool
        self.proxy = Proxy()
        self.streams = StreamService(store, pool)
        self._running = AsyncExitStack()

    async def start(self) -> None:
        self._running.push_async_callback(self.streams.stop)
        if self.kind == "websocket":
            services = Services(
                store=self.store,
                streams=self.streams,
                readers=self.pool,
                access=OpenAccess(),
                health=dict,
                registry=CollectorRegistry(),
                version="0",
            )
            server = await serve_http(create_app(services), "127.0.0.1", 0, stop_s_max=1)
            self._running.push_async_callback(server.stop)
            self.proxy.target = server.port
        elif self.kind == "mqtt":
            requests = Requests(self.streams)
            broker = EmbeddedBroker(host="127.0.0.1", port=0, gate=OpenGate(), requests=requests, state=None)
            requests.broker = broker
            await broker.start()
            self._running.push_async_callback(broker.stop)
            self.proxy.target = broker.port

    async def stop(self) -> None:
        await self._running.aclose()

    async def restart(self) -> None:
        await self.stop()
        self.proxy.cut()
        self.streams = StreamService(self.store, self.pool)
        await self.start()

    def source(self, barrel: str = "geo") -> Source:
        if self.kind == "process":
            return (self.streams, barrel)
        scheme = "http" if self.kind == "websocket" else "mqtt"
        return f"{scheme}://127.0.0.1:{self.proxy.port}/{barrel}"


@pytest.fixture(params=["process", "websocket", "mqtt"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    with Store.open(tmp_path) as store, ThreadPoolExecutor(6) as pool:
        store.create("geo")
        made = World(request.param, store, pool)
        await made.proxy.start()
        await made.start()
        yield made
        await made.proxy.stop()
        await made.stop()


@pytest.fixture
def barrel(world: World) -> Barrel:
    return world.store.barrel("geo")


def fill(barrel: Barrel, count: int, **more: object) -> None:
    barrel.bulk([{"_id": f"d{number:05}", "n": number, **more} for number in range(count)])


async def eventually(state: Callable[[], object]) -> None:
    for _ in range(3_000):
        if state():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to that in 30 s")


async def test_past_and_present_are_told_in_order(world: World, barrel: Barrel) -> None:
    fill(barrel, 3_000, text="x" * 100)
    told: list[Change] = []
    async with asyncio.timeout(30), aclosing(listen_async(world.source(), since="first", window=200)) as changes:
        async for change in changes:
            told.append(change)
            if len(told) == 3_000:
                barrel.put({"last": True}, id="last")
            if change.id == "last":
                break
    assert [change.seq for change in told] == list(range(1, 3_002))
    assert told[6].doc == {"_id": "d00006", "_rev": told[6].rev, "n": 6, "text": "x" * 100}


async def test_patterns_narrow_what_is_told(world: World, barrel: Barrel) -> None:
    barrel.bulk([{"_id": f"d{n}", "region": "Europe" if n % 2 else "Asia"} for n in range(10)])
    changes = [c async for c in listen_async(world.source(), ["region/Europe"], follow=False, docs=False)]
    assert [change.id for change in changes] == ["d1", "d3", "d5", "d7", "d9"]
    assert {change.paths for change in changes} == {("region/Europe",)}
    assert changes[0].doc is None


async def test_a_named_listener_goes_on_where_it_was(world: World, barrel: Barrel) -> None:
    fill(barrel, 10)
    async with aclosing(listen_async(world.source(), name="mine")) as changes:
        async for change in changes:
            if change.id == "d00004":
                break
    # The last word of a listener that leaves is on its way yet: it would be told again what it was not heard of.
    await eventually(lambda: barrel.store.cursors.get("geo", "mine") == Position(4, barrel.epoch))
    await world.restart()
    told = [change.id async for change in listen_async(world.source(), name="mine", follow=False)]
    assert told == ["d00004", "d00005", "d00006", "d00007", "d00008", "d00009"]


async def test_after_lost_connections_and_restarts_it_has_everything(world: World, barrel: Barrel) -> None:
    if world.kind == "process":
        pytest.skip("in process there is nothing between the two")
    told: dict[str, int] = {}

    async def follow() -> None:
        async with aclosing(listen_async(world.source(), since="first", window=50)) as changes:
            async for change in changes:
                told[change.id] = change.seq

    def more(heard: dict[str, int], before: int) -> bool:
        return len(heard) > before

    def reconnected(before: int) -> bool:
        return world.proxy.connections > before

    task = asyncio.create_task(follow())
    for step in range(6):
        before, heard = world.proxy.connections, len(told)
        barrel.bulk([{"_id": f"s{step}d{n}", "n": n} for n in range(300)])
        await eventually(partial(more, told, heard))
        if step == 3:
            await world.restart()
        else:
            world.proxy.cut()
        await eventually(partial(reconnected, before))
    await eventually(lambda: len(told) == 1_800)
    assert max(told.values()) == 1_800
    task.cancel()
    await asyncio.wait([task])


async def test_a_barrel_made_anew_is_told_as_a_snapshot(world: World, barrel: Barrel) -> None:
    fill(barrel, 5)
    told: list[str] = []

    def boundary(which: str) -> Callable[[Snapshot], None]:
        return lambda snapshot: told.append(f"{which} {snapshot.position}")

    async def follow() -> None:
        feed = listen_async(
            world.source(), since=0, on_snapshot_start=boundary("start"), on_snapshot_end=boundary("end")
        )
        async with aclosing(feed) as changes:
            async for change in changes:
                told.append(f"{change.id}{' in snapshot' if change.snapshot else ''}")

    task = asyncio.create_task(follow())
    await eventually(lambda: len(told) == 5)
    world.store.drop("geo")
    new = world.store.create("geo")
    new.put({}, id="a")
    await eventually(lambda: len(told) >= 8)
    new.put({}, id="b")
    await eventually(lambda: told[-1] == "b")
    assert told[5:] == [f"start {new.position(0)}", "a in snapshot", f"end {new.position(1)}", "b"]
    task.cancel()
    await asyncio.wait([task])


async def test_what_is_refused_is_raised(world: World, barrel: Barrel) -> None:
    with pytest.raises(NotFound):
        async for _ in listen_async(world.source("nothing")):
            pass
    with pytest.raises(BadRequest):
        async for _ in listen_async(world.source(), ["a/#/b"]):
            pass


async def test_a_name_belongs_to_the_listener_that_came_last(world: World, barrel: Barrel) -> None:
    fill(barrel, 2)
    first = listen_async(world.source(), name="mine")
    assert (await anext(first)).id == "d00000"
    async with aclosing(listen_async(world.source(), name="mine")) as second:
        assert (await anext(second)).id == "d00000"
        assert (await anext(first)).id == "d00001"
        with pytest.raises(Replaced):
            await anext(first)


async def test_a_loop_in_a_thread_hears_the_same(world: World, barrel: Barrel) -> None:
    fill(barrel, 500)
    source: Source = barrel if world.kind == "process" else world.source()

    def follow() -> list[str]:
        with listen(source, since="first", window=64) as changes:
            told = []
            for change in changes:
                told.append(change.id)
                if len(told) == 500:
                    barrel.put({}, id="more")
                if change.id == "more":
                    break
        return told

    told = await asyncio.to_thread(follow)
    assert len(told) == 501
    assert told == sorted(told)


async def test_a_large_document_comes_or_is_said_to_be_left_out(world: World, barrel: Barrel) -> None:
    barrel.put({"text": "x" * 1_000_000}, id="large")
    (change,) = [change async for change in listen_async(world.source(), follow=False, bytes=1_000)]
    if world.kind == "mqtt":
        assert change.doc_omitted
        assert change.doc is None
    else:
        assert change.doc is not None
        assert len(change.doc["text"]) == 1_000_000


@pytest.mark.parametrize(
    "url", ["mqtt://127.0.0.1:1/geo", "http://127.0.0.1:1/geo", "ws://127.0.0.1:1/barrels/geo/feed"]
)
async def test_without_a_service_the_address_is_named(url: str) -> None:
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        async for _ in listen_async(url, patience_s=0):
            pass


async def test_an_mqtt_broker_without_a_service_is_told_apart() -> None:
    broker = EmbeddedBroker(host="127.0.0.1", port=0, gate=OpenGate(), requests=None, state=None)
    await broker.start()
    try:
        with pytest.raises(SpileError) as raised:
            async for _ in listen_async(f"mqtt://127.0.0.1:{broker.port}/geo", patience_s=0.3):
                pass
        assert isinstance(raised.value, Unavailable)
        assert str(broker.port) in raised.value.reason
    finally:
        await broker.stop()


class Guarded(OpenAccess):
    def who(self, headers: object, host: str) -> str:
        raise Unauthorized("Say who you are.")


async def test_a_refused_handshake_is_raised_with_the_services_words(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, ThreadPoolExecutor(2) as pool:
        store.create("geo")
        streams = StreamService(store, pool)
        services = Services(
            store=store,
            streams=streams,
            readers=pool,
            access=Guarded(),
            health=dict,
            registry=CollectorRegistry(),
            version="0",
        )
        server = await serve_http(create_app(services), "127.0.0.1", 0, stop_s_max=1)
        with pytest.raises(Unauthorized):
            async for _ in listen_async(f"http://127.0.0.1:{server.port}/geo"):
                pass
        await server.stop()
        await streams.stop()
