"""Following a barrel's changes: `listen` for a loop over them, `listen_async` for one on an event loop.

Both acknowledge a change when the next one is asked for. What is told, in which order and how often, is promised
by the stream; a callback with retries and dead letters is `listeners.listener`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from types import TracebackType

from feeds.errors import SpileError
from feeds.patterns import parse_patterns
from feeds.positions import Position, parse_since
from listeners.changes import Change, Snapshot, change_of, snapshot_of
from listeners.following import PATIENCE_S, Following
from listeners.inbox import Inbox
from listeners.source import Source, checked, opened
from listeners.stream.actions import Item, Wanted
from listeners.stream.messages import (
    BYTES_DEFAULT,
    WINDOW_DEFAULT,
    Attachments,
    check_attachments,
    check_listener_name,
)

log = logging.getLogger("spile.listeners")

_JOIN_S_MAX = 20.0

OnSnapshot = Callable[[Snapshot], None]
OnSnapshotAsync = Callable[[Snapshot], Awaitable[None] | None]


def listen(
    source: Source,
    patterns: Iterable[str] = (),
    *,
    since: str | int | None = None,
    name: str | None = None,
    docs: bool = True,
    attachments: Attachments = "stubs",
    follow: bool = True,
    window: int = WINDOW_DEFAULT,
    bytes: int = BYTES_DEFAULT,
    token: str | None = None,
    patience_s: float | None = PATIENCE_S,
    on_snapshot_start: OnSnapshot | None = None,
    on_snapshot_end: OnSnapshot | None = None,
) -> Listening:
    """The changes of a barrel as something to loop over: `for change in listen("http://…/geo", ["region/#"])`.

    `source` is a URL (`mqtt://HOST/BARREL`, `ws://` or `http://HOST/BARREL`, `sqlite:///…#BARREL`, `FOLDER#BARREL`)
    or a `Barrel`. Without patterns every change is told. `since` is a position, `first` (also 0) or `now`; a
    `name` has a cursor that is kept in the store, and beats `since`. With `follow` off it ends at the present.
    With `attachments="contents"` documents come with the bytes of their attachments as base64 `data`, up to 1 MiB of
    a document; others, and those that are damaged, stay stubs. `window` rows and `bytes` are the most that is held
    here unacknowledged. `patience_s` is how long to try for a first answer (None: for ever); later, lost connections
    are made again without end.

    A change is acknowledged when the next one is asked for, or with `acknowledge`. Around a snapshot the two
    callbacks are called, in order, where the loop runs. Raises BadRequest, and while looping Unavailable,
    NotFound, Forbidden, Unauthorized or Replaced.
    """
    wanted = _wanted(patterns, since, name, docs, attachments, follow, window, bytes)
    return Listening(source, wanted, token, patience_s, on_snapshot_start, on_snapshot_end)


class Listening:
    """An iterator over changes, fed by a thread of its own. Close it, use it in `with`, or let it go."""

    def __init__(
        self,
        source: Source,
        wanted: Wanted,
        token: str | None,
        patience_s: float | None,
        on_snapshot_start: OnSnapshot | None,
        on_snapshot_end: OnSnapshot | None,
    ) -> None:
        """Use `listen`."""
        self._boundaries = {"start": on_snapshot_start, "end": on_snapshot_end}
        self._told: Item | None = None
        self._untold: Item | None = None  # a boundary whose callback has not returned yet
        self._feed = _Feed()
        place = checked(source)
        self._thread = threading.Thread(
            target=lambda feed=self._feed: asyncio.run(feed.run(place, wanted, token, patience_s)),
            name=f"spile listen {wanted.name or ''}",
            daemon=True,
        )
        self._thread.start()
        self._finalizer = weakref.finalize(self, self._feed.close)

    def __iter__(self) -> Listening:
        return self

    def __next__(self) -> Change:
        """The next change; waits for it. What was given before counts as acknowledged.

        What the callback for a snapshot's boundary raises comes out, and it is called again by the next step.
        """
        self.acknowledge()
        while True:
            item = self._feed.take(self._untold)
            if item is None:
                self.close()
                if self._feed.inbox.error is not None:
                    raise self._feed.inbox.error
                raise StopIteration
            if item.row is not None:
                self._told = item
                return change_of(item)
            self._untold = item
            callback = self._boundaries[item.boundary or "start"]
            if callback is not None:
                callback(snapshot_of(item))
            self._untold = None
            self._feed.acknowledged(item)

    def acknowledge(self) -> None:
        """The change that was given last is done with."""
        if self._told is not None:
            self._feed.acknowledged(self._told)
            self._told = None

    def stop_soon(self) -> None:
        """Let the loop end at its next step, from any thread; does not wait."""
        self._feed.stop()

    def close(self) -> None:
        """End, from any thread. What was acknowledged is told to the service first."""
        self._finalizer()
        if self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S_MAX)

    @property
    def position(self) -> str | None:
        """Up to where everything is acknowledged, for a `since` later on; None before the service has answered."""
        position = self._feed.position
        return None if position is None else str(position)

    @property
    def caught_up(self) -> bool:
        """Whether everything that there was has been received at some time."""
        return self._feed.caught_up

    def __enter__(self) -> Listening:
        """Waits until a service has answered, so that what is written within the block counts as later than `now`."""
        self._feed.wait_begun()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Feed:
    """The two sides of a Listening: the thread's event loop with its Following, and the application's waits."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.inbox = Inbox(self._notify)
        self._following: Following | None = None
        self._stopped = False  # nothing more is to be told
        self._closed = False  # and what was done is acknowledged

    def take(self, first: Item | None = None) -> Item | None:
        """The next item, or this one before all others; waits. None when the feed is over, or was told to stop."""
        while not self._stopped:
            item = first or self.inbox.take()
            if item is not None:
                return item
            with self._changed:
                while not len(self.inbox) and not self._stopped:
                    if self.inbox.finished:
                        return None
                    self._changed.wait()
        return None

    def wait_begun(self) -> None:
        """Until the position is fixed, or the feed is over before that."""
        with self._changed:
            while not (self.inbox.begun or self.inbox.finished or self._stopped):
                self._changed.wait()

    def acknowledged(self, item: Item) -> None:
        if self._following is not None:
            self._following.acknowledged(item)

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._stopped = self._closed = True
            self._changed.notify_all()
            if self._following is not None:
                self._following.close()

    @property
    def position(self) -> Position | None:
        return None if self._following is None else self._following.position

    @property
    def caught_up(self) -> bool:
        return self._following is not None and self._following.caught_up

    async def run(
        self,
        place: object,
        wanted: Wanted,
        token: str | None,
        patience_s: float | None,
    ) -> None:
        try:
            async with opened(place, token=token) as dial:  # type: ignore[arg-type]
                following = Following(wanted, dial, self.inbox, patience_s=patience_s)
                with self._changed:
                    self._following = following
                    if self._closed:
                        return
                await following.run()
        except SpileError as error:
            self.inbox.finish(error)
        except Exception:
            log.exception("Listening failed")
            self.inbox.finish(SpileError("The listener failed; its log says why."))
        finally:
            self.inbox.finish(None)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()


async def listen_async(
    source: Source,
    patterns: Iterable[str] = (),
    *,
    since: str | int | None = None,
    name: str | None = None,
    docs: bool = True,
    attachments: Attachments = "stubs",
    follow: bool = True,
    window: int = WINDOW_DEFAULT,
    bytes: int = BYTES_DEFAULT,
    token: str | None = None,
    patience_s: float | None = PATIENCE_S,
    on_snapshot_start: OnSnapshotAsync | None = None,
    on_snapshot_end: OnSnapshotAsync | None = None,
) -> AsyncGenerator[Change, None]:
    """As `listen`, on the running event loop: `async for change in listen_async("http://…/geo", ["region/#"])`.

    `source` may also be a stream service of this loop, with a barrel's name. Wrap it in `contextlib.aclosing` where
    the loop may be left early.
    """
    wanted = _wanted(patterns, since, name, docs, attachments, follow, window, bytes)
    place = checked(source)
    boundaries = {"start": on_snapshot_start, "end": on_snapshot_end}
    ready = asyncio.Event()
    inbox = Inbox(ready.set)
    async with opened(place, token=token) as dial:
        following = Following(wanted, dial, inbox, patience_s=patience_s)
        task = asyncio.create_task(following.run(), name=f"spile listen {name or ''}")
        try:
            while True:
                item = inbox.take()
                if item is None:
                    if inbox.finished:
                        break
                    ready.clear()
                    await ready.wait()
                    continue
                if item.row is not None:
                    yield change_of(item)
                elif (callback := boundaries[item.boundary or "start"]) is not None:
                    waiting = callback(snapshot_of(item))
                    if inspect.isawaitable(waiting):
                        await waiting
                following.acknowledged(item)
        finally:
            following.close()
            await asyncio.wait([task], timeout=_JOIN_S_MAX)
            task.cancel()
    if inbox.error is not None:
        raise inbox.error


def _wanted(
    patterns: Iterable[str],
    since: str | int | None,
    name: str | None,
    docs: bool,
    attachments: Attachments,
    follow: bool,
    window: int,
    bytes_: int,
) -> Wanted:
    """What a listener asks for, checked here already so that a mistake is told where it was made."""
    return Wanted(
        patterns=tuple(str(pattern) for pattern in parse_patterns(patterns)),
        since=parse_since(since),
        name=None if name is None else check_listener_name(name),
        window=window,
        bytes=bytes_,
        docs=docs,
        attachments=check_attachments(attachments),
        follow=follow,
    )
