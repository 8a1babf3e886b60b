"""Doing something again until it is done, with growing pauses, and telling meanwhile what stands in its way.

The one way in which background work meets what passes by itself: a full disk, a lock, a broker that is away.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from feeds.errors import SpileError
from listeners.backoff import Backoff

T = TypeVar("T")

FIRST_S, MAX_S = 0.1, 15.0  # after hours away, something is taken up again within half a minute
LOG_S = 300.0  # while the reason stays the same it is logged this often


@dataclass(frozen=True, slots=True)
class Undertaking:
    """Something that may take several tries: what it is called, and what an operator can do while it fails."""

    name: str
    hint: str


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why an undertaking waits; times are seconds since 1970."""

    undertaking: Undertaking
    reason: str
    since: float
    tries: int
    next_try: float


class Perseverance:
    """Carries undertakings through, one at a time. `obstacle` is what the present one waits for, if it does."""

    def __init__(
        self,
        log: logging.Logger,
        *,
        clock: Callable[[], float] = time.time,
        backoff: Callable[[], Backoff] = lambda: Backoff(FIRST_S, MAX_S),
    ) -> None:
        """`log` hears of what waits: its beginning, its end, and every few minutes in between."""
        self.obstacle: Obstacle | None = None
        self._log = log
        self._clock = clock
        self._backoff = backoff
        self._logged_at = 0.0
        self._stopping = asyncio.Event()

    async def carry(self, undertaking: Undertaking, step: Callable[[], Awaitable[T]]) -> T:
        """What `step` gives, as soon as it gives something.

        A step may be broken off anywhere and is done again. An error that waiting cannot help is raised at once,
        and after `stop` every error is.
        """
        backoff = self._backoff()
        try:
            while True:
                try:
                    done = await step()
                except SpileError as error:
                    if not error.retryable or self._stopping.is_set():
                        raise
                    wait_s = backoff.next()
                    self._met(undertaking, error, wait_s)
                    await self._rest(wait_s)
                else:
                    self._overcome()
                    return done
        finally:
            self.obstacle = None

    def stop(self) -> None:
        """Wait no more: what waits now is tried once more at once."""
        self._stopping.set()

    def _met(self, undertaking: Undertaking, error: SpileError, wait_s: float) -> None:
        now, before = self._clock(), self.obstacle
        since, tries = (now, 0) if before is None else (before.since, before.tries)
        self.obstacle = Obstacle(undertaking, error.reason, since, tries + 1, now + wait_s)
        if before is None or before.reason != error.reason or now - self._logged_at >= LOG_S:
            self._logged_at = now
            self._log.warning("%s waits, and is tried again: %s", undertaking.name, error.reason)

    def _overcome(self) -> None:
        if (met := self.obstacle) is not None:
            lasted_s = self._clock() - met.since
            self._log.info("%s goes on after %.1f s and %d tries", met.undertaking.name, lasted_s, met.tries + 1)

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass
