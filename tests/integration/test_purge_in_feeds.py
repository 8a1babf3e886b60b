"""A purge takes a seq and is no change: feeds pass over it, and lose neither their order nor their end."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from streams_tools import Listening

from feeds import Barrel, Store, parse_patterns
from feeds.positions import Position
from feeds.storage import replay as replaying
from listeners.stream.sender import SenderLimits
from listeners.stream.service import ServiceLimits, StreamService

PATTERNS = [[], ["#"], ["n/#"], ["_id/#"], ["n/1", "_id/+"]]
WAYS = {"index": 50_000, "log": 0}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as opened:
        yield opened


@pytest.fixture
def barrel(store: Store) -> Barrel:
    return store.create("geo")


# A purge at the head is passed with the next heartbeat.
QUICK = ServiceLimits(tick_s=0.02, sender=SenderLimits(heartbeat_s=0.1, silence_s=20.0))


@pytest.fixture
async def service(store: Store) -> AsyncIterator[StreamService]:
    with ThreadPoolExecutor(4) as pool:
        running = StreamService(store, pool, limits=QUICK)
        yield running
        await running.stop()


def purged_often(barrel: Barrel) -> list[tuple[int, str]]:
    """Purges between changes, two in a row, and one at the head; the rows that are right."""
    barrel.bulk([{"_id": id, "n": 1} for id in "abcde"])
    barrel.purge("b")
    barrel.put({"n": 1}, id="f")
    barrel.purge("d")
    barrel.purge("a")
    barrel.put({"n": 1}, id="b")
    barrel.purge("f")
    return [(3, "c"), (5, "e"), (10, "b")]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("patterns", PATTERNS)
def test_changes_are_in_order_and_end_at_the_head(
    barrel: Barrel, monkeypatch: pytest.MonkeyPatch, patterns: list[str], way: str
) -> None:
    monkeypatch.setattr(replaying, "MATCHES_MAX", WAYS[way])
    right = purged_often(barrel)
    parsed = parse_patterns(patterns)
    for since in range(barrel.head() + 1):
        page = barrel.changes(Position(since), patterns=parsed)
        assert [(row.seq, row.id) for row in page.results] == [row for row in right if row[0] > since]
        assert (page.last_seq, page.pending) == (barrel.position(11), 0)


@pytest.mark.parametrize("patterns", PATTERNS)
def test_pending_counts_documents_and_no_purges(barrel: Barrel, patterns: list[str]) -> None:
    right = purged_often(barrel)
    parsed = parse_patterns(patterns)
    first = barrel.changes(limit=1, patterns=parsed)
    assert [(row.seq, row.id) for row in first.results] == right[:1]
    assert first.pending == 2
    rest = barrel.changes(Position.parse(first.last_seq), limit=2, patterns=parsed)
    assert [(row.seq, row.id) for row in rest.results] == right[1:]
    assert rest.pending == 0


@pytest.mark.parametrize("patterns", PATTERNS)
async def test_a_stream_at_the_head_passes_over_a_purge_and_reaches_it(
    barrel: Barrel, service: StreamService, patterns: list[str]
) -> None:
    listening = await Listening(service, *patterns).open("first")
    await listening.caught_up(barrel.position(0))
    right = purged_often(barrel)
    await listening.caught_up(barrel.position(11))
    told = [(seq, id) for seq, id, removed in listening.told if not removed]
    assert [row for row in told if row in right] == right
    assert [seq for seq, _ in told] == sorted({seq for seq, _ in told})
    assert not [row for row in told if row[0] in (6, 8, 9, 11)]
    barrel.purge("e")
    await listening.caught_up(barrel.position(12))
    barrel.put({"n": 1}, id="z")
    await listening.caught_up(barrel.position(13))
    assert listening.told[-1] == (13, "z", False)


@pytest.mark.parametrize("patterns", PATTERNS)
@pytest.mark.parametrize(("since", "begin"), [("first", 0), ("4", 4), ("10", 10), ("now", 11)])
async def test_a_stream_from_the_past_is_level_with_a_purge_at_the_head(
    barrel: Barrel, service: StreamService, patterns: list[str], since: str, begin: int
) -> None:
    right = purged_often(barrel)
    listening = await Listening(service, *patterns).open(since)
    await listening.caught_up(barrel.position(11))
    assert [(seq, id) for seq, id, _ in listening.told] == [row for row in right if row[0] > begin]


def test_who_must_be_told_deletes_first_and_purges_then(barrel: Barrel) -> None:
    barrel.put({"n": 1}, id="a")
    at = Position(barrel.head())
    gone = barrel.delete("a", rev=barrel.get("a").rev)
    replay = barrel.replay(at.seq, parse_patterns(["n/1"]))
    assert [(row.id, row.removed) for row in replay.next(10).rows] == [("a", True)]
    assert [row.deleted for row in barrel.changes(at).results] == [True]
    barrel.purge("a")
    assert barrel.changes(at).results == []
    assert barrel.head() == gone.seq + 1
