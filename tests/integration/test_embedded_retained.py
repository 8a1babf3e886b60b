"""Retained messages: found by filter, told to new subscribers only, durable, and never older than what was heard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.mqtt.contract import Message
from broker.mqtt.embedded import EmbeddedBroker
from broker.mqtt.limits import BrokerLimits

from .mqtt_tools import Heard, RawClient, serving, until

TOPICS = ["a", "a/b", "a/b/c", "a!/b", "b", "b/c", "/x", "a//b", "$sys/x"]


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    async with serving(tmp_path) as broker:
        yield broker


async def told(broker: EmbeddedBroker, client: RawClient) -> list[Heard]:
    """Everything that a subscriber is told when nothing more is coming."""
    await until(lambda: broker.stats().queues["mqtt_replays"] == 0)
    return await client.hear_until_quiet()


@pytest.mark.parametrize(
    ("topic_filter", "expected"),
    [
        ("a/#", ["a", "a//b", "a/b", "a/b/c"]),
        ("+/b", ["a/b", "a!/b"]),
        ("#", ["/x", "a", "a//b", "a/b", "a/b/c", "a!/b", "b", "b/c"]),
        ("+", ["a", "b"]),
        ("a/+/b", ["a//b"]),
        ("+/+/c", ["a/b/c"]),
        ("/+", ["/x"]),
        ("b/c", ["b/c"]),
        ("c/#", []),
    ],
)
async def test_a_new_subscriber_is_told_what_its_filter_matches(
    broker: EmbeddedBroker, topic_filter: str, expected: list[str]
) -> None:
    await broker.publish([Message(topic, topic.encode(), 1, retain=True) for topic in TOPICS])
    client = await RawClient.connect(broker.port, "c")
    await client.subscribe((topic_filter, 0))
    heard = await client.hear(len(expected))
    assert [(each.topic, each.retain, each.qos) for each in heard] == [(topic, True, 0) for topic in expected]
    assert await told(broker, client) == []


async def test_the_newest_is_retained_and_an_empty_message_clears_it(broker: EmbeddedBroker) -> None:
    speaker = await RawClient.connect(broker.port, "s")
    await speaker.publish("a", b"1", 1, retain=True)
    await speaker.publish("a", b"2", 1, retain=True)
    first = await RawClient.connect(broker.port, "first")
    await first.subscribe(("a", 1))
    assert await told(broker, first) == [Heard("a", b"2", 1, retain=True)]
    await speaker.publish("a", b"", 1, retain=True)
    assert await first.hear_until_quiet() == [Heard("a", b"", 1)]
    second = await RawClient.connect(broker.port, "second")
    await second.subscribe(("a", 1))
    assert await told(broker, second) == []


async def test_retained_qos_0_is_acknowledged_by_nothing_and_kept_all_the_same(tmp_path: Path) -> None:
    async with serving(tmp_path) as broker:
        speaker = await RawClient.connect(broker.port, "s")
        await speaker.publish("a", b"1", 0, retain=True)
        assert await speaker.hear_until_quiet() == []
        await speaker.disconnect()
    async with serving(tmp_path) as broker:
        client = await RawClient.connect(broker.port, "c")
        await client.subscribe(("a", 1))
        assert await client.heard() == Heard("a", b"1", 0, retain=True)


async def test_subscribing_again_tells_it_again(broker: EmbeddedBroker) -> None:
    await broker.publish([Message("a", b"x", 1, retain=True)])
    client = await RawClient.connect(broker.port, "c")
    for _ in range(2):
        await client.subscribe(("a", 1))
        assert await client.heard() == Heard("a", b"x", 1, retain=True)


async def test_a_message_to_be_retained_is_encoded_though_nobody_hears_it(broker: EmbeddedBroker) -> None:
    await broker.publish([Message("a", lambda: b"made", 1, retain=True)])
    client = await RawClient.connect(broker.port, "c")
    await client.subscribe(("a", 1))
    assert (await client.heard()).payload == b"made"


async def test_what_others_may_not_read_is_not_told_to_them_through_a_wide_filter(broker: EmbeddedBroker) -> None:
    await broker.publish([Message("to/anonymous/ann/x", b"for ann", 1, True), Message("a", b"all", 1, True)])
    bob = await RawClient.connect(broker.port, "bob")
    await bob.subscribe(("#", 1))
    assert [each.payload for each in await told(broker, bob)] == [b"all"]
    ann = await RawClient.connect(broker.port, "ann")
    await ann.subscribe(("#", 1))
    assert [each.payload for each in await ann.hear(2)] == [b"all", b"for ann"]


async def test_many_retained_messages_come_page_by_page_at_the_readers_pace(broker: EmbeddedBroker) -> None:
    count = 3_000
    await broker.publish([Message(f"k/{number:05}", b"x" * 1_000, 1, True) for number in range(count)])
    slow = await RawClient.connect(broker.port, "slow", receive_bytes=4096)
    await slow.subscribe(("k/#", 1))
    await asyncio.sleep(0.2)
    assert broker.stats().queues["mqtt_deliveries"] <= BrokerLimits().queue_messages
    heard = await slow.hear(count)
    assert [each.topic for each in heard] == [f"k/{number:05}" for number in range(count)]
    assert broker.stats().dropped == 0


async def test_a_retained_message_never_comes_after_a_newer_one(broker: EmbeddedBroker) -> None:
    count = 400
    await broker.publish([Message(f"k/{number:03}", b"0", 1, True) for number in range(count)])
    client = await RawClient.connect(broker.port, "c")
    await client.subscribe(("k/#", 1))

    async def publish() -> None:
        for version in range(1, 6):
            await broker.publish([Message(f"k/{n:03}", str(version).encode(), 1, True) for n in range(count)])

    publishing = asyncio.create_task(publish())
    newest: dict[str, int] = {}
    while len(newest) < count or min(newest.values()) < 5:
        heard = await client.heard()
        assert int(heard.payload) >= newest.get(heard.topic, 0), heard
        newest[heard.topic] = int(heard.payload)
    await publishing


async def test_clients_may_retain_only_so_much(tmp_path: Path) -> None:
    async with serving(tmp_path, limits=BrokerLimits(retained=3)) as broker:
        speaker = await RawClient.connect(broker.port, "s")
        for number in range(5):
            await speaker.publish(f"k/{number}", b"x", 1, retain=True)
        await speaker.subscribe(("k/#", 0))
        assert len(await told(broker, speaker)) == 3
        assert broker.stats().refused == 2
