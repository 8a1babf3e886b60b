"""The names of contents in blob files, and where their bytes stand. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from feeds.errors import BadRequest

FILE_BYTES = 1024 * 1024 * 1024  # of a file of a large content: part of what its name means, so never to be changed

_LARGE = re.compile(r"large\^([0-9a-f]{32})")
_SMALL = re.compile(r"(small\^[0-9a-f-]{1,40}\^[0-9]{1,10}):([0-9]{1,15}):([0-9]{1,10})")


@dataclass(frozen=True, slots=True)
class Small:
    """A content in one chunk of a file that it shares with others; of no bytes, it is in no file."""

    file: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.file}:{self.offset}:{self.size}"


@dataclass(frozen=True, slots=True)
class Large:
    """A content with files of its own."""

    id: str

    def __str__(self) -> str:
        return f"large^{self.id}"

    def file(self, at: int) -> str:
        """The name of its file behind `at` full ones."""
        return f"large^{self.id}^{at}"


def parse(name: str) -> Small | Large:
    """What a name means; BadRequest for what is no name here."""
    found = _LARGE.fullmatch(name)
    if found is not None:
        return Large(found[1])
    found = _SMALL.fullmatch(name)
    if found is not None:
        return Small(found[1], int(found[2]), int(found[3]))
    raise no_name(name)


def no_name(name: str) -> BadRequest:
    """The refusal of what is no name of a content here."""
    return BadRequest(
        f"{name[:200]!r} names no content here",
        hint="It may belong to another store of contents; open the one that the database was used with.",
    )


def spans(copy: Small | Large, offset: int, length: int) -> list[tuple[str, int, int]]:
    """The ranges (file, offset, size) in which a range of a content stands, in order."""
    if isinstance(copy, Small):
        return [(copy.file, copy.offset + offset, length)] if length else []
    found = []
    while length:
        at, inner = divmod(offset, FILE_BYTES)
        size = min(length, FILE_BYTES - inner)
        found.append((copy.file(at), inner, size))
        offset += size
        length -= size
    return found
