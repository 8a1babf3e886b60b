"""What every publisher promises, over the embedded broker, Mosquitto and NATS alike."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from brokers import BrokerProcess
from external_tools import KINDS, running
from mqtt_tools import Heard, RawClient, serving
from running import shared

from broker.external.names import TopicNames
from broker.mqtt.contract import Message, Publisher
from broker.publishing.topics import BarrelTopics
from feeds import Store
from feeds.errors import BadRequest, Unavailable


@dataclass
class Subject:
    """A publisher, where to subscribe, and how its topics stand there."""

    kind: str
    publisher: Publisher
    port: int
    topic: Callable[[str], str]
    process: BrokerProcess | None = None

    async def client(self, *filters: str, name: str = "listener", qos: int = 1) -> RawClient:
        """A subscriber."""
        client = await RawClient.connect(self.port, name)
        for each in filters:
            await client.subscribe((each, qos))
        return client


@pytest.fixture(params=["embedded", *KINDS])
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    kind: str = request.param
    async with AsyncExitStack() as stack:
        if kind == "embedded":
            embedded = await stack.enter_async_context(serving())
            yield Subject(kind, embedded, embedded.port, str)
        else:
            process, external = await stack.enter_async_context(running(kind, tmp_path / kind))
            dots_encoded = await external.topic_there(".") != "."
            topic = TopicNames(dots_encoded=dots_encoded).outward
            yield Subject(kind, external, process.port, topic, process)


def numbered(count: int, topic: str = "barrels/b/_id/x", **options: Any) -> list[Message]:
    return [Message(topic, str(at).encode(), **{"qos": 1, **options}) for at in range(count)]


def values(heard: list[Heard]) -> list[int]:
    return [int(each.payload) for each in heard]


async def test_what_is_acknowledged_comes_to_every_subscriber_in_order(subject: Subject) -> None:
    clients = [await subject.client("barrels/#", name=f"listener-{at}") for at in range(3)]
    for at in range(0, 900, 300):
        await subject.publisher.publish(numbered(900)[at : at + 300])
    for heard in await asyncio.gather(*(client.hear(900) for client in clients)):
        assert values(heard) == list(range(900))


async def test_an_acknowledged_batch_was_handed_on_when_a_subscriber_pings(subject: Subject) -> None:
    client = await subject.client("barrels/#", qos=0)
    await subject.publisher.publish(numbered(200, qos=0))
    heard = await client.hear(200)
    assert values(heard) == list(range(200))


async def test_messages_of_both_qualities_keep_their_order(subject: Subject) -> None:
    client = await subject.client("barrels/#", qos=0)
    batch = [Message("barrels/b/x", str(at).encode(), at % 2) for at in range(501)]
    await subject.publisher.publish(batch)
    heard = values(await client.hear(501))
    if subject.kind == "nats":  # what goes through JetStream is overtaken by what does not
        assert [at for at in heard if at % 2] == list(range(1, 501, 2))
        assert sorted(heard) == list(range(501))
    else:
        assert heard == list(range(501))


async def test_an_empty_batch_is_done_at_once(subject: Subject) -> None:
    await subject.publisher.publish([])


async def test_the_newest_retained_message_meets_who_comes_later_until_it_is_cleared(subject: Subject) -> None:
    topic = "barrels/b/_id/a"
    await subject.publisher.publish(numbered(3, topic, retain=True))
    first = await subject.client(topic, name="first")
    heard = await first.heard()
    assert (heard.topic, heard.payload, heard.retain) == (topic, b"2", True)
    await subject.publisher.publish([Message(topic, b"", 1, True)])
    assert (await first.heard()).payload == b""
    second = await subject.client(topic, name="second")
    assert await second.hear_until_quiet() == []


async def test_a_connected_subscriber_hears_a_retained_message_as_new(subject: Subject) -> None:
    client = await subject.client("barrels/b/_id/a")
    await subject.publisher.publish([Message("barrels/b/_id/a", b"1", 1, True)])
    assert (await client.heard()).retain is False


async def test_a_payload_is_made_at_most_once(subject: Subject) -> None:
    made: list[int] = []

    def payload() -> bytes:
        made.append(1)
        return b"made"

    client = await subject.client("barrels/b/_id/a")
    await subject.publisher.publish([Message("barrels/b/_id/a", payload, 1)])
    assert (await client.heard()).payload == b"made"
    assert made == [1]


async def test_large_messages_come_whole(subject: Subject) -> None:
    client = await subject.client("barrels/#")
    payloads = [bytes([at]) * (288 << 10) for at in range(20)]
    published = asyncio.create_task(subject.publisher.publish([Message("barrels/b/x", each, 1) for each in payloads]))
    assert [each.payload for each in await client.hear(20)] == payloads
    await published


async def test_what_somebody_listens_to_is_wanted(subject: Subject) -> None:
    await subject.client("barrels/b/region/#")
    assert subject.publisher.wants("barrels/b/region")
    assert subject.publisher.wants("barrels/b")
    levels = subject.publisher.levels("barrels/b")
    assert levels is None if subject.kind != "embedded" else levels == {"region"}


@pytest.mark.parametrize("topic", ["", "a/#", "a/+/b", "a\0b", "x" * 65_536, "$SYS/x", "a/" * 300])
async def test_what_is_no_topic_is_refused_and_the_next_is_taken(subject: Subject, topic: str) -> None:
    if subject.kind == "embedded":
        pytest.skip("the embedded broker takes topics as the publisher makes them")
    client = await subject.client("barrels/#")
    with pytest.raises(BadRequest):
        await subject.publisher.publish([Message(topic, b"x", 1)])
    await subject.publisher.publish(numbered(1))
    assert values(await client.hear(1)) == [0]


AWKWARD = [
    "barrels/b/price/12.50",
    "barrels/b/name/Saint Helena",
    "barrels/b/two  spaces/. ./..",
    "barrels/b//empty key/x",
    "barrels/b/ends/",
    "barrels/b/wild/>",
    "barrels/b/a>b/>/>",
    "barrels/b/percent/100%25",
    "barrels/b/%2A/%2B",
    "barrels/b/dollar/$SYS",
    "barrels/b/$SYS/x",
    "barrels/b/quote/\"'\\{}[]",
    "barrels/b/ümlaut/日本/🙂",
    "barrels/b/_id/" + "/".join(str(at) for at in range(32)),
    "barrels/b/" + "deep/" * 60 + "leaf",
    "barrels/b/long/" + "é" * 480,
]


async def test_awkward_topics_come_as_they_are(subject: Subject) -> None:
    client = await subject.client("barrels/#")
    await subject.publisher.publish([Message(topic, topic.encode(), 1) for topic in AWKWARD])
    heard = await client.hear(len(AWKWARD))
    assert [(each.topic, each.payload.decode()) for each in heard] == [
        (subject.topic(topic), topic) for topic in AWKWARD
    ]


async def test_every_topic_of_the_countries_is_heard(subject: Subject, tmp_path: Path) -> None:
    countries = json.loads(shared("countries.json").read_text())
    client = await subject.client("barrels/geo/#")
    with Store.open(tmp_path / "store") as store:
        geo = store.create("geo", {"retain": True})
        geo.bulk([{"_id": each["cca3"], **each} for each in countries])
        topics = BarrelTopics("geo", geo.epoch, geo.settings, 256 << 10)
        rows = geo.replay(0, docs=True, leaves=False).next(1_000, 64 << 20).rows
        batch = [message for row in rows for message in topics.newest(row, topics.wanted(None))]
    assert len(batch) > 20_000
    for at in range(0, len(batch), 500):  # what brokers keep for a subscriber that is slower than the publisher
        piece = batch[at : at + 500]
        heard, _ = await asyncio.gather(client.hear(len(piece)), subject.publisher.publish(piece))
        assert [each.topic for each in heard] == [subject.topic(message.topic) for message in piece]


async def test_a_broker_that_dies_in_the_middle_is_told_and_taken_up_again(subject: Subject) -> None:
    process = subject.process
    if process is None:
        pytest.skip("the embedded broker dies with its service")
    batch = numbered(20_000)
    client = await subject.client("barrels/#")
    publishing = asyncio.create_task(subject.publisher.publish(batch))
    await client.heard()
    process.kill()
    with pytest.raises(Unavailable):
        await publishing
    process.start()
    await subject.publisher.publish(batch[:10])
    client = await subject.client("barrels/#", name="another")
    await subject.publisher.publish(batch[:100])
    assert values(await client.hear(100)) == list(range(100))
