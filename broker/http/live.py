"""Following a barrel's changes over plain HTTP: long-poll, continuous lines, server-sent events.

Each follows through one stream of the stream service, in process, and acknowledges what the client has taken: a slow
client slows its own stream. The stream decides what is told; this module only writes it down for each mode.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import msgspec

from broker.http.answers import EVENTS, LINES, Answer, AnyAnswer, Chunks, Streamed, encode_json
from broker.http.call import Call
from broker.http.feed_options import FeedOptions
from broker.http.follower import Follower
from feeds import Barrel
from feeds.errors import SpileError
from feeds.positions import Position
from listeners.stream.messages import Array, End

_WINDOW: Final = 1000
_WINDOW_BYTES: Final = 1 << 20
_UNBUFFERED: Final = [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]

Rows = Sequence[msgspec.Raw]


class _Seq(msgspec.Struct):
    seq: int


_seq_of = msgspec.json.Decoder(_Seq).decode


class Format(Protocol):
    """How a mode writes what a stream tells. Within a snapshot there is no position (`at` None) to go on from."""

    content_type: bytes

    def rows(self, rows: Rows, epoch: str, resumable: bool) -> bytes: ...

    def snapshot(self, boundary: str, at: str) -> bytes: ...

    def heartbeat(self, at: str | None) -> bytes: ...

    def last(self, value: dict[str, object]) -> bytes: ...


class Lines:
    """A JSON object a line; a blank line is a heartbeat."""

    content_type = LINES

    def rows(self, rows: Rows, epoch: str, resumable: bool) -> bytes:
        return b"\n".join(rows) + b"\n"

    def snapshot(self, boundary: str, at: str) -> bytes:
        return encode_json({"snapshot": boundary, "seq": at}) + b"\n"

    def heartbeat(self, at: str | None) -> bytes:
        return b"\n"

    def last(self, value: dict[str, object]) -> bytes:
        return encode_json(value) + b"\n"


class Events:
    """Server-sent events. `id` is where to go on; within a snapshot there is none, so that it is told again whole."""

    content_type = EVENTS

    def rows(self, rows: Rows, epoch: str, resumable: bool) -> bytes:
        if not resumable:
            return b"".join(b"data: %b\n\n" % bytes(row) for row in rows)
        at = epoch.encode()
        return b"".join(b"id: %d-%b\ndata: %b\n\n" % (_seq_of(row).seq, at, bytes(row)) for row in rows)

    def snapshot(self, boundary: str, at: str) -> bytes:
        id = b"id: %b\n" % at.encode() if boundary == "end" else b""
        return b"event: snapshot\n%bdata: %b\n\n" % (id, encode_json({"snapshot": boundary, "seq": at}))

    def heartbeat(self, at: str | None) -> bytes:
        return b":\n\n" if at is None else b"id: %b\n\n" % at.encode()

    def last(self, value: dict[str, object]) -> bytes:
        return b"event: end\ndata: %b\n\n" % encode_json(value)


async def continuous(call: Call, barrel: Barrel, asked: FeedOptions) -> AnyAnswer:
    """A row a line, as they come."""
    return await _follow(call, barrel, asked, Lines())


async def eventsource(call: Call, barrel: Barrel, asked: FeedOptions) -> AnyAnswer:
    """Rows as server-sent events."""
    return await _follow(call, barrel, asked, Events())


async def long_poll(
    call: Call, barrel: Barrel, asked: FeedOptions, answer: Callable[[], Awaitable[AnyAnswer]]
) -> AnyAnswer:
    """Wait until something is to be told after `since`, or the timeout; then `answer` as if it were asked then."""
    follower = Follower(call, barrel, asked, window=1, bytes_max=1, docs=False)
    await follower.start()
    return Streamed(_LongPoll(follower, asked, answer), headers=list(_UNBUFFERED), live=True)


async def _follow(call: Call, barrel: Barrel, asked: FeedOptions, form: Format) -> AnyAnswer:
    follower = Follower(call, barrel, asked, window=_WINDOW, bytes_max=_WINDOW_BYTES, docs=asked.docs)
    start = await follower.start()
    headers = [*_UNBUFFERED, (b"spile-position", start.seq.encode())]
    return Streamed(_Following(call, barrel, asked, form, follower, start), form.content_type, headers, live=True)


class _LongPoll:
    """White space until there is an answer, then the answer."""

    def __init__(self, follower: Follower, asked: FeedOptions, answer: Callable[[], Awaitable[AnyAnswer]]) -> None:
        self._follower = follower
        self._answer = answer
        self._heartbeat_s = asked.heartbeat_s
        self._clock = asyncio.get_running_loop().time
        self._ends_at = None if asked.timeout_s is None else self._clock() + asked.timeout_s
        self._rest: Chunks | None = None
        self._answered = False

    async def next(self) -> bytes | None:
        if self._rest is not None:
            return await self._rest.next()
        if self._answered:
            return None
        if await self._waited():
            return b"\n"
        self._answered = True
        try:
            answer = await self._answer()
        except SpileError as error:
            return encode_json(error.as_dict())
        if isinstance(answer, Answer):
            return answer.body
        self._rest = answer.chunks
        return await self._rest.next()

    async def close(self) -> None:
        await self._follower.close()
        if self._rest is not None:
            await self._rest.close()

    async def _waited(self) -> bool:
        """Wait for rows or the end; True when a heartbeat is due before."""
        beat_at = None if self._heartbeat_s is None else self._clock() + self._heartbeat_s
        while True:
            array = await self._follower.next(earliest(beat_at, self._ends_at))
            if array is not None and (array.rows or array.end or array.snapshot):
                return False
            now = self._clock()
            if self._ends_at is not None and now >= self._ends_at:
                return False
            if beat_at is not None and now >= beat_at:
                return True


class _Following:
    """What one client of a continuous answer or an event source is told."""

    def __init__(
        self,
        call: Call,
        barrel: Barrel,
        asked: FeedOptions,
        form: Format,
        follower: Follower,
        start: Array[msgspec.Raw],
    ) -> None:
        self._call = call
        self._barrel = barrel
        self._asked = asked
        self._form = form
        self._follower = follower
        self._array: Array[msgspec.Raw] | None = start
        # Within a snapshot the client still stands where it stood: half of one is nothing to go on from.
        self._at = start.seq if start.snapshot is None else str(asked.since)
        self._in_snapshot = False
        self._left = asked.limit
        self._clock = asyncio.get_running_loop().time
        self._told_at = self._sent_at = self._clock()
        self._ended = False

    async def next(self) -> bytes | None:
        """The next bytes; that it is asked for tells that the client has taken what came before."""
        while not self._ended:
            if self._left == 0:
                return await self._finish()
            array = self._array
            if array is None:
                self._follower.acknowledge()
                array = await self._follower.next(earliest(self._beat_at(), self._timeout_at()))
            self._array = None
            if array is not None:
                chunk = self._written(array)
                if array.rows:
                    self._told_at = self._clock()
            elif self._due(self._timeout_at()):
                return await self._finish()
            else:
                chunk = self._form.heartbeat(None if self._in_snapshot else self._at)
            if chunk:
                self._sent_at = self._clock()
                return chunk
        return None

    async def close(self) -> None:
        await self._follower.close()

    def _written(self, array: Array[msgspec.Raw]) -> bytes:
        if array.end is not None and not array.seq:
            return self._broken(array.end)
        chunk = b""
        if array.snapshot == "start":
            self._in_snapshot = True
            chunk += self._form.snapshot("start", array.seq)
        rows: Rows = array.rows
        if self._left is not None:
            rows = rows[: self._left]
            self._left -= len(rows)
        epoch = array.seq.partition("-")[2]
        if rows:
            chunk += self._form.rows(rows, epoch, not self._in_snapshot)
        cut = len(rows) < len(array.rows)
        if array.snapshot == "end" and not cut:
            self._in_snapshot = False
            chunk += self._form.snapshot("end", array.seq)
        if not self._in_snapshot:
            self._at = f"{_seq_of(rows[-1]).seq}-{epoch}" if cut else array.seq
        if array.end is not None:
            chunk += self._broken(array.end)
        return chunk

    def _broken(self, end: End) -> bytes:
        self._ended = True
        value: dict[str, object] = {"error": end.code, "reason": end.reason or end.code}
        return self._form.last({**value, "hint": end.hint} if end.hint else value)

    async def _finish(self) -> bytes:
        self._ended = True
        here = Position.parse(self._at)
        try:
            page = await self._call.in_thread(
                lambda: self._barrel.changes(here, limit=0, patterns=self._asked.patterns)
            )
        except SpileError as error:
            return self._form.last(error.as_dict())
        return self._form.last({"last_seq": self._at, "pending": page.pending})

    def _beat_at(self) -> float | None:
        beat_s = self._asked.heartbeat_s
        return None if beat_s is None else self._sent_at + beat_s

    def _timeout_at(self) -> float | None:
        timeout_s = self._asked.timeout_s
        return None if timeout_s is None else self._told_at + timeout_s

    def _due(self, at: float | None) -> bool:
        return at is not None and self._clock() >= at


def earliest(*times: float | None) -> float | None:
    """The first of several moments, of which some never come (None)."""
    return min((time for time in times if time is not None), default=None)
