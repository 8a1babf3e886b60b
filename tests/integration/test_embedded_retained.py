"""Retained messages: found by filter, told to new subscribers only, durable, and never older than what was heard."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.mqtt.contract import Message
from broker.mqtt.embedded import EmbeddedBroker
from broker.mqtt.limits import BrokerLimits
from broker.mqtt.session import Delivery
from broker.mqtt.statefile import _SCHEMA, FILE
from feeds.errors import Unavailable

from .mqtt_tools import (
    PUBACK,
    PUBLISH,
    SUBACK,
    Heard,
    RawClient,
    ack_packet,
    packet,
    read_heard,
    serving,
    subscribe_packet,
    text,
    until,
)

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


async def test_what_was_retained_before_never_comes_after_the_message_that_ends_it() -> None:
    """However long another subscriber keeps the publisher between that message and the one that clears it."""
    async with serving(limits=BrokerLimits(queue_messages=10, window=5, stall_s=60.0)) as broker:
        await broker.publish([Message(f"k/{number:03}", b"old", 1, True) for number in range(300)])
        stuck = await RawClient.connect(broker.port, "stuck", acking=False)
        await stuck.subscribe(("k/299", 1), ("fill", 1))
        await until(lambda: broker.stats().queues["mqtt_replays"] == 0)
        await broker.publish([Message("fill", b"", 1)] * 4)
        await until(lambda: broker.stats().queues["mqtt_in_flight"] == 5)
        await broker.publish([Message("fill", b"", 1)] * 10)
        newcomer = await RawClient.connect(broker.port, "newcomer", acking=False)
        await newcomer.subscribe(("k/#", 1))
        session = broker._book.get("anonymous/newcomer")
        await until(lambda: session is not None and session.half_full)
        telling = asyncio.create_task(broker.publish([Message("k/299", b"gone", 1), Message("k/299", b"", 1, True)]))
        newcomer.acking = True
        heard = await newcomer.hear(299)
        await until(lambda: broker.stats().queues["mqtt_replays"] == 0)
        await stuck.vanish()
        await telling
        heard += await newcomer.hear_until_quiet()
        assert [each.payload for each in heard if each.topic == "k/299"] == [b"gone", b""]
        assert len({each.topic for each in heard}) == 300


async def test_subscribing_again_in_the_middle_of_a_page_tells_all_of_it_again() -> None:
    async with serving(limits=BrokerLimits(queue_messages=10, window=5)) as broker:
        topics = [f"k/{number:03}" for number in range(100)]
        await broker.publish([Message(topic, b"x", 1, True) for topic in topics])
        client = await RawClient.connect(broker.port, "c", acking=False)
        await client.subscribe(("k/#", 1))
        session = broker._book.get("anonymous/c")
        await until(lambda: session is not None and session.half_full)
        await client.send(packet(0xA2, (77).to_bytes(2, "big") + text("k/#")) + subscribe_packet(78, ("k/#", 1)))
        since: list[str] | None = None
        while since is None or topics[-1] not in since:
            came = await client.receive()
            if came.kind == SUBACK:
                since = []
            elif came.kind == PUBLISH:
                heard = read_heard(came)
                await client.send(ack_packet(PUBACK, heard.packet_id))
                if since is not None:
                    since.append(heard.topic)
        assert set(topics) - set(since) == set()


async def test_a_session_that_stays_is_told_the_rest_after_a_restart_and_then_no_more(tmp_path: Path) -> None:
    limits, count = BrokerLimits(queue_messages=50, window=10), 300
    async with serving(tmp_path, limits=limits) as broker:
        await broker.publish([Message(f"k/{number}", b"x", 1, True) for number in range(count)])
        client = await RawClient.connect(broker.port, "c", acking=False, clean=False)
        await client.subscribe(("k/#", 1))
        await until(lambda: broker.stats().queues["mqtt_kept"] >= 25)
    topics: set[str] = set()
    async with serving(tmp_path, limits=limits) as broker:
        client = await RawClient.connect(broker.port, "c", clean=False)
        assert client.present
        while len(topics) < count:
            topics.add((await client.heard()).topic)
        await told(broker, client)
        await until(lambda: broker.stats().queues["mqtt_kept"] == 0)
        await client.disconnect()
    async with serving(tmp_path, limits=limits) as broker:
        client = await RawClient.connect(broker.port, "c", clean=False)
        assert client.present
        assert await told(broker, client) == []


async def test_who_subscribes_while_the_disk_takes_nothing_is_told_when_it_does(tmp_path: Path) -> None:
    async with serving(tmp_path) as broker:
        await broker.publish([Message(f"k/{number}", b"x", 1, True) for number in range(3)])
        client = await RawClient.connect(broker.port, "c")
        state = broker._state
        connection = state._connection
        assert connection is not None
        await state.read(lambda c: c.execute("PRAGMA max_page_count = 1").fetchone())  # as many as there are
        with pytest.raises(Unavailable):
            await broker.publish([Message(f"more/{number}", b"x" * 10_000, 1, True) for number in range(100)])
        assert broker.stats().failure is not None
        await client.subscribe(("k/#", 1))
        assert await client.hear_until_quiet() == []
        await state._in_thread(lambda: connection.execute("PRAGMA max_page_count = 1000000").fetchone())
        assert [each.topic for each in await client.hear(3)] == ["k/0", "k/1", "k/2"]


async def test_a_state_of_the_first_version_is_taken_up(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.executescript(_SCHEMA + "PRAGMA user_version = 1;")
        connection.execute("INSERT INTO sessions VALUES (1, 'anonymous/c', NULL, 'c', 4e9)")
        connection.execute("INSERT INTO filters VALUES (1, 'k/#', 1)")
    connection.close()
    async with serving(tmp_path) as broker:
        await broker.publish([Message("k/1", b"x", 1, True)])
        client = await RawClient.connect(broker.port, "c", clean=False)
        assert client.present
        assert await told(broker, client) == [Heard("k/1", b"x", 1)]


async def test_what_is_retained_elsewhere_is_not_remembered_for_a_newcomer_that_does_not_read() -> None:
    async with serving(limits=BrokerLimits(queue_messages=10, window=5)) as broker:
        await broker.publish([Message(f"k/{number:03}", b"x", 1, True) for number in range(50)])
        newcomer = await RawClient.connect(broker.port, "newcomer", acking=False)
        await newcomer.subscribe(("k/#", 1))
        session = broker._book.get("anonymous/newcomer")
        assert session is not None
        await until(lambda: session.half_full)
        await broker.publish([Message(f"other/{number}", b"x", 1, True) for number in range(1_000)])
        assert len(broker._replays._under_way[session]) <= 50


async def test_a_newcomer_of_qos_0_that_reads_slowly_loses_nothing_while_little_else_comes() -> None:
    topics = [f"k/{number:03}" for number in range(1_000)]
    async with serving(limits=BrokerLimits(queue_messages=100)) as broker:
        for listening in broker._servers[0].sockets:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_192)
        await broker.publish([Message(topic, b"old".ljust(1_000), 1, True) for topic in topics])
        client = await RawClient.connect(broker.port, "c", receive_bytes=4_096)
        await client.subscribe(("k/#", 0))
        session = broker._book.get("anonymous/c")
        assert session is not None and session.connection is not None
        connection = session.connection
        await until(lambda: session.half_full and connection._congested)
        last = session.queue[-1]
        assert isinstance(last, Delivery)
        begin = topics.index(last.publication.topic) + 1
        changed = topics[begin : begin + 40]  # most of them in the page that is under way
        await broker.publish([Message(topic, b"new", 1, True) for topic in changed])
        newest: dict[str, bytes] = {}
        while len(newest) < len(topics) or any(newest[topic] != b"new" for topic in changed):
            heard = await client.heard()
            newest[heard.topic] = heard.payload
        assert broker.stats().dropped == 0


async def test_clients_may_retain_only_so_much(tmp_path: Path) -> None:
    async with serving(tmp_path, limits=BrokerLimits(retained=3)) as broker:
        speaker = await RawClient.connect(broker.port, "s")
        for number in range(5):
            await speaker.publish(f"k/{number}", b"x", 1, retain=True)
        await speaker.subscribe(("k/#", 0))
        assert len(await told(broker, speaker)) == 3
        assert broker.stats().refused == 2
