"""Which part of a content a request asks for.

Pure. One range is answered; several are answered with the whole, as RFC 9110 allows: nearly nobody asks so, and
many small overlapping ones are an attack. A `Range` that cannot be read is ignored, as the RFC has it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from broker.http.errors import RangeNotSatisfiable

_ONE: Final = re.compile(r"bytes=\s*([0-9]{0,19})-([0-9]{0,19})\s*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Part:
    """Some bytes of a content that has `of` bytes."""

    offset: int
    length: int
    of: int

    @property
    def header(self) -> bytes:
        """As `Content-Range` tells it."""
        return b"bytes %d-%d/%d" % (self.offset, self.offset + self.length - 1, self.of)


def asked_part(range_: str | None, if_range: str | None, tag: bytes, length: int) -> Part | None:
    """The part that `Range` asks for, None where the whole is to be sent. RangeNotSatisfiable where it lies outside.

    With `If-Range` only if that is the content's very `tag`; times are never told here, so that none matches.
    """
    found = _ONE.fullmatch(range_) if range_ is not None else None
    if found is None or (if_range is not None and if_range.strip().encode("latin-1") != tag):
        return None
    first, last = found.groups()
    if not first:
        if not last:
            return None
        size = min(int(last), length)
        if not size:
            raise _outside(length)
        return Part(length - size, size, length)
    begin = int(first)
    end = min(int(last) + 1, length) if last else length
    if last and int(last) < begin:
        return None  # no range at all
    if begin >= length:
        raise _outside(length)
    return Part(begin, end - begin, length)


def _outside(length: int) -> RangeNotSatisfiable:
    return RangeNotSatisfiable(f"The content has {length} bytes, and the range lies outside of them.", length=length)
