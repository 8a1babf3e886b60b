"""The faults of stock amqtt, one by one: the embedded broker has none of them.

Numbered as in the reference on MQTT, where each was measured.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import paho.mqtt.client as paho
import psutil  # type: ignore[import-untyped]
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from broker.mqtt.contract import Message, Refused
from broker.mqtt.embedded import EmbeddedBroker
from broker.mqtt.gate import OpenGate
from broker.mqtt.limits import BrokerLimits

from .mqtt_tools import (
    PUBACK,
    PUBLISH,
    Closed,
    Heard,
    RawClient,
    ack_packet,
    messages,
    numbers,
    packet,
    publish_packet,
    read_heard,
    serving,
    subscribe_packet,
    until,
)

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "embedded_routing.py"


@pytest.fixture
async def broker() -> AsyncIterator[EmbeddedBroker]:
    async with serving() as broker:
        yield broker


class Passwords(OpenGate):
    """Users whose password is their name reversed."""

    def authenticate(self, client_id: str, user: str | None, password: bytes | None) -> str | Refused | None:
        if user is None:
            return None
        if password != user[::-1].encode():
            return Refused("wrong password", 4)
        return user


async def test_01_what_is_acknowledged_is_delivered_even_if_the_publisher_leaves(broker: EmbeddedBroker) -> None:
    heard: list[bytes] = []
    listener = paho.Client(CallbackAPIVersion.VERSION2, "listener")
    subscribed = asyncio.Event()
    loop = asyncio.get_running_loop()
    listener.on_message = lambda _client, _data, message: heard.append(bytes(message.payload))
    listener.on_subscribe = lambda *_: loop.call_soon_threadsafe(subscribed.set)  # type: ignore[assignment]
    listener.connect("127.0.0.1", broker.port)
    listener.loop_start()
    listener.subscribe("a/#", 1)
    await asyncio.wait_for(subscribed.wait(), 10)
    speaker = await RawClient.connect(broker.port, "s")
    for first in range(0, 1000, 100):
        await speaker.send(
            b"".join(publish_packet("a/b", str(n).encode(), 1, n + 1) for n in range(first, first + 100))
        )
        for _ in range(100):
            await speaker.expect(PUBACK)
    await speaker.vanish()
    await until(lambda: len(heard) == 1000, "all messages arrive")
    assert heard == [str(number).encode() for number in range(1000)]
    listener.disconnect()
    listener.loop_stop()


async def test_02_who_has_not_subscribed_is_sent_nothing_retained(broker: EmbeddedBroker) -> None:
    await broker.publish([Message("a/b", b"kept", 1, retain=True)])
    first = await RawClient.connect(broker.port, "first")
    await first.subscribe(("a/#", 1))
    assert await first.heard() == Heard("a/b", b"kept", 1, retain=True)
    second = await RawClient.connect(broker.port, "second")
    assert await second.hear_until_quiet() == []
    await second.subscribe(("other/#", 1))
    assert await second.hear_until_quiet() == []


async def test_03_an_unacknowledged_delivery_comes_again_after_a_reconnect_with_its_id(
    broker: EmbeddedBroker,
) -> None:
    client = await RawClient.connect(broker.port, "c", clean=False, acking=False)
    await client.subscribe(("a", 1))
    await broker.publish(messages(3, "a"))
    before = await client.hear(3)
    await client.send(ack_packet(PUBACK, before[1].packet_id))
    await client.hear_until_quiet()
    await client.vanish()
    again = await RawClient.connect(broker.port, "c", clean=False)
    assert again.present
    heard = await again.hear(2)
    assert numbers(heard) == [0, 2]
    assert [each.packet_id for each in heard] == [before[0].packet_id, before[2].packet_id]
    assert all(each.again for each in heard)
    assert await again.hear_until_quiet() == []


@pytest.mark.alone
async def test_04_no_more_than_the_window_is_under_way_and_others_are_served(broker: EmbeddedBroker) -> None:
    silent = await RawClient.connect(broker.port, "silent", acking=False)
    await silent.subscribe(("a", 1))
    other = await RawClient.connect(broker.port, "other")
    await other.subscribe(("b", 1))
    await broker.publish(messages(500, "a"))
    heard = await silent.hear_until_quiet()
    assert len(heard) == BrokerLimits().window
    await broker.publish([Message("b", b"x", 1)])
    await other.heard(patience_s=1)
    await silent.send(b"".join(ack_packet(PUBACK, each.packet_id) for each in heard[:40]))
    assert numbers(await silent.hear(40)) == list(range(100, 140))


async def test_05_what_was_queued_for_an_absent_client_comes_whole_in_order_and_not_as_retained(
    broker: EmbeddedBroker,
) -> None:
    client = await RawClient.connect(broker.port, "c", clean=False)
    await client.subscribe(("barrels/#", 1))
    await client.disconnect()
    await broker.publish(messages(1000))
    assert broker.stats().queues["mqtt_kept"] == 1000
    again = await RawClient.connect(broker.port, "c", clean=False)
    assert again.present
    heard = await again.hear(1000)
    assert numbers(heard) == list(range(1000))
    assert not any(each.retain or each.again for each in heard)
    await until(lambda: broker.stats().queues["mqtt_kept"] == 0, "everything is acknowledged")


async def test_05_an_absent_clients_session_is_discarded_at_the_limit(broker: EmbeddedBroker) -> None:
    client = await RawClient.connect(broker.port, "c", clean=False)
    await client.subscribe(("barrels/#", 1))
    await client.disconnect()
    await broker.publish(messages(1001))
    assert broker.stats().discarded_sessions == 1
    assert not broker.wants("barrels/b")
    again = await RawClient.connect(broker.port, "c", clean=False)
    assert not again.present
    assert await again.hear_until_quiet() == []


@pytest.mark.alone
async def test_06_a_silent_client_is_disconnected_after_its_keepalive_and_its_will_is_published(
    broker: EmbeddedBroker,
) -> None:
    listener = await RawClient.connect(broker.port, "l")
    await listener.subscribe(("will/#", 1))
    silent = await RawClient.connect(broker.port, "s", keepalive_s=1, will=("will/s", b"gone", 1, False))
    begin = asyncio.get_running_loop().time()
    assert await listener.heard() == Heard("will/s", b"gone", 1)
    assert 1.5 <= asyncio.get_running_loop().time() - begin < 3
    await silent.closed()


async def test_06_a_client_that_pings_stays_and_one_that_leaves_politely_leaves_no_will(
    broker: EmbeddedBroker,
) -> None:
    listener = await RawClient.connect(broker.port, "l")
    await listener.subscribe(("will/#", 1))
    client = await RawClient.connect(broker.port, "c", keepalive_s=2, will=("will/c", b"gone", 1, False))
    for _ in range(8):
        await asyncio.sleep(0.45)
        assert await client.hear_until_quiet() == []
    await client.disconnect()
    assert await listener.hear_until_quiet() == []


@pytest.mark.parametrize("clean", [True, False])
async def test_07_a_wrong_password_never_touches_the_rightful_session(clean: bool) -> None:
    async with serving(gate=Passwords()) as broker:
        rightful = await RawClient.connect(broker.port, "c", user="ann", password=b"nna", clean=False)
        await rightful.subscribe(("a", 1))
        for user, password in (("ann", b"guess"), ("ann", None), ("bob", b"guess")):
            thief = await RawClient.connect(broker.port, "c", user=user, password=password, clean=clean)
            assert thief.code == 4
            await thief.closed()
        await broker.publish([Message("a", b"x", 1)])
        assert await rightful.heard() == Heard("a", b"x", 1)
        stats = broker.stats()
        assert (stats.sessions, stats.connections) == (1, 1)


async def test_07_another_user_with_the_same_client_id_is_another_client() -> None:
    async with serving(gate=Passwords()) as broker:
        ann = await RawClient.connect(broker.port, "c", user="ann", password=b"nna", clean=False)
        await ann.subscribe(("a", 1))
        bob = await RawClient.connect(broker.port, "c", user="bob", password=b"bob")
        assert (bob.code, bob.present) == (0, False)
        await broker.publish([Message("a", b"x", 1)])
        assert await ann.heard() == Heard("a", b"x", 1)
        assert await bob.hear_until_quiet() == []


async def test_08_an_anonymous_client_has_a_session_that_stays(broker: EmbeddedBroker) -> None:
    client = await RawClient.connect(broker.port, "c", clean=False)
    await client.subscribe(("a", 1))
    await client.disconnect()
    await broker.publish([Message("a", b"x", 1)])
    again = await RawClient.connect(broker.port, "c", clean=False)
    assert again.present and await again.heard() == Heard("a", b"x", 1)


async def test_09_a_publication_to_a_system_topic_is_refused_and_the_client_lives_on(
    broker: EmbeddedBroker,
) -> None:
    client = await RawClient.connect(broker.port, "c")
    await client.subscribe(("a", 1))
    await client.publish("$SYS/uptime", b"x", 1)
    await client.send(publish_packet("$SYS/uptime", b"x"))
    assert broker.stats().refused == 1
    await broker.publish([Message("a", b"x", 1)])
    assert await client.heard() == Heard("a", b"x", 1)
    await client.publish("b", b"y", 1)


async def test_09_an_empty_topic_closes_the_connection(broker: EmbeddedBroker) -> None:
    client = await RawClient.connect(broker.port, "c")
    await client.send(publish_packet("", b"x"))
    await client.closed()
    await until(lambda: broker.stats().connections == 0)


@pytest.mark.parametrize("clean", [True, False])
async def test_09_a_take_over_closes_the_old_socket(broker: EmbeddedBroker, clean: bool) -> None:
    old = await RawClient.connect(broker.port, "c", clean=clean)
    await old.subscribe(("a", 1))
    new = await RawClient.connect(broker.port, "c", clean=clean)
    assert new.present is not clean
    await old.closed()
    await until(lambda: broker.stats().connections == 1)
    if clean:
        await new.subscribe(("a", 1))
    await broker.publish([Message("a", b"x", 1)])
    assert await new.heard() == Heard("a", b"x", 1)


@pytest.mark.parametrize("topic", ["a/#", "a/+", "#", b"a\x00b", b"\xff\xfe", b"\xed\xa0\x80"])
async def test_10_a_publication_to_no_topic_closes_its_connection_and_nobody_hears_it(
    broker: EmbeddedBroker, topic: str | bytes
) -> None:
    listener = await RawClient.connect(broker.port, "l")
    await listener.subscribe(("a/#", 1))
    speaker = await RawClient.connect(broker.port, "s")
    await speaker.send(publish_packet(topic, b"x", 1, 1))
    await speaker.closed()
    await broker.publish([Message("a/b", b"good", 1)])
    assert await listener.hear_until_quiet() == [Heard("a/b", b"good", 1)]


async def test_11_shared_subscriptions_and_bad_filters_are_refused_each_by_itself(broker: EmbeddedBroker) -> None:
    client = await RawClient.connect(broker.port, "c")
    filters = [("$share/g/a", 1), ("a/#/b", 1), ("a+", 1), ("#b", 0), ("$SYS/#", 0), ("from/x/#", 1), ("ok/#", 2)]
    assert await client.subscribe(*filters) == [0x80] * 6 + [2]
    await broker.publish([Message("ok/x", b"x", 1), Message("a", b"no", 1)])
    assert await client.hear_until_quiet() == [Heard("ok/x", b"x", 1)]


@pytest.mark.parametrize(
    "data",
    [
        subscribe_packet(1, ("a", 3)),
        packet(0x36, b"\x00\x01a\x00\x01x"),
        packet(0x82, b"\x00\x01"),
        packet(0x80, b"\x00\x01\x00\x01a\x01"),
        subscribe_packet(0, ("a", 1)),
        subscribe_packet(1, (b"\xff", 1)),
        publish_packet("a", b"x", 1, 0),
        packet(0x60, b"\x00\x01"),
        packet(0xF0, b""),
        packet(0x20, b"\x00\x00"),
        b"\xc0\x80\x80\x80\x80\x01",
    ],
    ids=[
        "sub qos 3",
        "pub qos 3",
        "no filter",
        "sub flags",
        "id 0",
        "utf-8",
        "pub id 0",
        "rel flags",
        "15",
        "2",
        "length",
    ],
)
async def test_11_what_the_standard_forbids_closes_the_connection(broker: EmbeddedBroker, data: bytes) -> None:
    client = await RawClient.connect(broker.port, "c")
    await client.send(data)
    await client.closed()


async def test_12_a_packet_above_the_limit_closes_the_connection_at_its_header() -> None:
    async with serving(limits=BrokerLimits(packet_bytes=10_000)) as broker:
        client = await RawClient.connect(broker.port, "c")
        await client.publish("a", b"x" * 9_000, 1)
        await client.send(b"\x32\xff\xff\xff\x7f")
        await client.closed()


async def test_12_who_does_not_connect_in_time_is_closed() -> None:
    async with serving(limits=BrokerLimits(connect_s=0.3)) as broker:
        silent = await RawClient.open(broker.port)
        slow = await RawClient.open(broker.port)
        await slow.send(b"\x10\x20\x00")
        await silent.closed()
        await slow.closed()
        await until(lambda: broker.stats().connections == 0)


async def test_12_before_its_login_a_client_may_send_no_large_packet(broker: EmbeddedBroker) -> None:
    client = await RawClient.open(broker.port)
    await client.send(packet(0x10, b"\x00\x04MQTT" + bytes(400_000))[:20])
    await client.closed()


async def test_12_all_large_packets_together_are_bounded() -> None:
    async with serving(limits=BrokerLimits(receiving_bytes=1_000_000)) as broker:
        clients = [await RawClient.connect(broker.port, f"c{number}") for number in range(3)]
        for client in clients[:2]:
            await client.send(publish_packet("a", bytes(600_000))[:1000])
        await clients[1].closed()
        await clients[0].send(publish_packet("a", bytes(600_000))[1000:])
        await clients[0].publish("b", b"x", 1)
        await clients[2].publish("b", bytes(600_000), 1)


@pytest.mark.alone
async def test_13_a_reader_that_stops_costs_bounded_memory_and_slows_nobody(broker: EmbeddedBroker) -> None:
    stopped = await RawClient.connect(broker.port, "stopped", receive_bytes=4096)
    await stopped.send(subscribe_packet(1, ("barrels/#", 0)))
    reader = await RawClient.connect(broker.port, "reader")
    await reader.subscribe(("barrels/#", 0))
    process = psutil.Process()
    before = process.memory_info().rss
    begin = asyncio.get_running_loop().time()
    for _ in range(20):
        publishing = asyncio.create_task(broker.publish(messages(1_000, qos=0, size=1_000)))
        assert numbers(await reader.hear(1_000)) == list(range(1_000))
        await publishing
    assert asyncio.get_running_loop().time() - begin < 10
    assert process.memory_info().rss - before < 16 * 1024 * 1024
    stats = broker.stats()
    assert stats.dropped > 10_000 and stats.disconnected_slow == 0
    assert stats.queues["mqtt_deliveries"] <= BrokerLimits().queue_messages


@pytest.mark.alone
async def test_13_a_reader_of_qos_1_that_stops_is_disconnected_and_wedges_nobody(broker: EmbeddedBroker) -> None:
    stopped = await RawClient.connect(broker.port, "stopped", receive_bytes=4096)
    await stopped.send(subscribe_packet(1, ("barrels/#", 1)))
    other = await RawClient.connect(broker.port, "other")
    await other.subscribe(("other", 1))
    await until(lambda: broker.stats().subscriptions == 2)
    publishing = asyncio.create_task(broker.publish(messages(3_000, qos=1, size=1_000)))
    await broker.publish([Message("other", b"x", 1)])
    await other.heard(patience_s=1)
    await asyncio.wait_for(publishing, 5)
    assert broker.stats().disconnected_slow == 1
    await until(lambda: broker.stats().connections == 1)


async def test_14_a_restart_keeps_sessions_filters_queues_and_retained_messages(tmp_path: Path) -> None:
    async with serving(tmp_path) as broker:
        client = await RawClient.connect(broker.port, "c", clean=False)
        await client.subscribe(("a/#", 1), ("b", 2))
        await client.disconnect()
        await broker.publish([Message("a/x", b"1", 1), Message("b", b"2", 2), Message("k/1", b"kept", 1, True)])
    async with serving(tmp_path) as broker:
        assert broker.wants("a/anything")
        await broker.publish([Message("a/y", b"3", 1)])
        client = await RawClient.connect(broker.port, "c", clean=False)
        assert client.present
        heard = await client.hear(3)
        assert heard == [Heard("a/x", b"1", 1), Heard("b", b"2", 2), Heard("a/y", b"3", 1)]
        await client.subscribe(("k/+", 1))
        assert await client.heard() == Heard("k/1", b"kept", 1, retain=True)


async def test_15_a_thousand_idle_connections_cost_at_most_24_mib() -> None:
    ran = await asyncio.to_thread(
        subprocess.run, [sys.executable, str(BENCHMARK), "--memory"], capture_output=True, timeout=100, check=True
    )
    assert json.loads(ran.stdout)["idle_1000_connections_mib"] <= 24


async def test_a_delivery_never_says_more_than_was_published(broker: EmbeddedBroker) -> None:
    listener = await RawClient.connect(broker.port, "l", acking=False)
    await listener.subscribe(("a", 2))
    await broker.publish([Message("a", b"x", 1, retain=True)])
    came = await listener.expect(PUBLISH)
    assert read_heard(came) == Heard("a", b"x", 1, retain=False)
    with pytest.raises((Closed, TimeoutError)):
        await listener.receive(patience_s=0.05)
