"""Answers that are read page by page: whole where that is little, else in chunks with flat memory."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Any, Final

from broker.http.answers import Answer, AnyAnswer, Streamed
from broker.http.call import Call, ClientGone

_WHOLE_BYTES_MAX: Final = 512 << 10  # a batch of a replicator's, which is one answer then, and its client done sooner

_STEP_BYTES: Final = 128 << 10
_STEP_S: Final = 0.005


async def paged_answer(call: Call, pages: Iterator[bytes], *, contents: bool = False) -> AnyAnswer:
    """The pieces that an iterator reads, each on a reader's thread: with `contents` on those that wait for them.

    What finds nothing for long ends where its client has gone (ClientGone).
    """
    chunks = Paged(call, pages, contents)
    ready: list[bytes] = []
    size = 0
    gone: asyncio.Task[None] | None = None
    try:
        while size <= _WHOLE_BYTES_MAX:
            piece = await chunks.step()
            if piece is None:
                await chunks.close()
                return Answer(200, b"".join(ready))
            ready.append(piece)
            size += len(piece)
            if not piece:
                gone = gone or asyncio.create_task(call.gone(), name="spile-couch-gone")
                if gone.done():
                    raise ClientGone
    except BaseException:
        await chunks.close()
        raise
    finally:
        if gone is not None:
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone
    chunks.put_back(b"".join(ready))
    return Streamed(chunks)


class Paged:
    """Chunks out of an iterator that blocks. A step that was given up is waited for.

    A step takes several pieces where they are small and come soon, as each costs a way to the thread and back. Empty
    pieces are passed over: with them an iterator gives its thread to others in between.
    """

    def __init__(self, call: Call, pages: Iterator[bytes], contents: bool) -> None:
        self._in_thread: Any = call.in_step if contents else call.in_thread
        self._pages = pages
        self._ready: bytes | None = None
        self._ended = False
        self._lock = threading.Lock()

    def put_back(self, piece: bytes) -> None:
        """Give this first."""
        self._ready = piece

    async def next(self) -> bytes | None:
        if self._ready is not None:
            piece, self._ready = self._ready, None
            return piece
        while True:
            step = await self.step()
            if step != b"":
                return step

    async def step(self) -> bytes | None:
        """The next pieces, empty ones too; None behind the last."""
        piece: bytes | None = None if self._ended else await self._in_thread(self._step)
        return piece

    async def close(self) -> None:
        if not self._ended:
            await self._in_thread(self._close)

    def _step(self) -> bytes | None:
        with self._lock:
            taken: list[bytes] = []
            size, ends_at = 0, time.monotonic() + _STEP_S
            for piece in self._pages:
                taken.append(piece)
                size += len(piece)
                if not piece or size >= _STEP_BYTES or time.monotonic() >= ends_at:
                    return b"".join(taken)
            self._ended = True
            return b"".join(taken) or None

    def _close(self) -> None:
        with self._lock, suppress(StopIteration):
            if isinstance(self._pages, Generator):
                self._pages.close()
