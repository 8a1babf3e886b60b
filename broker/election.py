"""Which of several processes on one database does what only one may do: the one that holds the lock for it.

A follower looks for the lock several times a second; the holder beats. What a holder is sure of lasts only for
`VALID_S` after its last beat, which is less than a rival waits: a process that was held up (stopped, swapped out, its
event loop stuck) knows by its own clock that it may not be the holder any more, and lets go before it asks.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from feeds.errors import SpileError
from feeds.storage.locks import BEAT_S, EXPIRY_S, Fence, Lock, Locks

log = logging.getLogger("spile.election")

T = TypeVar("T")
VALID_S = EXPIRY_S - 0.5
LOOK_S = 0.25  # a follower's, for the lock
TELL_S = 2.0  # how old what a follower tells of the holder may be


class Election:
    """Takes the lock when it can, and keeps it. `fence` is there while this process is the holder."""

    def __init__(
        self,
        locks: Locks,
        name: str,
        holder: str,
        *,
        duty: str = "",
        valid_s: float = VALID_S,
        beat_s: float = BEAT_S,
        look_s: float = LOOK_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`holder` names this process, and no other before or after it. `duty` is what the holder does, in the log's
        words. `locks` are closed at the end."""
        self.name = name
        self._duty = duty or f"publishing to {name}"
        self.on_lost: Callable[[str], None] = lambda _reason: None
        """Told why at once when the lock is lost, before anything else happens."""
        self.since = time.time()
        """When it became what it is, holder or follower."""
        self.failure: str | None = None
        """Why the lock cannot be asked for; None while it can."""
        self.terms = 0
        """How often this process took the lock."""
        self.other: Lock | None = None
        """How the lock stood lately, while another had it."""
        self._locks = locks
        self._holder = holder
        self._valid_s, self._beat_s, self._look_s = valid_s, beat_s, look_s
        if not locks.are_shared:
            self._valid_s, self._beat_s = float("inf"), 3600.0  # nobody can take it
        self._clock = clock
        self._fence: Fence | None = None
        self._taken: Fence | None = None  # on the thread alone
        self._valid_until = 0.0
        self._told_at = float("-inf")
        self._doubt = asyncio.Event()
        self._turned = asyncio.Event()
        self._asked: asyncio.Future[Any] | None = None
        # A thread of its own: beats must not wait behind what others read.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spile-election")
        self.task: asyncio.Task[None] | None = None

    @property
    def fence(self) -> Fence | None:
        """What the holder shows; None while this process is not sure to be it."""
        return self._fence if self._clock() < self._valid_until else None

    async def start(self) -> None:
        """Try once to take the lock, and then keep at it. Raises what waiting cannot help."""
        await self._try()
        self.task = asyncio.create_task(self._run(), name="spile-election")

    async def stop(self) -> None:
        """Give the lock back, so that another process goes on at once."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])
        self._fence = None
        self._thread.submit(self._end)
        await asyncio.get_running_loop().run_in_executor(None, self._join)

    async def confirm(self) -> bool:
        """Whether this process is the holder, by the database's word of now."""
        fence = self.fence
        if fence is None:
            return False
        asked_at = self._clock()
        try:
            held = await self._ask(lambda: self._locks.beat(fence))
        except SpileError as error:
            log.warning(
                "whether this process still has the turn of %s cannot be found out: %s", self._duty, error.reason
            )
            return False
        if not held:
            self.doubt()
        elif self._fence == fence:
            self._valid_until = max(self._valid_until, asked_at + self._valid_s)
        return held and self.fence == fence

    def doubt(self) -> None:
        """Find out now whether the lock is still held."""
        self._doubt.set()

    async def turn(self, fence: Fence | None) -> Fence | None:
        """Wait until `fence` is not what is held any more (None: until something is); what is held then."""
        while self._fence == fence:
            await self._turned.wait()
        return self._fence

    # -- the task

    async def _run(self) -> None:
        while True:
            if self._fence is None:
                await self._rest(self._look_s)
                await self._try()
            else:
                await self._rest(self._beat_s)
                await self._beat(self._fence)

    async def _try(self) -> None:
        """Take the lock if that is possible now."""
        asked_at = self._clock()
        try:
            fence = await self._ask(self._acquire)
            if fence is None and asked_at - self._told_at >= TELL_S:
                self._told_at = asked_at
                self.other = await self._ask(lambda: self._locks.state(self.name))
        except SpileError as error:
            if not error.retryable:
                raise
            if self.failure is None:
                log.warning("which process has the turn of %s cannot be found out: %s", self._duty, error.reason)
            self.failure = error.reason
            return
        self.failure = None
        if fence is not None:
            self._hold(fence, asked_at + self._valid_s)

    async def _beat(self, fence: Fence) -> None:
        """Say that this process lives; let go where that cannot be said in time."""
        asked_at = self._clock()
        if asked_at >= self._valid_until:
            self._lose(f"this process was held up for {asked_at - self._valid_until + self._valid_s:.1f} s")
            return
        beating = asyncio.ensure_future(self._ask(lambda: self._locks.beat(fence)))
        beating.add_done_callback(_heard)
        await asyncio.wait([beating], timeout=min(self._valid_until - asked_at, 60.0))
        now = self._clock()
        error = beating.exception() if beating.done() else None
        if error is None and beating.done():
            if not beating.result():
                self._lose("another process took the lock")
                return
            self.failure = None
            self._valid_until = max(self._valid_until, asked_at + self._valid_s)
        elif isinstance(error, SpileError):
            self.failure = error.reason
        elif error is not None:
            raise error
        if now >= self._valid_until:
            self._lose(f"the database did not answer in time{f': {self.failure}' if self.failure else ''}")

    def _hold(self, fence: Fence, valid_until: float) -> None:
        if self._clock() >= valid_until:
            return  # it was held up meanwhile: the next try is a term of its own
        self._fence, self._valid_until = fence, valid_until
        self.terms += 1
        self.other = None
        self._turn()
        log.info("%s is this process's turn from now on (term %d)", self._duty, fence.term)

    def _lose(self, reason: str) -> None:
        self._fence, self._told_at = None, float("-inf")
        self.on_lost(reason)
        self._turn()
        log.warning("%s is not this process's turn any more: %s", self._duty, reason)

    def _turn(self) -> None:
        self.since = time.time()
        self._doubt.clear()
        turned, self._turned = self._turned, asyncio.Event()
        turned.set()

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._doubt.wait()
        except TimeoutError:
            pass
        self._doubt.clear()

    async def _ask(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    # -- the thread

    def _acquire(self) -> Fence | None:
        fence = self._locks.acquire(self.name, self._holder)
        self._taken = fence or self._taken
        return fence

    def _end(self) -> None:
        """Give back what was taken last, also where nobody waited for the answer any more."""
        try:
            if self._taken is not None:
                self._locks.release(self._taken)
        except SpileError as error:
            log.warning("the lock of %s was not given back, and ends by itself: %s", self.name, error.reason)
        finally:
            self._locks.close()

    def _join(self) -> None:
        self._thread.shutdown(wait=True)


def _heard(future: asyncio.Future[Any]) -> None:
    """An answer that came too late."""
    if not future.cancelled():
        future.exception()
