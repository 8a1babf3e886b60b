"""The stream service: every stream of one store, for whatever transport brings the messages.

Transports hand messages in and give a `send` for each stream; who may listen to what is asked before by them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import TypeVar

from feeds.barrel import Barrel
from feeds.errors import NotFound, Overloaded, SpileError, Unavailable
from feeds.store import Store
from listeners.cursors import Cursors
from listeners.errors import Closed, Replaced
from listeners.lags import Standing, Standings
from listeners.stream.feeder import Around, Feeder, Send, stopping
from listeners.stream.hub import Hub, HubLimits
from listeners.stream.messages import Close, decode_credit, decode_open, decode_run
from listeners.stream.names import names_of
from listeners.stream.sender import SenderLimits, refusal

T = TypeVar("T")

log = logging.getLogger("spile.streams")

_Key = tuple[str, str, str]  # owner, barrel, stream


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """Bounds of a stream service. The executor should have a few more threads than `replays_max`."""

    streams_per_owner: int = 100
    # Pages of the past read at once. SQLite readers share one core's worth of work; more would only queue there.
    replays_max: int = 4
    page_rows: int = 500
    page_bytes: int = 256 << 10
    contents_bytes_max: int = 1 << 20  # of attachments in one document, for listeners that ask for contents
    tick_s: float = 1.0
    stop_s: float = 5.0
    sender: SenderLimits = field(default_factory=SenderLimits)
    hub: HubLimits = field(default_factory=HubLimits)


class StreamService:
    """Opens streams, takes credit, and ends them. To be used on the event loop it was made for."""

    def __init__(
        self,
        store: Store,
        executor: Executor,
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: ServiceLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Serve the store's barrels; reads run in `executor`. `clock` counts seconds."""
        self.limits = limits or ServiceLimits()
        self._store = store
        self._executor = executor
        self._loop = loop or asyncio.get_running_loop()
        self._clock = clock
        self._cursors = Cursors(store, executor)
        self._streams: dict[_Key, tuple[Feeder, asyncio.Task[None]]] = {}
        self._names = names_of(store)
        self._named: dict[_Key, Callable[[], None]] = {}  # how the streams that have a name are told that it is taken
        self._owners: dict[str, int] = {}
        self._hubs: dict[tuple[str, str], Hub] = {}  # by barrel and epoch
        self._followed: frozenset[str] = frozenset()  # barrels with a hub; also read by the writer's thread
        self._closing: set[asyncio.Task[None]] = set()
        self._replays = asyncio.Semaphore(self.limits.replays_max)
        self._replays_waiting = 0
        self._around = Around(
            barrel=store.barrel,
            hub=self._hub,
            cursors=self._cursors,
            in_thread=self._in_thread,
            at_once=self._at_once,
            clock=clock,
            limits=self.limits.sender,
            page_rows=self.limits.page_rows,
            page_bytes=self.limits.page_bytes,
            contents_bytes_max=self.limits.contents_bytes_max,
        )
        self._unhook = [store.on_commit(self._on_commit), store.on_barrel(self._on_barrel)]
        self._ticker: asyncio.Task[None] | None = None
        self._stopped = False

    async def open(
        self,
        owner: str,
        barrel: str,
        stream: str,
        message: bytes,
        send: Send,
        *,
        doc_bytes_max: int | None = None,
    ) -> None:
        """Open a stream, in place of the one that the owner had under this name.

        Its arrays go through `send`, one after the other; that it awaits is how a transport slows its stream.
        What is wrong with the open is told by an array with `end`. BadRequest when not even its run can be read.
        """
        try:
            opened = decode_open(message)
            key = (owner, barrel, stream)
            running = self._streams.get(key)
            if running is not None and running[0].opened.run == opened.run:
                return  # the message came twice
            if running is None and self._owners.get(owner, 0) >= self.limits.streams_per_owner:
                raise Overloaded(
                    f"{owner} has {self.limits.streams_per_owner} streams open already.",
                    hint="Close some, or ask for more patterns in one stream.",
                )
            if self._stopped:
                raise stopping()
            feeder = Feeder(opened, barrel, send, self._around, doc_bytes_max)
        except SpileError as error:
            run = decode_run(message)
            if run is None:
                raise
            await send(refusal(run, error))
            return
        self._drop(key)
        if opened.name is not None:
            self._take_name(opened.name, key, feeder)
        self._begin(key, feeder)

    def credit(self, owner: str, barrel: str, stream: str, message: bytes) -> bytes | None:
        """Credit or close, for the run that it names. BadRequest for what is neither.

        When that run is not here (any more), returns the array to answer a credit with, so that the listener
        opens again at once and not after 30 s of silence.
        """
        word = decode_credit(message)
        running = self._streams.get((owner, barrel, stream))
        if running is None or running[0].opened.run != word.run:
            return None if isinstance(word, Close) else refusal(word.run, Closed())
        if isinstance(word, Close):
            self._drop((owner, barrel, stream))
        else:
            running[0].credited(word)
        return None

    def gone(self, owner: str) -> None:
        """The owner's connection ended, and its streams with it."""
        for key in [key for key in self._streams if key[0] == owner]:
            self._drop(key)

    async def stop(self) -> None:
        """End every stream with a word, store the cursors, and let go of the store."""
        self._stopped = True
        for unhook in self._unhook:
            unhook()
        for feeder, _ in self._streams.values():
            feeder.fail(stopping())
        tasks = [task for _, task in self._streams.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=self.limits.stop_s)
        for key in list(self._streams):
            self._drop(key)
        if self._ticker is not None:
            self._ticker.cancel()
        if self._closing:
            await asyncio.wait(self._closing, timeout=self.limits.stop_s)
        for hub in self._hubs.values():
            await hub.stop()
        self._hubs.clear()
        await self._cursors.stop()

    async def forget_cursor(self, barrel: str, name: str) -> bool:
        """Forget where the listener of this name stands, so that it begins anew; whether it had a cursor."""
        return await self._cursors.forget(barrel, name)

    def standings(self, barrel: str | None = None) -> Standings:
        """Where the streams stand, of all barrels or of one, and the cursors that moved and are not stored yet."""
        streams = [
            Standing(key[0], key[1], key[2], feeder.opened.name, feeder.handled, feeder.in_snapshot)
            for key, (feeder, _) in self._streams.items()
            if barrel in (None, key[1])
        ]
        return Standings(streams, self._cursors.moved())

    def stats(self) -> dict[str, object]:
        """What each stream and hub holds, and how far it is."""
        return {
            "streams": [
                {"owner": key[0], "stream": key[2], **feeder.stats()} for key, (feeder, _) in self._streams.items()
            ],
            "hubs": {barrel: hub.stats() for (barrel, _), hub in self._hubs.items()},
            "cursors_waiting": self._cursors.waiting,
            "replays_waiting": self._replays_waiting,
        }

    # Streams

    def _begin(self, key: _Key, feeder: Feeder) -> None:
        task = self._loop.create_task(self._carry(key, feeder), name=f"spile stream {'/'.join(key)}")
        self._streams[key] = (feeder, task)
        self._owners[key[0]] = self._owners.get(key[0], 0) + 1
        if self._ticker is None:
            self._ticker = self._loop.create_task(self._tick(), name="spile streams ticker")

    async def _carry(self, key: _Key, feeder: Feeder) -> None:
        try:
            await feeder.run()
        except (SpileError, OSError, TimeoutError) as error:
            log.info("The stream %s ended with its transport: %s", "/".join(key), error)
        except Exception:
            log.exception("The stream %s failed", "/".join(key))
        finally:
            running = self._streams.get(key)
            if running is not None and running[0] is feeder:
                self._forget(key)
            self._let_hubs_go()

    def _drop(self, key: _Key) -> None:
        """End a stream without a word."""
        running = self._streams.get(key)
        if running is None:
            return
        self._forget(key)
        task = running[1]
        task.cancel()
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _forget(self, key: _Key) -> None:
        feeder, _ = self._streams.pop(key)
        left = self._owners[key[0]] - 1
        if left:
            self._owners[key[0]] = left
        else:
            del self._owners[key[0]]
        replaced = self._named.pop(key, None)
        if replaced is not None:
            self._names.leave((key[1], feeder.opened.name or ""), replaced)

    def _take_name(self, name: str, key: _Key, feeder: Feeder) -> None:
        """A name has one stream, the one that came last."""
        error = Replaced(f"Another stream listens as {name!r} now.")
        here = threading.get_ident()

        def replaced() -> None:
            if threading.get_ident() == here:
                feeder.replaced(error)  # at once, before it moves the cursor again
                return
            with contextlib.suppress(RuntimeError):  # its loop is closed, and it with that
                self._loop.call_soon_threadsafe(feeder.replaced, error)

        self._named[key] = replaced
        self._names.take((key[1], name), replaced)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self.limits.tick_s)
            for key, (feeder, _) in list(self._streams.items()):
                if not feeder.tick():
                    log.info("The stream %s is dropped: its transport takes nothing", "/".join(key))
                    self._drop(key)

    # Reading

    async def _in_thread(self, call: Callable[[], T]) -> T:
        self._replays_waiting += 1
        try:
            await self._replays.acquire()
        finally:
            self._replays_waiting -= 1
        return await self._at_once(call, self._place_is_free)

    async def _at_once(self, call: Callable[[], T], ended: Callable[[Future[T]], None] | None = None) -> T:
        """What is looked up as a stream begins does not wait for replays: its listener waits for the first word.

        `ended` is called, in whichever thread, when the call is over: that of a stream that is gone goes on.
        """
        try:
            work = self._executor.submit(call)
            if ended is not None:
                work.add_done_callback(ended)
            return await asyncio.wrap_future(work)
        except SpileError:
            raise
        except Exception as error:
            log.exception("A stream cannot read its barrel")
            raise Unavailable("The service failed to read the barrel.") from error

    def _place_is_free(self, _: Future[T]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for a place
            self._loop.call_soon_threadsafe(self._replays.release)

    def _hub(self, barrel: Barrel) -> Hub:
        key = (barrel.name, barrel.epoch)
        hub = self._hubs.get(key)
        if hub is None:
            hub = self._hubs[key] = Hub(barrel, self._tail_thread, self.limits.hub)
            self._followed = frozenset(each for each, _ in self._hubs)
        return hub

    def _tail_thread(self, call: Callable[[], T]) -> Awaitable[T]:
        """Hubs do not wait for replays: there is one of them for each barrel, and many streams hang on it."""
        return self._loop.run_in_executor(self._executor, call)

    def _let_hubs_go(self) -> None:
        """End the hubs of barrels that nobody follows any more."""
        followed = {key[1] for key in self._streams}
        for key in [key for key in self._hubs if key[0] not in followed]:
            task = self._loop.create_task(self._hubs.pop(key).stop(), name=f"spile hub {key[0]} stops")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        self._followed = frozenset(each for each, _ in self._hubs)

    def _on_commit(self, barrel: str, seq: int) -> None:
        """On the writer's thread."""
        if barrel in self._followed and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hint, barrel, seq)

    def _hint(self, barrel: str, seq: int) -> None:
        for key, hub in self._hubs.items():
            if key[0] == barrel:
                hub.hint(seq)

    def _on_barrel(self, what: str, barrel: str) -> None:
        """On whichever thread dropped it."""
        if what == "dropped" and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._dropped, barrel)

    def _dropped(self, barrel: str) -> None:
        for key, (feeder, _) in self._streams.items():
            if key[1] == barrel:
                feeder.fail(NotFound(f"The barrel {barrel!r} was dropped."))
