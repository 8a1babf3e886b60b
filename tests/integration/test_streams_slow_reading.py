"""A past that takes long to read slows the stream that asked for it, and nothing beside it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from streams_tools import Listening

from feeds import Barrel, Store
from listeners.listening import listen_async
from listeners.stream.sender import SenderLimits
from listeners.stream.service import ServiceLimits, StreamService

PLACES = ServiceLimits().replays_max
UNHURRIED = ServiceLimits(sender=SenderLimits(heartbeat_s=100.0, silence_s=300.0))
SLOW = "slow/#"


@pytest.fixture
def barrel(tmp_path: Path) -> Iterator[Barrel]:
    with Store.open(tmp_path) as store:
        yield store.create("geo")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    """Reading for the pattern `slow/#` takes until it is let on."""
    held = Slow()
    whole = Barrel.replay

    def replay(self: Barrel, after: int, patterns: Any = (), **more: Any) -> Any:
        if any(str(pattern) == SLOW for pattern in patterns):
            held.count += 1
            held.begun.release()
            held.on.wait(40)
        return whole(self, after, patterns, **more)

    monkeypatch.setattr(Barrel, "replay", replay)
    yield held
    held.on.set()


class Slow:
    def __init__(self) -> None:
        self.on = threading.Event()
        self.begun = threading.Semaphore(0)
        self.count = 0

    async def begins(self) -> None:
        """Until one more reading has begun."""
        assert await asyncio.get_running_loop().run_in_executor(None, self.begun.acquire, True, 30)


@pytest.fixture
async def service(barrel: Barrel, slow: Slow) -> AsyncIterator[StreamService]:
    with ThreadPoolExecutor(PLACES + 2) as pool:
        running = StreamService(barrel.store, pool, limits=UNHURRIED)
        yield running
        slow.on.set()
        await running.stop()


async def until(state: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not state():
            await asyncio.sleep(0.01)


async def test_the_first_array_is_sent_before_anything_is_read(service: StreamService, slow: Slow) -> None:
    listening = await Listening(service, SLOW).open("first")
    await slow.begins()
    assert [array.start for array in listening.arrays] == [True]


async def test_that_the_stream_ends_is_told_before_the_past_is_read(
    barrel: Barrel, service: StreamService, slow: Slow
) -> None:
    listening = await Listening(service, SLOW).open("first")
    await slow.begins()
    await asyncio.get_running_loop().run_in_executor(None, barrel.store.drop, "geo")
    await listening.until(lambda: len(listening.arrays) == 2)
    end = listening.arrays[-1].end
    assert end is not None
    assert end.code == "not_found"
    await until(lambda: not service.stats()["streams"])
    assert not slow.on.is_set()


async def test_a_stream_begins_while_others_take_all_places_for_reading(service: StreamService, slow: Slow) -> None:
    for _ in range(PLACES):
        await Listening(service, SLOW).open("first")
        await slow.begins()
    late = await Listening(service).open("now")
    await late.until(lambda: late.arrays)
    assert late.arrays[0].start


async def test_readings_of_streams_that_are_gone_keep_nobody_from_hearing_what_comes(
    barrel: Barrel, service: StreamService, slow: Slow
) -> None:
    live = await Listening(service).open("now")
    await live.caught_up(barrel.position(0))
    for number in range(PLACES + 2):
        gone = await Listening(service, SLOW).open("first")
        await until(lambda number=number: slow.count > number or service.stats()["replays_waiting"])  # type: ignore[misc]
        service.gone(str(id(gone)))
    barrel.put({"_id": "new"})
    await live.until(lambda: live.told)


async def test_the_places_of_streams_that_are_gone_are_free_once_their_reading_ends(
    barrel: Barrel, service: StreamService, slow: Slow
) -> None:
    for _ in range(PLACES):
        gone = await Listening(service, SLOW).open("first")
        await slow.begins()
        service.gone(str(id(gone)))
    slow.on.set()
    barrel.put({"_id": "there"})
    late = await Listening(service).open("first")
    await late.until(lambda: late.told)


async def test_a_loop_that_is_left_while_the_past_is_read_does_not_hold_up_its_event_loop(
    barrel: Barrel, slow: Slow
) -> None:
    async def hear() -> None:
        async with aclosing(listen_async(barrel, [SLOW])) as changes:
            async for _ in changes:
                pass

    hearing = asyncio.create_task(hear())
    await slow.begins()
    hearing.cancel()
    turns = 0
    while not hearing.done():
        turns += 1
        await asyncio.sleep(0.01)
        if turns == 20:
            slow.on.set()  # where the loop is held up, it does not come to this
    assert turns >= 20
    with pytest.raises(asyncio.CancelledError):
        await hearing
