"""The timer that keeps a store tidy: expiry, compaction, and forgetting old log rows; contents are `contents`'s.

It also has it tried whether a store whose writes failed takes them again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

from broker.health import PartHealth, told_of
from broker.perseverance import FIRST_S, Perseverance, Undertaking
from broker.store_trial import StoreTrial
from feeds import Store
from feeds.errors import SpileError
from listeners.backoff import Backoff

log = logging.getLogger("spile.maintenance")

T = TypeVar("T")
AGAIN_MAX_S = 2.0
EXPIRE_S = 1.0  # what has expired is told within about that time

_HINT = "Nothing is lost, and it is tried again until it works. The part store says more."
_ROUND = Undertaking("upkeep of the store", _HINT)
_SWEEP = Undertaking("sweeping what has expired", _HINT)
_TRIAL = Undertaking("a trial whether the store can be written", _HINT)


class Maintenance:
    """Runs `Store.maintain` every so often; what fails is told and tried again."""

    def __init__(self, store: Store, trial: StoreTrial, executor: Executor, every_s: float) -> None:
        self._store = store
        self._trial = trial
        self._executor = executor
        self._every_s = every_s
        self._stopping = asyncio.Event()
        # A store that is back is tried soon: until then `/health` says that it fails, and writes may be held back.
        self._perseverance = Perseverance(log, backoff=lambda: Backoff(FIRST_S, AGAIN_MAX_S))
        self._fault: SpileError | None = None
        self.rounds = 0
        self.last: dict[str, int] = {}
        self.task = asyncio.create_task(self._run(), name="spile-maintenance")

    def stats(self) -> dict[str, Any]:
        """Rounds so far, and what the last one did."""
        return {"rounds": self.rounds, **{f"last_{name}": count for name, count in self.last.items()}}

    def health(self) -> PartHealth:
        """Whether the store is kept tidy, and what stands in the way."""
        figures = {"rounds": self.rounds}
        if self._fault is not None:
            return PartHealth("failing", self._fault.reason, self._fault.hint, figures)
        return told_of(self.task, self._perseverance.obstacle, figures)

    async def stop(self) -> None:
        """End after the round that is running."""
        self._stopping.set()
        self._perseverance.stop()
        await asyncio.wait([self.task])

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            done = await self._do(_ROUND, lambda: self._store.maintain(contents=False))
            if done is not None:
                self.last = done
                self.rounds += 1
            ends = loop.time() + self._every_s
            while loop.time() < ends and not self._stopping.is_set():
                try:
                    async with asyncio.timeout(min(EXPIRE_S, self._every_s)):
                        await self._stopping.wait()
                except TimeoutError:
                    await self._do(_SWEEP, self._store.expire)
                    if self._trial.due:
                        await self._do(_TRIAL, self._trial.run)

    async def _do(self, undertaking: Undertaking, work: Callable[[], T]) -> T | None:
        """Have it done, however long that takes; None where waiting cannot help, or at the end."""
        loop = asyncio.get_running_loop()
        try:
            done = await self._perseverance.carry(undertaking, lambda: loop.run_in_executor(self._executor, work))
        except SpileError as error:
            if not error.retryable:
                self._fault = error
            log.warning("%s failed, and is tried later: %s", undertaking.name, error.reason)
            return None
        self._fault = None
        return done
