"""The publisher: follows every barrel's log, and moves its durable position once the broker has acknowledged.

What is committed is in the log before anybody hears of it, so that a crash at any line loses nothing: after it the
publisher begins at its stored position again, and some messages come twice. A hint wakes it; that it also looks by
itself is what makes a lost hint harmless. A store or a broker that cannot for a while only delays.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any, TypeVar

from broker.health import PartHealth, told_of
from broker.mqtt.contract import Message, Publisher
from broker.perseverance import Perseverance, Undertaking
from broker.publishing.lag import LagTopics
from broker.publishing.lanes import PAGE, Lane
from broker.publishing.retaining import Retaining
from broker.publishing.retelling import Retelling
from broker.publishing.topics import BarrelTopics, Wanted
from feeds import Store
from feeds.errors import BadRequest, NotFound, SpileError
from feeds.rows import LogEntry
from feeds.storage.locks import Fence

log = logging.getLogger("spile.publisher")

T = TypeVar("T")
MESSAGES_MAX = 2_000  # of one batch to the broker
POLL_S = 1.0  # a hint may be lost; the log is looked at this often anyway
SAVE_S = 0.25  # how far the stored position may lag: what a crash tells twice
SEEN_S = 3600.0  # a broker that was not seen for a day may be forgotten
HEAD_S = 0.5  # `_head` is told within 1 s after the last change
HEAD_AGAIN_S = 10.0
NEWEST_BYTES = 4 << 20  # of documents in one page of newest states
_SET_ASIDE = "The broker will never take some messages, which were passed; the log names them."
STOP_S = 5.0  # for telling what is committed already


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
        lags: LagTopics | None = None,
        fence: Fence | None = None,
        connects: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`name` is what the position is stored under; `executor` runs what reads the store; `lags` says what is
        to be told of who is behind.

        With `fence` positions are stored only while that lock is held; the task ends with LockLost otherwise.
        `connects` counts the connections that there were to the broker: after a new one, what is retained is told
        again as far as it changed meanwhile.
        """
        self._store = store
        self._publisher = publisher
        self._executor = executor
        self._name = name
        self._bytes_max = publish_bytes_max
        self._lags = lags
        self._fence = fence
        self._connects = connects
        self._connected = connects()
        self._again: dict[str, Retelling] = {}
        self._seen_at = 0.0
        self._clock = clock
        self._lanes: dict[str, Lane] = {}
        self._retaining = Retaining(store, self._publish, self._ask, name, publish_bytes_max)
        self._wake = asyncio.Event()
        self._changed: set[str] = set()  # barrels created, configured or dropped
        self._hints: dict[str, int] = {}
        self._loop = asyncio.get_running_loop()
        self._unhook = [store.on_commit(self._on_commit), store.on_barrel(self._on_barrel)]
        self._stopping = False
        self._saved_at = 0.0
        self._polled_at = 0.0
        self._perseverance = Perseverance(log)
        self._telling = Undertaking(
            f"publishing to the {name} broker",
            "Nothing is lost: it goes on where it is once the broker takes messages again. See that the broker "
            "runs and can be reached; of the embedded one, the part mqtt says more.",
        )
        self._asking = Undertaking(
            f"using the store for the {name} broker",
            "Nothing is lost: it goes on where it is once the store can be used. The part store says more.",
        )
        self.published = 0
        self.set_aside = 0
        self.task = asyncio.create_task(self._run(), name="spile-publisher")

    async def stop(self) -> None:
        """Tell what is committed, store the position, and end."""
        for unhook in self._unhook:
            unhook()
        self._stopping = True
        self._perseverance.stop()
        self._wake.set()
        done, _ = await asyncio.wait([self.task], timeout=STOP_S)
        if not done:
            self.task.cancel()
            await asyncio.wait([self.task])

    async def abandon(self) -> None:
        """End at once: tell nothing more, and store nothing."""
        for unhook in self._unhook:
            unhook()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    @property
    def failure(self) -> str | None:
        """Why it waits at present; None while it does its work."""
        obstacle = self._perseverance.obstacle
        return None if obstacle is None else obstacle.reason

    def stats(self) -> dict[str, Any]:
        """What was done, and for how long it has waited; how far it is behind is told by `broker.lags`."""
        obstacle = self._perseverance.obstacle
        return {
            "published": self.published,
            "set_aside": self.set_aside,
            "waiting_seconds": 0.0 if obstacle is None else max(0.0, time.time() - obstacle.since),
        }

    def health(self) -> PartHealth:
        """Whether it tells, or what it waits for, since when and until when."""
        now, lanes = self._clock(), self._lanes.items()
        since = (now if lane.behind_since is None else lane.behind_since for _, lane in lanes)
        figures = {
            "behind": sum(max(0, max(lane.head, self._hints.get(name, 0)) - lane.told) for name, lane in lanes),
            "behind_seconds": round(now - min(since, default=now), 3),
            "set_aside": self.set_aside,
        }
        health = told_of(self.task, self._perseverance.obstacle, figures)
        return replace(health, hint=_SET_ASIDE) if health.state == "running" and self.set_aside else health

    # -- hints, from any thread

    def _on_commit(self, barrel: str, seq: int) -> None:
        self._hints[barrel] = seq
        if not self._wake.is_set():  # else the round to come sees this hint as well
            self._loop.call_soon_threadsafe(self._wake.set)

    def _on_barrel(self, what: str, barrel: str) -> None:
        self._changed.add(barrel)
        self._loop.call_soon_threadsafe(self._wake.set)

    # -- the task

    async def _run(self) -> None:
        try:
            await self._begin()
            while True:
                busy = await self._round()
                if self._stopping and not busy:
                    return
                if not busy:
                    await self._sleep()
        except SpileError as error:
            if not (self._stopping and error.retryable):
                raise
            log.warning("stopped before everything was told; it is told after the next start: %s", error.reason)
        finally:
            for lane in self._lanes.values():
                await lane.let_go()

    async def _begin(self) -> None:
        await self._be_seen()
        await self._retaining.clear_dropped()
        await self._open_lanes()

    async def _be_seen(self) -> None:
        """Say that this broker is there, and is to be told of every barrel."""
        await self._ask(lambda: self._store.add_publisher(self._name, self._fence))
        self._seen_at = self._clock()

    async def _round(self) -> bool:
        """Tell a page of every barrel; whether there was any."""
        while self._changed:
            await self._reopen(self._changed.pop())
        if self._clock() - self._polled_at >= POLL_S:
            await self._open_lanes()
        if self._clock() - self._seen_at >= SEEN_S:
            await self._be_seen()
        if self._connects() != self._connected:
            self._begin_again()
        busy = False
        for lane in list(self._lanes.values()):
            busy = await self._advance(lane) or busy
        for name in list(self._again):
            busy = await self._tell_again(name) or busy
        await self._tell_heads()
        if self._lags is not None:
            topics = ((name, lane.topics.lag) for name, lane in self._lanes.items())
            await self._publish(self._lags.due(topics, self._publisher.wants))
        await self._save(force=self._stopping)
        return busy

    async def _sleep(self) -> None:
        try:
            async with asyncio.timeout(SAVE_S if self._unsaved() else POLL_S / 2):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _open_lanes(self) -> None:
        """Take up barrels that are new, and learn every head: the look that makes hints dispensable."""
        self._polled_at = self._clock()
        infos = await self._ask(self._store.barrels)
        for info in infos:
            lane = self._lanes.get(info.name)
            if lane is None:
                lane = await self._open(info.name)
            elif lane.barrel.epoch != info.epoch:
                self._changed.add(info.name)  # another process dropped it, and made it again
            else:
                lane.head = max(lane.head, info.seq)

    async def _open(self, name: str) -> Lane | None:
        try:
            barrel = await self._ask(lambda: self._store.barrel(name))
            settings = await self._ask(barrel.current_settings)
            saved = await self._ask(lambda: self._store.publisher_position(self._name, barrel)) or 0
            head = await self._ask(barrel.head)
            told = min(saved, head)
            topics = BarrelTopics(name, barrel.epoch, settings, self._bytes_max)
            await self._retaining.settle(barrel, topics, settings, told)
        except NotFound:
            await self._retaining.taken_by_nobody(name)  # it was dropped meanwhile
            return None
        lane = Lane(barrel, topics, told, head, saved, told)
        self._lanes[name] = lane
        return lane

    async def _reopen(self, name: str) -> None:
        """A barrel whose settings changed, or that came or went."""
        self._hints.pop(name, None)  # it may be of the barrel that had this name before
        lane = self._lanes.pop(name, None)
        if lane is not None:
            await lane.let_go()
            await self._save_lanes([lane])
        opened = await self._open(name)
        if lane is not None:  # and not before, so that it is not dropped in between
            await self._retaining.dropped(lane.barrel, lane.topics)
        unfinished = self._again.pop(name, None) is not None
        if opened is not None and lane is not None and opened.barrel.epoch == lane.barrel.epoch:
            opened.began = lane.began
            if unfinished:
                self._again[name] = Retelling(opened, self._ask, self._bytes_max)

    async def _advance(self, lane: Lane) -> bool:
        """Tell the next page of a barrel's log; whether there was one."""
        lane.head = max(lane.head, self._hints.pop(lane.barrel.name, 0))
        if not lane.is_behind(self._clock()):
            return False
        try:
            if not lane.barrel.settings.retain and not self._publisher.wants(lane.topics.base):
                await lane.let_go()
                lane.told = lane.head  # nobody is there to tell
                return False
            page = await lane.read(self._ask)
            if page is None:
                await self._tell_newest(lane)
                return True
        except NotFound:
            self._changed.add(lane.barrel.name)  # it was dropped meanwhile
            return False
        entries, upto = page
        if upto <= lane.told:
            lane.head = lane.told
            return False
        if len(entries) == PAGE:
            lane.read_ahead(upto, self._in_thread)
        await self._tell(lane, entries)
        lane.told = upto
        lane.head = max(lane.head, upto)
        return True

    async def _tell_newest(self, lane: Lane) -> None:
        """What is to be told is forgotten in part: tell every document's newest state instead."""
        log.warning("%s: the log was forgotten before it was told; newest states are told", lane.barrel.name)
        replay = await self._ask(lambda: lane.barrel.replay(lane.told, docs=True, leaves=False))
        caught_up = False
        while not caught_up:
            rows = await self._ask(lambda: replay.next(PAGE, NEWEST_BYTES))
            wanted = self._wanted(lane)
            await self._publish([message for row in rows.rows for message in lane.topics.newest(row, wanted)])
            lane.told, caught_up = max(lane.told, rows.seq), rows.caught_up

    async def _tell(self, lane: Lane, entries: list[LogEntry]) -> None:
        batch: list[Message] = []
        wanted = self._wanted(lane)
        for entry in entries:
            batch.extend(lane.topics.messages(entry, wanted))
            if len(batch) >= MESSAGES_MAX:
                await self._publish(batch)
                lane.told = entry.seq
                batch = []
        await self._publish(batch)

    def _wanted(self, lane: Lane) -> Wanted:
        return lane.topics.wanted(self._publisher.levels(lane.topics.base))

    def _begin_again(self) -> None:
        """There is a new connection: what the broker retains may be older than what was told on the one before."""
        self._connected = self._connects()
        for name, lane in self._lanes.items():
            lane.head_told = -1
            if lane.barrel.settings.retain and lane.told > lane.began:
                self._again[name] = Retelling(lane, self._ask, self._bytes_max)

    async def _tell_again(self, name: str) -> bool:
        """Tell a page of that; whether there was one."""
        retelling = self._again[name]
        if self._stopping:
            return False
        try:
            await self._publish(await retelling.next())
        except NotFound:
            self._changed.add(name)  # it was dropped meanwhile
            return False
        if retelling.ended:
            del self._again[name]
        return True

    async def _publish(self, batch: list[Message]) -> None:
        if not batch:
            return
        try:
            await self._perseverance.carry(self._telling, lambda: self._publisher.publish(batch))
            self.published += len(batch)
        except BadRequest as refusal:
            if len(batch) == 1:
                self._set_aside(batch[0], refusal)
                return
            half = len(batch) // 2  # one by one, each would wait for the broker
            await self._publish(batch[:half])
            await self._publish(batch[half:])

    def _set_aside(self, message: Message, refusal: BadRequest) -> None:
        """A message that the broker will never take must not stop those behind it."""
        self.set_aside += 1
        log.error("set aside a message to %s: %s", message.topic, refusal.reason)

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

    async def _save_lanes(self, lanes: list[Lane]) -> None:
        told = {lane.barrel: lane.told for lane in lanes}
        await self._ask(lambda: self._store.move_publisher(self._name, told, self._fence))
        for lane in lanes:
            lane.saved = told[lane.barrel]

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._executor, call)

    async def _ask(self, call: Callable[[], T]) -> T:
        """What the store answers, once it can."""
        return await self._perseverance.carry(self._asking, lambda: self._in_thread(call))
