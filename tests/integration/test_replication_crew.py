"""The replications of one process: what it has lost to another one is neither gone on with nor begun anew."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from http_tools import eventually

from broker.replication.crew import Crew
from broker.replication.ledger import Entry, Ledger
from broker.replication.runner import Runner, peers_of
from broker.replication.task import Asked, Login, Secrets, task_of
from feeds import Store
from feeds.errors import Forbidden
from listeners.replication import LocalPeer, Peer
from listeners.replication.peer import Page


class SlowThread(ThreadPoolExecutor):
    """A thread on which the database answers when it is let."""

    def __init__(self) -> None:
        super().__init__(1)
        self.answers = threading.Event()
        self.answers.set()
        self.asked = threading.Event()

    def submit(self, call: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        def late() -> Any:
            self.asked.set()
            self.answers.wait()
            return call(*given, **named)

        return super().submit(late)


class Place:
    """A store with two barrels, and a crew that runs its tasks."""

    def __init__(self, store: Store, thread: SlowThread) -> None:
        self.thread = thread
        self.ledger = Ledger(store)
        self.begun = 0
        self._opened = peers_of(store)
        self.may_close = asyncio.Event()
        self.may_close.set()
        self.crew = Crew(self.ledger, self._make, thread, lambda: None)

    def _make(self, entry: Entry) -> Runner:
        self.begun += 1
        return Runner(entry.task, entry.secrets, self._open, again_s=(0.01, 0.1))

    @asynccontextmanager
    async def _open(self, place: str, login: Login | None) -> AsyncIterator[Peer]:
        async with self._opened(place, login) as peer:
            yield peer
            await self.may_close.wait()

    def ask(self, **more: Any) -> str:
        task, _ = task_of(Asked("a", "b", **more))
        return self.ledger.create(task, Secrets(), "me")[0].id

    async def abandoned_during(self, call: Callable[[None], Any]) -> None:
        """The turn is lost while this asks the database."""
        self.thread.asked.clear()
        self.thread.answers.clear()
        asking = asyncio.ensure_future(call(None))
        try:
            await eventually(self.thread.asked.is_set)
            self.crew.abandon()
        finally:
            self.thread.answers.set()
        await asking


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        store = stack.enter_context(Store.open(tmp_path))
        store.create("a").put({"_id": "d"})
        store.create("b")
        made = Place(store, stack.enter_context(SlowThread()))
        stack.push_async_callback(made.crew.stop, 10.0)
        yield made


async def test_who_loses_the_turn_while_the_tasks_are_read_begins_none_of_them(place: Place) -> None:
    place.ask(continuous=True)
    await place.abandoned_during(place.crew.fit)
    assert (place.crew.works, place.begun) == ([], 0)
    await place.crew.fit(None)  # the turn came back
    assert place.begun == 1


async def test_who_loses_the_turn_while_an_end_is_stored_lets_go_of_it_all_the_same(place: Place) -> None:
    place.ask()
    await place.crew.fit(None)
    (work,) = place.crew.works
    await asyncio.wait([work.runner.task])
    await place.abandoned_during(place.crew.keep)
    assert place.crew.works == []


async def test_what_is_kept_while_its_ends_are_closed_has_ended_all_the_same(place: Place) -> None:
    place.ask()
    place.may_close.clear()
    await place.crew.fit(None)
    (work,) = place.crew.works
    await eventually(lambda: work.runner.report().state == "done")
    await place.crew.fit(None)
    place.may_close.set()
    await asyncio.wait([work.runner.task])
    await place.crew.fit(None)
    assert place.crew.works == []
    assert [entry.runs for entry in place.ledger.entries()] == [False]


async def test_what_a_cancelled_task_did_is_not_told_of_the_one_that_is_made_after_it(place: Place) -> None:
    id = place.ask(continuous=True)
    await place.crew.fit(None)
    (work,) = place.crew.works
    await eventually(lambda: work.runner.report().state == "idle")
    await place.crew.keep(None)
    place.ledger.cancel(id)
    place.ask(continuous=True)
    await place.crew.fit(None)
    await asyncio.wait([work.runner.task])
    await place.crew.keep(None)
    assert place.ledger.entry(id).report.directions == []


async def test_a_fault_of_our_own_ends_a_continuous_one_for_a_while_and_one_that_runs_once_for_good(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, faults = LocalPeer.write, 0

    async def strange(self: LocalPeer, *given: Any) -> Any:
        nonlocal faults
        if faults < 2:
            faults += 1
            raise RuntimeError("never thought of")
        return await write(self, *given)

    monkeypatch.setattr(LocalPeer, "write", strange)
    place.ask()
    await place.crew.fit(None)
    (work,) = place.crew.works
    await asyncio.wait([work.runner.task])
    report = work.runner.report()
    assert (report.state, report.error, faults) == ("failed", "internal", 1)
    await place.crew.fit(None)
    place.ask(continuous=True)
    await place.crew.fit(None)
    (work,) = place.crew.works
    await eventually(lambda: work.runner.report().state == "idle")
    assert faults == 2


async def test_one_that_is_abandoned_while_an_error_ends_its_session_ends(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    closes, may_go_on = asyncio.Event(), asyncio.Event()

    async def changes(self: LocalPeer, since: str | None, *_: Any, **__: Any) -> AsyncIterator[Page]:
        try:
            yield Page([], "1-e")
            await asyncio.Event().wait()
        finally:  # a link that takes its time to be closed
            closes.set()
            await may_go_on.wait()

    async def behind(self: LocalPeer, position: str) -> int:
        raise Forbidden("Not any more")

    monkeypatch.setattr(LocalPeer, "changes", changes)
    monkeypatch.setattr(LocalPeer, "behind", behind)
    place.ask(continuous=True)
    await place.crew.fit(None)
    (work,) = place.crew.works
    await asyncio.wait_for(closes.wait(), 30)
    place.crew.abandon()
    await asyncio.sleep(0)
    may_go_on.set()
    done, _ = await asyncio.wait([work.runner.task], timeout=30)
    assert done
    assert work.runner.outcome == "stopped"
