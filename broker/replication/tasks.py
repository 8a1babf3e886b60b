"""Replications as the service's faces ask for them: created, listed, paused, resumed, cancelled, or run once.

A task stands in the store until it is cancelled. Of several processes on one database the holder of the lock
`replications` runs all of them; each of the others can be asked as well, and takes over when the holder is gone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

from broker.election import Election
from broker.health import PartHealth, moment, told_of
from broker.perseverance import Perseverance, Undertaking
from broker.replication.crew import Crew
from broker.replication.documents import Register
from broker.replication.ledger import CANCELLED, COUNT_MAX, Entry, Ledger, described
from broker.replication.runner import AGAIN_S, STOP_S_MAX, Open, Runner, peers_of
from broker.replication.task import Secrets, Task
from feeds import Store
from feeds.errors import BadRequest, SpileError, TooLarge, Unavailable
from feeds.storage.locks import Fence, LockLost
from feeds.storage.replicator import StoredDocument

log = logging.getLogger("spile.replications")

T = TypeVar("T")

LOCK = "replications"
LOOK_S = 1.0  # a hint may be missed, and another process has none to give
_NAMED_MAX = 10  # of the replications that `/health` tells of

_ROUND = Undertaking(
    "looking after replications", "Those that run go on. It is tried again until it works; the part store says more."
)
_AWAY = "Which process runs the replications is known again once the database answers; see the part store."
_TROUBLED = "GET /replications, or `spile replications`, tells more. It is tried again by itself."


@dataclass(slots=True)
class _Once:
    """A replication that is not kept, and how many wait for its end."""

    runner: Runner
    who: str
    waiting: int = 0

    def shown(self) -> dict[str, Any]:
        """How it stands."""
        return _told(self.runner, self.who)


class Tasks:
    """The replications of one store. To be used on one event loop; `start` has them run."""

    def __init__(
        self,
        store: Store,
        executor: Executor,
        election: Election | None = None,
        *,
        count_max: int = COUNT_MAX,
        open: Open | None = None,
        name: str = "",
        again_s: tuple[float, float] = AGAIN_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`election` says which process runs them; None: this one. `executor` runs what blocks on the database, and
        `name` is that of this process."""
        self._ledger = Ledger(store, count_max)
        self._register = Register(self._ledger.rows, count_max)
        self._executor = executor
        self.election = election
        self._count_max = count_max
        self._open = open or peers_of(store)
        self._name = name
        self._again_s = again_s
        self._clock = clock
        self._crew = Crew(self._ledger, self._make, executor, self._look_now)
        self._once: dict[str, _Once] = {}
        self._hint = asyncio.Event()
        self._stopping = False
        self._perseverance = Perseverance(log)
        self.task: asyncio.Task[None] | None = None
        if election is not None:
            election.on_lost = lambda _reason: self._crew.abandon()

    # -- what is asked

    async def create(self, task: Task, secrets: Secrets, who: str) -> tuple[dict[str, Any], bool]:
        """Have it run from now on, as `Ledger.create` says; how it stands, and whether it is new."""
        entry, made = await self._changed(lambda: self._ledger.create(task, secrets, who))
        if made:
            log.info("%s asks for the replication %s (%s)", who, task, entry.id)
        return self._shown(entry), made

    async def list(self) -> list[dict[str, Any]]:
        """Every task, the oldest first; behind them what is run once and not kept."""
        entries = await self._do(self._ledger.entries)
        return [*map(self._shown, entries), *(once.shown() for once in self._once.values())]

    async def get(self, id: str) -> dict[str, Any]:
        """One of them; NotFound if there is none of this id."""
        if id in self._once:
            return self._once[id].shown()
        return self._shown(await self._do(lambda: self._ledger.entry(id)))

    async def pause(self, id: str) -> dict[str, Any]:
        """Let it rest. Where it runs in this process, it does not any more."""
        entry = await self._changed(lambda: self._ledger.pause(id))
        await self._rests(id)
        return self._shown(entry)

    async def resume(self, id: str) -> dict[str, Any]:
        """Have it run, at once where it waits, and again where it has ended."""
        return self._shown(await self._changed(lambda: self._ledger.resume(id)))

    async def cancel(self, id: str) -> dict[str, Any]:
        """Forget it, as `pause`; how it stood. What is run once ends."""
        if id in self._once:
            shown = self._once[id].shown()
            await self._once[id].runner.end(STOP_S_MAX)
            return shown | CANCELLED
        entry = await self._changed(lambda: self._ledger.cancel(id))
        shown = self._shown(entry)
        await self._rests(id)
        log.info("the replication %s (%s) is cancelled", entry.task, id)
        return shown | CANCELLED

    async def run(self, task: Task, secrets: Secrets, who: str = "") -> dict[str, Any]:
        """Replicate once, in this process, and wait for the end; how it stands then. Nothing is kept.

        One that runs here already is joined. It ends when nobody waits any more. Raises what it ends by.
        """
        if task.continuous:
            raise BadRequest("What is continuous has no end to be waited for", hint="Leave `continuous` out.")
        runner = self._crew.runner(task.id)
        if runner is not None and not runner.task.done() and not self._stopping:
            await asyncio.wait([runner.task])
            return _outcome(task, runner)
        while (once := self._once.get(task.id)) is not None and not once.waiting:
            await asyncio.wait([once.runner.task])  # nobody waited for it any more, and it is being ended
        if self._stopping:
            raise Unavailable("The service is being stopped")
        if once is None:
            if len(self._once) >= self._count_max:
                raise TooLarge(f"{len(self._once)} replications run already", hint="Wait until one has ended.")
            once = self._once[task.id] = _Once(self._runner(task, secrets), who)
            once.runner.task.add_done_callback(lambda _: self._once.pop(task.id))
        once.waiting += 1
        try:
            await asyncio.wait([once.runner.task])
        finally:
            once.waiting -= 1
            if not once.waiting:
                once.runner.stop()
        return _outcome(task, once.runner)

    async def ask(self, call: Callable[[Register], T]) -> T:
        """What the documents say that describe replications. `call` blocks."""
        return await self._do(lambda: call(self._register))

    async def change(self, call: Callable[[Register], T]) -> T:
        """Change these documents, and with them what runs. `call` blocks."""
        return await self._changed(lambda: call(self._register))

    async def delete(self, id: str, rev: str | None) -> StoredDocument:
        """Delete a document, and cancel what it describes, as `cancel`. Conflict, NotFound, Deleted."""
        found = await self.ask(lambda register: register.get(id))
        deleted = await self.change(lambda register: register.delete(id, rev))
        if found.stored.task is not None:
            await self._rests(found.stored.task)
        return deleted

    # -- the part of the service

    def start(self) -> None:
        """Have what is wanted run from now on."""
        self.task = asyncio.create_task(self._run(), name="spile-replications")

    async def stop(self, patience_s: float = STOP_S_MAX) -> None:
        """End everything: what is on its way arrives and is recorded, as far as there is time for it."""
        self._stopping = True
        self._perseverance.stop()
        self._hint.set()
        if self.task is not None:
            await asyncio.wait([self.task])
        ends = [asyncio.create_task(each.runner.end(patience_s)) for each in self._once.values()]
        await self._crew.stop(patience_s)
        if ends:
            await asyncio.wait(ends)
        try:
            fence = self._fence
            if self.election is None or fence is not None:
                await self._crew.keep(fence)
        except SpileError as error:
            log.warning("how far the replications are was not stored: %s", error.reason)

    def health(self) -> PartHealth:
        """Whether replications are looked after, and which of those at work here are in trouble."""
        election = self.election
        works = [(work, work.runner.report()) for work in self._crew.works]
        figures: dict[str, Any] = {"at_work": len(works)}
        if election is not None:
            figures |= {"role": "holder" if self._is_holder else "follower"}
            if election.failure is not None:
                return PartHealth("waiting", election.failure, _AWAY, figures, election.since)
        if self.task is None:
            return PartHealth("running", figures=figures)
        told = told_of(self.task, self._perseverance.obstacle, figures)
        troubled = [(work, report) for work, report in works if report.state in ("waiting", "failed")]
        if told.state != "running" or not troubled:
            return told
        named = "; ".join(f"{work.entry.task}: {report.reason}" for work, report in troubled[:_NAMED_MAX])
        return PartHealth("waiting", named, _TROUBLED, {**figures, "troubled": len(troubled)})

    def stats(self) -> dict[str, Any]:
        """What is at work here, by states, and the counts of each."""
        told = {work.entry.id: work.runner.report() for work in self._crew.works}
        progress = {id: report.as_dict()["progress"] for id, report in told.items()}
        states = [report.state for report in told.values()]
        figures: dict[str, Any] = {"at_work": len(told), "once": len(self._once), "holder": self._is_holder}
        figures["waiting"] = states.count("waiting")
        for name in ("read", "written", "refused", "retries", "behind"):
            figures[name] = {id: each[name] for id, each in progress.items() if each[name] is not None}
        return figures

    # -- the task

    @property
    def _is_holder(self) -> bool:
        return self.election is None or self.election.fence is not None

    @property
    def _fence(self) -> Fence | None:
        return None if self.election is None else self.election.fence

    async def _run(self) -> None:
        while not self._stopping:
            self._hint.clear()
            if self._is_holder:
                try:
                    await self._perseverance.carry(_ROUND, self._round)
                except LockLost:
                    self._lost()
            await self._rest(LOOK_S)

    async def _round(self) -> None:
        """As long as this process is the holder; what was lost meanwhile was abandoned already."""
        fence = self._fence
        if self.election is None or fence is not None:
            await self._crew.fit(fence)

    def _lost(self) -> None:
        log.warning("another process runs the replications")
        self._crew.abandon()
        if self.election is not None:
            self.election.doubt()

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._hint.wait()
        except TimeoutError:
            return

    def _look_now(self) -> None:
        self._hint.set()

    # -- runners

    def _make(self, entry: Entry) -> Runner:
        return self._runner(entry.task, entry.secrets, entry)

    def _runner(self, task: Task, secrets: Secrets, entry: Entry | None = None) -> Runner:
        return Runner(
            task,
            secrets,
            self._open,
            None if entry is None else entry.report,
            holder=self._name,
            again_s=self._again_s,
            tireless=entry is not None and entry.row.document is not None,
            clock=self._clock,
        )

    async def _rests(self, id: str) -> None:
        """Until it is at rest in this process, for a while."""
        runner = self._crew.runner(id)
        if runner is not None:
            await runner.end(STOP_S_MAX)

    async def _changed(self, change: Callable[[], T]) -> T:
        done = await self._do(change)
        self._hint.set()
        return done

    async def _do(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    def _shown(self, entry: Entry) -> dict[str, Any]:
        runner = self._crew.runner(entry.id)
        return entry.shown(None if runner is None else runner.report())


def _told(runner: Runner, who: str = "") -> dict[str, Any]:
    """What is not kept, as it is shown."""
    task = runner.what
    return {
        "id": task.id,
        **described(task),
        "created": moment(runner.begun),
        "created_by": who,
        "document": None,
        **runner.report().as_dict(),
    }


def _outcome(task: Task, runner: Runner) -> dict[str, Any]:
    if runner.outcome == "failed" and runner.error is not None:
        raise runner.error
    return _told(runner)
