"""The pure parts of nested calls: which peer is asked when, where a peer is, what passes between services."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.errors import BadRequest
from listeners.nested import Neighbours, PeerPlace, Reach, Search, WriteAsked, WriteTold, neighbours
from listeners.nested.messages import Holder, Miss, below, missed_below, read_asked, read_told
from listeners.nested.planning import AT_ONCE_MAX, Move, Plan
from listeners.replication import BadPeer, HttpPeer


def names(moves: Sequence[Move]) -> list[str]:
    return [move.peer + ("+" if move.beyond else "") for move in moves]


def test_as_many_are_begun_as_are_wanted_in_their_order() -> None:
    plan = Plan("abcd")
    assert names(plan.begin(2, 1, 0.0)) == ["a", "b"]
    assert names(plan.begin(2, 1, 0.1)) == []
    plan.ended(Move("a"))
    assert names(plan.begin(2, 1, 0.2)) == ["c"]
    assert names(plan.waiting) == ["d"]
    assert sorted(names(plan.in_flight)) == ["b", "c"]


def test_beside_one_that_hesitates_another_is_begun() -> None:
    plan = Plan("ab", hesitates_s=1.0)
    plan.begin(1, 1, 0.0)
    assert plan.looks_again(0.5) == 1.0
    assert names(plan.begin(1, 1, 0.9)) == []
    assert names(plan.begin(1, 1, 1.0)) == ["b"]
    assert plan.looks_again(1.5) is None  # nobody is left to be begun
    assert sorted(names(plan.in_flight)) == ["a", "b"]


def test_what_lies_beyond_comes_last_and_one_after_another() -> None:
    plan = Plan("ab")
    plan.begin(3, 1, 0.0)
    plan.go_beyond("a")
    plan.ended(Move("a"))
    assert names(plan.begin(2, 1, 0.1)) == ["a+"]
    plan.go_beyond("b")
    plan.ended(Move("b"))
    assert names(plan.begin(2, 1, 0.2)) == []
    assert names(plan.begin(2, 1, 1.1)) == ["b+"]


def test_nothing_is_begun_where_nothing_is_wanted() -> None:
    plan = Plan("ab")
    assert plan.begin(0, 0, 0.0) == []
    assert len(Plan(map(str, range(50))).begin(64, 1, 0.0)) == AT_ONCE_MAX


@given(st.data())
@settings(deadline=None)
def test_every_peer_is_begun_at_most_once_and_never_too_many_at_once(data: st.DataObject) -> None:
    peers = [f"p{n}" for n in range(data.draw(st.integers(0, 12)))]
    plan, now, begun = Plan(peers, hesitates_s=1.0), 0.0, list[Move]()
    for _ in range(60):
        wanted = data.draw(st.integers(0, 4))
        moves = plan.begin(wanted, min(wanted, 1), now)
        begun += moves
        assert len(moves) <= wanted
        if plan.in_flight and data.draw(st.booleans()):
            move = data.draw(st.sampled_from(plan.in_flight))
            plan.ended(move)
            if not move.beyond:
                plan.go_beyond(move.peer)
        now += data.draw(st.sampled_from([0.0, 0.3, 1.0]))
    assert len(set(begun)) == len(begun)
    near = [move.peer for move in begun if not move.beyond]
    assert near == peers[: len(near)]
    if any(move.beyond for move in begun):
        assert len(near) == len(peers)


@pytest.mark.parametrize(
    ("text", "address", "token", "shown"),
    [
        ("hub=http://h:8000", "http://h:8000/geo", None, "hub=http://h:8000/"),
        ("hub=http://:s%40cret@h:8000", "http://h:8000/geo", "s@cret", "hub=http://h:8000/"),
        ("hub=https://u:p@h/spile/barrels/", "https://u:p@h/spile/barrels/geo", None, "hub=https://h/spile/barrels/"),
        ("hub=http://h:8000/world", "http://h:8000/world", None, "hub=http://h:8000/world"),
        ("n.1=mqtt://u:p@h/site/", "mqtt://u:p@h/site/geo", None, "n.1=mqtt://h/site/"),
    ],
)
def test_a_peers_place_is_read(text: str, address: str, token: str | None, shown: str) -> None:
    place = PeerPlace.parse(text)
    assert (place.at("geo"), place.token, str(place)) == (address, token, shown)
    assert "cret" not in repr(place)
    assert ":p@" not in repr(place)


def test_a_barrels_name_is_encoded_into_the_address() -> None:
    assert PeerPlace.parse("hub=http://h").at("a/b") == "http://h/a%2Fb"
    assert PeerPlace.parse("hub=https://h/x/?ca=a.pem").at("a/b") == "https://h/x/a%2Fb?ca=a.pem"
    assert PeerPlace.parse("hub=https://:t@h?ca=a.pem").at("geo") == "https://h/geo?ca=a.pem"
    assert PeerPlace.parse("hub=mqtts://h/geo?cert=a.pem").at("other") == "mqtts://h/geo?cert=a.pem"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hub",
        "hub=",
        "=http://h",
        "here=http://h",
        "a/b=http://h",
        "hub=h:8000",
        "hub=ftp://u:s3cret@h/x",
        "hub=folder#geo",
        "hub=http://u:s3cret@h:port",
        "hub=http://u:s3cret@/geo",
        "hub=http://u:s3cret@[::1/geo",
        "http://u:s3cret@h=1",
    ],
)
def test_what_is_no_peer_is_refused_without_telling_secrets(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        PeerPlace.parse(text)
    assert "s3cret" not in f"{caught.value.reason} {caught.value.hint} {caught.value!r}"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Reach(0),
        lambda: Reach(65),
        lambda: Reach(2, depth=0),
        lambda: Reach(2, depth=9),
        lambda: Reach(2, seconds=61),
        lambda: Reach(2, seconds=-1),
        lambda: Reach(2, seconds=float("nan")),
        lambda: Search("all"),  # type: ignore[arg-type]
        lambda: Search(depth=-1),
        lambda: Search(seconds=1e9),
    ],
)
def test_bounds_are_kept(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(BadRequest):
        wrong()


@settings(deadline=None)
@given(st.binary(max_size=60) | st.from_type(dict[str, int]).map(msgspec.json.encode))
def test_whatever_comes_is_read_or_refused(body: bytes) -> None:
    with suppress(BadRequest):
        read_asked(body, WriteAsked)
    with suppress(BadPeer):
        read_told(body, WriteTold, "hub")


def test_what_a_peer_tells_is_told_by_the_way_to_it_and_cut_to_size() -> None:
    assert below("hub", Holder("far/x", "s", "geo")).peer == "hub/far/x"
    assert below("hub", Holder("here", "s", "geo")).peer == "hub"
    long = missed_below("hub", Miss("x" * 9_000, "s" * 90, "e" * 900, "r" * 9_000))
    assert len(msgspec.json.encode(long)) < 1_500


async def test_peers_that_are_let_go_of_at_once_make_room_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[HttpPeer] = []

    async def close(self: HttpPeer) -> None:
        closed.append(self)
        for _ in range(5):  # as the end of a connection takes
            await asyncio.sleep(0)

    monkeypatch.setattr(neighbours, "OPEN_MAX", 2)
    monkeypatch.setattr(HttpPeer, "close", close)
    around, enough = Neighbours.of(["hub=http://127.0.0.1:1/"]), asyncio.Event()

    async def use(barrel: str) -> None:
        async with around.at("hub", barrel):
            await enough.wait()

    for barrel in ("kept", "kept-too"):
        async with around.at("hub", barrel):
            pass
    users = [asyncio.create_task(use(f"b{number}")) for number in range(2)]
    for _ in range(5):
        await asyncio.sleep(0)
    enough.set()
    await asyncio.gather(*users)
    assert len(set(map(id, closed))) == len(closed) == 2
