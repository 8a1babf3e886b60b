"""Requests through an external broker: who asks is in the topic, every one is answered, none is parked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from brokers import BrokerProcess
from external_tools import KINDS, QUICK, access, connected, running, scripted
from mqtt_tools import RawClient, leave_no_client, publish_packet, until
from requests_tools import Device

from broker.external import ExternalBroker, ExternalLimits
from broker.mqtt.contract import Client, Message
from broker.serve import Service, serving
from broker.settings import load_settings
from listeners import Change, listen_async


@dataclass
class Served:
    """A service with an external broker, and that broker."""

    service: Service
    process: BrokerProcess
    place: Path
    options: dict[str, Any]

    @property
    def broker(self) -> ExternalBroker:
        assert isinstance(self.service.mqtt, ExternalBroker)
        return self.service.mqtt

    @asynccontextmanager
    async def device(self, client_id: str = "device") -> AsyncIterator[Device]:
        device = await Device.connect(self.process.port, client_id)
        try:
            yield device
        finally:
            await device.close()


@asynccontextmanager
async def service(process: BrokerProcess, place: Path, **options: Any) -> AsyncIterator[Served]:
    settings = load_settings({"data": place / "data", "http": "127.0.0.1:0", "broker": process.url, **options})
    async with serving(settings) as started:
        try:
            yield Served(started, process, place, options)
        finally:
            await leave_no_client()


@pytest.fixture(params=list(KINDS))
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Served]:
    async with AsyncExitStack() as stack:
        process = KINDS[request.param](tmp_path / "broker")
        stack.callback(process.kill)
        yield await stack.enter_async_context(service(process, tmp_path))


async def test_a_device_writes_reads_and_is_refused(served: Served) -> None:
    served.service.store.create("geo")
    async with served.device() as device:
        answer = await device.asked("put/geo/fr/paris", {"country": "France", "_token": "t1"})
        assert answer.topic == "accepted/put/geo/fr/paris"
        assert answer.body["token"] == "t1"
        rev = answer.body["rev"]
        answer = await device.asked("get/geo/fr/paris")
        assert answer.body["doc"] == {"_id": "fr/paris", "_rev": rev, "country": "France"}
        answer = await device.asked("put/geo/fr/paris", {"country": "Italy"})
        assert (answer.topic, answer.body["error"]) == ("rejected/put/geo/fr/paris", "conflict")
        answer = await device.asked("set/nowhere/x", {})
        assert answer.body["error"] == "not_found"
        answer = await device.asked("call/geo/info")
        assert answer.body["result"]["doc_count"] == 1


async def test_a_request_that_comes_twice_is_done_once_by_its_token(served: Served) -> None:
    served.service.store.create("geo")
    async with served.device() as device:
        first = await device.asked("set/geo/a", {"x": 1, "_token": "t"})
        again = await device.asked("set/geo/a", {"x": 1, "_token": "t"})
    assert (again.body["rev"], again.body["repeated"]) == (first.body["rev"], True)


async def test_ids_with_dots_and_spaces_are_served(served: Served) -> None:
    served.service.store.create("geo")
    dots = await served.broker.topic_there("a.b") != "a.b"
    place = "set/geo/v1%2E5/Saint%20Helena" if dots else "set/geo/v1.5/Saint Helena"
    async with served.device() as device:
        answer = await device.asked(place, {"x": 1})
        assert answer.topic == f"accepted/{place}"
        assert answer.body["id"] == "v1.5/Saint Helena"
    assert served.service.store.barrel("geo").get("v1.5/Saint Helena").data["x"] == 1


@pytest.mark.parametrize(("user", "client"), [("us%40er", "c"), ("u", "c%2Fd"), ("u", "é"), ("", "c")])
async def test_names_that_access_files_cannot_tell_apart_are_refused(served: Served, user: str, client: str) -> None:
    served.service.store.create("geo")
    async with served.device() as device:
        await device.subscribe(f"to/{user}/{client}/#")
        await device.publish(f"from/{user}/{client}/put/geo/a", b"{}")
        answer = await device.hear()
    assert answer.body["error"] == "forbidden"
    assert "A-Z" in answer.body["reason"]
    assert served.service.store.barrel("geo").info().doc_count == 0


async def test_what_is_no_request_is_passed_and_counted(served: Served) -> None:
    served.service.store.create("geo")
    async with served.device() as device:
        for topic in ("from/a", "from/a/b", "from/a/b/" + "x/" * 110):
            await device.publish(topic, b"{}")
        await device.asked("set/geo/a", {})
    assert served.broker.stats().requests_dropped == 3


async def test_a_listener_over_the_broker_hears_the_past_and_what_comes(served: Served) -> None:
    geo = served.service.store.create("geo")
    await asyncio.to_thread(geo.bulk, [{"_id": f"{at:04}", "at": at} for at in range(3_000)])
    heard: list[Change] = []
    async for change in listen_async(f"{served.process.url}/geo", since="first"):
        heard.append(change)
        if len(heard) == 3_000:
            await asyncio.to_thread(geo.put, {"_id": "late"})
        if change.id == "late":
            break
    assert [change.seq for change in heard] == list(range(1, 3_002))


async def test_a_listener_goes_on_after_its_broker_was_killed(served: Served) -> None:
    geo = served.service.store.create("geo")
    await asyncio.to_thread(geo.bulk, [{"_id": f"{at:04}"} for at in range(2_000)])
    ids: list[str] = []
    async for change in listen_async(f"{served.process.url}/geo", since="first", docs=False):
        ids.append(change.id)
        if len(ids) == 500:
            await asyncio.to_thread(served.process.kill)
            await asyncio.to_thread(served.process.start)
            await asyncio.to_thread(geo.put, {"_id": "late"})
        if change.id == "late":
            break
    assert set(ids) == {f"{at:04}" for at in range(2_000)} | {"late"}


async def test_services_share_a_broker_under_prefixes(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        process = KINDS["mosquitto"](tmp_path / "broker")
        stack.callback(process.kill)
        one = await stack.enter_async_context(service(process, tmp_path / "1", broker_prefix="site1"))
        two = await stack.enter_async_context(service(process, tmp_path / "2", broker_prefix="/sites/two/"))
        for each in (one, two):
            each.service.store.create("geo")
        client = await RawClient.connect(process.port, "device")
        await client.subscribe(("site1/to/anonymous/device/#", 1), ("sites/two/barrels/geo/_id/#", 1))
        await client.publish("sites/two/from/anonymous/device/set/geo/b", b"{}")
        heard = await client.heard()
        assert heard.topic == "sites/two/barrels/geo/_id/b"
        client = await RawClient.connect(process.port, "device")
        await client.subscribe(("site1/to/anonymous/device/#", 1))
        await client.publish("site1/from/anonymous/device/set/geo/a", b"{}")
        assert (await client.heard()).topic == "site1/to/anonymous/device/accepted/set/geo/a"
        async for change in listen_async(f"{process.url}/sites/two/geo", since="first"):
            assert change.id == "b"
            break
        assert [each.service.store.barrel("geo").info().doc_count for each in (one, two)] == [1, 1]


async def test_requests_wait_at_the_broker_while_the_service_is_away(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        process = KINDS["mosquitto"](tmp_path / "broker")
        stack.callback(process.kill)
        async with service(process, tmp_path) as first:
            first.service.store.create("geo")
        device = await Device.connect(process.port, "device")
        for at in range(50):
            await device.ask(f"set/geo/{at}", {"at": at})
        async with service(process, tmp_path) as second:
            told = [(await device.hear()).body["id"] for _ in range(50)]
            assert told == [str(at) for at in range(50)]
            assert second.service.store.barrel("geo").info().doc_count == 50
        await device.close()


# How requests are taken, with a service that a test holds back.


class Held:
    """Serves each request when a test lets it; answers with its payload."""

    def __init__(self) -> None:
        self.broker: ExternalBroker | None = None
        self.begun: list[str] = []
        self.payloads: list[bytes] = []
        self.go = asyncio.Event()

    def accepts(self, topic: str) -> bool:
        return True

    async def handle(self, client: Client, topic: str, payload: bytes) -> None:
        self.begun.append(topic)
        self.payloads.append(payload)
        await self.go.wait()
        if payload == b"fail":
            raise RuntimeError("this request fails")
        assert self.broker is not None
        await self.broker.publish_to(client.name, Message(f"to/{client.name}/done", payload, 1))

    async def refused(self, client: Client, topic: str, payload: bytes, reason: str) -> None:
        raise AssertionError(reason)

    def gone(self, client: Client) -> None:
        raise AssertionError("an external broker does not tell")


@pytest.mark.parametrize("kind", list(KINDS))
async def test_many_requests_are_in_work_however_small_the_brokers_window_is(kind: str, tmp_path: Path) -> None:
    held = Held()
    async with running(kind, tmp_path, requests=held) as (process, broker):
        held.broker = broker
        device = await Device.connect(process.port, "device")
        for at in range(500):
            await device.ask("x/y/z", {"at": at})
        await until(lambda: len(held.begun) == 500)
        assert [json.loads(each)["at"] for each in held.payloads] == list(range(500))
        held.go.set()
        for at in range(500):
            assert (await device.hear()).body == {"at": at}
        await device.close()


async def test_what_is_far_too_much_is_dropped_and_nothing_waits(tmp_path: Path) -> None:
    held = Held()
    limits = ExternalLimits(requests=100, retry_first_s=0.05)
    async with running("mosquitto", tmp_path, requests=held, limits=limits) as (process, broker):
        held.broker = broker
        device = await Device.connect(process.port, "device")
        await asyncio.gather(*(device.ask("x/y/z", {"at": at}) for at in range(400)))
        await until(lambda: broker.stats().received == 400)
        assert (len(held.begun), broker.stats().requests_dropped) == (100, 300)
        held.go.set()
        assert [(await device.hear()).body["at"] for _ in range(100)] == list(range(100))
        await device.close()


async def test_requests_in_work_are_bounded_by_their_bytes_too() -> None:
    held = Held()
    limits = replace(QUICK, requests_bytes=1_000)
    async with scripted() as there:
        assert there.greeting is not None
        for at, size in enumerate((2_000, 10, 990)):  # one alone is taken whatever its size is
            there.greeting += publish_packet(f"from/u/c/set/b/{at}", b"x" * size, 1, 1 + at)
        async with connected(there, requests=held, kind="plain", limits=limits) as broker:
            held.broker = broker
            await until(lambda: broker.stats().received == 3)
            await until(lambda: len(held.begun) == 1)
            assert broker.stats().requests_dropped == 2
            held.go.set()
            await until(lambda: broker.stats().queues["mqtt_requests"] == 0)
            there.send(publish_packet("from/u/c/set/b/3", b"x" * 990, 1, 9))
            await until(lambda: len(held.begun) == 2)


async def test_a_request_that_a_broker_retains_is_served_once(tmp_path: Path) -> None:
    held = Held()
    held.go.set()
    async with running("mosquitto", tmp_path, requests=held) as (process, broker):
        held.broker = broker
        device = await RawClient.connect(process.port, "device")
        await device.publish("from/u/c/set/b/x", b"{}", qos=0, retain=True)  # of QoS 1 it might come again anyway
        await until(lambda: len(held.begun) == 1)
        broker.let_go("this test")
        await until(lambda: broker.stats().connects == 2)
        await until(lambda: broker.stats().received == 2, "what is retained")
        assert (len(held.begun), broker.stats().requests_dropped) == (1, 1)
        await device.disconnect()


async def test_a_request_that_was_not_answered_comes_again_to_the_next_connection(tmp_path: Path) -> None:
    held = Held()
    async with running("mosquitto", tmp_path, requests=held) as (process, broker):
        held.broker = broker
        device = await Device.connect(process.port, "device")
        await device.ask("x/y/z", {"at": 1})
        await until(lambda: len(held.begun) == 1)
        broker.let_go("this test")
        await until(lambda: len(held.begun) == 2)
        held.go.set()
        assert (await device.hear()).body == {"at": 1}
        await until(lambda: broker.stats().queues["mqtt_requests"] == 0)
        broker.let_go("this test, once more")
        await until(lambda: broker.stats().connects == 3)
        await device.ask("x/y/z", {"at": 2})
        await until(lambda: len(held.begun) >= 3)
        assert held.payloads[2:] == [b'{"at": 2}']
        await device.close()


async def test_a_request_that_comes_before_the_connection_is_ready_is_answered_on_it() -> None:
    held = Held()
    held.go.set()
    async with scripted() as there:
        assert there.greeting is not None
        there.greeting += publish_packet("from/u/c/set/b/x", b"{}", 1, 7)
        held.broker = broker = ExternalBroker(access(there), requests=held, kind="plain", limits=QUICK)
        await broker.start()
        await until(lambda: there.came["to/u/c/done"])
        assert broker.stats().unheard == 0
        await broker.stop()


async def test_a_request_that_fails_is_counted_and_the_next_is_served(tmp_path: Path) -> None:
    held = Held()
    held.go.set()
    async with running("mosquitto", tmp_path, requests=held) as (process, broker):
        held.broker = broker
        device = await Device.connect(process.port, "device")
        await device.ask("x/y/z", b"fail")
        assert (await device.asked("x/y/z", {"at": 1})).body == {"at": 1}
        assert broker.stats().request_failures == 1
        await device.close()


async def test_a_connection_that_is_given_up_before_requests_come_on_it_does_not_stay() -> None:
    async with scripted() as there:
        there.answers_subscriptions = False
        broker = ExternalBroker(access(there), requests=Held(), kind="plain", limits=QUICK)
        starting = asyncio.create_task(broker.start())
        await until(lambda: there.subscriptions == 1)
        starting.cancel()
        await until(lambda: not there.present, "the connection's end")
        await broker.stop()


@pytest.mark.parametrize("fault", ["it is cut", "nothing is answered"])
async def test_a_connection_that_ends_before_requests_come_on_it_is_made_again(fault: str) -> None:
    async with scripted() as there:
        there.answers_subscriptions = False
        limits = replace(QUICK, connect_s=0.5 if fault == "nothing is answered" else 5.0)
        broker = ExternalBroker(access(there), requests=Held(), kind="plain", limits=limits)
        starting = asyncio.create_task(broker.start())
        for tries in range(1, 4):
            await until(lambda tries=tries: there.subscriptions >= tries)  # type: ignore[misc]
            assert there.present <= 1
            if fault == "it is cut":
                there.cut()
        await starting
        there.answers_subscriptions = True
        there.cut()
        await until(lambda: broker.failure is None and there.present == 1)
        await broker.stop()


async def test_a_stop_lets_requests_in_work_finish(tmp_path: Path) -> None:
    held = Held()
    with KINDS["mosquitto"](tmp_path) as process:
        async with connected(process, requests=held, limits=QUICK) as broker:
            held.broker = broker
            device = await Device.connect(process.port, "device")
            await device.ask("x/y/z", {"at": 1})
            await until(lambda: held.begun)
            asyncio.get_running_loop().call_later(0.2, held.go.set)
        assert (await device.hear()).body == {"at": 1}
        await device.close()
