"""The publisher: follows every barrel's log, and moves its durable position once the broker has acknowledged.

What is committed is in the log before anybody hears of it, so that a crash at any line loses nothing: after it the
publisher begins at its stored position again, and some messages come twice. A hint wakes it; that it also looks by
itself is what makes a lost hint harmless.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from tenacity import AsyncRetrying, before_sleep_log, retry_if_exception, wait_random_exponential

from broker.mqtt.contract import Message, Publisher
from broker.publishing.retaining import Retaining
from broker.publishing.topics import BarrelTopics
from feeds import Barrel, Store
from feeds.errors import BadRequest, NotFound, SpileError
from feeds.rows import LogEntry

log = logging.getLogger("spile.publisher")

T = TypeVar("T")
PAGE = 500  # log entries read at once
MESSAGES_MAX = 2_000  # of one batch to the broker
POLL_S = 1.0  # a hint may be lost; the log is looked at this often anyway
SAVE_S = 0.25  # how far the stored position may lag: what a crash tells twice
HEAD_S = 0.5  # `_head` is told within 1 s after the last change
HEAD_AGAIN_S = 10.0
RETRY_S_MAX = 10.0


@dataclass(slots=True)
class _Lane:
    """One barrel on its way to the broker."""

    barrel: Barrel
    topics: BarrelTopics
    told: int  # acknowledged by the broker
    head: int  # of the log, as far as known
    saved: int  # the stored position
    head_told: int = -1
    head_told_at: float = 0.0
    behind_since: float | None = None
    ahead: asyncio.Task[tuple[list[LogEntry], int]] | None = None
    """The page behind the one that is being told."""


class LogPublisher:
    """Tells one broker the changes of every barrel in a store."""

    def __init__(
        self,
        store: Store,
        publisher: Publisher,
        executor: Executor,
        *,
        name: str = "embedded",
        publish_bytes_max: int = 256 << 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`name` is what the position is stored under; `executor` runs what reads the store."""
        self._store = store
        self._publisher = publisher
        self._executor = executor
        self._name = name
        self._bytes_max = publish_bytes_max
        self._clock = clock
        self._lanes: dict[str, _Lane] = {}
        self._retaining = Retaining(store, publisher, self._in_thread, name, publish_bytes_max)
        self._wake = asyncio.Event()
        self._changed: set[str] = set()  # barrels created, configured or dropped
        self._hints: dict[str, int] = {}
        self._loop = asyncio.get_running_loop()
        self._unhook = [store.on_commit(self._on_commit), store.on_barrel(self._on_barrel)]
        self._stopping = False
        self._saved_at = 0.0
        self.published = 0
        self.set_aside = 0
        self.failure: str | None = None
        self.task = asyncio.create_task(self._run(), name="spile-publisher")

    async def stop(self) -> None:
        """Tell what is committed, store the position, and end."""
        for unhook in self._unhook:
            unhook()
        self._stopping = True
        self._wake.set()
        done, _ = await asyncio.wait([self.task], timeout=5)
        if not done:
            self.task.cancel()
            await asyncio.wait([self.task])

    def stats(self) -> dict[str, Any]:
        """Per barrel how far the broker is behind, in changes and seconds."""
        now = self._clock()
        return {
            "published": self.published,
            "set_aside": self.set_aside,
            "failure": self.failure,
            "behind": {name: max(0, lane.head - lane.told) for name, lane in self._lanes.items()},
            "behind_seconds": {
                name: 0.0 if lane.behind_since is None else now - lane.behind_since
                for name, lane in self._lanes.items()
            },
        }

    # -- hints, from any thread

    def _on_commit(self, barrel: str, seq: int) -> None:
        self._hints[barrel] = seq
        self._loop.call_soon_threadsafe(self._wake.set)

    def _on_barrel(self, what: str, barrel: str) -> None:
        self._changed.add(barrel)
        self._loop.call_soon_threadsafe(self._wake.set)

    # -- the task

    async def _run(self) -> None:
        await self._open_lanes()
        polled = self._clock()
        while True:
            if self._changed:
                await self._reopen()
            if self._clock() - polled >= POLL_S:
                polled = self._clock()
                await self._open_lanes()
            busy = False
            for lane in list(self._lanes.values()):
                busy = await self._advance(lane) or busy
            await self._tell_heads()
            await self._save(force=self._stopping)
            if self._stopping and not busy:
                return
            if not busy:
                await self._sleep()

    async def _sleep(self) -> None:
        try:
            async with asyncio.timeout(SAVE_S if self._unsaved() else POLL_S / 2):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _open_lanes(self) -> None:
        """Take up barrels that are new, and learn every head: the look that makes hints dispensable."""
        infos = await self._in_thread(self._store.barrels)
        for info in infos:
            lane = self._lanes.get(info.name)
            if lane is None:
                lane = await self._open(info.name)
            if lane is not None:
                lane.head = max(lane.head, info.seq)

    async def _open(self, name: str) -> _Lane | None:
        try:
            barrel = self._store.barrel(name)
            settings = await self._in_thread(barrel.current_settings)
            told = await self._in_thread(lambda: self._store.publisher_position(self._name, barrel)) or 0
        except NotFound:
            return None
        topics = BarrelTopics(name, barrel.epoch, settings, self._bytes_max)
        lane = _Lane(barrel, topics, told, told, told)
        await self._insist(lambda: self._retaining.settle(barrel, topics, settings, told))
        self._lanes[name] = lane
        return lane

    async def _reopen(self) -> None:
        """Barrels whose settings changed or that came and went."""
        changed, self._changed = self._changed, set()
        for name in changed:
            lane = self._lanes.pop(name, None)
            if lane is not None:
                await self._let_go(lane)
                await self._save_lanes([lane])
                await self._insist(lambda lane=lane: self._retaining.dropped(lane.barrel, lane.topics))  # type: ignore[misc]
            await self._open(name)

    async def _advance(self, lane: _Lane) -> bool:
        """Tell the next page of a barrel's log; whether there was one."""
        lane.head = max(lane.head, self._hints.pop(lane.barrel.name, 0))
        if lane.told >= lane.head:
            lane.behind_since = None
            return False
        if lane.behind_since is None:
            lane.behind_since = self._clock()
        if not lane.barrel.settings.retain and not self._publisher.wants(lane.topics.base):
            lane.told = lane.head  # nobody there to tell
            await self._let_go(lane)
            return False
        try:
            entries, upto = await (lane.ahead or self._read(lane, lane.told))
        except NotFound:
            self._changed.add(lane.barrel.name)
            return False
        finally:
            lane.ahead = None
        if upto <= lane.told:
            lane.head = lane.told
            return False
        if len(entries) == PAGE:
            lane.ahead = self._read(lane, upto)  # while this page is told
        await self._tell(lane, entries)
        lane.told = upto
        lane.head = max(lane.head, upto)
        return True

    def _read(self, lane: _Lane, after: int) -> asyncio.Task[tuple[list[LogEntry], int]]:
        read = partial(lane.barrel.tail_page, after, PAGE)
        return asyncio.create_task(self._in_thread(read), name="spile-publisher-read")

    async def _let_go(self, lane: _Lane) -> None:
        """Forget a page that was read ahead and will not be told from there."""
        ahead, lane.ahead = lane.ahead, None
        if ahead is not None:
            await asyncio.gather(ahead, return_exceptions=True)

    async def _tell(self, lane: _Lane, entries: list[LogEntry]) -> None:
        batch: list[Message] = []
        wanted = lane.topics.wanted(self._publisher.wants)
        for entry in entries:
            batch.extend(lane.topics.messages(entry, wanted))
            if len(batch) >= MESSAGES_MAX:
                await self._publish(batch)
                lane.told = entry.seq
                batch = []
        if batch:
            await self._publish(batch)

    async def _publish(self, batch: list[Message]) -> None:
        try:
            await self._insist(lambda: self._publisher.publish(batch))
            self.published += len(batch)
        except BadRequest as refusal:
            if len(batch) == 1:
                self._set_aside(batch[0], refusal)
                return
            for message in batch:
                await self._publish([message])

    def _set_aside(self, message: Message, refusal: BadRequest) -> None:
        """A message that the broker will never take must not stop those behind it."""
        self.set_aside += 1
        self.failure = None
        log.error("set aside a message to %s: %s", message.topic, refusal.reason)

    async def _insist(self, call: Callable[[], Any]) -> None:
        """Do it until the broker takes it; what cannot be helped by waiting is raised."""
        async for attempt in AsyncRetrying(
            wait=wait_random_exponential(0.1, RETRY_S_MAX),
            retry=retry_if_exception(self._may_retry),
            before_sleep=before_sleep_log(log, logging.WARNING),
            reraise=True,
        ):
            with attempt:
                try:
                    await call()
                except SpileError as error:
                    self.failure = error.reason
                    raise
                self.failure = None

    def _may_retry(self, error: BaseException) -> bool:
        return isinstance(error, SpileError) and error.retryable and not self._stopping

    # -- positions and heads

    async def _tell_heads(self) -> None:
        now = self._clock()
        batch: list[Message] = []
        for lane in self._lanes.values():
            # Held back a little, so that a thousand writes a second do not make a thousand retained messages.
            due = lane.told != lane.head_told and now - lane.head_told_at >= HEAD_S
            again = now - lane.head_told_at >= HEAD_AGAIN_S and self._publisher.wants(lane.topics.head)
            if due or again:
                batch.append(lane.topics.head_message(lane.told))
                lane.head_told, lane.head_told_at = lane.told, now
        if batch:
            await self._publish(batch)

    def _unsaved(self) -> bool:
        return any(lane.told != lane.saved or lane.told != lane.head_told for lane in self._lanes.values())

    async def _save(self, force: bool) -> None:
        now = self._clock()
        if not force and now - self._saved_at < SAVE_S:
            return
        moved = [lane for lane in self._lanes.values() if lane.told != lane.saved]
        if moved:
            self._saved_at = now
            await self._save_lanes(moved)

    async def _save_lanes(self, lanes: list[_Lane]) -> None:
        told = {lane.barrel: lane.told for lane in lanes}
        await self._in_thread(lambda: self._store.move_publisher(self._name, told))
        for lane in lanes:
            lane.saved = told[lane.barrel]

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._executor, call)
