"""The changes log: what a publisher and a hub read from it, and where readers begin."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from store_tools import refusal, replicate, revisions

from feeds import FIRST, NOW, Barrel, LogEntry, Position, Store, parse_patterns
from feeds.errors import EpochChanged
from feeds.storage import replay as replaying


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    with Store.open(database_url) as opened:
        yield opened
        problems = opened.check().problems
    assert problems == []


@pytest.fixture
def geo(store: Store) -> Barrel:
    return store.create("geo")


def last(barrel: Barrel) -> LogEntry:
    """The newest entry of the log."""
    (entry,) = barrel.tail(barrel.head() - 1)
    return entry


def moved(barrel: Barrel) -> tuple[set[str], set[str]]:
    """The paths that came with the newest change, and those that left."""
    entry = last(barrel)
    return set(entry.entered), {path for path, _ in entry.gone}


# -- entries


def test_every_change_is_an_entry_as_it_was_then(geo: Barrel) -> None:
    first = geo.put({"n": 1}, id="x")
    second = geo.put({"n": 2}, id="x", rev=first.rev)
    geo.put({"n": 9}, id="y")
    gone = geo.delete("x", rev=second.rev)
    entries = geo.tail(0)
    assert [(each.seq, each.id, each.rev) for each in entries] == [
        (1, "x", first.rev),
        (2, "x", second.rev),
        (3, "y", entries[2].rev),
        (4, "x", gone.rev),
    ]
    assert [each.newest for each in entries] == [False, False, True, True]
    assert [each.deleted for each in entries] == [False, False, False, True]
    assert [each.body for each in entries] == [b'{"n":1}', b'{"n":2}', b'{"n":9}', b"{}"]
    assert entries[1].doc_json() == b'{"_id":"x","_rev":"%b","n":2}' % second.rev.encode()
    assert [each.paths for each in entries] == [[("n/1", 1)], [("n/2", 2)], [("n/9", 9)], []]
    assert [each.seq for each in geo.tail(1, limit=2)] == [2, 3]


def test_an_entry_says_which_paths_came_and_which_left(geo: Barrel) -> None:
    first = geo.put({"a": [1, 2], "b": "x", "c": {"d": None}}, id="x")
    assert moved(geo) == ({"a/0/1", "a/1/2", "b/x", "c/d/null"}, set())
    second = geo.put({"a": [1, 3], "b": "x", "e": {}}, id="x", rev=first.rev)
    assert moved(geo) == ({"a/1/3", "e/{}"}, {"a/1/2", "c/d/null"})
    assert dict(last(geo).gone) == {"a/1/2": 2, "c/d/null": None}
    geo.delete("x", rev=second.rev)
    assert moved(geo) == (set(), {"a/0/1", "a/1/3", "b/x", "e/{}"})
    geo.put({"b": "x"}, id="x")
    assert moved(geo) == ({"b/x"}, set())


def test_paths_come_into_a_document_that_had_none(geo: Barrel) -> None:
    first = geo.put({}, id="x")
    geo.put({"a": 1}, id="x", rev=first.rev)
    assert moved(geo) == ({"a/1"}, set())


@pytest.mark.parametrize(
    ("old", "new", "came", "left"),
    [
        (1, 1.0, "1.0", "1"),
        (0.0, -0.0, "-0.0", "0.0"),
        (1, "1", None, None),
        ([5], {"0": 5}, None, None),
        ("x" * 101, "x" * 102, None, None),
        (2**53, float(2**53), "9007199254740992.0", "9007199254740992"),
    ],
)
def test_a_value_that_is_spelled_differently_is_another_path(
    geo: Barrel, old: Any, new: Any, came: str | None, left: str | None
) -> None:
    first = geo.put({"n": old}, id="x")
    geo.put({"n": new}, id="x", rev=first.rev)
    assert moved(geo) == ({f"n/{came}"} if came else set(), {f"n/{left}"} if left else set())


def test_long_texts_leave_as_they_were_cut(geo: Barrel) -> None:
    first = geo.put({"n": "é" * 60}, id="x")
    geo.put({}, id="x", rev=first.rev)
    assert last(geo).gone == [("n/" + "é" * 50, "é" * 50)]


def test_conflicts_are_told_when_they_come_and_when_they_go(geo: Barrel) -> None:
    replicate(geo, revisions("x", "b", "a"))
    assert not last(geo).conflicts_changed
    replicate(geo, revisions("x", "c", "a"))
    assert (last(geo).conflicts_changed, last(geo).conflicts) == (True, ["2-b"])
    won = geo.put({}, id="x", rev="2-c")
    assert (last(geo).conflicts_changed, last(geo).conflicts) == (False, ["2-b"])
    geo.delete("x", rev="2-b")
    assert (last(geo).conflicts_changed, last(geo).conflicts) == (True, [])
    assert last(geo).rev == won.rev


def test_a_purge_ends_a_conflict(geo: Barrel) -> None:
    replicate(geo, revisions("x", "b", "a"), revisions("x", "c", "a"), revisions("x", "d", "a"))
    geo.purge("x", ["2-d"])
    assert (last(geo).conflicts_changed, last(geo).conflicts) == (True, ["2-b"])
    geo.purge("x")
    assert (last(geo).purged, last(geo).conflicts_changed, last(geo).conflicts) == (True, True, [])
    geo.put({}, id="y")
    geo.purge("y")
    assert (last(geo).purged, last(geo).conflicts_changed) == (True, False)


def test_entries_of_purged_documents_are_left_out_but_looked_at(geo: Barrel) -> None:
    geo.put({}, id="x")
    geo.put({}, id="y")
    geo.purge("x")
    geo.put({}, id="x")
    entries, upto = geo.tail_page(0)
    assert [(each.seq, each.id, each.purged) for each in entries] == [
        (2, "y", False),
        (3, "x", True),
        (4, "x", False),
    ]
    assert upto == 4
    assert geo.tail_page(0, limit=1) == ([], 1)


def test_design_documents_stand_on_no_paths(geo: Barrel) -> None:
    geo.put({"n": 1}, id="_design/x")
    assert moved(geo) == (set(), set())
    assert last(geo).paths == []
    assert geo.find("n").results == []
    assert [row.id for row in geo.changes(patterns=parse_patterns(["_id/_design/#"])).results] == ["_design/x"]
    assert geo.changes(patterns=parse_patterns(["n/#"])).results == []


# -- where readers begin


def test_positions_of_another_life_or_beyond_the_head_are_told_apart(store: Store, geo: Barrel) -> None:
    geo.put({}, id="x")
    assert (geo.resolve(FIRST).after, geo.resolve(NOW).after) == (0, 1)
    assert not geo.resolve(Position(1, geo.epoch)).snapshot
    assert geo.resolve(Position(2)).snapshot
    assert geo.resolve(Position(0, "strange")).snapshot
    assert isinstance(refusal(lambda: geo.changes(Position(1, "strange"))), EpochChanged)
    store.drop("geo")
    assert store.create("geo").resolve(Position(0, geo.epoch)).snapshot


# -- changes


def test_changes_tell_each_document_once_at_its_newest_change(geo: Barrel) -> None:
    first = geo.put({"n": 1}, id="x")
    geo.put({"n": 1}, id="y")
    geo.put({"n": 2}, id="x", rev=first.rev)
    page = geo.changes(docs=True)
    assert [(row.seq, row.id) for row in page.results] == [(2, "y"), (3, "x")]
    assert (page.last_seq, page.pending, page.epoch) == (f"3-{geo.epoch}", 0, geo.epoch)
    assert bytes(page.results[1].doc).startswith(b'{"_id":"x","_rev":"2-')  # type: ignore[arg-type]
    assert geo.changes(NOW).results == []


def test_changes_go_on_where_a_page_ended(geo: Barrel) -> None:
    for number in range(10):
        geo.put({"n": number}, id=f"d{number}")
    first = geo.changes(limit=4)
    assert (len(first.results), first.pending) == (4, 6)
    second = geo.changes(Position.parse(first.last_seq), limit=100)
    assert [row.seq for row in (*first.results, *second.results)] == list(range(1, 11))
    assert geo.changes(limit=0).last_seq == f"0-{geo.epoch}"


def test_changes_can_be_read_from_the_head_back(geo: Barrel) -> None:
    for number in range(5):
        geo.put({"n": number % 2}, id=f"d{number}")
    assert [row.seq for row in geo.changes(descending=True, limit=2).results] == [5, 4]
    page = geo.changes(descending=True, patterns=parse_patterns(["n/0"]), limit=2)
    assert [(row.seq, row.paths) for row in page.results] == [(5, ["n/0"]), (3, ["n/0"])]


def test_changes_by_pattern_tell_who_is_in_and_who_left(geo: Barrel) -> None:
    france = parse_patterns(["locations/+/country/France"])
    first = geo.put({"locations": [{"country": "Spain"}, {"country": "France"}]}, id="x")
    geo.put({"locations": [{"country": "Italy"}]}, id="y")
    (row,) = geo.changes(patterns=france).results
    assert (row.id, row.paths, row.entered, row.removed) == ("x", ["locations/1/country/France"], False, False)
    at = Position(geo.head())
    geo.put({"locations": [{"country": "Spain"}]}, id="x", rev=first.rev)
    (row,) = geo.changes(at, patterns=france).results
    assert (row.id, row.removed, row.deleted) == ("x", True, False)
    assert geo.changes(patterns=france).results == []
    geo.put({"locations": [{"country": "France"}]}, id="x", update=True)
    (row,) = geo.changes(Position(geo.head() - 1), patterns=france).results
    assert (row.id, row.entered, row.removed) == ("x", True, False)


def test_large_documents_are_left_out_of_a_replay_when_asked(geo: Barrel) -> None:
    geo.put({"n": "x" * 100}, id="large")
    geo.put({"n": 1}, id="small")
    rows = geo.replay(0, docs=True, doc_bytes_max=50).next(10).rows
    assert [(row.id, row.doc_omitted) for row in rows] == [("large", True), ("small", False)]


def test_a_replay_keeps_to_its_bounds_of_rows_and_bytes(geo: Barrel) -> None:
    for number in range(6):
        geo.put({"n": "x" * 90}, id=f"d{number}")
    replay = geo.replay(0, docs=True)
    assert len(replay.next(2).rows) == 2
    page = replay.next(10, bytes_max=1)
    assert (len(page.rows), page.seq, page.caught_up) == (1, 3, False)
    page = replay.next(10, bytes_max=250)
    assert (len(page.rows), page.seq) == (2, 5)
    page = replay.next(10)
    assert ([row.seq for row in page.rows], page.seq, page.caught_up) == ([6], 6, True)
    replay.close()


def test_publishers_keep_their_places(store: Store, geo: Barrel) -> None:
    gone = store.create("gone")
    store.drop("gone")
    assert store.publisher_position("home", geo) is None
    store.move_publisher("home", {geo: 7, gone: 3})
    store.move_publisher("home", {geo: 9})
    assert store.publisher_position("home", geo) == 9
    assert store.publisher_position("away", geo) is None


@pytest.mark.parametrize("matches_max", [0, 50_000])
def test_a_leave_is_told_although_the_document_changed_again_before_it_was_read(
    geo: Barrel, monkeypatch: pytest.MonkeyPatch, matches_max: int
) -> None:
    monkeypatch.setattr(replaying, "MATCHES_MAX", matches_max)
    geo.put({"n": 1, "k": 0}, id="x")
    geo.put({"n": 1, "k": 0}, id="y")
    geo.put({"n": 2, "k": 0}, id="x", update=True)
    replay = geo.replay(2, parse_patterns(["n/1"]))
    again = geo.put({"n": 2, "k": 1}, id="x", update=True)
    (row,) = replay.next(10).rows
    assert (row.seq, row.id, row.removed, row.rev) == (3, "x", True, again.rev)


@pytest.mark.parametrize("matches_max", [0, 50_000])
def test_a_document_that_came_and_changed_again_entered(
    geo: Barrel, monkeypatch: pytest.MonkeyPatch, matches_max: int
) -> None:
    monkeypatch.setattr(replaying, "MATCHES_MAX", matches_max)
    geo.put({"n": 0, "k": 0}, id="x")
    geo.put({"n": 1, "k": 0}, id="y")
    for k in range(3):
        geo.put({"n": 1, "k": k}, id="x", update=True)
        geo.put({"n": 1, "k": k}, id="y", update=True)
    rows = geo.changes(Position(2), patterns=parse_patterns(["n/1"])).results
    assert [(row.id, row.entered) for row in rows] == [("x", True), ("y", False)]
