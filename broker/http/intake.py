"""A request's body on its way to a thread: taken as fast as the thread works, with a bound on what is between them.

Whatever becomes of the client, the thread is told, and is waited for: a content that was cut off is undone before the
request ends.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import aclosing
from typing import Final, TypeVar

from broker.http.call import Call
from broker.http.transfers import Place

T = TypeVar("T")

HELD_BYTES_MAX: Final = 512 << 10
"""Between the loop and the thread, and as many again in the thread's hands."""


class CutOff(Exception):
    """The rest of the body does not come; told to the thread only."""


class Pipe:
    """Bytes from the event loop to one thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._room = asyncio.Event()
        self._pieces: list[bytes] = []
        self._size = 0
        self._is_ended = False
        self._cut: CutOff | None = None
        self._is_abandoned = False

    async def put(self, piece: bytes) -> bool:
        """Hand over some bytes, and wait for room for more. False when nobody takes any."""
        with self._changed:
            self._pieces.append(piece)
            self._size += len(piece)
            self._changed.notify()
        while self._size >= HELD_BYTES_MAX and not self._is_abandoned:
            self._room.clear()
            await self._room.wait()
        return not self._is_abandoned

    def end(self, cut: CutOff | None = None) -> None:
        """There is no more: the body is complete, or it is not, which the thread gets to see."""
        with self._changed:
            self._is_ended, self._cut = True, cut
            self._changed.notify()

    def abandon(self) -> None:
        """The thread takes no more; told on the loop."""
        self._is_abandoned = True
        self._room.set()

    def __iter__(self) -> Iterator[bytes]:
        """In the thread: what comes, and CutOff after the last of it where the body is not complete."""
        while True:
            with self._changed:
                while not self._pieces and not self._is_ended:
                    self._changed.wait()
                pieces, self._pieces, self._size = self._pieces, [], 0
            if not pieces:
                if self._cut is not None:
                    raise self._cut
                return
            self._loop.call_soon_threadsafe(self._room.set)
            yield from pieces


async def body_through(call: Call, work: Callable[[Iterable[bytes]], T], bytes_max: int) -> T:
    """What `work` makes of the body, piece by piece, in a thread of its own.

    Overloaded where too many do that; TooLarge, Timeout and ClientGone as for any body, after `work` was told.
    """
    transfers = call.transfers
    places = [Place(transfers.uploads, call.client)]
    try:
        places.append(Place(call.body_bytes, call.client, min(HELD_BYTES_MAX, call.declared or HELD_BYTES_MAX)))
        pipe = Pipe()
        loop = asyncio.get_running_loop()
        job = asyncio.ensure_future(loop.run_in_executor(transfers.uploading, work, pipe))
        job.add_done_callback(lambda _: pipe.abandon())
        try:
            async with aclosing(call.pieces(bytes_max)) as body:
                async for piece in body:
                    if not await pipe.put(piece):
                        break
        except BaseException as error:
            pipe.end(CutOff(str(error)))
            await _undone(job)
            raise
        pipe.end()
        made = await job
        call.waits_from_now()
        return made
    finally:
        for place in places:
            place.release()


async def in_place(call: Call, work: Callable[[], T]) -> T:
    """What `work` gives, which may have to read gigabytes again: with a place and a thread among the uploads."""
    place = Place(call.transfers.uploads, call.client)
    try:
        return await asyncio.get_running_loop().run_in_executor(call.transfers.uploading, work)
    finally:
        place.release()


async def _undone(job: asyncio.Future[T]) -> None:
    """Wait for a thread that was told of the end, even when the request is cancelled meanwhile."""
    cancelled = False
    while not job.done():
        try:
            await asyncio.wait((job,))
        except asyncio.CancelledError:
            cancelled = True
    job.exception()  # the reason that ended it is told by whoever knows it
    if cancelled:
        raise asyncio.CancelledError
