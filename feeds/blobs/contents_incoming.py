"""A content on its way in, whatever it goes into: cut into pieces, hashed, counted, and ended in one of three ways.

What a piece is written to is a `Sink`, of which each kind of `Contents` has its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from feeds.blobs.contents import PIECE_BYTES_MAX, Stored
from feeds.blobs.hashing import Digests
from feeds.errors import BadRequest, SpileError, TooLarge

log = logging.getLogger("spile.blobs")


class Sink(Protocol):
    """Where the pieces of one content go, in order."""

    def put(self, piece: bytes) -> None:
        """Take the next piece, of 1 to `PIECE_BYTES_MAX` bytes; waits where too many are on their way."""

    def finish(self) -> str:
        """Wait until all is durable and complete; the place of the copy."""

    def suspend(self) -> None:
        """Wait until all is durable."""

    def stop(self) -> None:
        """Wait for what is on its way, whatever comes of it."""

    def remove(self) -> None:
        """Remove everything; after `stop`."""


class Pieces:
    """An `Incoming` over a sink."""

    def __init__(
        self,
        sink: Sink,
        state: str,
        let_go: Callable[[], None],
        *,
        length: int | None = None,
        size: int = 0,
        digests: Digests | None = None,
    ) -> None:
        """`let_go` is called once, at the end. `size` and `digests` are those of what the sink has already."""
        self._sink = sink
        self._state = state
        self._let_go = let_go
        self._length = length
        self._size = size
        self._digests = digests or Digests()
        self._rest = bytearray()
        self._is_open = True
        self._is_broken = False

    @property
    def size(self) -> int:
        return self._size

    @property
    def state(self) -> str:
        return self._state

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._check_open()
        with memoryview(data).cast("B") as view:
            if self._length is not None and self._size + len(view) > self._length:
                raise TooLarge(
                    f"There are more bytes than the {self._length} that were announced",
                    hint="Announce the true length, or none; nothing was stored.",
                )
            with self._or_broken():
                self._take(view)

    def finish(self) -> Stored:
        self._check_open()
        if self._length is not None and self._size != self._length:
            raise BadRequest(
                f"There are {self._size} bytes, not the {self._length} that were announced",
                hint="The content was cut off, or its length is wrong; send all of it. Nothing was stored.",
            )
        with self._or_broken():
            self._pass_on_rest()
            place = self._sink.finish()
            sha256, md5 = self._digests.finish()
        self._end()
        return Stored(place, self._size, sha256, md5)

    def suspend(self) -> str:
        if self._is_open and self._is_broken:
            self._sink.stop()
        else:
            self._check_open()
            with self._or_broken():
                self._pass_on_rest()
                self._sink.suspend()
        self._end()
        return self._state

    def abort(self) -> None:
        if not self._is_open:
            return
        try:
            self._sink.stop()
            self._sink.remove()
        except SpileError as error:
            log.warning("an upload that was given up stays until leftovers are removed, %s: %s", self._state, error)
        finally:
            self._end()

    def __enter__(self) -> Pieces:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def _take(self, view: memoryview) -> None:
        at = 0
        while at < len(view):
            if len(self._rest) == PIECE_BYTES_MAX:
                self._pass_on_rest()
            end = at + PIECE_BYTES_MAX - len(self._rest)
            self._rest += view[at:end]
            at = min(end, len(view))
        self._size += len(view)

    def _pass_on_rest(self) -> None:
        if self._rest:
            piece = bytes(self._rest)
            self._rest.clear()
            self._pass_on(piece)

    def _pass_on(self, piece: bytes) -> None:
        self._digests.update(piece)
        self._sink.put(piece)

    def _end(self) -> None:
        self._is_open = False
        self._digests.stop()
        self._let_go()

    def _check_open(self) -> None:
        if not self._is_open:
            raise RuntimeError("this content has ended: it was finished, suspended or aborted")
        if self._is_broken:
            raise RuntimeError("this content is broken by an error: it can be aborted, or suspended to be resumed")

    @contextmanager
    def _or_broken(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._is_broken = True
            raise
