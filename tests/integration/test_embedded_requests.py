"""Requests under `from/`, answers under `to/`, and who may publish and read what."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from broker.mqtt.contract import Client, Message
from broker.mqtt.embedded import EmbeddedBroker
from broker.mqtt.limits import BrokerLimits
from feeds.errors import Conflict

from .mqtt_tools import PUBACK, PUBREC, Heard, RawClient, publish_packet, serving, until


class Recorder:
    """Requests that wait until the test lets them finish."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, bytes]] = []
        self.refusals: list[tuple[str, str, str]] = []
        self.left: list[str] = []
        self.gates: dict[bytes, asyncio.Event] = {}
        self.under_way = 0
        self.most_under_way = 0
        self.faults: dict[bytes, Exception] = {}

    def accepts(self, topic: str) -> bool:
        return topic.startswith("from/")

    def room(self) -> int:
        return 1

    def begin(self, client: Client, topic: str, payload: bytes) -> Coroutine[Any, Any, None]:
        return self.handle(client, topic, payload)

    async def handle(self, client: Client, topic: str, payload: bytes) -> None:
        self.calls.append((client.name, topic, payload))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if payload in self.gates:
                await self.gates[payload].wait()
            if payload in self.faults:
                raise self.faults[payload]
        finally:
            self.under_way -= 1

    async def refused(self, client: Client, topic: str, payload: bytes, reason: str) -> None:
        self.refusals.append((client.name, topic, reason))

    def gone(self, client: Client) -> None:
        self.left.append(client.name)


@pytest.fixture
def requests() -> Recorder:
    return Recorder()


@pytest.fixture
async def broker(requests: Recorder) -> AsyncIterator[EmbeddedBroker]:
    async with serving(requests=requests, limits=BrokerLimits(requests=10, stop_s=0.2)) as broker:
        yield broker


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_request_is_acknowledged_when_it_was_served(
    broker: EmbeddedBroker, requests: Recorder, qos: int
) -> None:
    requests.gates[b"slow"] = asyncio.Event()
    client = await RawClient.connect(broker.port, "c")
    await client.send(publish_packet("from/anonymous/c/put/b/x", b"slow", qos, 5))
    await until(lambda: requests.under_way == 1)
    assert await client.hear_until_quiet() == []
    requests.gates[b"slow"].set()
    assert (await client.expect(PUBACK if qos == 1 else PUBREC)).body == b"\x00\x05"
    assert requests.calls == [("anonymous/c", "from/anonymous/c/put/b/x", b"slow")]


async def test_requests_run_together_start_in_order_and_are_acknowledged_in_order(
    broker: EmbeddedBroker, requests: Recorder
) -> None:
    requests.gates[b"1"] = asyncio.Event()
    client = await RawClient.connect(broker.port, "c")
    for number in range(1, 5):
        await client.send(publish_packet("from/anonymous/c/x", str(number).encode(), 1, number))
    await client.send(publish_packet("elsewhere", b"x", 1, 9))
    await until(lambda: len(requests.calls) == 4)
    assert [call[2] for call in requests.calls] == [b"1", b"2", b"3", b"4"]
    assert await client.hear_until_quiet() == []
    requests.gates[b"1"].set()
    assert [(await client.expect(PUBACK)).body[1] for _ in range(5)] == [1, 2, 3, 4, 9]


async def test_a_client_with_too_many_requests_under_way_is_not_read_from(
    broker: EmbeddedBroker, requests: Recorder
) -> None:
    requests.gates[b"slow"] = asyncio.Event()
    client = await RawClient.connect(broker.port, "c")
    for number in range(1, 51):
        await client.send(publish_packet("from/anonymous/c/x", b"slow", number % 2, number))
    await until(lambda: requests.under_way == 10)
    other = await RawClient.connect(broker.port, "other")
    await other.publish("from/anonymous/other/x", b"quick", 1)
    assert requests.under_way == 10
    requests.gates[b"slow"].set()
    await until(lambda: len(requests.calls) == 51)
    assert requests.most_under_way <= 11
    assert len([await client.expect(PUBACK) for _ in range(25)]) == 25


async def test_reconnecting_does_not_make_room_for_more_requests(broker: EmbeddedBroker, requests: Recorder) -> None:
    requests.gates[b"slow"] = asyncio.Event()
    for _ in range(5):
        client = await RawClient.connect(broker.port, "c")
        await client.send(b"".join(publish_packet("from/anonymous/c/x", b"slow", 1, n) for n in range(1, 21)))
        await until(lambda: requests.under_way >= 10)
    assert requests.under_way <= 15  # one gets in with each new connection before it is held back
    requests.gates[b"slow"].set()
    await until(lambda: requests.under_way == 0 and requests.left == ["anonymous/c"] * 4)


async def test_a_failed_request_is_told_with_its_token_and_acknowledged(
    broker: EmbeddedBroker, requests: Recorder
) -> None:
    body = json.dumps({"_token": "t1"}).encode()
    requests.faults = {body: Conflict(), b"not json": ValueError("a bug")}
    client = await RawClient.connect(broker.port, "c")
    await client.subscribe(("to/anonymous/c/#", 1))
    await client.send(publish_packet("from/anonymous/c/put/b/x/y", body, 1, 1))
    heard = [await client.receive(), await client.receive()]
    assert sorted(each.kind for each in heard) == [3, PUBACK]
    await client.send(publish_packet("from/anonymous/c/put/b/z", b"not json", 0))
    second = await client.heard()
    assert second.topic == "to/anonymous/c/rejected/put/b/z"
    answer = json.loads(second.payload)
    assert (answer["error"], answer["sha256"]) == ("error", hashlib.sha256(b"not json").hexdigest())
    assert "bug" not in second.payload.decode()
    published = next(each for each in heard if each.kind == 3)
    assert b"to/anonymous/c/rejected/put/b/x/y" in published.body
    first = json.loads(published.body[published.body.index(b"{") :])
    assert (first["error"], first["token"]) == ("conflict", "t1")
    assert broker.stats().request_failures == 2


@pytest.mark.parametrize(
    "topic",
    ["barrels/b/x", "barrels", "to/anonymous/c/x", "from/anonymous/other/put/b/x", "from/anonymous/c", "$SYS/x"],
)
async def test_a_publication_elsewhere_is_refused_told_and_acknowledged(
    broker: EmbeddedBroker, requests: Recorder, topic: str
) -> None:
    listener = await RawClient.connect(broker.port, "l")
    await listener.subscribe(("#", 1))
    client = await RawClient.connect(broker.port, "c")
    await client.publish(topic, b"x", 1)
    assert [(name, at) for name, at, _ in requests.refusals] == [("anonymous/c", topic)]
    assert requests.calls == [] and await listener.hear_until_quiet() == []


async def test_a_will_may_be_a_request(broker: EmbeddedBroker, requests: Recorder) -> None:
    client = await RawClient.connect(broker.port, "c", will=("from/anonymous/c/set/b/status", b"{}", 1, False))
    await client.vanish()
    await until(lambda: requests.calls == [("anonymous/c", "from/anonymous/c/set/b/status", b"{}")])
    await until(lambda: requests.left == ["anonymous/c"])


async def test_a_will_is_judged_like_any_publication(broker: EmbeddedBroker, requests: Recorder) -> None:
    client = await RawClient.connect(broker.port, "c", will=("barrels/b/x", b"forged", 1, False))
    await client.vanish()
    await until(lambda: len(requests.refusals) == 1)


async def test_answers_reach_their_client_alone(broker: EmbeddedBroker) -> None:
    ann, bob = await RawClient.connect(broker.port, "ann"), await RawClient.connect(broker.port, "bob")
    assert await ann.subscribe(("to/anonymous/ann/#", 1)) == [1]
    refused = ["to/anonymous/ann/#", "to/#", "to/+/ann/#", "to/anonymous/#", "from/#"]
    assert await bob.subscribe(*((each, 1) for each in refused), ("#", 1), ("+/+/ann/x", 1)) == [0x80] * 5 + [1, 1]
    answer = Message("to/anonymous/ann/x", b"secret", 1)
    assert await broker.publish_to("anonymous/ann", answer)
    await broker.publish([answer])
    assert await ann.hear(2) == [Heard("to/anonymous/ann/x", b"secret", 1)] * 2
    assert await bob.hear_until_quiet() == []


async def test_publish_to_tells_whether_there_was_anybody(broker: EmbeddedBroker) -> None:
    answer = Message("to/anonymous/c/x", b"1", 1)
    assert not await broker.publish_to("anonymous/c", answer)
    client = await RawClient.connect(broker.port, "c", clean=False)
    assert not await broker.publish_to("anonymous/c", answer)
    await client.subscribe(("to/anonymous/c/#", 0))
    assert await broker.publish_to("anonymous/c", answer)
    assert await client.heard() == Heard("to/anonymous/c/x", b"1", 0)
    await client.subscribe(("to/anonymous/c/+", 1))
    await client.disconnect()
    assert await broker.publish_to("anonymous/c", answer)
    assert not await broker.publish_to("anonymous/c", Message("to/anonymous/c/x", b"1", 0))


async def test_names_are_encoded_like_segments(broker: EmbeddedBroker, requests: Recorder) -> None:
    client = await RawClient.connect(broker.port, "a/b+#")
    assert await client.subscribe(("to/anonymous/a%2Fb%2B%23/#", 1)) == [1]
    await client.publish("from/anonymous/a%2Fb%2B%23/x", b"1", 1)
    assert requests.calls[0][0] == "anonymous/a%2Fb%2B%23"
    assert await broker.publish_to("anonymous/a%2Fb%2B%23", Message("to/anonymous/a%2Fb%2B%23/x", b"", 1))
    assert len(await client.hear_until_quiet()) == 1


async def test_requests_under_way_are_finished_when_the_broker_stops(requests: Recorder) -> None:
    requests.gates[b"slow"] = asyncio.Event()
    async with serving(requests=requests) as broker:
        client = await RawClient.connect(broker.port, "c")
        await client.send(publish_packet("from/anonymous/c/x", b"slow", 1, 1))
        await until(lambda: requests.under_way == 1)
        stopping = asyncio.create_task(broker.stop())
        await asyncio.sleep(0)
        requests.gates[b"slow"].set()
        await client.expect(PUBACK)
        await client.closed()
        await stopping
    assert requests.left == ["anonymous/c"]
