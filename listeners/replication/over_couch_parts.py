"""Revisions that come as `multipart/mixed`, some of them with their contents behind them, which are passed over.

Servers are asked for JSON, where contents are asked for one by one. Some give parts all the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from email.message import Message
from typing import TYPE_CHECKING, Final

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError

from feeds.errors import TooLarge
from listeners.replication.errors import BadPeer

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MIXED: Final = "multipart/mixed"
_BOUNDARY_MAX: Final = 70
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


class _Parts:
    """One level of parts; those that have parts themselves are read by another one."""

    def __init__(self, content_type: str, bytes_max: int, *, first_only: bool = False) -> None:
        self.texts: list[bytes] = []
        self.is_ended = False
        self._left = bytes_max
        self._first_only = first_only
        self._begun = 0
        self._head: dict[str, str] = {}
        self._field = self._value = b""
        self._text = bytearray()
        self._inner: _Parts | None = None
        boundary = _header(content_type).get_boundary()
        if not boundary or not boundary.isascii() or len(boundary) > _BOUNDARY_MAX:
            raise BadPeer("An answer in parts has no boundary")
        self._parser = MultipartParser(boundary.encode(), self._callbacks())

    def write(self, piece: bytes) -> None:
        self._parser.write(piece)

    def _callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self.part_begin,
            "on_header_field": self.header_field,
            "on_header_value": self.header_value,
            "on_header_end": self.header_end,
            "on_headers_finished": self.headers_finished,
            "on_part_data": self.part_data,
            "on_part_end": self.part_end,
            "on_end": self.end,
        }

    def part_begin(self) -> None:
        self._head = {}
        self._begun += 1

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        self._head[self._field.decode("latin-1").lower()] = self._value.decode("latin-1").strip()
        self._field = self._value = b""

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

    def end(self) -> None:
        self.is_ended = True


def _header(content_type: str) -> Message:
    message = Message()
    message["content-type"] = content_type
    return message
