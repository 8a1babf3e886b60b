"""Laws of the embedded broker's pure parts, against models that are small and slow; and bytes that mean nothing."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.mqtt.contract import Client
from broker.mqtt.frames import Malformed, Publication, length_bytes
from broker.mqtt.gate import OpenGate
from broker.mqtt.packets import read_connect, read_subscribe, read_unsubscribe
from broker.mqtt.retained import key_of, seek
from broker.mqtt.subscriptions import Subscriptions
from broker.mqtt.topicnames import client_name, decode_segment, filter_fault, matches, rest_of_request, topic_fault
from feeds.errors import BadRequest

from .mqtt_tools import Packet, RawClient, connect_packet, publish_packet, read_heard, serving, subscribe_packet

LEVELS = st.sampled_from(["", "a", "b", "ab", "a!", "é", "$s", "\x01", "z"])
TOPICS = st.lists(LEVELS, min_size=1, max_size=4).map("/".join).filter(bool)
FILTERS = (
    st.lists(LEVELS | st.just("+"), min_size=1, max_size=4)
    .flatmap(lambda levels: st.sampled_from(["/".join(levels), "/".join([*levels, "#"]), "#"]))
    .filter(bool)
)


@given(st.lists(st.tuples(FILTERS, st.sampled_from("xyz"), st.integers(0, 2)), max_size=12), TOPICS)
def test_the_trie_finds_what_the_slow_rule_finds(wanted: list[tuple[str, str, int]], topic: str) -> None:
    subscriptions: Subscriptions[str] = Subscriptions()
    newest: dict[tuple[str, str], int] = {}
    for topic_filter, subscriber, qos in wanted:
        subscriptions.add(topic_filter, subscriber, qos)
        newest[topic_filter, subscriber] = qos
    assert subscriptions.count == len(newest)
    narrow, wide = subscriptions.match(topic)
    for found, begins_wide in ((narrow, False), (wide, True)):
        expected = sorted(
            (who, qos)
            for (topic_filter, who), qos in newest.items()
            if matches(topic_filter, topic) and (topic_filter[0] in "+#") is begins_wide
        )
        assert sorted(pair for group in found for pair in group.items()) == expected


@given(st.lists(st.tuples(FILTERS, st.sampled_from("xyz")), max_size=12), st.randoms(), TOPICS)
def test_removing_leaves_what_would_be_there_without(
    wanted: list[tuple[str, str]], chance: random.Random, topic: str
) -> None:
    subscriptions: Subscriptions[str] = Subscriptions()
    for topic_filter, subscriber in wanted:
        subscriptions.add(topic_filter, subscriber, 1)
    removed = {pair for pair in wanted if chance.random() < 0.5}
    for topic_filter, subscriber in removed:
        assert subscriptions.remove(topic_filter, subscriber)
        assert not subscriptions.remove(topic_filter, subscriber)
    left = set(wanted) - removed
    found = {who for part in subscriptions.match(topic) for group in part for who in group}
    assert found == {who for topic_filter, who in left if matches(topic_filter, topic)}
    if not left:
        assert not subscriptions.could_match("a")


@given(st.lists(FILTERS, max_size=6), TOPICS, st.integers(1, 4))
def test_what_is_not_wanted_is_heard_by_nobody(wanted: list[str], topic: str, depth: int) -> None:
    subscriptions: Subscriptions[str] = Subscriptions()
    for topic_filter in wanted:
        subscriptions.add(topic_filter, "x", 0)
    prefix = "/".join(topic.split("/")[:depth])
    if not subscriptions.could_match(prefix):
        assert not any(matches(topic_filter, topic) for topic_filter in wanted)
    following = topic.split("/")[depth : depth + 1]
    levels = subscriptions.levels(prefix)
    if levels is not None and not levels.issuperset(following):
        assert not any(matches(topic_filter, topic) for topic_filter in wanted)


@given(FILTERS, st.sets(TOPICS, max_size=20))
def test_seeking_finds_every_retained_match_once_in_order(topic_filter: str, topics: set[str]) -> None:
    keys = sorted(key_of(topic) for topic in topics)
    wanted = topic_filter.encode().split(b"/")
    found: list[bytes] = []
    position: bytes | None = b""
    while position is not None:
        here = position
        key = next((key for key in keys if key >= here), None)
        if key is None:
            break
        hit, position = seek(wanted, key)
        assert position is None or position > key
        if hit:
            found.append(key)
    assert found == [key for key in keys if matches(topic_filter, key.replace(b"\0", b"/").decode())]


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_clients_name_is_two_levels_that_stand_for_it_alone(user: str, client_id: str) -> None:
    try:
        user.encode(), client_id.encode()
    except UnicodeEncodeError:
        return
    levels = client_name(user, client_id).split("/")
    assert len(levels) == 2
    assert topic_fault("x" + levels[0]) is None and topic_fault("x" + levels[1]) is None
    assert [decode_segment(level) for level in levels] == [user, client_id]


@given(TOPICS, st.binary(max_size=300), st.integers(0, 2), st.booleans(), st.integers(1, 65535))
def test_what_is_encoded_reads_back(topic: str, payload: bytes, qos: int, retain: bool, packet_id: int) -> None:
    publication = Publication(topic, payload, qos)
    ids = packet_id.to_bytes(2, "big") if qos else b""
    data = publication.head(qos, retain) + ids + payload
    assert data == publish_packet(topic, payload, qos, packet_id, retain)
    assert publication.wire() == publish_packet(topic, payload)
    heard = read_heard(Packet(3, data[0] & 15, data[1 + len(length_bytes(len(data) - 2)) :]))
    assert (heard.topic, heard.payload, heard.qos, heard.retain) == (topic, payload, qos, retain)


@given(st.integers(0, 268_435_455))
def test_a_length_is_written_in_sevens_lowest_first(length: int) -> None:
    written = length_bytes(length)
    assert sum((byte & 127) << 7 * place for place, byte in enumerate(written)) == length
    assert all(byte & 128 for byte in written[:-1]) and not written[-1] & 128 and len(written) <= 4


@given(st.binary(max_size=60), st.integers(0, 15))
def test_bytes_without_meaning_are_malformed_and_nothing_else(body: bytes, flags: int) -> None:
    for read in (read_connect, read_subscribe, read_unsubscribe):
        for prefix in (b"", b"\x00\x04MQTT\x04", b"\x00\x01\x00\x01a"):
            try:
                read(flags, prefix + body)
            except Malformed:
                pass


@given(st.text(max_size=10), st.binary(max_size=10) | st.none(), st.text(max_size=5) | st.none(), st.booleans())
def test_a_connect_reads_back(client_id: str, password: bytes | None, user: str | None, clean: bool) -> None:
    try:
        data = connect_packet(client_id, user=user, password=password, clean=clean, keepalive_s=7)
    except UnicodeEncodeError:
        return
    if "\0" in client_id + (user or "") or (password is not None and user is None):
        with pytest.raises(Malformed):
            read_connect(0, data[2:])
        return
    read = read_connect(0, data[2:])
    assert (read.client_id, read.user, read.password, read.clean) == (client_id, user, password, clean)
    assert (read.keepalive_s, read.will) == (7, None)


@given(TOPICS, st.sampled_from(["ann", "bob"]))
def test_the_open_gate_lets_nobody_read_or_write_for_another(rest: str, name: str) -> None:
    gate = OpenGate()
    client, other = Client.of(None, name), Client.of(None, "eve")
    assert gate.may_publish(client, f"from/{client.name}/{rest}") is None
    assert gate.may_publish(other, f"from/{client.name}/{rest}") is not None
    assert gate.may_receive(client, f"to/{client.name}/{rest}")
    assert not gate.may_receive(other, f"to/{client.name}/{rest}")
    assert not gate.may_receive(client, f"from/{client.name}/{rest}")
    assert gate.may_publish(client, f"barrels/{rest}") is not None


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a\0", "\ud800", "x" * 70_000])
def test_what_is_no_topic_is_refused_by_name(topic: str) -> None:
    assert topic_fault(topic) is not None
    with pytest.raises(BadRequest):
        Publication(topic, b"", 0)


@pytest.mark.parametrize("topic_filter", ["", "#/a", "a/#/b", "a+", "+a/b", "a#", "\0"])
def test_what_is_no_filter_is_refused(topic_filter: str) -> None:
    assert filter_fault(topic_filter) is not None


def test_the_rest_of_a_request_is_what_follows_the_client() -> None:
    assert rest_of_request("from/u/c/put/b/x/y") == "put/b/x/y"
    assert rest_of_request("from/u/c") == ""


@settings(max_examples=20)
@given(st.lists(st.binary(min_size=1, max_size=12), min_size=1, max_size=4))
def test_topics_of_any_text_have_keys_in_the_order_of_their_levels(levels: list[bytes]) -> None:
    texts = [level.decode("latin-1").replace("/", "").replace("\0", "") for level in levels]
    topic = "/".join(texts)
    if topic:
        assert key_of(topic).split(b"\0") == [text.encode() for text in texts]


async def test_a_client_that_sends_nonsense_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(7)
    good = [publish_packet("a/b", b"x", 1, 1), subscribe_packet(2, ("a/#", 1)), b"\xc0\x00", b"\x40\x02\x00\x01"]
    async with serving() as broker:
        witness = await RawClient.connect(broker.port, "witness")
        await witness.subscribe(("quiet", 1))
        for number in range(150):
            client = await RawClient.open(broker.port)
            data = bytearray(connect_packet(f"n{number}") + b"".join(chance.choices(good, k=4)))
            for _ in range(chance.randrange(6)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            await client.send(bytes(data))
            if number % 3:
                await client.vanish()
        await witness.publish("quiet-not", b"", 1)
        assert broker.wants("quiet")
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]
