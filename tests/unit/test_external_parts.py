"""The parts of the external broker that need no broker: windows, names, suspects, acknowledgements, addresses."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.external.access import BrokerAccess, BrokerAddress
from broker.external.desk import Acknowledgements
from broker.external.names import TopicNames, check_prefix, check_topic
from broker.external.patience import Patience
from broker.external.suspects import Suspects
from broker.external.window import Window
from broker.settings import Settings, load_settings
from feeds.errors import BadRequest
from feeds.paths import encode_segment
from listeners.links.address import Address, parse_address

LEVELS = st.lists(st.text(st.characters(exclude_categories=["Cs"])).map(encode_segment), min_size=1, max_size=6)


@given(LEVELS, st.sampled_from(["", "site1/", "a/b/"]), st.booleans())
def test_a_topic_comes_back_from_the_broker_as_it_was(levels: list[str], prefix: str, dots: bool) -> None:
    names = TopicNames(prefix, dots_encoded=dots)
    there = names.outward("/".join(levels))
    assert there.startswith(prefix)
    assert not (dots and set(". ") & set(there))
    assert names.inward(there) == "/".join(levels)


def test_what_is_not_under_the_prefix_is_not_ours() -> None:
    assert TopicNames("site1/").inward("from/a/b/put/geo/x") is None


@pytest.mark.parametrize(("text", "prefix"), [("", ""), ("site1", "site1/"), ("/a/b/", "a/b/"), ("/", "")])
def test_a_prefix_ends_with_a_slash_or_is_empty(text: str, prefix: str) -> None:
    assert check_prefix(text) == prefix


@pytest.mark.parametrize("text", ["a//b", "$SYS", "a/#", "+", "a b", "ü", "x" * 70_000])
def test_a_prefix_of_other_characters_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        check_prefix(text)


def test_topics_that_no_broker_takes_are_told_before_one_is_asked() -> None:
    for topic in ("", "a/#", "$SYS/x", "a/" * 200, "x" * 65_536, "\udc00"):
        with pytest.raises(BadRequest):
            check_topic(topic)
    check_topic("barrels/b/_id/" + "x/" * 100)


@pytest.mark.parametrize(
    ("url", "shown", "user"),
    [
        ("mqtt://h", "mqtt://h:1883", None),
        ("MQTTS://h/", "mqtts://h:8883", None),
        ("mqtt://me@[::1]:99", "mqtt://[::1]:99", "me"),
    ],
)
def test_a_brokers_address_is_read(url: str, shown: str, user: str | None) -> None:
    address = BrokerAddress.parse(url)
    assert (str(address), address.user) == (shown, user)


def test_no_password_is_shown() -> None:
    access = BrokerAccess(BrokerAddress.parse("mqtt://h"), "id", user="u", password="hush")
    assert "hush" not in repr(access)
    with pytest.raises(BadRequest) as caught:
        BrokerAddress.parse("mqtt://u:hush@h")
    assert "hush" not in caught.value.reason


async def test_a_window_lets_in_as_much_as_it_holds_and_the_rest_in_order() -> None:
    window = Window("w", 3, 100)
    assert [window.enter(30) for _ in range(4)] == [True, True, True, False]
    order: list[int] = []

    async def wait(at: int) -> None:
        await window.wait(30)
        order.append(at)

    waiting = [asyncio.create_task(wait(at)) for at in range(3)]
    await asyncio.sleep(0)
    window.leave(30)
    await asyncio.sleep(0)
    assert order == [0]
    assert not window.enter(1)  # others wait
    waiting[1].cancel()
    await asyncio.sleep(0)
    window.leave(30)
    await asyncio.gather(*waiting, return_exceptions=True)
    assert order == [0, 2]
    assert (window.messages, window.bytes) == (3, 90)


async def test_a_message_larger_than_the_window_goes_alone() -> None:
    window = Window("w", 10, 100)
    assert window.enter(1_000)
    assert not window.enter(1)
    window.leave(1_000)
    assert window.enter(1)
    assert not window.enter(1_000)


async def test_whoever_stops_waiting_takes_no_room() -> None:
    window = Window("w", 1, 100)
    assert window.enter(1)
    waiting = asyncio.create_task(window.wait(1))
    await asyncio.sleep(0)
    window.leave(1)  # it is given room, and in the same moment cancelled
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert window.messages == 0


def test_a_topic_is_set_aside_after_two_closings_alone_and_tried_again_later() -> None:
    suspects = Suspects(600.0, 2)
    suspects.blame(["a", "b"])
    assert "a" in suspects and suspects
    suspects.clear("b")
    assert not suspects.convict("a", 0.0)
    assert suspects.convict("a", 1.0)
    assert not suspects
    assert (suspects.set_aside, suspects.last) == (1, "a")
    assert suspects.refuses("a", 600.0)
    assert not suspects.refuses("a", 602.0)
    assert not suspects.refuses("b", 0.0)


def test_the_topics_that_are_suspected_are_bounded() -> None:
    suspects = Suspects(600.0, 3)
    suspects.blame(["a", "b"])
    suspects.convict("b", 0.0)
    suspects.blame(["b", "c", "d"])
    assert [topic in suspects for topic in "abcd"] == [False, True, True, True]
    assert suspects.closed_on("b")
    suspects.blame(["e", "f", "g", "h"])
    assert [topic in suspects for topic in "bcdefgh"] == [False] * 3 + [True] * 3 + [False]


def test_the_topics_that_are_remembered_are_bounded() -> None:
    suspects = Suspects(600.0, 2)
    for topic in ("a", "b", "c"):
        suspects.convict(topic, 0.0)
        suspects.convict(topic, 0.0)
    assert [suspects.refuses(topic, 1.0) for topic in ("a", "b", "c")] == [False, True, True]


class Acked:
    def __init__(self) -> None:
        self.mids: list[int] = []

    def acknowledge(self, mid: int) -> None:
        self.mids.append(mid)


def test_requests_are_acknowledged_in_order_and_the_oldest_early() -> None:
    acked = Acked()
    line = Acknowledgements(acked, 3)
    entries = [line.add(mid) for mid in (1, 2, 3)]
    line.done(entries[1])
    assert acked.mids == []
    line.done(entries[0])
    assert acked.mids == [1, 2]
    for mid in (4, 5, 6):
        line.add(mid)
    assert acked.mids == [1, 2, 3]
    line.done(entries[2])
    assert acked.mids == [1, 2, 3]


def test_a_listeners_address_has_the_prefix_before_the_barrel() -> None:
    address = parse_address("mqtt://h/sites/two/a%2Fb")
    assert isinstance(address, Address)
    assert (address.prefix, address.barrel) == ("sites/two/", "a/b")
    assert str(address) == "mqtt://h:1883/sites/two/a%2Fb"
    with pytest.raises(BadRequest):
        parse_address("mqtt://h/sites//geo")


# Settings


def settings(**given: object) -> Settings:
    return load_settings({"broker": "mqtt://h", **given})


def test_a_service_with_another_broker_exposes_none_of_its_own() -> None:
    assert settings().exposed == ()
    assert settings(broker_prefix="/site1").broker_prefix == "site1/"


def test_secrets_of_the_broker_are_not_shown() -> None:
    shown = repr(
        settings(broker_user="u", broker_password="hush", broker_probe_user="d", broker_probe_password="hush")
    )
    assert "hush" not in shown


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"mqtt": "127.0.0.1:1"}, "leave out mqtt"),
        ({"broker_password": "a", "broker_password_file": "b"}, "give one of the two"),
        ({"broker_ca": "ca.pem"}, "mqtts://"),
        ({"broker_probe_password": "a"}, "broker_probe_user"),
        ({"publish_bytes_max": 2 << 20}, "broker_packet_bytes_max"),
        ({"broker_prefix": "a b"}, "prefix"),
        ({"broker_kind": "emqx"}, "broker_kind"),
        ({"broker": "h:1883"}, "mqtt://HOST:PORT"),
        ({"broker": None, "broker_user": "u"}, "name it as broker"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(given: dict[str, object], told: str) -> None:
    with pytest.raises(BadRequest) as caught:
        settings(**given)
    assert told in caught.value.reason


def test_a_broker_address_that_cannot_be_read_shows_nothing_of_its_password() -> None:
    with pytest.raises(BadRequest) as raised:
        BrokerAddress.parse("mqtt://user:se/cret@host")
    assert raised.value.reason == "'mqtt://user@host' is no address of a broker."


def test_a_message_waits_for_its_acknowledgement_from_when_it_is_the_oldest() -> None:
    patience = Patience(30.0)
    assert not patience.is_over((1, 0.0), heard_at=0.1, now=0.5)
    assert not patience.is_over((1, 0.0), heard_at=0.1, now=30.0)
    assert patience.is_over((1, 0.0), heard_at=0.1, now=30.1)
    # A slow link: it was sent long ago, and has its turn only now that those before it are acknowledged.
    assert not patience.is_over((2, 1.0), heard_at=40.0, now=40.0)
    assert not patience.is_over((2, 1.0), heard_at=60.0, now=70.0)
    assert patience.is_over((2, 1.0), heard_at=60.0, now=70.1)
    # A broker that says nothing at all is found out by pings.
    assert not patience.is_over((3, 2.0), heard_at=80.0, now=80.0)
    assert not patience.is_over((3, 2.0), heard_at=80.0, now=120.0)
    # Where nothing was under way, the next one begins anew.
    assert not patience.is_over(None, heard_at=121.0, now=121.0)
    assert not patience.is_over((3, 121.1), heard_at=122.0, now=122.0)
