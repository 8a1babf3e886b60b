"""How far everyone is behind, looked at seldom for all who ask: metrics, and the topic of each barrel.

A look reads the store in a thread. One is made at a time, and what it found serves everybody for a moment.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import Protocol, TypeVar

from feeds import Store
from feeds.errors import SpileError
from listeners.lags import LagReport, lag_report
from listeners.stream.service import StreamService

log = logging.getLogger("spile.lags")

FRESH_S = 1.0  # what is older is looked at again
WAIT_S = 2.0  # nobody waits longer for a store that does not answer


class Behind(Protocol):
    """Whatever can be behind."""

    @property
    def seq_behind(self) -> int: ...
    @property
    def seconds_behind(self) -> float: ...


B = TypeVar("B", bound=Behind)


class Lags:
    """The newest look at all barrels. To be used on the event loop that it was made on."""

    def __init__(
        self,
        store: Store,
        streams: StreamService | None,
        executor: Executor,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`streams` are those of this process; `executor` runs what reads the store."""
        self._store = store
        self._streams = streams
        self._executor = executor
        self._clock = clock
        self._looked_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self.latest: LagReport | None = None
        """What the newest look has found, however old."""

    @property
    def age_s(self) -> float:
        """How old the newest look is."""
        return self._clock() - self._looked_at

    async def look(self) -> LagReport | None:
        """What was found a moment ago, or now; something older, or None, where the store cannot be read."""
        if (task := self.refresh()) is not None:
            await asyncio.wait([task], timeout=WAIT_S)
        return self.latest

    def refresh(self, fresh_s: float = FRESH_S) -> asyncio.Task[None] | None:
        """Begin to look unless the newest look is fresh; the look that is under way."""
        if self._task is None and (self.latest is None or self.age_s >= fresh_s):
            self._task = asyncio.get_running_loop().create_task(self._look(), name="spile-lags")
        return self._task

    async def of(self, barrel: str | None) -> LagReport:
        """A look of the caller's own, with dead letters, at one barrel or at all; errors come out."""
        return await self._read(barrel, dead_letters=True)

    async def stop(self) -> None:
        """Wait for a look that is under way."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _look(self) -> None:
        try:
            self.latest = await self._read(None, dead_letters=False)
            self._looked_at = self._clock()
        except SpileError as error:
            log.warning("how far listeners are behind cannot be told: %s", error.reason)
        finally:
            self._task = None

    async def _read(self, barrel: str | None, *, dead_letters: bool) -> LagReport:
        here = None if self._streams is None else self._streams.standings(barrel)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._executor, lambda: lag_report(self._store, here, barrel, dead_letters=dead_letters)
        )


def worst(found: Iterable[B], count_max: int) -> tuple[list[B], int]:
    """Those that are furthest behind, at most so many, and how many are left out."""
    listed = list(found)
    if len(listed) > count_max:
        listed.sort(key=lambda each: (each.seconds_behind, each.seq_behind), reverse=True)
    return listed[:count_max], max(0, len(listed) - count_max)


def here() -> str:
    """The name of this process: streams are each process's own, where several serve one store."""
    return f"{socket.gethostname()}:{os.getpid()}"
