"""Conflicts in a store: listed, looked at, resolved by hand and by rule."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from store_tools import Clock, change, refusal, replicate, revisions, rows

from feeds import Barrel, Store, StoreSettings, Token
from feeds.errors import BadRequest, Conflict, Deleted, Missing, MissingStub
from feeds.merging import LiveLeaf
from feeds.positions import Position


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database_url: str, clock: Clock, tmp_path: Path) -> Iterator[Store]:
    with Store.open(
        database_url, StoreSettings(document_bytes_max=10_000), clock=clock, blobs=tmp_path / "b"
    ) as opened:
        yield opened
        problems = opened.check().problems
    assert problems == []


@pytest.fixture
def geo(store: Store) -> Barrel:
    return store.create("geo")


def conflict(barrel: Barrel, id: str = "x", **more: Any) -> None:
    """Two live leaves, 1-b before 1-a."""
    replicate(barrel, revisions(id, "a", side="a", **more), revisions(id, "b", side="b", **more))


def listed(barrel: Barrel) -> dict[str, list[str]]:
    """Every document in conflict with its live leaves."""
    return {row.id: [row.rev, *row.conflicts] for row in barrel.conflicts.page().results}


def data(barrel: Barrel, id: str = "x") -> dict[str, Any]:
    """The winner's own keys; it is the only live leaf."""
    (leaf,) = barrel.conflicts.leaves(id)
    return {key: value for key, value in leaf.data.items() if key[0] != "_"}


# -- listing


def test_documents_in_conflict_are_listed_and_others_are_not(geo: Barrel) -> None:
    geo.put({"n": 1}, id="alone")
    conflict(geo)
    replicate(geo, revisions("gone", "a"), revisions("gone", "b", _deleted=True))
    assert listed(geo) == {"x": ["1-b", "1-a"]}
    geo.delete("x", rev="1-a")
    assert listed(geo) == {}


def test_a_list_comes_in_pages(geo: Barrel) -> None:
    for number in range(5):
        conflict(geo, f"d{number}")
    first = geo.conflicts.page(limit=2)
    assert ([row.id for row in first.results], first.next) == (["d0", "d1"], "d1")
    rest = geo.conflicts.page(after="d1", limit=3)
    assert ([row.id for row in rest.results], rest.next) == (["d2", "d3", "d4"], None)
    for limit in (0, 1_001):
        with pytest.raises(BadRequest):
            geo.conflicts.page(limit=limit)


def test_listing_goes_through_the_conflicts_alone(store: Store, geo: Barrel) -> None:
    if not store.statements.is_sqlite:
        pytest.skip("the plan depends on statistics there")
    plan = rows(store, "EXPLAIN QUERY PLAN " + store.queries.conflicts, geo.key, "", 10)
    assert len(plan) == 1
    assert "USING INDEX ix_docs_conflicts (barrel=? AND id>?)" in str(plan)


def test_the_leaves_of_a_document_are_shown_winner_first(geo: Barrel) -> None:
    conflict(geo)
    assert [leaf.data for leaf in geo.conflicts.leaves("x")] == [
        {"_id": "x", "_rev": "1-b", "side": "b"},
        {"_id": "x", "_rev": "1-a", "side": "a"},
    ]
    with pytest.raises(Missing):
        geo.conflicts.leaves("never")


def test_a_wrong_mark_is_found_and_mended(store: Store, geo: Barrel) -> None:
    conflict(geo)
    geo.put({}, id="y")
    change(store, "UPDATE docs SET flags = 16 - flags WHERE barrel = ?", geo.key)
    assert listed(geo).keys() == {"y"}
    report = store.check(repair=True)
    assert (len(report.problems), report.repaired) == (2, 2)
    assert listed(geo).keys() == {"x"}


# -- by hand


def test_a_leaf_is_chosen_and_the_others_end_in_one_change(geo: Barrel) -> None:
    conflict(geo)
    replicate(geo, revisions("x", "c", side="c"))
    written = geo.conflicts.resolve("x", rev="1-a", leaves=["1-a", "1-b", "1-c"])
    assert (written.rev, written.seq) == ("1-a", 4)
    assert (data(geo), listed(geo)) == ({"side": "a"}, {})
    (entry,) = geo.tail(3)
    assert (entry.conflicts_changed, entry.conflicts, len(entry.changes)) == (True, [], 3)
    (row,) = geo.changes(Position(3)).results
    assert (row.rev, row.changes[0]) == ("1-a", "1-a")
    again = geo.conflicts.resolve("x", rev="1-a", leaves=["1-a", "1-b", "1-c"])
    assert (again.unchanged, again.seq) == (True, 4)


def test_a_document_stands_in_place_of_all_leaves(geo: Barrel) -> None:
    conflict(geo)
    written = geo.conflicts.resolve("x", doc={"side": "both"}, leaves=["1-a", "1-b"])
    assert written.rev.startswith("2-")
    assert (data(geo), listed(geo)) == ({"side": "both"}, {})
    assert geo.get("x", revs=True).extra["_revisions"]["ids"][1] == "b"
    again = geo.conflicts.resolve("x", doc={"side": "both"}, leaves=["1-a", "1-b"])
    assert (again.rev, again.repeated) == (written.rev, True)


def test_a_document_is_written_upon_the_leaf_that_it_names(geo: Barrel) -> None:
    conflict(geo)
    geo.conflicts.resolve("x", doc={"_rev": "1-a", "side": "both"})
    assert geo.get("x", revs=True).extra["_revisions"]["ids"][1] == "a"


def test_all_leaves_can_be_deleted(geo: Barrel) -> None:
    conflict(geo)
    geo.conflicts.resolve("x", doc={"_deleted": True})
    with pytest.raises(Deleted):
        geo.get("x")
    assert geo.info().deleted_count == 1


def test_two_replicas_that_resolve_alike_come_to_the_same_revisions(store: Store, geo: Barrel) -> None:
    other = store.create("other")
    for barrel in (geo, other):
        conflict(barrel)
        barrel.conflicts.resolve("x", doc={"side": "both"})
    assert geo.changes().results[0].changes == other.changes().results[0].changes


def test_who_saw_other_leaves_is_refused(geo: Barrel) -> None:
    conflict(geo)
    error = refusal(lambda: geo.conflicts.resolve("x", rev="1-a", leaves=["1-a"]))
    assert isinstance(error, Conflict)
    assert error.details["leaves"] == ["1-b", "1-a"]
    assert listed(geo) == {"x": ["1-b", "1-a"]}


def test_what_cannot_be_resolved_is_refused_by_name(geo: Barrel) -> None:
    conflict(geo)
    one = geo.put({}, id="one").rev
    gone = geo.put({}, id="gone").rev
    geo.delete("gone", rev=gone)
    resolve = geo.conflicts.resolve
    for kind, call in [
        (BadRequest, lambda: resolve("x")),
        (BadRequest, lambda: resolve("x", rev="1-a", doc={})),
        (BadRequest, lambda: resolve("x", rev="nothing")),
        (BadRequest, lambda: resolve("x", rev="1-a", leaves=["nothing"])),
        (BadRequest, lambda: resolve("x", doc={"_id": "y"})),
        (BadRequest, lambda: resolve("x", doc=b"[]")),
        (Conflict, lambda: resolve("x", rev="1-c")),
        (Conflict, lambda: resolve("x", doc={"_rev": "1-c"})),
        (Conflict, lambda: resolve("one", doc={"n": 1})),
        (Conflict, lambda: resolve("one", rev="1-a")),
        (Missing, lambda: resolve("never", rev="1-a")),
        (Deleted, lambda: resolve("gone", rev=gone)),
    ]:
        error = refusal(call)
        assert isinstance(error, kind), error
        assert error.hint
    assert resolve("one", rev=one).unchanged
    assert listed(geo) == {"x": ["1-b", "1-a"]}


def test_a_token_resolves_once(geo: Barrel) -> None:
    conflict(geo)
    token = Token.of("t", "me", "resolve", "geo", "x", b"body")
    written = geo.conflicts.resolve("x", rev="1-a", token=token)
    assert geo.conflicts.resolve("x", rev="1-a", token=token).seq == written.seq


def test_a_tombstone_that_came_without_its_parent_is_linked(geo: Barrel) -> None:
    conflict(geo)
    other = geo.store.create("other")
    conflict(other)
    other.conflicts.resolve("x", rev="1-a")
    (tombstone,) = [rev for rev in other.changes().results[0].changes if rev != "1-a"]
    geo.bulk([{"_id": "x", "_rev": tombstone, "_deleted": True}], new_edits=False)
    geo.conflicts.resolve("x", rev="1-a")
    assert sorted(geo.changes().results[0].changes) == sorted(["1-a", tombstone])


def test_a_merged_document_takes_attachments_of_any_leaf(geo: Barrel) -> None:
    first = geo.attach("x", "photo", b"old").rev
    mine = geo.attach("x", "photo", b"mine", rev=first).rev
    replicate(
        geo,
        {
            "_id": "x",
            "_rev": "2-zz",
            "_revisions": {"start": 2, "ids": ["zz", first[2:]]},
            "_attachments": {"photo": {"data": "dGhlaXJz"}, "map": {"data": "bWFw"}},
        },
    )
    theirs = {name: stub["digest"] for name, stub in geo.get("x", rev="2-zz").data["_attachments"].items()}
    with pytest.raises(MissingStub):
        geo.conflicts.resolve("x", doc={"_attachments": {"photo": {"stub": True, "digest": "sha256-" + "0" * 64}}})
    stubs = {name: {"stub": True, "digest": digest} for name, digest in theirs.items()}
    geo.conflicts.resolve("x", doc={"_attachments": stubs}, leaves=[mine, "2-zz"])
    assert geo.attachment("x", "photo").bytes() == b"theirs"
    assert geo.attachment("x", "map").bytes() == b"map"


# -- by rule


def ruled(store: Store, **rule: Any) -> Barrel:
    """A barrel with this merge rule."""
    return store.create("ruled", {"merge": rule})


def test_the_newest_stands_as_soon_as_the_conflict_comes(store: Store) -> None:
    barrel = ruled(store, rule="newest", field="at")
    replicate(barrel, revisions("x", "a", at=2), revisions("x", "b", at=1))
    assert (data(barrel), barrel.get("x").rev) == ({"at": 2}, "1-a")
    assert store.stats()["conflicts_settled"] == 1


def test_fields_are_merged_and_so_are_attachments(store: Store) -> None:
    barrel = ruled(store, rule="fields")
    replicate(
        barrel,
        revisions("x", "a", a=1, _attachments={"one": {"data": "b25l"}}),
        revisions("x", "b", b=2, _attachments={"two": {"data": "dHdv"}}),
    )
    assert data(barrel) == {"a": 1, "b": 2}
    assert (barrel.attachment("x", "one").bytes(), barrel.attachment("x", "two").bytes()) == (b"one", b"two")
    assert store.maintain()["settled"] == 0


def test_coming_into_conflict_and_out_of_it_are_both_told(store: Store) -> None:
    barrel = ruled(store, rule="fields")
    conflict(barrel)
    assert [(entry.conflicts_changed, len(entry.conflicts)) for entry in barrel.tail(0)] == [
        (False, 0),
        (True, 1),
        (True, 0),
    ]


def test_all_leaves_of_one_request_are_merged_together(store: Store) -> None:
    barrel = ruled(store, rule="fields")
    replicate(barrel, *(revisions("x", name, **{name: 1}) for name in "abcd"))
    assert data(barrel) == dict.fromkeys("abcd", 1)
    assert barrel.get("x").rev.startswith("2-")


def test_more_leaves_than_are_merged_at_a_time_are_merged_in_turns(store: Store) -> None:
    barrel = ruled(store, rule="fields")
    replicate(barrel, *(revisions("x", f"d{number:02}", **{f"k{number}": 1}) for number in range(70)))
    assert len(data(barrel)) == 70


def test_conflicts_from_before_the_rule_are_settled_by_upkeep(store: Store, geo: Barrel) -> None:
    conflict(geo)
    conflict(geo, "y")
    store.configure("geo", {"merge": {"rule": "fields"}})
    assert store.maintain()["settled"] == 2
    assert (listed(geo), data(geo)) == ({}, {"side": "b"})


def test_a_write_to_a_losing_leaf_is_merged_as_well(store: Store, geo: Barrel) -> None:
    conflict(geo, at=1)
    store.configure("geo", {"merge": {"rule": "newest", "field": "at"}})
    written = geo.put({"at": 2}, id="x", rev="1-a")
    assert (data(geo), geo.get("x").rev) == ({"at": 2}, written.rev)


def test_a_function_of_the_program_merges(store: Store) -> None:
    store.merging.register(
        "longest", lambda leaves: max(leaves, key=lambda leaf: (len(leaf.doc["t"]), leaf.doc["t"]))
    )
    barrel = ruled(store, rule="python", name="longest")
    replicate(barrel, revisions("x", "a", t="long"), revisions("x", "b", t="s"))
    assert data(barrel) == {"t": "long"}


def test_without_its_function_a_conflict_stays_until_it_is_registered(store: Store) -> None:
    barrel = ruled(store, rule="python", name="first")
    conflict(barrel)
    (row,) = barrel.conflicts.page().results
    assert row.reason is not None
    assert "'first'" in row.reason
    assert store.maintain()["settled"] == 0
    assert store.merging.missing == {"ruled": "first"}
    store.merging.register("first", lambda leaves: min(leaves, key=lambda leaf: leaf.doc["side"]))
    assert (barrel.conflicts.settle(), store.merging.missing) == (1, {})
    assert data(barrel) == {"side": "a"}


def test_a_function_that_raises_leaves_the_conflict_and_is_logged_once(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[Sequence[LiveLeaf]] = []

    def failing(leaves: Sequence[LiveLeaf]) -> Any:
        calls.append(leaves)
        raise KeyError("at")

    store.merging.register("failing", failing)
    barrel = ruled(store, rule="python", name="failing")
    with caplog.at_level(logging.WARNING, "spile.merging"):
        conflict(barrel)
        asked = len(calls)
        store.maintain()
        barrel.conflicts.settle()
        assert len(calls) == asked  # the same leaves would end the same
        replicate(barrel, revisions("x", "c"))
    assert len(calls) == asked + 1
    assert [row.reason for row in barrel.conflicts.page().results] == ["KeyError: 'at'"]
    assert len([record for record in caplog.records if "stays" in record.getMessage()]) == 1
    assert store.stats()["conflicts_failed"] == 2
    assert barrel.conflicts.resolve("x", rev="1-c").rev == "1-c"


def test_a_merge_that_grows_too_large_leaves_the_conflict(store: Store) -> None:
    barrel = ruled(store, rule="fields")
    replicate(barrel, revisions("x", "a", a="x" * 6_000), revisions("x", "b", b="x" * 6_000))
    (row,) = barrel.conflicts.page().results
    assert row.reason is not None
    assert "10000 are allowed" in row.reason


def test_design_documents_are_left_alone(store: Store) -> None:
    barrel = ruled(store, rule="fields")
    conflict(barrel, "_design/x")
    assert listed(barrel) == {"_design/x": ["1-b", "1-a"]}


def test_a_settled_conflict_outlives_the_store(database_url: str) -> None:
    with Store.open(database_url) as store:
        barrel = ruled(store, rule="fields")
        conflict(barrel)
        leaves = barrel.changes().results[0].changes
    with Store.open(database_url) as store:
        assert store.barrel("ruled").changes().results[0].changes == leaves
        assert store.check().problems == []
