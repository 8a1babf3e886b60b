"""One stream of the stream service, followed in process on behalf of an HTTP client.

It speaks the same messages as every listener: open, arrays down, credit up.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from contextlib import suppress
from typing import Final

import msgspec

from broker.http.call import Call
from broker.http.feed_options import FeedOptions
from feeds import Barrel
from feeds.errors import Timeout, Unavailable
from listeners.errors import error_of
from listeners.stream.messages import Array, Credit, Open, encode
from listeners.stream.service import StreamService

_STREAM: Final = "changes"
_QUEUE_ARRAYS_MAX: Final = 4
_START_S_MAX: Final = 10.0
# The service ends a stream after 60 s without a word; a client that takes long over a chunk is still there.
_KEEP_S: Final = 15.0

_numbers = itertools.count(1)
_decode = msgspec.json.Decoder(Array[msgspec.Raw]).decode


class Follower:
    """A stream's arrays, in order. What was received is acknowledged when the caller says so."""

    def __init__(
        self, call: Call, barrel: Barrel, asked: FeedOptions, *, window: int, bytes_max: int, docs: bool
    ) -> None:
        if call.services.streams is None:
            raise Unavailable("This service follows no feeds.", hint="Ask with feed=normal.")
        self._streams: StreamService = call.services.streams
        self._barrel = barrel.name
        self._owner = f"http/{next(_numbers)}"
        self._open = Open(
            run=secrets.token_hex(8),
            since=str(asked.since),
            patterns=[str(pattern) for pattern in asked.patterns],
            window=window,
            bytes=bytes_max,
            docs=docs,
            attachments=asked.attachments,
        )
        self._arrays: asyncio.Queue[bytes] = asyncio.Queue(_QUEUE_ARRAYS_MAX)
        self._received = ""
        self._acked = ""
        self._keep: asyncio.TimerHandle | None = None

    async def start(self) -> Array[msgspec.Raw]:
        """Open the stream and wait for the array that fixes its position. What refuses it is raised."""
        loop = asyncio.get_running_loop()
        try:
            await self._streams.open(self._owner, self._barrel, _STREAM, encode(self._open), self._arrays.put)
            array = await self.next(loop.time() + _START_S_MAX)
            if array is None:
                raise Timeout("The feed did not begin in time.")
            if array.end is not None and not array.start:
                raise error_of(array.end.code, array.end.reason, array.end.hint)
        except BaseException:
            await self.close()
            raise
        self.acknowledge()
        self._keep = loop.call_later(_KEEP_S, self._keep_alive)
        return array

    async def next(self, until: float | None) -> Array[msgspec.Raw] | None:
        """The next array, or None when the loop's clock reaches `until` before it comes."""
        try:
            async with asyncio.timeout_at(until):
                array = _decode(await self._arrays.get())
        except TimeoutError:
            return None
        self._received = array.seq or self._received
        return array

    def acknowledge(self) -> None:
        """What was received so far has been taken by the client: there is room for more."""
        if self._received != self._acked:
            self._acked = self._received
            self._credit()

    async def close(self) -> None:
        """End the stream."""
        if self._keep is not None:
            self._keep.cancel()
            self._keep = None
        self._streams.gone(self._owner)

    def _credit(self) -> None:
        word = Credit(run=self._open.run, ack=self._acked, window=self._open.window, bytes=self._open.bytes)
        closed = self._streams.credit(self._owner, self._barrel, _STREAM, encode(word))
        if closed is not None:
            # With a full queue the arrays in it are taken first, and the next credit is answered the same.
            with suppress(asyncio.QueueFull):
                self._arrays.put_nowait(closed)

    def _keep_alive(self) -> None:
        self._credit()
        self._keep = asyncio.get_running_loop().call_later(_KEEP_S, self._keep_alive)
