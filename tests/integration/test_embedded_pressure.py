"""Full queues: who waits for whom, who loses what, and who is not held up."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.mqtt import lobby
from broker.mqtt.contract import Message
from broker.mqtt.embedded import EmbeddedBroker
from broker.mqtt.limits import BrokerLimits
from broker.mqtt.pressure import Progress, keeps_pace

from .mqtt_tools import (
    PUBACK,
    Heard,
    RawClient,
    ack_packet,
    messages,
    numbers,
    packet,
    publish_packet,
    serving,
    subscribe_packet,
    until,
)


@pytest.fixture
async def broker() -> AsyncIterator[EmbeddedBroker]:
    async with serving() as broker:
        yield broker


@pytest.fixture
async def patient() -> AsyncIterator[EmbeddedBroker]:
    """A broker that takes nobody for slow on a machine which is."""
    async with serving(limits=BrokerLimits(stall_s=30.0, qos0_patience_s=30.0)) as broker:
        yield broker


@pytest.mark.parametrize("qos", [0, 1])
async def test_a_batch_larger_than_the_queue_reaches_a_reader_whole(patient: EmbeddedBroker, qos: int) -> None:
    reader = await RawClient.connect(patient.port, "r")
    await reader.subscribe(("barrels/#", qos))
    publishing = asyncio.create_task(patient.publish(messages(8_000, qos=qos)))
    assert numbers(await reader.hear(8_000)) == list(range(8_000))
    await publishing
    assert (patient.stats().dropped, patient.stats().disconnected_slow) == (0, 0)


async def test_a_clients_own_publications_wait_for_a_reader_too(patient: EmbeddedBroker) -> None:
    reader = await RawClient.connect(patient.port, "r", receive_bytes=4096)
    await reader.subscribe(("a", 1))
    speaker = await RawClient.connect(patient.port, "s")

    async def speak() -> None:
        for number in range(3_000):
            await speaker.send(publish_packet("a", str(number).encode().ljust(1_000, b"."), 1, number + 1))

    speaking = asyncio.create_task(speak())
    assert numbers(await reader.hear(3_000)) == list(range(3_000))
    await speaking
    assert len([await speaker.expect(PUBACK) for _ in range(3_000)]) == 3_000
    assert patient.stats().disconnected_slow == 0


@pytest.mark.alone
async def test_a_slow_but_steady_reader_of_qos_1_is_waited_for(broker: EmbeddedBroker) -> None:
    reader = await RawClient.connect(broker.port, "r", acking=False)
    await reader.subscribe(("barrels/#", 1))
    publishing = asyncio.create_task(broker.publish(messages(2_000)))
    heard: list[Heard] = []
    while len(heard) < 2_000:
        batch = [await reader.heard() for _ in range(min(50, 2_000 - len(heard)))]
        heard += batch
        await asyncio.sleep(0.05)  # about 1,000 a second
        await reader.send(b"".join(ack_packet(PUBACK, each.packet_id) for each in batch))
    await publishing
    assert numbers(heard) == list(range(2_000)) and broker.stats().disconnected_slow == 0


@pytest.mark.alone
async def test_while_one_publisher_waits_others_go_on(broker: EmbeddedBroker) -> None:
    stopped = await RawClient.connect(broker.port, "stopped", acking=False, receive_bytes=4096)
    await stopped.send(subscribe_packet(1, ("flood/#", 1)))
    await until(lambda: broker.stats().subscriptions == 1)
    flood = asyncio.create_task(broker.publish(messages(5_000, "flood/x", size=2_000)))
    reader = await RawClient.connect(broker.port, "reader")
    await reader.subscribe(("quiet", 1))
    begin = asyncio.get_running_loop().time()
    for _ in range(100):
        await broker.publish([Message("quiet", b"x", 1)])
        await reader.heard()
    assert asyncio.get_running_loop().time() - begin < 1
    assert not flood.done()
    await asyncio.wait_for(flood, 5)
    assert broker.stats().disconnected_slow == 1


async def test_who_says_goodbye_and_does_not_read_the_rest_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lobby, "LINGER_S", 1_000.0)
    async with serving(limits=BrokerLimits(queue_messages=10, queue_bytes=16 << 20, stall_s=0.2)) as broker:
        for listening in broker._servers[0].sockets:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_192)
        leaving = await RawClient.connect(broker.port, "leaving", receive_bytes=4_096)
        await leaving.subscribe(("barrels/#", 1))
        session = broker._book.get("anonymous/leaving")
        assert session is not None and session.connection is not None
        connection = session.connection
        await broker.publish(messages(5, size=200_000))
        await until(lambda: connection._congested)
        while not session.full:
            await broker.publish(messages(1))
        await leaving.send(packet(0xE0, b""))
        await until(lambda: connection.closing)
        await asyncio.wait_for(broker.publish(messages(1)), 30)


async def test_a_persistent_reader_that_was_cut_finds_what_was_kept(broker: EmbeddedBroker) -> None:
    stopped = await RawClient.connect(broker.port, "c", clean=False, acking=False, receive_bytes=4096)
    await stopped.subscribe(("barrels/#", 1))
    await broker.publish(messages(1_000, size=900))
    await broker.publish(messages(150, size=900))
    await until(lambda: broker.stats().connections == 0, "it is cut")
    again = await RawClient.connect(broker.port, "c", clean=False)
    assert again.present is (broker.stats().discarded_sessions == 0)


async def test_losses_at_qos_0_keep_the_order_and_end_when_the_reader_is_back() -> None:
    async with serving(limits=BrokerLimits(queue_messages=50)) as broker:
        reader = await RawClient.connect(broker.port, "r", receive_bytes=4096)
        await reader.subscribe(("barrels/#", 0))
        await broker.publish(messages(5_000, qos=0, size=5_000))
        lost = broker.stats().dropped
        assert lost > 0
        heard = numbers(await reader.hear(5_000 - lost))
        assert heard == sorted(heard)
        await broker.publish([Message("barrels/b/x", b"7", 0)])
        assert numbers([await reader.heard()]) == [7]


@pytest.mark.alone
async def test_one_stopped_reader_of_qos_0_costs_a_publisher_a_tenth_of_a_second_at_most() -> None:
    async with serving(limits=BrokerLimits(queue_messages=10)) as broker:
        stopped = await RawClient.connect(broker.port, "stopped", receive_bytes=4096)
        await stopped.subscribe(("barrels/#", 0))
        await broker.publish(messages(500, qos=0, size=50_000))
        begin = asyncio.get_running_loop().time()
        for _ in range(200):
            await broker.publish(messages(10, qos=0, size=1_000))
        assert asyncio.get_running_loop().time() - begin < 0.5


@pytest.mark.alone
async def test_a_reader_of_qos_0_just_too_slow_does_not_hold_a_publisher_up_again_and_again() -> None:
    async with serving(limits=BrokerLimits(queue_messages=10)) as broker:
        slow = await RawClient.connect(broker.port, "slow", receive_bytes=4096)
        await slow.subscribe(("barrels/#", 0))
        held_s = 0.0
        for _ in range(8):
            lost_before = broker.stats().dropped
            begin = asyncio.get_running_loop().time()
            await broker.publish(messages(100, qos=0, size=100_000))
            held_s += asyncio.get_running_loop().time() - begin
            lost = broker.stats().dropped - lost_before
            assert lost > 0
            await slow.hear(100 - lost)
        assert held_s < 0.5


async def test_a_message_larger_than_the_queue_passes(patient: EmbeddedBroker) -> None:
    reader = await RawClient.connect(patient.port, "r")
    await reader.subscribe(("a", 1))
    big = [Message("a", bytes([number]) * 3_000_000, 1) for number in range(4)]
    publishing = asyncio.create_task(patient.publish(big))
    assert [each.payload for each in await reader.hear(4)] == [each.payload for each in big]
    await publishing


@pytest.mark.alone
async def test_a_large_fan_out_leaves_the_loop_free() -> None:
    async with serving() as broker:
        readers = [await RawClient.connect(broker.port, f"r{number}") for number in range(300)]
        for reader in readers:
            await reader.subscribe(("a/#", 0))
        longest = 0.0

        async def watch() -> None:
            nonlocal longest
            loop = asyncio.get_running_loop()
            before = loop.time()
            while True:
                await asyncio.sleep(0)
                longest = max(longest, loop.time() - before)
                before = loop.time()

        watching = asyncio.create_task(watch())
        await broker.publish(messages(200, "a/b", qos=0))
        watching.cancel()
        for reader in readers:
            assert numbers(await reader.hear(200)) == list(range(200))
        assert longest < 0.25


@pytest.mark.alone
async def test_a_client_that_does_not_read_its_acknowledgements_is_not_read_from(broker: EmbeddedBroker) -> None:
    client = await RawClient.connect(broker.port, "c", receive_bytes=4096)
    ping = b"\xc0\x00" * 50_000

    async def flood() -> None:
        for _ in range(200):
            await client.send(ping)

    flooding = asyncio.create_task(flood())
    done, _ = await asyncio.wait([flooding], timeout=2)
    assert not done
    flooding.cancel()
    (connection,) = broker._lobby.connections
    assert connection.wire is not None
    assert connection.wire.get_write_buffer_size() < 2 * 1024 * 1024


async def test_connections_are_limited() -> None:
    async with serving(limits=BrokerLimits(connections=2)) as broker:
        first = await RawClient.connect(broker.port, "1")
        await RawClient.connect(broker.port, "2")
        third = await RawClient.open(broker.port)
        await third.closed()
        await first.disconnect()
        await until(lambda: broker.stats().connections == 1)
        assert (await RawClient.connect(broker.port, "3")).code == 0


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 10**7), st.integers(0, 10**7))
def test_a_pace_is_judged_by_what_was_taken_and_never_by_where_it_began(
    taken: int, before: int, sent_bytes: int, bytes_before: int
) -> None:
    limits = BrokerLimits()
    start = Progress(before, bytes_before)
    after = Progress(before + taken, bytes_before + sent_bytes)
    expected = taken >= limits.queue_messages / 16 or sent_bytes >= limits.queue_bytes / 16
    assert keeps_pace(start, after, limits) is expected
