"""A barrel's changes over HTTP: once as JSON, or followed in one of three ways.

Reads from the log are here; following (`broker.http.live`) goes through the same streams as every listener's.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any, Final

import msgspec

from broker.http.answers import Answer, AnyAnswer, Streamed, encode_json
from broker.http.call import Call
from broker.http.endpoint import route
from broker.http.feed_options import KNOWN, FeedOptions, read_feed_options
from broker.http.live import continuous, eventsource, long_poll
from broker.http.options import Options
from feeds import Barrel
from feeds.errors import BadRequest, EpochChanged
from feeds.positions import Position
from feeds.rows import Start
from feeds.storage.replay import Replay
from listeners.stream.contents import PAGE_ROWS_MAX, with_contents

# A page is read and encoded on a reader's thread in a few milliseconds, and is what an answer holds in memory.
_PAGE_ROWS: Final = 1000
_PAGE_BYTES: Final = 256 << 10
_DESCENDING_MAX: Final = 1000
# Of contents in one document, as in every feed; and of those in an answer that is not sent page by page.
_CONTENTS_BYTES: Final = 1 << 20
_PAGE_CONTENTS_BYTES: Final = 16 << 20

_HEAD: Final = b'{"results":['


async def changes(call: Call) -> AnyAnswer:
    """The newest state of every document that changed after `since`."""
    name = call.param("barrel")
    options = call.options()
    if call.method == "POST":
        body = await call.json(dict[str, Any])
        options = options.over(Options.from_json(body, KNOWN))
    asked = read_feed_options(options, call.header(b"last-event-id"))
    for path in [str(pattern) for pattern in asked.patterns] or ["#"]:
        call.allow("read", name, path)
    barrel = call.services.store.barrel(name)
    if asked.mode == "continuous":
        return await continuous(call, barrel, asked)
    if asked.mode == "eventsource":
        return await eventsource(call, barrel, asked)
    if asked.mode == "longpoll":
        # A place that waiting does not move: `now` is now.
        start = await call.in_thread(_start, barrel, asked)
        asked = replace(asked, since=Position(start.after, barrel.epoch))
        answer = await _normal(call, barrel, asked)
        if isinstance(answer, Streamed) or asked.limit == 0 or not answer.body.startswith(_HEAD + b"]"):
            return answer
        return await long_poll(call, barrel, asked, lambda: _normal(call, barrel, asked))
    return await _normal(call, barrel, asked)


async def _normal(call: Call, barrel: Barrel, asked: FeedOptions) -> AnyAnswer:
    """One whole answer where everything fits into a page, else page after page with flat memory."""
    if asked.descending or asked.limit == 0:
        in_thread = call.in_step if asked.attachments == "contents" else call.in_thread
        return await in_thread(_one_page, barrel, asked)
    pages = _Pages(call, _Reading(barrel, asked, await call.in_thread(_open, barrel, asked)))
    try:
        first = await pages.next()
        rest = await pages.next() if pages.complete else None
    except BaseException:
        await pages.close()
        raise
    if first is not None and rest is not None:
        await pages.close()
        return Answer(200, first + rest)
    pages.put_back(first)
    return Streamed(pages)


class _Pages:
    """The pieces of an answer: its head with the first rows, more rows, its tail."""

    def __init__(self, call: Call, reading: _Reading) -> None:
        self._call = call
        self._reading = reading
        self._begun = False
        self._told = False
        self._ended = False
        self._waiting: bytes | None = None

    @property
    def complete(self) -> bool:
        """Whether only the tail is left."""
        return self._reading.done

    def put_back(self, piece: bytes | None) -> None:
        """Give this piece first."""
        self._waiting = piece

    async def next(self) -> bytes | None:
        if self._waiting is not None:
            piece, self._waiting = self._waiting, None
            return piece
        if self._ended:
            return None
        if not self._begun:
            self._begun = True
            page = await self._next_page()
            self._told = bool(page)
            return _HEAD + page
        while not self._reading.done:
            if page := await self._next_page():
                comma, self._told = b"," if self._told else b"", True
                return comma + page
        self._ended = True
        return await self._call.in_thread(self._reading.tail)

    async def close(self) -> None:
        await self._call.in_thread(self._reading.close)

    async def _next_page(self) -> bytes:
        """Contents are read on threads of their own: where they are kept may be far away."""
        in_thread = self._call.in_step if self._reading.contents else self._call.in_thread
        return await in_thread(self._reading.next_page)


class _Reading:
    """One reader's way through a replay, up to its limit. A call that was given up is waited for by the next."""

    def __init__(self, barrel: Barrel, asked: FeedOptions, replay: Replay) -> None:
        self.done = False
        self.contents = asked.attachments == "contents"
        self._barrel = barrel
        self._asked = asked
        self._replay = replay
        self._told = 0
        self._seq = 0
        self._lock = threading.Lock()

    def next_page(self) -> bytes:
        """The next rows as JSON without brackets; empty where what was looked at does not match."""
        limit = self._asked.limit
        with self._lock:
            most = PAGE_ROWS_MAX if self.contents else _PAGE_ROWS
            rows_max = most if limit is None else min(most, limit - self._told)
            page = self._replay.next(rows_max, _PAGE_BYTES)
            self._told += len(page.rows)
            self._seq = page.seq
            self.done = page.caught_up or self._told == limit
        if self.contents:
            page.rows = [with_contents(self._barrel, row, _CONTENTS_BYTES, None) for row in page.rows]
        return encode_json(page.rows)[1:-1]

    def tail(self) -> bytes:
        """What closes the answer: where it ended, and how much is left."""
        barrel, pending = self._barrel, 0
        if self._told == self._asked.limit:
            pending = barrel.pending(self._seq, self._replay)
        return _tail(barrel.position(self._seq), pending, barrel.epoch)

    def close(self) -> None:
        """Let the log go."""
        with self._lock:
            self._replay.close()


def _start(barrel: Barrel, asked: FeedOptions) -> Start:
    start = barrel.resolve(asked.since, patterns=bool(asked.patterns))
    if start.snapshot:
        raise EpochChanged(f"There is no going on from {asked.since} in {barrel.name}.", epoch=barrel.epoch)
    return start


def _open(barrel: Barrel, asked: FeedOptions) -> Replay:
    start = _start(barrel, asked)
    return barrel.replay(start.after, asked.patterns, docs=asked.docs, leaves=start.leaves)


def _one_page(barrel: Barrel, asked: FeedOptions) -> Answer:
    limit = asked.limit
    if asked.descending and (limit is None or limit > _DESCENDING_MAX):
        raise BadRequest(
            f"descending is read with a limit of {_DESCENDING_MAX} at most.",
            hint="Send limit=…; the whole log is read forwards.",
        )
    page = barrel.changes(
        asked.since, limit=limit, descending=asked.descending, patterns=asked.patterns, docs=asked.docs
    )
    left = _PAGE_CONTENTS_BYTES if asked.attachments == "contents" else 0
    for row in page.results if left else ():
        before = len(row.doc) if isinstance(row.doc, msgspec.Raw) else 0
        with_contents(barrel, row, min(_CONTENTS_BYTES, left), None)
        left -= (len(row.doc) if isinstance(row.doc, msgspec.Raw) else 0) - before
    rows = encode_json(page.results)[1:-1]
    return Answer(200, _HEAD + rows + _tail(page.last_seq, page.pending, page.epoch))


def _tail(last_seq: str, pending: int, epoch: str) -> bytes:
    return b'],"last_seq":"%b","pending":%d,"epoch":"%b"}' % (last_seq.encode(), pending, epoch.encode())


ROUTES = [
    route("GET", "/barrels/{barrel}/changes", "changes", changes, KNOWN),
    route("POST", "/barrels/{barrel}/changes", "ask_changes", changes, KNOWN, reads=True),
]
