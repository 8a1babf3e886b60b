"""Expiry, forgetting, compaction and stemming, under a held clock."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from store_tools import Clock, change, count, refusal, replicate, revisions, rows

from feeds import FIRST, Barrel, Position, Store, StoreSettings, Token, Write, Written, parse_patterns
from feeds.errors import BadRequest, Conflict, Deleted, NotFound
from feeds.storage import maintenance
from feeds.storage.publishers import ABSENT_S
from feeds.storage.work import BODIES_KEPT

DAY = 86_400.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database_url: str, clock: Clock) -> Iterator[Store]:
    with Store.open(database_url, StoreSettings(publish_backlog_max=10), clock=clock) as opened:
        yield opened
        problems = opened.check().problems
    assert problems == []


def at(seconds: float) -> str:
    """A Unix time as RFC 3339."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


# -- expiry


def test_a_document_reads_as_deleted_from_the_moment_it_expires(store: Store, clock: Clock) -> None:
    cache = store.create("cache", {"ttl": 60})
    cache.put({"n": 1}, id="x")
    clock.now += 59.9
    assert cache.get("x").data["n"] == 1
    assert [hit.id for hit in cache.find("n").results] == ["x"]
    clock.now += 0.1
    assert isinstance(refusal(lambda: cache.get("x")), Deleted)
    assert cache.find("n").results == []
    assert cache.head() == 1


def test_expiring_is_a_deletion_that_says_so(store: Store, clock: Clock) -> None:
    cache = store.create("cache", {"ttl": 60})
    first = cache.put({"n": 1}, id="x")
    clock.now += 61
    assert store.maintain()["expired"] == 1
    (row,) = cache.changes().results
    assert (row.seq, row.deleted, row.expired) == (2, True, True)
    assert row.rev.startswith("2-")
    (entry,) = cache.tail(1)
    assert (entry.expired, entry.gone) == (True, [("n/1", 1)])
    assert store.maintain()["expired"] == 0
    back = cache.put({"n": 2}, id="x")
    assert (back.created, back.rev[:2]) == (True, "3-")
    assert not cache.changes().results[0].expired
    assert isinstance(refusal(lambda: cache.put({}, id="x", rev=first.rev)), Conflict)


def test_replicas_that_expire_a_document_agree(store: Store, clock: Clock) -> None:
    names = set()
    for name in ("a", "b"):
        cache = store.create(name, {"ttl": 60})
        cache.put({"n": 1}, id="x")
    clock.now += 61
    store.maintain()
    for name in ("a", "b"):
        names.add(store.barrel(name).changes().results[0].rev)
    assert len(names) == 1


@pytest.mark.parametrize(
    ("named", "after"),
    [
        (at(1_700_000_100), 100),
        ("2023-11-14T23:15:00+01:00", 100),
        ("2023-11-14 22:15:00.5Z", 100.5),
        ("2023-11-14t22:14:60.123456789z", 100.123456789),
        ("2000-01-01T00:00:00Z", 0),
    ],
)
def test_a_document_may_name_when_it_expires(store: Store, clock: Clock, named: str, after: float) -> None:
    cache = store.create("cache", {"ttl_field": "until"})
    cache.put({"until": named}, id="x")
    begun = clock.now
    if after:
        clock.now = begun + after - 0.01
        assert store.maintain()["expired"] == 0
        assert cache.get("x").data["until"] == named
    clock.now = begun + after
    assert isinstance(refusal(lambda: cache.get("x")), Deleted)
    assert store.maintain()["expired"] == 1


NO_TIMES = [
    1_700_000_000,
    "soon",
    "",
    "2023-13-01T00:00:00Z",
    "2023-11-14",
    "2023-11-14T22:15:00",
    True,
    [],
    "9" * 100,
]


@pytest.mark.parametrize("named", NO_TIMES)
def test_a_document_that_names_no_time_is_refused_by_the_field(store: Store, named: Any) -> None:
    cache = store.create("cache", {"ttl_field": "until"})
    first = cache.put({"n": 1}, id="x")
    outcomes = cache.bulk([{"_id": "y", "until": named}, {"_id": "z"}])
    for error in (
        refusal(lambda: cache.put({"until": named}, id="y")),
        refusal(lambda: cache.put({"until": named}, id="x", rev=first.rev)),
        refusal(lambda: cache.put({"until": named}, id="x", update=True)),
        refusal(lambda: cache.merge("x", {"until": named})),
        outcomes[0],
    ):
        assert isinstance(error, BadRequest)
        assert "'until'" in error.reason
        assert "2031-05-04T12:00:00Z" in error.hint
    assert isinstance(outcomes[1], Written)
    assert cache.get("x").rev == first.rev
    assert cache.head() == 2


@pytest.mark.parametrize("fields", [{}, {"until": None}])
def test_a_document_that_names_no_end_stays(store: Store, clock: Clock, fields: dict[str, Any]) -> None:
    cache = store.create("cache", {"ttl_field": "until"})
    cache.put(fields, id="x")
    clock.now += 100 * 365 * DAY
    assert store.maintain()["expired"] == 0
    assert cache.get("x")


@pytest.mark.parametrize("named", NO_TIMES)
def test_what_others_wrote_is_taken_and_never_expires_if_it_names_no_time(
    store: Store, clock: Clock, named: Any
) -> None:
    cache = store.create("cache", {"ttl_field": "until"})
    replicate(cache, revisions("x", "a", until=named))
    clock.now += 100 * 365 * DAY
    assert store.maintain()["expired"] == 0
    assert cache.get("x").data["until"] == named
    assert cache.delete("x", rev="1-a")


def test_what_was_written_before_the_field_was_named_is_still_recognised(store: Store) -> None:
    cache = store.create("cache")
    first = cache.put({"until": "soon"}, id="x")
    second = cache.put({"until": "later"}, id="x", rev=first.rev)
    store.configure("cache", {"ttl_field": "until"})
    assert cache.put({"until": "later"}, id="x", rev=first.rev).repeated
    assert cache.merge("x", {"until": "later"}).unchanged
    assert cache.put({"_deleted": True, "until": "gone"}, id="x", rev=second.rev)


def test_the_earlier_of_both_ends_counts_and_an_update_begins_anew(store: Store, clock: Clock) -> None:
    cache = store.create("cache", {"ttl_field": "until", "ttl": 60})
    first = cache.put({"until": at(clock.now + 1000)}, id="x")
    clock.now += 50
    cache.put({"until": at(clock.now + 10)}, id="x", rev=first.rev)
    clock.now += 11
    assert store.maintain()["expired"] == 1


def test_a_renewed_document_is_not_expired(store: Store, clock: Clock) -> None:
    cache = store.create("cache", {"ttl": 60})
    first = cache.put({"n": 1}, id="x")
    clock.now += 59
    cache.put({"n": 2}, id="x", rev=first.rev)
    clock.now += 2
    assert store.maintain()["expired"] == 0
    (outcome,) = cache.submit([Write.expire("x")]).result()
    assert outcome.unchanged  # type: ignore[union-attr]
    assert cache.get("x").data["n"] == 2


def test_documents_written_after_the_ttl_was_taken_off_do_not_expire(store: Store, clock: Clock) -> None:
    cache = store.create("cache", {"ttl": 60})
    cache.put({"n": 1}, id="old")
    cache.put({"n": 1}, id="x")
    store.configure("cache", {"ttl": None})
    cache.put({"n": 2}, id="x", update=True)
    clock.now += 61
    assert store.maintain()["expired"] == 1
    assert [row.id for row in cache.changes().results if not row.deleted] == ["x"]
    assert store.maintain()["expired"] == 0


def test_an_expired_winner_leaves_the_conflict_that_lives_on(store: Store, clock: Clock) -> None:
    cache = store.create("cache", {"ttl_field": "until"})
    replicate(cache, revisions("x", "b", "a", until=at(clock.now + 5)), revisions("x", "c", n=1))
    clock.now += 6
    assert store.maintain()["expired"] == 1
    (row,) = cache.changes().results
    assert (row.rev, row.deleted, row.expired) == ("1-c", False, False)
    assert cache.get("x").data["n"] == 1


def test_a_write_onto_an_expired_document_finds_it_deleted(store: Store, clock: Clock) -> None:
    cache = store.create("cache", {"ttl": 60})
    first = cache.put({"n": 1}, id="x")
    cache.put({"n": 1}, id="y")
    clock.now += 61
    assert isinstance(refusal(lambda: cache.merge("x", {"m": 1})), Deleted)
    back = cache.put({"n": 2}, id="x")
    assert (back.created, back.rev[:2]) == (True, "3-")
    assert cache.delete("y", rev=cache.tail(1)[0].rev).repeated
    assert isinstance(refusal(lambda: cache.put({}, id="x", rev=first.rev)), Conflict)


def test_expired_is_told_in_the_same_words_by_whoever_asks(store: Store, clock: Clock) -> None:
    cache = store.create("cache", {"ttl": 60})
    first = cache.put({"n": 1}, id="x")
    gone = cache.put({"n": 1}, id="y")
    cache.delete("y", rev=gone.rev)
    clock.now += 61
    for _ in range(2):
        told = [
            refusal(lambda: cache.get("x")),
            refusal(lambda: cache.merge("x", {"m": 1})),
            refusal(lambda: cache.delete("x")),
        ]
        assert {(type(error), error.reason, error.hint) for error in told} == {
            (Deleted, "'x' has expired", Deleted.hint)
        }
        store.maintain()
    told = [
        refusal(lambda: cache.get("y")),
        refusal(lambda: cache.merge("y", {})),
        refusal(lambda: cache.delete("y")),
    ]
    assert {(error.reason, error.details["rev"]) for error in told} == {
        ("'y' was deleted", cache.changes().results[0].rev)
    }
    assert first.rev != cache.changes().results[1].rev


def test_a_round_expires_no_more_than_it_may(store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "STEP", 4)
    monkeypatch.setattr(maintenance, "ROUND_STEPS", 2)
    cache = store.create("cache", {"ttl": 60})
    cache.bulk([{"n": number} for number in range(11)])
    clock.now += 61
    assert [store.maintain()["expired"] for _ in range(3)] == [8, 3, 0]


@pytest.mark.parametrize("settings", [{"ttl": 0}, {"ttl": -1}, {"ttl_field": "_x"}, {"ttl": "1"}, {"log_kept": -1}])
def test_settings_that_make_no_sense_are_refused(store: Store, settings: dict[str, Any]) -> None:
    assert isinstance(refusal(lambda: store.create("cache", settings)), BadRequest)


# -- forgetting the log


def filled(store: Store, clock: Clock, **settings: Any) -> Barrel:
    """A barrel with 30 old changes of 10 documents, of which 5 left `n/0`, and 3 young changes."""
    barrel = store.create("geo", {"log_kept": DAY, **settings})
    barrel.bulk([{"_id": f"d{number}", "n": 0, "k": 0} for number in range(10)])
    barrel.bulk([{"_id": f"d{number}", "n": int(number < 5), "k": 1} for number in range(10)], update=True)
    barrel.bulk([{"_id": f"d{number}", "n": int(number < 5), "k": 2} for number in range(10)], update=True)
    clock.now += DAY + 1
    barrel.bulk([{"_id": f"d{number}", "n": 2, "k": 2} for number in range(3)], update=True)
    return barrel


def test_old_changes_are_forgotten_and_the_documents_stay(store: Store, clock: Clock) -> None:
    barrel = filled(store, clock)
    before = {id: barrel.get(id).json() for id in ("d0", "d4", "d9")}
    done = store.maintain()
    assert done["log"] == 30
    assert done["bodies"] == 23  # d0 to d2 were written four times, the others three times
    assert [entry.seq for entry in barrel.tail(0)] == [31, 32, 33]
    assert len(barrel.changes().results) == 10
    assert {id: barrel.get(id).json() for id in before} == before
    assert count(store, "revs") == 33
    assert store.maintain()["log"] == 0


def test_left_paths_are_forgotten_with_the_log(store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "GONE_PAGE", 7)
    barrel = filled(store, clock)
    assert count(store, "gone") == 28
    assert store.maintain()["gone"] == 25  # n/0 of five, k/0 and k/1 of ten
    assert [row[0] > 30 for row in rows(store, "SELECT seq FROM gone")] == [True] * 3
    left = barrel.changes(Position(30), patterns=parse_patterns(["n/1"])).results
    assert sorted(row.id for row in left if row.removed) == ["d0", "d1", "d2"]


def test_a_position_with_patterns_from_before_what_is_kept_needs_a_snapshot(store: Store, clock: Clock) -> None:
    barrel = filled(store, clock)
    store.maintain()
    assert barrel.resolve(Position(29), patterns=True).snapshot
    assert not barrel.resolve(Position(30), patterns=True).snapshot
    assert barrel.resolve(Position(0), patterns=True).snapshot
    assert not barrel.resolve(FIRST, patterns=True).snapshot
    assert not barrel.resolve(Position(29)).snapshot
    assert len(barrel.changes(Position(29)).results) == 4


def test_nothing_that_a_publisher_has_not_told_is_forgotten(store: Store, clock: Clock) -> None:
    barrel = filled(store, clock)
    store.move_publisher("fast", {barrel: 33})
    store.move_publisher("slow", {barrel: 25})
    assert store.maintain()["log"] == 25
    assert barrel.tail(25)[0].body is not None


def test_a_publisher_that_lags_too_far_is_not_waited_for(store: Store, clock: Clock) -> None:
    barrel = filled(store, clock)
    store.move_publisher("dead", {barrel: 2})
    assert store.maintain()["log"] == 23  # the head is 33, and ten changes are kept for it
    assert barrel.tail(0)[0].seq == 24


def test_log_rows_that_are_young_enough_stay(store: Store, clock: Clock) -> None:
    barrel = filled(store, clock)
    store.configure("geo", {"log_kept": 2 * DAY})
    assert store.maintain()["log"] == 0
    assert len(barrel.tail(0)) == 33


# -- compaction and stemming


def test_a_body_goes_also_where_its_log_row_went_while_it_was_the_newest(store: Store, clock: Clock) -> None:
    geo = store.create("geo", {"log_kept": 60})
    first = geo.put({"n": 1}, id="x")
    clock.now += 61
    assert store.maintain()["log"] == 1
    second = geo.put({"n": 2}, id="x", rev=first.rev)
    assert geo.get("x", rev=first.rev).data["n"] == 1, "for as long as the log is kept"
    clock.now += 61
    assert store.maintain()["bodies"] == 1
    assert isinstance(refusal(lambda: geo.get("x", rev=first.rev)), NotFound)
    assert geo.get("x", rev=second.rev).data["n"] == 2


def test_compaction_drops_bodies_only(store: Store) -> None:
    geo = store.create("geo")
    first = geo.put({"n": 1}, id="x")
    second = geo.put({"n": 2}, id="x", rev=first.rev)
    third = geo.put({"n": 3}, id="x", rev=second.rev)
    replicate(geo, revisions("y", "b", "a", n="b"), revisions("y", "c", "a", n="c"), revisions("y", "d", "c", "a"))
    gone = geo.delete("x", rev=third.rev)
    assert geo.get("x", rev=first.rev).data["n"] == 1
    assert store.compact("geo") == 4
    assert isinstance(refusal(lambda: geo.get("x", rev=first.rev)), NotFound)
    assert geo.get("x", rev=gone.rev, history=True).data["_history"] == [
        {"rev": gone.rev, "status": "deleted"},
        {"rev": third.rev, "status": "compacted"},
        {"rev": second.rev, "status": "compacted"},
        {"rev": first.rev, "status": "compacted"},
    ]
    assert geo.get("y", rev="2-b").data["n"] == "b"
    assert geo.put({"n": 2}, id="x", rev=first.rev).repeated
    assert store.compact("geo") == 0


def test_compaction_spares_what_a_publisher_has_not_told(store: Store) -> None:
    geo = store.create("geo")
    for number in range(5):
        geo.put({"n": number}, id="x", update=True)
    store.move_publisher("home", {geo: 2})
    assert store.compact("geo") == 2
    assert [entry.body is None for entry in geo.tail(0)] == [True, True, False, False, False]


def test_a_document_that_is_updated_often_stays_small(store: Store) -> None:
    geo = store.create("geo", {"revs_limit": 100})
    for begin in range(0, 2_000, 100):
        geo.bulk([{"_id": "x", "n": begin + step, "same": 1} for step in range(100)], update=True)
    assert geo.get("x").rev.startswith("2000-")
    assert count(store, "revs") <= 100
    assert rows(store, "SELECT count(*) FROM revs WHERE body IS NOT NULL")[0][0] <= 2 * BODIES_KEPT + 100
    assert (count(store, "docs"), count(store, "paths")) == (1, 2)
    assert len(geo.get("x", revs=True).data["_revisions"]["ids"]) <= 100
    for number in range(BODIES_KEPT):
        geo.put({"n": number, "same": 1}, id="x", update=True)
    assert rows(store, "SELECT count(*) FROM revs WHERE body IS NOT NULL")[0][0] <= 2 * BODIES_KEPT


def test_a_document_with_branches_is_stemmed_as_well(store: Store) -> None:
    geo = store.create("geo", {"revs_limit": 20})
    replicate(geo, revisions("x", "b", "a", n="b"), revisions("x", "c", "a", n="c"))
    for number in range(100):
        geo.put({"n": number}, id="x", update=True)
    document = geo.get("x", revs=True, conflicts=True).data
    assert document["_conflicts"] == ["2-b"]
    assert 20 <= len(document["_revisions"]["ids"]) <= 36
    assert geo.get("x", rev="2-b", revs=True).data["_revisions"] == {"start": 2, "ids": ["b", "a"]}
    assert count(store, "revs") <= 2 + 36


def test_a_stemmed_document_still_takes_updates_from_elsewhere(store: Store) -> None:
    geo = store.create("geo", {"revs_limit": 5})
    for number in range(20):
        geo.put({"n": number}, id="x", update=True)
    tip = geo.get("x").rev.partition("-")[2]
    replicate(geo, revisions("x", "next", tip, generation=21, n=21))
    assert geo.changes().results[0].changes == ["21-next"]


# -- dropped barrels and tokens


def test_what_was_dropped_is_cleared_away_bit_by_bit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = store.create("kept")
    kept.put({"n": 1}, id="x")
    old = store.create("old")
    old.bulk([{"_id": f"d{number}", "n": number, "k": 0} for number in range(900)])
    old.bulk([{"_id": f"d{number}", "n": number, "k": 1} for number in range(900)], update=True)
    old.put({}, id="t", token=Token.of("t", "ann", "put", "old", "t", b""))
    old.local_put("c", {})
    store.move_publisher("home", {old: 3})
    store.drop("old")
    monkeypatch.setattr(maintenance, "ROUND_STEPS", 3)
    assert store.maintain()["dropped"] == 0  # who published it can still read what there was
    done = [store.maintain()["dropped"] for _ in range(30)]
    assert done[0] > 0
    assert done[-1] == 0
    assert max(done) <= 3 * 1_600
    left = {table: count(store, table) for table in ("barrels", "docs", "revs", "log", "shapes", "paths")}
    assert left == dict.fromkeys(left, 1)
    assert [count(store, table) for table in ("gone", "locals", "tokens", "publishers")] == [0, 0, 0, 0]
    assert kept.get("x").data["n"] == 1


def rounds(store: Store) -> int:
    """How many rows of dropped barrels went in so many rounds that nothing more would go."""
    return sum(store.maintain()["dropped"] for _ in range(3))


def owed(store: Store, clock: Clock, log_kept: float) -> Barrel:
    """A dropped barrel of which a broker was given something to retain, by a publisher that was here just now."""
    old = store.create("old", {"retain": True, "log_kept": log_kept})
    old.put({"n": 1}, id="x")
    clock.now += 2 * DAY
    store.add_publisher("mqtt")
    store.set_note(f"retained:mqtt:{old.key}", '[true,null,"old"]')
    store.drop("old")
    return old


def test_what_was_dropped_stays_until_every_broker_that_retains_some_of_it_has_cleared_that(
    store: Store, clock: Clock
) -> None:
    old = owed(store, clock, log_kept=10.0)
    other = store.create("other")
    store.move_publisher("mqtt", {other: 0})
    store.drop("other")
    assert rounds(store) > 0, "a barrel that nobody retains goes"
    assert rows(store, "SELECT barrel FROM barrels") == [(old.key,)]
    assert store.dropped_barrel(old.key, "old").ids_after("", 10) == ["x"]
    clock.now += ABSENT_S - 1
    assert rounds(store) == 0
    store.set_note(f"retained:mqtt:{old.key}", None)
    assert rounds(store) > 0
    assert count(store, "barrels") == count(store, "docs") == count(store, "publishers") == 0


@pytest.mark.parametrize("log_kept", [10.0, 2 * ABSENT_S])
def test_what_was_dropped_waits_for_a_broker_as_long_as_the_log_would(
    store: Store, clock: Clock, log_kept: float
) -> None:
    owed(store, clock, log_kept)
    clock.now += max(log_kept, ABSENT_S)
    assert rounds(store) == 0
    clock.now += 1
    assert rounds(store) > 0
    assert count(store, "barrels") == count(store, "docs") == count(store, "publishers") == 0


def test_tokens_are_forgotten_after_a_day(store: Store, clock: Clock) -> None:
    geo = store.create("geo")
    for number in range(3):
        geo.put({}, id=f"x{number}", token=Token.of(f"t{number}", "ann", "put", "geo", f"x{number}", b""))
        clock.now += DAY / 2
    assert store.maintain()["tokens"] == 1
    assert count(store, "tokens") == 2


def test_a_round_with_nothing_to_do_does_nothing(store: Store) -> None:
    store.create("geo").put({"n": 1}, id="x")
    head = store.barrel("geo").head()
    assert set(store.maintain().values()) == {0}
    assert store.barrel("geo").head() == head


def test_left_paths_that_were_renewed_meanwhile_are_kept(store: Store, clock: Clock) -> None:
    barrel = filled(store, clock)
    change(store, "UPDATE gone SET seq = 33 WHERE doc = 9")
    assert store.maintain()["gone"] == 25 - 2
    assert {row[0] for row in rows(store, "SELECT doc FROM gone")} == {1, 2, 3, 9}
    assert barrel.head() == 33
