"""One task at work: its peers, its replicator, and another try after what ended a continuous one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Literal, TypeAlias

from broker.replication.reports import Direction, Report, direction, worst
from broker.replication.task import Login, Secrets, Task, is_here, with_login
from feeds import Store
from feeds.errors import SpileError
from listeners.backoff import Backoff
from listeners.replication import LocalPeer, Options, Pair, Peer, Replicator, opened_peer
from listeners.replication.making import make_sure_of

log = logging.getLogger("spile.replications")

Opened: TypeAlias = AbstractAsyncContextManager[Peer]
Open: TypeAlias = Callable[[str, Login | None], Opened]
"""Opens the peer that a place names, signed in as the login says."""
Outcome = Literal["done", "failed", "stopped"]

AGAIN_S = (1.0, 300.0)
"""Waits before a continuous task begins again. What ends one (credentials, a barrel that is missing, another program
at the address) is for a person to mend, who should not have to tell us; once in five minutes harms nobody."""
STOP_S_MAX = 10.0  # for a peer that does not answer; what it has taken by then is found there the next time
LASTED_S = 60.0  # a run of this length was no failure at the start: the waits begin small again

_FAULT_HINT = "The service's log tells what happened. Resuming the replication tries at once."


class Fault(SpileError):
    """The replication ended by a fault of the service's own."""

    code = "internal"
    hint = _FAULT_HINT


def peers_of(store: Store) -> Open:
    """Opens barrels of a store, and peers elsewhere."""

    @asynccontextmanager
    async def opened(place: str, login: Login | None) -> AsyncIterator[Peer]:
        if not is_here(place):
            token = None if login is None else login.token
            async with opened_peer(with_login(place, login), token=token) as peer:
                yield peer
            return
        local = LocalPeer(store, place)
        try:
            yield local
        finally:
            await local.close()

    return opened


class Runner:
    """Runs one task from its making until `stop`, or until it ends by itself. `task` never raises."""

    def __init__(
        self,
        what: Task,
        secrets: Secrets,
        open: Open,
        before: Report | None = None,
        *,
        holder: str = "",
        again_s: tuple[float, float] = AGAIN_S,
        tireless: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`before` is how far it was when it ran last. What is `tireless` is begun again until it is done, although
        it is not continuous."""
        self.what = what
        self.outcome: Outcome | None = None
        """How it ended; None while it runs."""
        self.error: SpileError | None = None
        """What it ended by, or waits for."""
        self._secrets = secrets
        self._open = open
        self._before = before.directions if before is not None else []
        self._holder = holder
        self._again_s = again_s
        self._again = tireless or what.continuous
        self._clock = clock
        self._work: Replicator | Pair | None = None
        self._stopping = asyncio.Event()
        self._retry_at: float | None = None
        self._state = "starting"
        self._since = self.begun = clock()
        """When it was made."""
        self.task = asyncio.create_task(self._run(), name=f"spile-replication {what}")

    def stop(self) -> None:
        """Let it end soon: what is on its way arrives, and is recorded; in STOP_S_MAX whether it has or not."""
        if not self._stopping.is_set():
            asyncio.get_running_loop().call_later(STOP_S_MAX, self.task.cancel)
        self._stopping.set()
        if self._work is not None:
            self._work.stop()

    async def end(self, patience_s: float) -> None:
        """Stop, and end at once what does not stop in time."""
        self.stop()
        await asyncio.wait([self.task], timeout=patience_s)
        self.task.cancel()
        await asyncio.wait([self.task])

    def report(self) -> Report:
        """How far it is now."""
        directions = self._directions()
        state = self.outcome or ("waiting" if self._retry_at else worst(directions).state)
        if state != self._state:
            self._state, self._since = state, self._clock()
        error, reason, code = self.error, None, None
        if error is not None:
            reason, code = error.reason, error.code
        elif state == "waiting":
            reason, code = worst(directions).reason, worst(directions).error
        return Report(
            state=state,
            since=self._since,
            reason=reason,
            error=code,
            hint=None if error is None else error.hint,
            retry_at=self._retry_at,
            holder=self._holder,
            at=self._clock(),
            directions=directions,
        )

    # -- the task

    async def _run(self) -> None:
        try:
            async with AsyncExitStack() as stack:
                source = await stack.enter_async_context(self._open(self.what.source, self._secrets.source))
                target = await stack.enter_async_context(self._open(self.what.target, self._secrets.target))
                await self._replicate(source, target)
            self.outcome = "stopped" if self._stopping.is_set() else "done"
        except SpileError as error:
            self._failed(error)
        except asyncio.CancelledError:
            self.outcome = "stopped"
        except Exception as error:  # noqa: BLE001 - it is logged, and shown
            self._failed(self._told(error))

    async def _replicate(self, source: Peer, target: Peer) -> None:
        """Until it is done or stopped; raises what ends it for good."""
        what = self.what
        options = Options(filter=what.filter, continuous=what.continuous, leaves=what.leaves)
        work = self._work = (Pair if what.both else Replicator)(source, target, options)
        backoff, now = Backoff(*self._again_s), asyncio.get_running_loop().time
        while not self._stopping.is_set():
            began = now()
            try:
                if what.create_target:
                    await make_sure_of(target, options.patient, self._hear, self._stopping)
                    self.error = None
                if not self._stopping.is_set():
                    await work.run()
                return
            except Exception as ended:
                is_final = isinstance(ended, SpileError) and ended.code == "bad_request"
                if self._stopping.is_set() or not self._again or is_final:
                    raise
                error = self._told(ended)
                if now() - began >= LASTED_S:
                    backoff.reset()
                await self._wait(error, backoff.next())

    def _told(self, error: Exception) -> SpileError:
        if isinstance(error, SpileError):
            return error
        log.error("the replication %s ended by a fault", self.what, exc_info=error)
        return Fault(f"The replication ended by {type(error).__name__}")

    def _hear(self, error: SpileError | None) -> None:
        """Of a target that is away before the replication begins."""
        self.error = error

    async def _wait(self, error: SpileError, seconds: float) -> None:
        log.warning("the replication %s is tried again in %.0f s: %s", self.what, seconds, error.reason)
        self.error, self._retry_at = error, self._clock() + seconds
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass
        self.error = self._retry_at = None

    def _failed(self, error: SpileError) -> None:
        if self._stopping.is_set():
            log.info("the replication %s was stopped, and %s", self.what, error.reason)
            self.outcome = "stopped"
            return
        log.warning("the replication %s has failed: %s", self.what, error.reason)
        self.outcome, self.error = "failed", error

    # -- what is told of it

    def _directions(self) -> list[Direction]:
        what, work = self.what, self._work
        ends = [(what.source, what.target)]
        if what.both:
            ends.append((what.target, what.source))
        before = [self._before[number] if number < len(self._before) else None for number in range(len(ends))]
        if work is None:
            told = zip(ends, before, strict=True)
            return [was or Direction(source, target) for (source, target), was in told]
        replicators = [work.there, work.back] if isinstance(work, Pair) else [work]
        return [
            direction(source, target, each.stats(), was)
            for (source, target), each, was in zip(ends, replicators, before, strict=True)
        ]
