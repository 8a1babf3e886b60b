"""Following `_changes`: long-poll, continuous lines, server-sent events.

Each follows through one stream of the stream service, in process, and acknowledges what the client has taken: a slow
client slows its own stream. What a stream tells as a snapshot, after a position that does not hold any more, are rows
like others here: the log from its beginning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Protocol

import msgspec

from broker.couch.feed_options import Asked
from broker.couch.rows import Change, told_rows
from broker.http.answers import EVENTS, JSON, AnyAnswer, Header, Streamed, encode_json
from broker.http.call import Call
from broker.http.follower import Follower
from broker.http.live import earliest
from feeds import Barrel, Row
from feeds.errors import SpileError
from feeds.positions import Position
from listeners.stream.messages import Array

_WINDOW: Final = 1000
_WINDOW_BYTES: Final = 1 << 20
_UNBUFFERED: Final[list[Header]] = [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
_EMPTY: Final = b'{"results":[]'


class _Last(msgspec.Struct):
    last_seq: str


_last = msgspec.json.Decoder(_Last).decode
_decode_row = msgspec.json.Decoder(Row).decode


class Format(Protocol):
    """How a mode writes what is told."""

    content_type: bytes

    def rows(self, rows: Sequence[Change]) -> bytes: ...

    def heartbeat(self) -> bytes: ...

    def last(self, seq: str, pending: int) -> bytes: ...


class Lines:
    """A JSON object a line; a blank line is a heartbeat."""

    content_type = JSON

    def rows(self, rows: Sequence[Change]) -> bytes:
        return b"".join([row.json + b"\n" for row in rows])

    def heartbeat(self) -> bytes:
        return b"\n"

    def last(self, seq: str, pending: int) -> bytes:
        return encode_json({"last_seq": seq, "pending": pending}) + b"\n"


class Events:
    """Server-sent events; `id` is where to go on."""

    content_type = EVENTS

    def rows(self, rows: Sequence[Change]) -> bytes:
        return b"".join([b"data: %b\nid: %b\n\n" % (row.json, row.seq) for row in rows])

    def heartbeat(self) -> bytes:
        return b"event: heartbeat\ndata: \n\n"

    def last(self, seq: str, pending: int) -> bytes:
        return b""


async def continuous(call: Call, barrel: Barrel, asked: Asked) -> AnyAnswer:
    """Rows as they come: a line each, or as server-sent events."""
    form: Format = Events() if asked.mode == "eventsource" else Lines()
    follower = Follower(call, barrel, asked.as_feed(), window=_WINDOW, bytes_max=_WINDOW_BYTES, docs=asked.reads_docs)
    start = await follower.start()
    following = Following(call, barrel, asked, form, follower, start)
    return Streamed(following, form.content_type, list(_UNBUFFERED), live=True)


async def long_poll(call: Call, barrel: Barrel, asked: Asked, found: AnyAnswer) -> AnyAnswer:
    """What is there already, else the first that comes; nothing where that takes longer than the timeout."""
    if isinstance(found, Streamed) or not found.body.startswith(_EMPTY):
        return found
    asked = replace(asked, since=Position.parse(_last(found.body).last_seq))  # everything before it was looked at
    window = _WINDOW if asked.limit is None else min(_WINDOW, asked.limit)
    follower = Follower(call, barrel, asked.as_feed(), window=window, bytes_max=_WINDOW_BYTES, docs=asked.reads_docs)
    start = await follower.start()
    return Streamed(LongPoll(call, barrel, asked, follower, start), headers=list(_UNBUFFERED), live=True)


class _Told:
    """What a stream's arrays come to for one client: rows, and where it stands."""

    def __init__(
        self, call: Call, barrel: Barrel, asked: Asked, follower: Follower, start: Array[msgspec.Raw]
    ) -> None:
        self._call = call
        self._barrel = barrel
        self._asked = asked
        self._follower = follower
        self._array: Array[msgspec.Raw] | None = start
        self._clock = asyncio.get_running_loop().time
        self._left = asked.limit
        self.at = start.seq
        self.ended = False
        self.told_at = self.sent_at = self._clock()

    async def next(self) -> list[Change] | None:
        """The next rows, none where an array told nothing; None when a heartbeat or the timeout is due before."""
        array, self._array = self._array, None
        if array is None:
            self._follower.acknowledge()
            array = await self._follower.next(earliest(self._beat_at(), self._timeout_at()))
        if array is None:
            return None
        rows = [_decode_row(row) for row in array.rows]
        epoch = array.seq.partition("-")[2]
        told = await self._rows(rows, epoch) if rows else []
        if self._left is not None and len(told) >= self._left:
            told = told[: self._left]
            self._left = 0
            self.ended = True
            self.at = told[-1].seq.decode() if told else self.at
        else:
            self._left = None if self._left is None else self._left - len(told)
            self.at = array.seq or self.at
        self.ended = self.ended or array.end is not None
        if told:
            self.told_at = self._clock()
        return told

    async def _rows(self, rows: list[Row], epoch: str) -> list[Change]:
        if not self._asked.docs:
            return told_rows(self._barrel, rows, self._asked, epoch)
        in_thread = self._call.in_step if self._asked.attachments else self._call.in_thread
        return await in_thread(told_rows, self._barrel, rows, self._asked, epoch)

    def is_over(self) -> bool:
        """Whether nothing was told for so long that the answer ends."""
        timeout_at = self._timeout_at()
        return timeout_at is not None and self._clock() >= timeout_at

    async def pending(self) -> int:
        """How many documents have changed beyond what was told."""
        try:
            return await self._call.in_thread(self._barrel.pending, Position.parse(self.at).seq)
        except SpileError:
            return 0  # the barrel is gone, which ended the stream

    async def close(self) -> None:
        """End the stream."""
        await self._follower.close()

    def _beat_at(self) -> float | None:
        return None if self._asked.heartbeat_s is None else self.sent_at + self._asked.heartbeat_s

    def _timeout_at(self) -> float | None:
        return None if self._asked.timeout_s is None else self.told_at + self._asked.timeout_s


class Following:
    """The chunks of a continuous answer, or of an event source."""

    def __init__(
        self,
        call: Call,
        barrel: Barrel,
        asked: Asked,
        form: Format,
        follower: Follower,
        start: Array[msgspec.Raw],
    ) -> None:
        self._told = _Told(call, barrel, asked, follower, start)
        self._form = form
        self._ended = asked.limit == 0
        self._closed = False

    async def next(self) -> bytes | None:
        while not self._ended:
            rows = await self._told.next()
            self._ended = self._told.ended or (rows is None and self._told.is_over())
            if rows:
                self._told.sent_at = self._told.told_at
                return self._form.rows(rows)
            if rows is None and not self._ended:
                self._told.sent_at = asyncio.get_running_loop().time()
                return self._form.heartbeat()
        if self._closed:
            return None
        self._closed = True
        return self._form.last(self._told.at, await self._told.pending()) or None

    async def close(self) -> None:
        await self._told.close()


class LongPoll:
    """White space until there is something to tell, then all of the answer."""

    def __init__(
        self, call: Call, barrel: Barrel, asked: Asked, follower: Follower, start: Array[msgspec.Raw]
    ) -> None:
        self._told = _Told(call, barrel, asked, follower, start)
        self._answered = False

    async def next(self) -> bytes | None:
        while not self._answered:
            rows = await self._told.next()
            if rows or self._told.ended or (rows is None and self._told.is_over()):
                self._answered = True
                pending = await self._told.pending()
                told = {"last_seq": self._told.at, "pending": pending}
                return b'{"results":[%b],' % b",".join([row.json for row in rows or ()]) + encode_json(told)[1:]
            if rows is None:
                self._told.sent_at = asyncio.get_running_loop().time()
                return b"\n"
        return None

    async def close(self) -> None:
        await self._told.close()
