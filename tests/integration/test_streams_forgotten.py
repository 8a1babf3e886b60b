"""Streams at the head of a log that forgets at once: what a stream was not told in time is told it another way."""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from store_tools import refusal
from streams_tools import Listening

from feeds import Barrel, Store, parse_patterns
from feeds.errors import EpochChanged
from feeds.positions import Position
from feeds.storage import replay as replaying
from listeners.stream.hub import HubLimits
from listeners.stream.service import ServiceLimits, StreamService


class Forgetting(ThreadPoolExecutor):
    """Before every read the store forgets what it may, once `forgets` is set."""

    def __init__(self, store: Store) -> None:
        super().__init__(4)
        self._store = store
        self.forgets = False
        self.between_reads = threading.Lock()
        """Held by each read, and by a test whose steps are not to have one that began before between them."""

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        def forgetful() -> Any:
            with self.between_reads:
                if self.forgets:
                    self._store.maintain()
                return call(*args, **kwargs)

        return super().submit(forgetful)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as opened:
        yield opened


@pytest.fixture
def barrel(store: Store) -> Barrel:
    geo = store.create("geo", {"log_kept": 0})
    geo.bulk([{"_id": f"d{number}", "region": "Europe"} for number in range(3)])
    return geo


@pytest.fixture
def pool(store: Store) -> Iterator[Forgetting]:
    with Forgetting(store) as executor:
        yield executor


@pytest.fixture
async def service(store: Store, pool: Forgetting) -> AsyncIterator[StreamService]:
    running = StreamService(store, pool, limits=ServiceLimits(hub=HubLimits(poll_s=0.05)))
    yield running
    await running.stop()


async def test_without_patterns_a_stream_goes_on_with_newest_states(
    barrel: Barrel, service: StreamService, pool: Forgetting
) -> None:
    listening = await Listening(service).open("now")
    await listening.caught_up(barrel.position(3))
    with pool.between_reads:
        pool.forgets = True
        barrel.bulk([{"_id": f"d{number}", "region": "Asia"} for number in range(3)], update=True)
    await listening.until(lambda: len(listening.told) == 3)
    assert [id for _, id, _ in listening.told] == ["d0", "d1", "d2"]
    barrel.put({"region": "Asia"}, id="d0", update=True)
    await listening.until(lambda: listening.told[-1] == (7, "d0", False))
    assert all(array.end is None for array in listening.arrays)


async def test_with_patterns_a_stream_ends_and_begins_again_with_a_snapshot(
    barrel: Barrel, service: StreamService, pool: Forgetting
) -> None:
    listening = await Listening(service, "region/Europe").open("now")
    await listening.caught_up(barrel.position(3))
    with pool.between_reads:
        pool.forgets = True
        barrel.put({"region": "Asia"}, id="d1", update=True)
    await listening.until(lambda: listening.arrays[-1].end)
    end = listening.arrays[-1].end
    assert end is not None
    assert (end.code, listening.told) == ("epoch_changed", [])
    await listening.open(barrel.position(3))
    await listening.until(lambda: any(array.snapshot == "end" for array in listening.arrays))
    assert listening.arrays[0].snapshot == "start"
    assert [id for _, id, _ in listening.told] == ["d0", "d2"]


async def test_a_stream_that_knows_the_log_as_far_as_it_was_forgotten_goes_on(
    barrel: Barrel, service: StreamService, pool: Forgetting, store: Store
) -> None:
    listening = await Listening(service, "region/Europe").open("now")
    await listening.caught_up(barrel.position(3))
    store.maintain()
    barrel.put({"region": "Asia"}, id="d1", update=True)
    await listening.until(lambda: listening.told)
    assert listening.told == [(4, "d1", True)]


@pytest.mark.parametrize("matches_max", [0, 50_000])
def test_what_is_forgotten_after_a_position_was_looked_up_is_not_passed_over(
    barrel: Barrel, store: Store, monkeypatch: pytest.MonkeyPatch, matches_max: int
) -> None:
    monkeypatch.setattr(replaying, "MATCHES_MAX", matches_max)
    start = barrel.resolve(Position(3), patterns=True)
    assert not start.snapshot
    barrel.put({"region": "Asia"}, id="d1", update=True)
    barrel.bulk([{"region": "Africa"} for _ in range(10)])
    store.maintain()

    def replay() -> None:
        barrel.replay(start.after, parse_patterns(["region/Europe"])).next(10)

    assert isinstance(refusal(replay), EpochChanged)
