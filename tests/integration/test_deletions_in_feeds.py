"""A reader with patterns may ask for the deletions of which nobody knows any more what was deleted."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from store_tools import Clock, replicate, revisions, rows
from streams_tools import Listening

from feeds import Barrel, Store, parse_patterns
from feeds.rows import Row
from feeds.storage import replay as replaying
from listeners.stream.sender import SenderLimits
from listeners.stream.service import ServiceLimits, StreamService

WAYS = {"index": 50_000, "log": 0}
QUICK = ServiceLimits(tick_s=0.02, sender=SenderLimits(heartbeat_s=0.1, silence_s=20.0))
LOG_KEPT = 60.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database_url: str, clock: Clock) -> Iterator[Store]:
    with Store.open(database_url, clock=clock) as opened:
        yield opened
        problems = opened.check().problems
    assert problems == []


@pytest.fixture
def geo(store: Store, clock: Clock) -> Barrel:
    """Deletions from before what the log keeps, up to 4, and from after it."""
    barrel = store.create("geo", {"log_kept": LOG_KEPT})
    for id, doc in (("old", {"n": 1}), ("other", {"m": 1})):
        barrel.put(doc, id=id)
    for id in ("old", "other"):
        barrel.delete(id, rev=barrel.get(id).rev)
    clock.now += LOG_KEPT + 1
    store.maintain()
    assert barrel.forgotten() == 4
    barrel.put({"n": 1}, id="lives")
    for id, doc in (("gone", {"n": 2}), ("away", {"m": 2})):
        barrel.delete(id, rev=barrel.put(doc, id=id).rev)
    replicate(barrel, {**revisions("never", "b", "a"), "_deleted": True})
    return barrel


def told(barrel: Barrel, after: int, *, leaves: bool, deletions: bool = True) -> list[Row]:
    replay = barrel.replay(after, parse_patterns(["n/#"]), docs=True, leaves=leaves, deletions=deletions)
    found = []
    while True:
        page = replay.next(2)
        found += page.rows
        if page.caught_up:
            return found


def short(rows: list[Row]) -> list[tuple[str, object, bool]]:
    return [(row.id, row.paths, row.removed) for row in rows]


UNKNOWN: list[tuple[str, object, bool]] = [("old", [], False), ("other", [], False)]
SINCE: list[tuple[str, object, bool]] = [("lives", ["n/1"], False), ("gone", ["n/2"], True), ("never", [], False)]


def test_from_the_beginning_the_index_tells_those_that_are_forgotten_too(geo: Barrel) -> None:
    found = told(geo, 0, leaves=False)
    assert short(found) == UNKNOWN + SINCE
    assert [row.seq for row in found] == [3, 4, 5, 7, 10]
    assert not [row for row in found if row.entered]


def test_from_the_beginning_reading_everything_tells_all_deletions(
    geo: Barrel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "MATCHES_MAX", 0)
    found = told(geo, 0, leaves=False)
    assert [row.id for row in found] == ["old", "other", "lives", "gone", "away", "never"]
    assert [row.paths for row in found if row.deleted] == [[]] * 5


@pytest.mark.parametrize("way", WAYS)
def test_since_a_position_only_what_nobody_knows_comes_in_addition(
    geo: Barrel, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(replaying, "MATCHES_MAX", WAYS[way])
    right = [("lives", False), ("gone", True), ("never", False)]
    assert [(row.id, row.removed) for row in told(geo, 4, leaves=True)] == right
    assert [(row.id, row.removed) for row in told(geo, 4, leaves=True, deletions=False)] == right[:2]
    assert short(told(geo, 9, leaves=True)) == SINCE[2:]


@pytest.mark.parametrize("way", WAYS)
def test_who_does_not_ask_is_not_told(geo: Barrel, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setattr(replaying, "MATCHES_MAX", WAYS[way])
    assert short(told(geo, 0, leaves=False, deletions=False)) == SINCE[:1]


def test_more_deletions_than_are_read_at_once_come_in_order(geo: Barrel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "_PAGE", 2)
    for number in range(9):
        replicate(geo, {**revisions(f"x{number}", "b", "a"), "_deleted": True})
        geo.put({"n": number}, id=f"y{number}")
    found = told(geo, 0, leaves=False)
    assert [row.seq for row in found] == [3, 4, 5, 7, 10, *range(11, 29)]


def test_deletions_are_found_without_looking_at_what_lives(store: Store, geo: Barrel) -> None:
    if not store.statements.is_sqlite:
        pytest.skip("the plan depends on statistics there")
    plan = rows(store, "EXPLAIN QUERY PLAN " + store.queries.deletions, geo.key, 0, 100, 10)
    assert "USING INDEX ix_docs_deleted (barrel=? AND seq>? AND seq<?)" in str(plan[0])


@pytest.fixture
async def service(store: Store) -> AsyncIterator[StreamService]:
    with ThreadPoolExecutor(4) as pool:
        running = StreamService(store, pool, limits=QUICK)
        yield running
        await running.stop()


async def test_a_stream_tells_them_from_the_past_and_as_they_come(geo: Barrel, service: StreamService) -> None:
    asking = await Listening(service, "n/#", deletions=True).open("first")
    plain = await Listening(service, "n/#").open("first")
    for each in (asking, plain):
        await each.caught_up(geo.position(10))
    replicate(geo, {**revisions("later", "b", "a"), "_deleted": True})
    geo.delete("nobody's", rev=geo.put({"m": 3}, id="nobody's").rev)
    geo.put({"n": 3}, id="last")
    for each in (asking, plain):
        await each.caught_up(geo.position(14))
    past = ["old", "other", "lives", "gone", "never"]
    assert [id for _, id, _ in asking.told] == [*past, "later", "last"]
    assert [id for _, id, _ in plain.told] == ["lives", "last"]
