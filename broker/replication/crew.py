"""Having the tasks of a ledger run in this process: those that are wanted, as they are wanted, and no others.

What is at work is compared with what stands in the ledger again and again; somebody's word that it has changed is a
hint to look now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

from broker.replication.ledger import Entry, Ledger
from broker.replication.reports import Report
from broker.replication.runner import Runner
from feeds.storage.locks import Fence

T = TypeVar("T")

KEEP_S = 2.0  # between two times that it is stored how far a task is; a commit each


@dataclass(slots=True)
class Work:
    """A task at work, as it was wanted when it began, and what was kept of it last."""

    entry: Entry
    runner: Runner
    kept: Report | None = None
    kept_at: float = 0.0


class Crew:
    """The runners of one process. To be used on one event loop."""

    def __init__(
        self, ledger: Ledger, make: Callable[[Entry], Runner], executor: Executor, hint: Callable[[], None]
    ) -> None:
        """`make` begins to run a task; `hint` is called when a runner has ended by itself or was stopped."""
        self._ledger = ledger
        self._make = make
        self._executor = executor
        self._hint = hint
        self._works: dict[str, Work] = {}
        self._left: set[asyncio.Task[None]] = set()  # abandoned, and not at their end yet
        self._turns = 0  # how often all was abandoned: it may happen while the database is asked

    @property
    def works(self) -> list[Work]:
        """What is at work, or has just ended."""
        return list(self._works.values())

    def runner(self, id: str) -> Runner | None:
        """What runs a task here."""
        work = self._works.get(id)
        return None if work is None else work.runner

    async def fit(self, fence: Fence | None) -> None:
        """Stop what is not wanted any more, keep how far everything is, and begin what is wanted."""
        turn = self._turns
        entries = {entry.id: entry for entry in await self._do(self._ledger.entries)}
        for id, work in self._works.items():
            entry = entries.get(id)
            if entry is None or not entry.runs or entry.row.version != work.entry.row.version:
                work.runner.stop()
        gone = await self.keep(fence)
        if turn != self._turns:
            return
        for entry in entries.values():
            # What has ended just now may stand there as it was before that: the next look finds it as it is.
            if entry.runs and entry.id not in self._works and entry.id not in gone:
                self._begin(entry)

    async def keep(self, fence: Fence | None) -> set[str]:
        """Store how far everything is that has moved, and let go of what has ended: the ids of that."""
        now = asyncio.get_running_loop().time()
        told = [(work, work.runner.report()) for work in self._works.values()]
        ended = [work for work, _ in told if work.runner.outcome is not None]
        # What has ended may have been kept while its ends were being closed: that it was done, and not that it ended.
        moved = [(work, report) for work, report in told if work in ended or _has_moved(work, report, now)]
        if moved:
            given = [
                (work.entry, report, work in ended and work.runner.outcome != "stopped") for work, report in moved
            ]
            await self._do(lambda: self._ledger.tell(given, fence))
        for work, report in moved:
            work.kept, work.kept_at = report.settled(), now
        for work in ended:
            self._works.pop(work.entry.id, None)
            self._hint()
        return {work.entry.id for work in ended}

    async def stop(self, patience_s: float) -> None:
        """End everything: in order as far as there is time for it. How far it is, is still to be kept."""
        ends = [asyncio.create_task(work.runner.end(patience_s)) for work in self.works]
        if ends or self._left:
            await asyncio.wait([*ends, *self._left])

    def abandon(self) -> None:
        """End everything at once, and keep nothing: another process goes on with it."""
        self._turns += 1
        for work in self.works:
            task = work.runner.task
            self._left.add(task)
            task.add_done_callback(self._left.discard)
            # A session that an error is ending just now ends by that, and not by being cancelled: no other follows.
            work.runner.stop()
            task.cancel()
        self._works.clear()

    def _begin(self, entry: Entry) -> None:
        work = self._works[entry.id] = Work(entry, self._make(entry))
        work.runner.task.add_done_callback(lambda _: self._hint())

    async def _do(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


def _has_moved(work: Work, report: Report, now: float) -> bool:
    """Whether it is to be stored how far it is: a new state at once, and the rest now and then."""
    if work.kept is None or report.state != work.kept.state:
        return True
    return now - work.kept_at >= KEEP_S and report.settled() != work.kept
