"""A source's changes over a stream: the same one that every listener follows, over WebSocket or MQTT.

The stream's window bounds what lies here; rows that were given on count as taken when the next page is asked for.
Lost links are made again, from where they were taken.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

import msgspec

from feeds.errors import SpileError, Unavailable
from feeds.positions import Position, parse_since
from listeners.following import Events, Following, Link
from listeners.inbox import Inbox
from listeners.replication.filters import Filter
from listeners.replication.local import first_of
from listeners.replication.peer import BATCH_BYTES, BATCH_ROWS, Page, Told
from listeners.stream.actions import Item, Wanted

WINDOW_ROWS = 4 * BATCH_ROWS
WINDOW_BYTES = 4 * BATCH_BYTES
_IDLE_S = 2.0  # how often the position of a source that tells nothing is looked at
_PATIENCE_S = 60.0
_CLOSE_S_MAX = 5.0


def asked_stream(since: str | None, epoch: str, filter: Filter, *, docs: bool, follow: bool) -> Wanted:
    """The stream that tells what a filter asks for, behind a position or in this life of the barrel."""
    return Wanted(
        patterns=filter.asked,
        since=parse_since(first_of(since, epoch, bool(filter.asked))),
        window=WINDOW_ROWS,
        bytes=WINDOW_BYTES,
        docs=docs,
        deletions=filter.asks_for_deletions,
        follow=follow,
    )


async def streamed_pages(wanted: Wanted, dial: Callable[[], Link], hears: Told) -> AsyncGenerator[Page, None]:
    """Pages of a stream. One that is followed is tried for ever, any other one for a minute without an answer."""
    ready = asyncio.Event()
    inbox = Inbox(ready.set)
    trouble = _Trouble(hears)
    following = Following(wanted, lambda: _Watched(dial(), trouble), inbox)
    task = asyncio.create_task(following.run(), name="spile replication feed")
    told: Position | None = None
    level = False  # the last page said that all was told
    try:
        while True:
            ready.clear()
            items = _taken(inbox)
            if items:
                told = Position(items[-1].seq, items[-1].epoch)
                rows = [item.row for item in items if item.row is not None]
                if rows:
                    level = following.caught_up and not len(inbox)
                    yield Page(rows, str(told), caught_up=level)
                following.acknowledged(items[-1])
                continue
            if inbox.finished:
                break
            at = following.position
            if following.caught_up and at is not None and (_is_beyond(at, told) or not level):
                told = at if told is None or _is_beyond(at, told) else told
                level = True
                yield Page([], str(told), caught_up=True)
                continue
            try:
                async with asyncio.timeout(_IDLE_S):
                    await ready.wait()
            except TimeoutError:
                if not wanted.follow and trouble.lasts_longer_than(_PATIENCE_S):
                    raise trouble.error or Unavailable(f"{dial().address} does not answer") from None
    finally:
        following.close()
        await asyncio.wait([task], timeout=_CLOSE_S_MAX)
        task.cancel()
    if inbox.error is not None:
        raise inbox.error
    if following.position is not None:
        yield Page([], str(following.position), caught_up=True)


def _is_beyond(at: Position, told: Position | None) -> bool:
    """Whether a position is news: what was acknowledged just now is not yet known to the stream."""
    return told is None or at.epoch != told.epoch or at.seq > told.seq


def _taken(inbox: Inbox) -> list[Item]:
    items: list[Item] = []
    size = 0
    while len(items) < BATCH_ROWS and size < BATCH_BYTES and (item := inbox.take()) is not None:
        items.append(item)
        if item.row is not None and isinstance(item.row.doc, msgspec.Raw):
            size += len(item.row.doc)
    return items


class _Trouble:
    """Why there is no link at present, and since when."""

    def __init__(self, told: Told) -> None:
        self.error: SpileError | None = None
        self._told = told
        self._since = 0.0

    def begins(self, error: SpileError) -> None:
        if self.error is None:
            self._since = time.monotonic()
        self.error = error
        self._told(error)

    def is_over(self) -> None:
        if self.error is not None:
            self.error = None
            self._told(None)

    def lasts_longer_than(self, seconds: float) -> bool:
        return self.error is not None and time.monotonic() - self._since > seconds


class _Watched:
    """A link, and its own way to be told of its losses."""

    def __init__(self, link: Link, trouble: _Trouble) -> None:
        self._link = link
        self._trouble = trouble
        self._events: Events | None = None

    @property
    def address(self) -> str:
        return self._link.address

    async def connect(self, events: Events) -> None:
        self._events = events
        try:
            await self._link.connect(self)
        except SpileError as error:
            self._trouble.begins(error)
            raise

    async def send(self, data: bytes, *, opens: bool) -> None:
        await self._link.send(data, opens=opens)

    async def close(self) -> None:
        await self._link.close()

    def message(self, data: bytes) -> None:
        self._trouble.is_over()
        assert self._events is not None
        self._events.message(data)

    def refused(self, error: SpileError) -> None:
        assert self._events is not None
        self._events.refused(error)

    def lost(self, error: SpileError) -> None:
        self._trouble.begins(error)
        assert self._events is not None
        self._events.lost(error)
