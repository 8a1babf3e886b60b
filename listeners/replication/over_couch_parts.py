"""Revisions that come as `multipart/mixed`, some of them with their contents behind them, which are passed over.

Servers are asked for JSON, where contents are asked for one by one. Some give parts all the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Final

from python_multipart.exceptions import FormParserError

from feeds.errors import TooLarge
from listeners.parts import PartReader, boundary_in
from listeners.replication.errors import BadPeer

MIXED: Final = "multipart/mixed"
_PART_BYTES: Final = 64
"""What a part counts for besides its text: so many without any are too much as well."""


async def texts_in(pieces: AsyncIterable[bytes], content_type: str, bytes_max: int) -> list[bytes]:
    """The JSON of each part; TooLarge where they are too much together, BadPeer where the body is none."""
    parts = _Parts(content_type, bytes_max)
    try:
        async for piece in pieces:
            parts.write(piece)
    except FormParserError as error:
        raise BadPeer(f"The parts of an answer cannot be read: {error}") from None
    if not parts.is_ended:
        raise BadPeer("An answer in parts ends before its last boundary")
    return parts.texts


class _Parts(PartReader):
    """One level of parts; those that have parts themselves are read by another one."""

    def __init__(self, content_type: str, bytes_max: int, *, first_only: bool = False) -> None:
        super().__init__()
        self.texts: list[bytes] = []
        self._left = bytes_max
        self._first_only = first_only
        self._begun = 0
        self._text = bytearray()
        self._inner: _Parts | None = None
        boundary = boundary_in(content_type)
        if boundary is None:
            raise BadPeer("An answer in parts has no boundary")
        self._parser = self.parser(boundary)

    def write(self, piece: bytes) -> None:
        self._parser.write(piece)

    def part_begin(self) -> None:
        super().part_begin()
        self._begun += 1

    def headers_finished(self) -> None:
        kind = self._head.get("content-type", "")
        self._text.clear()
        self._inner = None
        if kind.lower().startswith("multipart/") and not self._first_only:
            self._inner = _Parts(kind, self._left, first_only=True)

    def part_data(self, data: bytes, start: int, end: int) -> None:
        if self._inner is not None:
            self._inner.write(data[start:end])
        elif self._begun == 1 or not self._first_only:
            self._text += data[start:end]
            if len(self._text) > self._left:
                raise TooLarge("The revisions of a document are too large to be read together")

    def part_end(self) -> None:
        found = [bytes(self._text)] if self._inner is None else self._inner.texts
        if self._begun > 1 and self._first_only:
            return
        self._left -= _PART_BYTES + sum(map(len, found))
        if self._left < 0:
            raise TooLarge("The revisions of a document are too many to be read together")
        self.texts += found
        self._text.clear()
