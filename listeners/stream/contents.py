"""Rows whose documents bring the bytes of their attachments along, for listeners that ask for `contents`.

Contents are read from where they are kept, which blocks and is no work for an event loop: what happens just now waits
in `Unfilled` until a thread has done that.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

import msgspec

from feeds.barrel import Barrel
from feeds.errors import SpileError
from feeds.rows import Row
from listeners.stream.sender import Told

log = logging.getLogger("spile.streams")

PAGE_ROWS_MAX = 4
"""Rows filled at once: each may grow to the bound on contents, and a page of them is in memory."""
_WAITING_ROWS_MAX = 500
_WAITING_BYTES_MAX = 1 << 20

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Row).decode


class Unfilled:
    """Rows that just happened and wait for their contents, in order and in parts that are filled together."""

    def __init__(self) -> None:
        self._parts: deque[tuple[list[Told], int]] = deque()
        self._rows = 0
        self._bytes = 0

    def __bool__(self) -> bool:
        """Whether any wait."""
        return bool(self._parts)

    def add(self, rows: list[Told], looked_at: int) -> bool:
        """Let these wait, after which everything up to `looked_at` is known; False where there is no room."""
        for begin in range(0, len(rows), PAGE_ROWS_MAX):
            part = rows[begin : begin + PAGE_ROWS_MAX]
            self._parts.append((part, part[-1][0] if begin + PAGE_ROWS_MAX < len(rows) else looked_at))
        self._rows += len(rows)
        self._bytes += sum(len(text) for _, text in rows)
        return self._rows <= _WAITING_ROWS_MAX and (self._bytes <= _WAITING_BYTES_MAX or self._rows == 1)

    @property
    def first(self) -> tuple[list[Told], int]:
        """The rows that are next, and up to where everything is known with them."""
        return self._parts[0]

    def done(self, rows: list[Told]) -> bool:
        """These rows wait no more; False where they did not any more."""
        if not self._parts or self._parts[0][0] is not rows:
            return False
        self._parts.popleft()
        self._rows -= len(rows)
        self._bytes -= sum(len(text) for _, text in rows)
        return True

    def clear(self) -> None:
        """Let go of all: they are read again."""
        self._parts.clear()
        self._rows = self._bytes = 0


def filled(rows: list[Told], fill: Callable[[Row], Row]) -> list[Told]:
    """Encoded rows, each with what `fill` puts into it."""
    return [(seq, _encode(fill(_decode(text)))) for seq, text in rows]


def with_contents(barrel: Barrel, row: Row, contents_bytes_max: int, doc_bytes_max: int | None) -> Row:
    """The row, in its document base64 `data` in place of stubs, up to so many bytes of contents.

    `doc_bytes_max` bounds the document as a whole. What is too large for that stays a stub; so do all of a document
    in which one is damaged or gone by now, as whoever reads that by itself is told why. Unavailable comes out.
    """
    if isinstance(row.doc, msgspec.UnsetType):
        return row
    doc = bytes(row.doc)
    room = contents_bytes_max
    if doc_bytes_max is not None:
        room = min(room, (doc_bytes_max - len(doc)) // 4 * 3)
    try:
        row.doc = msgspec.Raw(barrel.inlined(doc, room)) if room > 0 else row.doc
    except SpileError as error:
        if error.retryable:
            raise
        log.warning("The attachments of %.100r in %s are told as stubs: %s", row.id, barrel.name, error.reason)
    return row
