"""One reader of a barrel's log for all streams at its head.

It is hinted by commits and looks by itself every second: a hint is only a hint. What each stream does with its
rows, and how it gets to the head, is `feeder`'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from feeds.barrel import Barrel
from feeds.errors import NotFound, SpileError
from feeds.rows import LogEntry
from listeners.stream.interests import Interests, Live
from listeners.stream.sender import Told

T = TypeVar("T")

log = logging.getLogger("spile.streams")


class InThread(Protocol):
    """Runs a blocking call in a bounded pool of threads."""

    def __call__(self, call: Callable[[], T]) -> Awaitable[T]: ...


@dataclass(frozen=True, slots=True)
class HubLimits:
    """Bounds of one hub: how much it reads and keeps, and how often it looks unasked."""

    poll_s: float = 1.0
    batch: int = 500
    # Between two slices others on the event loop have their turn; 25 changes take a few milliseconds.
    slice: int = 25
    recent: int = 500
    recent_bytes: int = 4 << 20


class Hub:
    """Hands the changes of one barrel to the streams that are at its head, in seq order.

    `seq` is how far everyone attached has been told. The last few changes are kept, so that a stream that comes
    from a replay a little behind can join.
    """

    def __init__(self, barrel: Barrel, in_thread: InThread, limits: HubLimits) -> None:
        self.barrel = barrel
        self.seq = 0
        self.head = 0  # as hinted, or as read
        self._in_thread = in_thread
        self._limits = limits
        self._interests = Interests()
        self._recent: deque[LogEntry] = deque()
        self._recent_bytes = 0
        self._recent_from = 0
        self._wake = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"spile hub {barrel.name}")

    def hint(self, seq: int) -> None:
        """Something was committed; called on the event loop."""
        self.head = max(self.head, seq)
        self._wake.set()

    def attach(self, stream: Live, looked_at: int) -> bool:
        """Tell this stream, which knows everything up to `looked_at`, what comes after.

        False when it is too far behind, or could not take what it missed: then it reads the log by itself first.
        """
        if not len(self._interests):
            self._restart(looked_at)
        elif looked_at < self.seq and not self._offer_recent(stream, looked_at):
            return False
        self._interests.add(stream)
        self._wake.set()
        return True

    def detach(self, stream: Live) -> None:
        """Tell this stream no more."""
        self._interests.remove(stream)

    async def stop(self) -> None:
        """End the reader."""
        self._task.cancel()
        await asyncio.wait([self._task])

    def stats(self) -> dict[str, int]:
        """How many streams are at the head, and what is kept for those that join."""
        return {
            "live": len(self._interests),
            "seq": self.seq,
            "recent": len(self._recent),
            "recent_bytes": self._recent_bytes,
        }

    def _restart(self, seq: int) -> None:
        self.seq = self._recent_from = seq
        self._recent.clear()
        self._recent_bytes = 0

    def _offer_recent(self, stream: Live, looked_at: int) -> bool:
        if looked_at < self._recent_from:
            return False
        alone = Interests()
        alone.add(stream)
        rows: list[Told] = [row for entry in self._recent if entry.seq > looked_at for _, row in alone.told(entry)]
        return stream.offer(rows, self.seq)

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._limits.poll_s if len(self._interests) else None):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                while len(self._interests) and await self._read():
                    pass
            except NotFound as error:
                self._fail(error)
            except SpileError as error:
                log.warning("The log of %s cannot be read, trying again: %s", self.barrel.name, error.reason)
                await asyncio.sleep(self._limits.poll_s)
            except Exception:
                log.exception("The hub of %s failed; its streams are opened again", self.barrel.name)
                self._fail(SpileError("The service failed to read the barrel's log."))
                await asyncio.sleep(self._limits.poll_s)

    def _fail(self, error: SpileError) -> None:
        for stream in self._interests:
            self._interests.remove(stream)
            stream.fail(error)

    def _let_go(self, after: int) -> None:
        """What comes after this seq was forgotten: everyone reads what there is, and may come back then."""
        if self.seq != after:
            return  # everyone left meanwhile, and others came elsewhere
        for stream in self._interests:
            self._interests.remove(stream)
            stream.behind()

    async def _read(self) -> bool:
        """Read some more and hand it out; False at the head."""
        after = self.seq
        limit = self._limits.batch

        def read() -> tuple[list[LogEntry], int] | None:
            page = self.barrel.tail_page(after, limit)
            return None if after < self.barrel.forgotten() else page

        page = await self._in_thread(read)
        if page is None:
            self._let_go(after)
            return False
        entries, upto = page
        for begin in range(0, len(entries), self._limits.slice):
            if begin:
                await asyncio.sleep(0)
            if self.seq != after:
                return True  # everyone left meanwhile, and others came elsewhere
            part = entries[begin : begin + self._limits.slice]
            self._hand_out(part)
            after = self.seq = part[-1].seq
        if self.seq == after and upto > after:
            self.seq = upto
        self.head = max(self.head, self.seq)
        return upto > after or len(entries) == limit

    def _hand_out(self, entries: list[LogEntry]) -> None:
        batches: dict[Live, list[Told]] = {}
        for entry in entries:
            for streams, row in self._interests.told(entry):
                for stream in streams:
                    batch = batches.get(stream)
                    if batch is None:
                        batches[stream] = [row]
                    else:
                        batch.append(row)
            self._keep(entry)
        upto = entries[-1].seq
        for stream, rows in batches.items():
            if not stream.offer(rows, upto):
                self._interests.remove(stream)

    def _keep(self, entry: LogEntry) -> None:
        self._recent.append(entry)
        self._recent_bytes += len(entry.body or b"")
        while len(self._recent) > self._limits.recent or (
            self._recent_bytes > self._limits.recent_bytes and len(self._recent) > 1
        ):
            oldest = self._recent.popleft()
            self._recent_bytes -= len(oldest.body or b"")
            self._recent_from = oldest.seq
