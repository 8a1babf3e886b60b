"""The timer that keeps a store tidy: expiry, compaction, and forgetting old log rows."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor
from typing import Any

from feeds import Store
from feeds.errors import SpileError

log = logging.getLogger("spile.maintenance")

EXPIRE_S = 1.0  # what has expired is told within about that time


class Maintenance:
    """Runs `Store.maintain` every so often; a round that fails is told, and the next one tries again."""

    def __init__(self, store: Store, executor: Executor, every_s: float) -> None:
        self._store = store
        self._executor = executor
        self._every_s = every_s
        self._stopping = asyncio.Event()
        self.rounds = 0
        self.failure: str | None = None
        self.last: dict[str, int] = {}
        self.task = asyncio.create_task(self._run(), name="spile-maintenance")

    def stats(self) -> dict[str, Any]:
        """Rounds so far, and what the last one did."""
        return {"rounds": self.rounds, **{f"last_{name}": count for name, count in self.last.items()}}

    async def stop(self) -> None:
        """End after the round that is running."""
        self._stopping.set()
        await asyncio.wait([self.task])

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            try:
                self.last = await loop.run_in_executor(self._executor, self._store.maintain)
                self.failure = None
            except SpileError as error:
                self.failure = error.reason
                log.warning("maintenance failed: %s", error.reason)
            self.rounds += 1
            ends = loop.time() + self._every_s
            while loop.time() < ends and not self._stopping.is_set():
                try:
                    async with asyncio.timeout(min(EXPIRE_S, self._every_s)):
                        await self._stopping.wait()
                except TimeoutError:
                    await self._expire(loop)

    async def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            await loop.run_in_executor(self._executor, self._store.expire)
        except SpileError as error:
            log.warning("sweeping what has expired failed, and is tried again: %s", error.reason)
