"""A content on its way out: pieces that a thread reads, each when the client has taken the one before."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Final

from broker.http.call import Call
from broker.http.transfers import Place

_END: Final = b""


class Pieces:
    """Chunks of an answer out of an iterator that blocks. Overloaded where too many are sent already."""

    def __init__(self, call: Call, pieces: Iterator[bytes]) -> None:
        self._call = call
        self._pieces = pieces
        self._first: bytes | None = None
        self._stepping = threading.Lock()
        self._place = Place(call.transfers.downloads, call.client)

    async def begin(self) -> None:
        """Read the first piece, so that what cannot be read at all is told by an answer of its own."""
        try:
            self._first = await self._call.in_step(self._step)
        except BaseException:
            await self.close()
            raise

    async def next(self) -> bytes | None:
        """The next piece; raises where it cannot be read, after which the connection is to be cut."""
        if self._first is not None:
            piece, self._first = self._first, None
        else:
            piece = await self._call.in_step(self._step)
        return piece or None

    async def close(self) -> None:
        """Let go of what is read from; a step that was given up is waited for."""
        self._place.release()
        await self._call.in_step(self._close)

    def _step(self) -> bytes:
        with self._stepping:
            return next(self._pieces, _END)

    def _close(self) -> None:
        with self._stepping:
            if isinstance(self._pieces, Generator):
                with suppress(StopIteration):
                    self._pieces.close()
