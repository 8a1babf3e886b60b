"""Upkeep beside what is damaged or changes meanwhile: every other document gets what is due to it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from store_tools import Clock, change, refusal, replicate, revisions

from feeds import Store
from feeds.errors import Deleted

PAST = "2001-01-01T00:00:00Z"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database_url: str, clock: Clock) -> Iterator[Store]:
    with Store.open(database_url, clock=clock) as opened:
        yield opened
        opened.check(repair=True)
        assert opened.check().problems == []


def test_a_damaged_document_that_expired_keeps_no_other_from_expiring(
    store: Store, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    cache = store.create("cache", {"ttl": 60})
    for id in ("a", "damaged", "b", "c"):
        cache.put({"n": 1}, id=id)
    change(store, "UPDATE docs SET others = '[[' WHERE id = ?", "damaged")
    clock.now += 61
    with caplog.at_level(logging.ERROR, "spile.store"):
        assert store.maintain()["expired"] == 3
        assert store.maintain()["expired"] == 0
        info = cache.info()
    assert (info.doc_count, info.deleted_count) == (1, 3)
    told = [record.getMessage() for record in caplog.records if record.name == "spile.store"]
    assert len(told) == 1
    assert "'damaged' in cache has expired, and cannot be deleted" in told[0]


def test_a_damaged_conflict_keeps_no_other_from_being_settled(store: Store) -> None:
    geo = store.create("geo")
    for id in ("a", "damaged", "b"):
        replicate(geo, revisions(id, "a", n=1), revisions(id, "b", n=2))
    change(store, "UPDATE docs SET others = '[[' WHERE id = ?", "damaged")
    store.configure("geo", {"merge": {"rule": "newest", "field": "n"}})
    assert store.maintain()["settled"] == 2
    assert geo.get("a").data["n"] == geo.get("b").data["n"] == 2
    failed = store.merging.failed
    assert store.maintain()["settled"] == 0
    assert store.merging.failed == failed == 1
    assert "cannot be read" in (store.merging.reason(geo.key, "damaged") or "")


def test_compaction_spares_a_revision_that_was_purged_and_came_back_meanwhile(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    geo = store.create("geo")
    replicate(geo, revisions("x", "a", n=1), revisions("x", "b", "a", n=2), revisions("x", "c", "b", "a", n=3))
    replicate(geo, revisions("x", "d", "a", n=4))
    call = store.writer.call

    def purged_before(task: Any, *barrels: int, **options: Any) -> Any:
        monkeypatch.undo()
        geo.purge("x", ["3-c"])
        replicate(geo, revisions("x", "b", "a", n=2))
        return call(task, *barrels, **options)

    monkeypatch.setattr(store.writer, "call", purged_before)
    store.compact("geo")
    assert geo.get("x", rev="2-b").data["n"] == 2


def test_where_every_leaf_has_expired_the_document_is_written_as_a_deleted_one(store: Store) -> None:
    cache = store.create("cache", {"ttl_field": "until"})
    replicate(
        cache, revisions("x", "a", until=PAST), revisions("x", "b", until=PAST), revisions("x", "c", until=PAST)
    )
    assert isinstance(refusal(lambda: cache.get("x")), Deleted)
    assert cache.put({"n": 1}, id="x").created
    found = cache.get("x", conflicts=True)
    assert (found.data["n"], found.extra) == (1, {})
