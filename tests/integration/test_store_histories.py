"""What a document's history tells: its own branch, and every other one as far as it was not told yet."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from store_tools import replicate, revisions

from feeds import Barrel, Store


@pytest.fixture
def geo(tmp_path: Path) -> Iterator[Barrel]:
    with Store.open(tmp_path) as store:
        yield store.create("geo")


def told(branch: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(each["rev"], each["status"]) for each in branch]


def branched(geo: Barrel) -> dict[str, Any]:
    """Document x: a chain of three, another leaf on its first revision, one on that, deleted, and one of its own."""
    replicate(geo, revisions("x", "a3", "a2", "a1", n=3))
    replicate(geo, revisions("x", "b3", "b2", "a1", n="b"))
    replicate(geo, revisions("x", "c4", "c3", "b2", "a1", _deleted=True))
    replicate(geo, revisions("x", "z", n="z"))
    return geo.get("x", history=True).data


def test_a_chain_has_no_other_branches(geo: Barrel) -> None:
    first = geo.put({"n": 1}, id="x")
    geo.put({"n": 2}, id="x", rev=first.rev)
    assert "_branches" not in geo.get("x", history=True).data


def test_every_other_leaf_is_told_as_far_as_it_was_not_told_yet(geo: Barrel) -> None:
    read = branched(geo)
    assert read["_rev"] == "3-b3"
    assert told(read["_history"]) == [("3-b3", "available"), ("2-b2", "missing"), ("1-a1", "missing")]
    assert [told(branch) for branch in read["_branches"]] == [
        [("3-a3", "available"), ("2-a2", "missing"), ("1-a1", "missing")],
        [("1-z", "available")],
        [("4-c4", "deleted"), ("3-c3", "missing"), ("2-b2", "missing")],
    ]


def test_the_branches_begin_with_the_leaves_in_their_order(geo: Barrel) -> None:
    read = branched(geo)
    (row,) = geo.changes().results
    assert [read["_rev"], *(branch[0]["rev"] for branch in read["_branches"])] == row.changes


def test_asked_for_a_losing_leaf_the_winner_is_among_the_others(geo: Barrel) -> None:
    branched(geo)
    read = geo.get("x", rev="3-a3", history=True).data
    assert [rev for rev, _ in told(read["_history"])] == ["3-a3", "2-a2", "1-a1"]
    assert [[rev for rev, _ in told(branch)] for branch in read["_branches"]] == [
        ["3-b3", "2-b2", "1-a1"],
        ["1-z"],
        ["4-c4", "3-c3", "2-b2"],
    ]


def test_a_document_that_was_read_with_its_branches_can_be_sent_back(geo: Barrel) -> None:
    read = branched(geo)
    written = geo.put({**read, "n": "new"})
    assert written.rev.startswith("4-")
    assert "_branches" not in geo.get("x").data
