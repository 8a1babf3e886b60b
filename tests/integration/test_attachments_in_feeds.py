"""Attachments in feeds: which came, changed and went, and their bytes for listeners that ask for contents."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest
from attachment_tools import damage, inline

from feeds import Barrel, Moves, Store
from feeds.errors import BadRequest
from listeners import Listener, listen

SMALL = b"a note" * 100
LARGE = bytes(range(256)) * 8192


@pytest.fixture
def barrel(tmp_path: Path) -> Iterator[Barrel]:
    with Store.open(tmp_path) as store:
        yield store.create("geo")


def test_a_change_says_which_attachments_came_changed_and_went(barrel: Barrel) -> None:
    told = []
    with listen(barrel, since="first") as changes:
        written = barrel.put({"_attachments": {"a": inline(b"1"), "b": inline(b"2")}}, id="d")
        told.append(next(changes).attachments)
        stubs = {"a": inline(b"3"), "c": inline(b"4")}
        barrel.put({"_attachments": stubs}, id="d", rev=written.rev)
        told.append(next(changes).attachments)
        barrel.merge("d", {"n": 1})
        told.append(next(changes).attachments)
    assert told[:2] == [Moves(came=["a", "b"]), Moves(came=["c"], changed=["a"], went=["b"])]
    assert not told[2]


@pytest.mark.parametrize("from_the_start", [True, False])
def test_a_listener_that_asks_for_contents_has_them_inline(barrel: Barrel, from_the_start: bool) -> None:
    def write() -> None:
        barrel.put({"_attachments": {"small": inline(SMALL), "large": inline(LARGE)}}, id="d")

    if from_the_start:
        write()
    with listen(barrel, since="first", attachments="contents") as changes:
        if not from_the_start:
            write()
        doc = next(changes).doc
    assert doc is not None
    small, large = doc["_attachments"]["small"], doc["_attachments"]["large"]
    assert b64decode(small["data"]) == SMALL and "stub" not in small
    assert large["stub"] is True and "data" not in large


def test_a_listener_that_asks_for_nothing_is_told_stubs(barrel: Barrel) -> None:
    barrel.put({"_attachments": {"small": inline(SMALL)}}, id="d")
    with listen(barrel, since="first") as changes:
        doc = next(changes).doc
    assert doc is not None and doc["_attachments"]["small"]["stub"] is True


def test_every_change_reaches_a_listener_that_asks_for_contents(barrel: Barrel) -> None:
    heard: dict[str, bytes] = {}
    with listen(barrel, since="first", attachments="contents") as changes:
        for n in range(40):
            barrel.put({"n": n, "_attachments": {"note": inline(b"%d" % n * 50)}}, id=f"d{n % 20}", update=True)
        head = barrel.head()
        for change in changes:
            assert change.doc is not None
            heard[change.id] = b64decode(change.doc["_attachments"]["note"]["data"])
            if change.seq == head:
                break
    assert heard == {f"d{n % 20}": b"%d" % n * 50 for n in range(20, 40)}


def test_patterns_and_leaves_hold_for_a_listener_that_asks_for_contents(barrel: Barrel) -> None:
    with listen(barrel, ["kind/photo"], since="now", attachments="contents") as changes:
        barrel.put({"kind": "photo", "_attachments": {"p": inline(SMALL)}}, id="d")
        came = next(changes)
        barrel.put({"kind": "text"}, id="other")
        barrel.put({"kind": "text"}, id="d", update=True)
        left = next(changes)
    assert came.entered and came.doc is not None and "data" in came.doc["_attachments"]["p"]
    assert (left.id, left.removed) == ("d", True)


def test_what_is_damaged_stays_a_stub_and_the_feed_goes_on(barrel: Barrel, tmp_path: Path) -> None:
    barrel.put({"_attachments": {"note": inline(SMALL)}}, id="d")
    barrel.put({"_attachments": {"note": inline(b"sound" * 20)}}, id="e")
    damage(tmp_path / "blobs", SMALL)
    with listen(barrel, since="first", attachments="contents", follow=False) as changes:
        docs = {change.id: change.doc for change in changes}
    assert docs["d"] is not None and docs["d"]["_attachments"]["note"]["stub"] is True
    assert docs["e"] is not None and b64decode(docs["e"]["_attachments"]["note"]["data"]) == b"sound" * 20


def test_the_way_of_telling_attachments_is_checked_where_it_is_said(barrel: Barrel) -> None:
    with pytest.raises(BadRequest, match="all"):
        listen(barrel, attachments="all")  # type: ignore[arg-type]


def test_a_listener_with_a_callback_is_told_contents(barrel: Barrel) -> None:
    barrel.put({"_attachments": {"note": inline(SMALL)}}, id="d")
    told: list[str] = []

    def hear(change: object) -> None:
        told.append(change.doc["_attachments"]["note"]["data"])  # type: ignore[attr-defined]

    Listener(barrel, [], hear, since="first", follow=False, attachments="contents").run()
    assert [b64decode(data) for data in told] == [SMALL]
