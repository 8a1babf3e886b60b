"""The embedded broker as any MQTT 3.1.1 client sees it: connect, subscribe, publish, keep alive, leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from broker.mqtt.contract import Message
from broker.mqtt.embedded import EmbeddedBroker

from .mqtt_tools import (
    CONNACK,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    UNSUBACK,
    Heard,
    RawClient,
    ack_packet,
    connect_packet,
    packet,
    publish_packet,
    serving,
    subscribe_packet,
)


@pytest.fixture
async def broker() -> AsyncIterator[EmbeddedBroker]:
    async with serving() as broker:
        yield broker


@pytest.mark.parametrize("publication_qos", [0, 1, 2])
@pytest.mark.parametrize("subscription_qos", [0, 1, 2])
async def test_a_message_comes_with_the_lesser_qos_of_publication_and_subscription(
    broker: EmbeddedBroker, publication_qos: int, subscription_qos: int
) -> None:
    listener = await RawClient.connect(broker.port, "l")
    assert await listener.subscribe(("a/+", subscription_qos)) == [subscription_qos]
    speaker = await RawClient.connect(broker.port, "s")
    await speaker.publish("a/b", b"hello", publication_qos)
    assert await listener.heard() == Heard("a/b", b"hello", min(publication_qos, subscription_qos))


async def test_the_service_publishes_without_a_client(broker: EmbeddedBroker) -> None:
    listener = await RawClient.connect(broker.port, "l")
    await listener.subscribe(("barrels/geo/#", 1))
    await broker.publish([Message("barrels/geo/_id/a", b"1", 1), Message("barrels/geo/x", lambda: b"2", 0)])
    assert await listener.hear(2) == [Heard("barrels/geo/_id/a", b"1", 1), Heard("barrels/geo/x", b"2", 0)]


async def test_what_nobody_hears_is_not_encoded(broker: EmbeddedBroker) -> None:
    calls: list[str] = []

    def encode() -> bytes:
        calls.append("encoded")
        return b"x"

    await broker.publish([Message("barrels/geo/x", encode)])
    assert calls == []
    for name in "ab":
        await (await RawClient.connect(broker.port, name)).subscribe(("#", 0))
    await broker.publish([Message("barrels/geo/x", encode)])
    assert calls == ["encoded"]


async def test_wants_tells_what_could_be_heard(broker: EmbeddedBroker) -> None:
    assert not broker.wants("barrels/geo")
    client = await RawClient.connect(broker.port, "c")
    await client.subscribe(("barrels/geo/region/+/x", 0))
    assert broker.wants("barrels/geo") and broker.wants("barrels/geo/region/Europe")
    assert not broker.wants("barrels/other") and not broker.wants("barrels/geo/country")
    assert broker.levels("barrels/geo") == {"region"} and broker.levels("barrels/other") == set()
    assert broker.levels("barrels/geo/region") is None
    await client.subscribe(("#", 0))
    assert broker.wants("barrels/other") and broker.levels("barrels/other") is None
    await client.disconnect()
    assert not broker.wants("barrels/geo") and broker.levels("barrels/geo") == set()


async def test_overlapping_filters_deliver_once_at_the_greatest_qos(broker: EmbeddedBroker) -> None:
    listener = await RawClient.connect(broker.port, "l")
    await listener.subscribe(("a/#", 0), ("a/+", 1), ("#", 0), ("a/b", 0))
    await broker.publish([Message("a/b", b"x", 2)])
    assert await listener.hear_until_quiet() == [Heard("a/b", b"x", 1)]


async def test_a_new_subscription_to_the_same_filter_changes_its_qos(broker: EmbeddedBroker) -> None:
    listener = await RawClient.connect(broker.port, "l")
    await listener.subscribe(("a", 1))
    await listener.subscribe(("a", 0))
    await broker.publish([Message("a", b"x", 1)])
    assert await listener.hear_until_quiet() == [Heard("a", b"x", 0)]


async def test_who_unsubscribes_hears_nothing_more(broker: EmbeddedBroker) -> None:
    client = await RawClient.connect(broker.port, "c")
    await client.subscribe(("a", 1), ("b", 1))
    await client.send(packet(0xA2, b"\x00\x09\x00\x01a"))
    assert (await client.expect(UNSUBACK)).body == b"\x00\x09"
    await broker.publish([Message("a", b"x"), Message("b", b"y")])
    assert await client.hear_until_quiet() == [Heard("b", b"y")]


async def test_a_ping_is_answered(broker: EmbeddedBroker) -> None:
    client = await RawClient.connect(broker.port, "c")
    await client.send(packet(0xC0, b""))
    await client.expect(PINGRESP)


async def test_packets_may_come_byte_by_byte_or_all_at_once(broker: EmbeddedBroker) -> None:
    stream = (
        connect_packet("c")
        + subscribe_packet(1, ("a", 1))
        + publish_packet("a", b"x" * 300, 1, 2)
        + packet(0xC0, b"")
    )
    for pieces in ([stream], [stream[at : at + 1] for at in range(len(stream))]):
        client = await RawClient.open(broker.port)
        for piece in pieces:
            await client.send(piece)
            await asyncio.sleep(0)
        kinds = [(await client.receive()).kind for _ in range(5)]
        assert kinds[:2] == [CONNACK, SUBACK] and sorted(kinds[2:]) == [PUBLISH, PUBACK, PINGRESP]
        await client.disconnect()


async def test_a_large_message_passes_whole(broker: EmbeddedBroker) -> None:
    listener = await RawClient.connect(broker.port, "l")
    await listener.subscribe(("big", 1))
    speaker = await RawClient.connect(broker.port, "s")
    payload = bytes(range(256)) * 4 * 1024 * 8
    await speaker.publish("big", payload, 1)
    assert (await listener.heard()).payload == payload


async def test_a_qos_2_publication_sent_twice_is_taken_once(broker: EmbeddedBroker) -> None:
    listener = await RawClient.connect(broker.port, "l")
    await listener.subscribe(("a", 1))
    speaker = await RawClient.connect(broker.port, "s")
    for again in (False, True):
        await speaker.send(publish_packet("a", b"x", 2, 7, again=again))
        await speaker.expect(PUBREC)
    await speaker.send(ack_packet(PUBREL, 7))
    await speaker.expect(PUBCOMP)
    await speaker.publish("a", b"y", 1)
    assert [each.payload for each in await listener.hear(2)] == [b"x", b"y"]


async def test_a_first_level_wildcard_hides_topics_of_the_system(broker: EmbeddedBroker) -> None:
    listener = await RawClient.connect(broker.port, "l")
    await listener.subscribe(("#", 0), ("+/x", 0))
    await broker.publish([Message("$internal/x", b"no"), Message("a/x", b"yes")])
    assert await listener.hear_until_quiet() == [Heard("a/x", b"yes")]


async def test_a_client_without_a_name_gets_one_if_its_session_is_clean(broker: EmbeddedBroker) -> None:
    first, second = await RawClient.connect(broker.port, ""), await RawClient.connect(broker.port, "")
    assert (first.code, second.code) == (0, 0)
    assert (await RawClient.connect(broker.port, "", clean=False)).code == 2
    await second.send(packet(0xC0, b""))
    await second.expect(PINGRESP)


async def test_another_protocol_version_is_told_so(broker: EmbeddedBroker) -> None:
    client = await RawClient.connect(broker.port, "c", level=5)
    assert client.code == 1
    await client.closed()


async def test_a_message_released_late_is_not_sent_again_on_the_same_connection(broker: EmbeddedBroker) -> None:
    listener = await RawClient.connect(broker.port, "l", acking=False)
    await listener.subscribe(("a", 2))
    await broker.publish([Message("a", b"x", 2)])
    heard = await listener.heard()
    await listener.send(ack_packet(PUBREC, heard.packet_id))
    await listener.expect(PUBREL)
    assert await listener.hear_until_quiet() == []
    await listener.send(ack_packet(PUBCOMP, heard.packet_id))
    assert await listener.hear_until_quiet() == []
