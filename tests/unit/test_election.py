"""Who publishes: the lock is taken, kept by beats, and let go as soon as nobody can be sure of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from broker.election import Election
from feeds.errors import Damaged, SpileError, Unavailable
from feeds.storage.locks import FREE, Fence, Lock

NAME = "external-1"
VALID_S = 2.0


class Clock:
    """A time that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Table:
    """The locks' table in memory: one lock, which others may have, and a database that may be away or slow."""

    are_shared = True

    def __init__(self) -> None:
        self.holder = FREE
        self.term = 0
        self.beats = 0
        self.fails: SpileError | None = None
        self.answers = threading.Event()
        self.answers.set()
        self.on_taken: Callable[[], None] = lambda: None
        self.closed = False

    def acquire(self, name: str, holder: str) -> Fence | None:
        self._answer()
        if self.holder not in (FREE, holder):
            return None
        self.holder, self.term = holder, self.term + 1
        self.on_taken()
        return Fence(name, holder, self.term)

    def beat(self, fence: Fence) -> bool:
        self._answer()
        self.beats += 1
        return (self.holder, self.term) == (fence.holder, fence.term)

    def release(self, fence: Fence) -> None:
        if self.beat(fence):
            self.holder = FREE

    def state(self, name: str) -> Lock | None:
        self._answer()
        return Lock(self.holder, self.term, self.beats, 0.0, None)

    def close(self) -> None:
        self.closed = True

    def is_taken_by(self, other: str) -> None:
        self.holder, self.term = other, self.term + 1

    def _answer(self) -> None:
        self.answers.wait(20)
        if self.fails is not None:
            raise self.fails


@asynccontextmanager
async def electing(table: Table, clock: Clock | None = None) -> AsyncIterator[Election]:
    election = Election(table, NAME, "me", valid_s=VALID_S, beat_s=0.01, look_s=0.01, clock=clock or Clock())
    election.lost = []  # type: ignore[attr-defined]
    election.on_lost = election.lost.append  # type: ignore[attr-defined]
    await election.start()
    try:
        yield election
    finally:
        table.answers.set()
        await election.stop()


def lost(election: Election) -> list[str]:
    found: list[str] = election.lost  # type: ignore[attr-defined]
    return found


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.002)


async def test_the_first_one_holds_at_once_and_beats() -> None:
    table = Table()
    async with electing(table) as election:
        assert election.fence == Fence(NAME, "me", 1)
        assert await election.confirm()
        await until(lambda: table.beats > 3)
        assert lost(election) == []
    assert table.holder == FREE, "it is given back at the end"
    assert table.closed


async def test_a_follower_asks_nothing_to_confirm_and_holds_when_the_lock_is_free() -> None:
    table = Table()
    table.is_taken_by("another")
    async with electing(table) as election:
        assert election.fence is None
        assert not await election.confirm()
        assert table.beats == 0
        await until(lambda: election.other is not None)
        assert election.other is not None
        assert election.other.holder == "another"
        table.holder = FREE
        assert await asyncio.wait_for(election.turn(None), 20) == Fence(NAME, "me", 2)


async def test_a_holder_lets_go_when_another_has_the_lock() -> None:
    table = Table()
    async with electing(table) as election:
        held = election.fence
        table.is_taken_by("another")
        assert await asyncio.wait_for(election.turn(held), 20) is None
        assert lost(election) == ["another process took the lock"]
        table.holder = FREE
        assert await asyncio.wait_for(election.turn(None), 20) == Fence(NAME, "me", 3)


async def test_who_was_held_up_for_too_long_lets_go_before_asking() -> None:
    table, clock = Table(), Clock()
    async with electing(table, clock) as election:
        held = election.fence
        clock.now += VALID_S
        assert election.fence is None, "at once, whoever asks"
        assert not await election.confirm()
        assert await asyncio.wait_for(election.turn(held), 20) in (None, Fence(NAME, "me", 2))
        await until(lambda: election.fence == Fence(NAME, "me", 2))
        assert len(lost(election)) == 1
        assert "held up" in lost(election)[0]


async def test_a_database_that_is_away_for_a_moment_costs_nothing_and_for_longer_the_lock() -> None:
    table, clock = Table(), Clock()
    async with electing(table, clock) as election:
        held = election.fence
        table.fails = Unavailable("the database is away")
        await until(lambda: election.failure == "the database is away")
        assert not await election.confirm()
        table.fails = None
        await until(lambda: election.failure is None)
        assert election.fence == held
        table.fails = Unavailable("the database is away")
        await until(lambda: election.failure)
        clock.now += VALID_S
        await until(lambda: lost(election))
        assert election.fence is None
        table.fails = None
        await until(lambda: election.fence == Fence(NAME, "me", 2))


async def test_a_beat_without_an_answer_costs_the_lock_in_time() -> None:
    table = Table()
    election = Election(table, NAME, "me", valid_s=1.0, beat_s=0.01, look_s=0.01)
    reasons: list[str] = []
    election.on_lost = reasons.append
    await election.start()
    table.answers.clear()
    await until(lambda: reasons)
    assert reasons == ["the database did not answer in time"]
    assert election.fence is None
    table.answers.set()
    await until(lambda: election.fence is not None)
    await election.stop()


async def test_a_lock_whose_taking_was_answered_too_late_is_not_held() -> None:
    table, clock = Table(), Clock()

    def held_up() -> None:
        table.on_taken = lambda: None
        clock.now += VALID_S

    table.on_taken = held_up
    async with electing(table, clock) as election:
        assert election.fence is None
        await until(lambda: election.fence == Fence(NAME, "me", 2))


async def test_a_lock_that_is_taken_while_it_stops_is_given_back() -> None:
    table = Table()
    table.is_taken_by("another")
    election = Election(table, NAME, "me", valid_s=VALID_S, beat_s=0.01, look_s=0.01, clock=Clock())
    await election.start()
    asked, answers = threading.Event(), threading.Event()

    def held_up() -> None:
        asked.set()
        answers.wait(20)

    table.on_taken = held_up
    table.holder = FREE
    await until(asked.is_set)
    stopping = asyncio.create_task(election.stop())
    await until(lambda: election.task is not None and election.task.done())
    answers.set()
    await stopping
    assert (table.holder, table.term) == (FREE, 2)
    assert table.closed


async def test_what_waiting_cannot_help_ends_it() -> None:
    table = Table()
    async with electing(table) as election:
        held = election.fence
        table.is_taken_by("another")
        await election.turn(held)
        table.fails = Damaged("the table is gone")
        assert election.task is not None
        with pytest.raises(Damaged):
            await election.task


async def test_where_nobody_can_take_it_a_lock_is_kept_however_long_one_is_held_up() -> None:
    table, clock = Table(), Clock()
    table.are_shared = False
    async with electing(table, clock) as election:
        clock.now += 1e6
        assert election.fence == Fence(NAME, "me", 1)
        assert await election.confirm()
