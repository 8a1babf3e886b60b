"""Bodies in parts (`multipart/…`), read piece by piece with python-multipart's push parser.

Bytes go in as they come, and parts come out, with nothing held but a line of a part's head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from email.message import Message
from typing import Final

from python_multipart import MultipartParser

_BOUNDARY_MAX: Final = 70


class PartReader(ABC):
    """What the parser finds, part by part, with each part's head; a subclass gives the parts their meaning."""

    def __init__(self) -> None:
        self._head: dict[str, str] = {}
        self._field = self._value = b""
        self.is_ended = False
        """Whether the last boundary has come."""

    def parser(self, boundary: str) -> MultipartParser:
        """What takes the bytes of a body; it raises FormParserError for what is none."""
        return MultipartParser(
            boundary.encode(),
            {
                "on_part_begin": self.part_begin,
                "on_header_field": self.header_field,
                "on_header_value": self.header_value,
                "on_header_end": self.header_end,
                "on_headers_finished": self.headers_finished,
                "on_part_data": self.part_data,
                "on_part_end": self.part_end,
                "on_end": self.end,
            },
        )

    def part_begin(self) -> None:
        self._head = {}

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        self._head[self._field.decode("latin-1").lower()] = self._value.decode("latin-1").strip()
        self._field = self._value = b""

    @abstractmethod
    def headers_finished(self) -> None: ...

    @abstractmethod
    def part_data(self, data: bytes, start: int, end: int) -> None: ...

    @abstractmethod
    def part_end(self) -> None: ...

    def end(self) -> None:
        self.is_ended = True


def boundary_in(content_type: str) -> str | None:
    """The boundary that a type names, if it is one."""
    boundary = header("content-type", content_type).get_boundary()
    return boundary if boundary and boundary.isascii() and len(boundary) <= _BOUNDARY_MAX else None


def header(name: str, value: str) -> Message:
    """One header, to be asked for its parameters."""
    message = Message()
    message[name] = value
    return message
