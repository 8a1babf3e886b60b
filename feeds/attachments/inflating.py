"""Contents that come compressed (gzip), made plain piece by piece with a bound on what they may become."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from feeds.errors import BadRequest, TooLarge
from feeds.faults import shown

_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
_PIECE_BYTES: Final = 256 << 10


class Inflating:
    """One content on its way in. `name` is what errors call it."""

    def __init__(self, name: str, bytes_max: int) -> None:
        self._name = name
        self._left = bytes_max
        self._bytes_max = bytes_max
        self._inflater = zlib.decompressobj(_GZIP_WINDOW)

    def plain(self, data: bytes) -> Iterator[bytes]:
        """What some more bytes of it stand for; BadRequest where they are no gzip, TooLarge beyond the bound."""
        while data:
            try:
                piece = self._inflater.decompress(data, _PIECE_BYTES)
            except zlib.error as error:
                raise BadRequest(f"{shown(self._name)} is said to be gzip, and is not: {error}.") from error
            self._left -= len(piece)
            if self._left < 0:
                raise TooLarge(f"{shown(self._name)} has more than {self._bytes_max} bytes.", limit=self._bytes_max)
            if piece:
                yield piece
            data = self._inflater.unconsumed_tail
            if not data and self._inflater.unused_data:
                raise BadRequest(f"Something stands behind the gzip of {shown(self._name)}.")

    def end(self) -> None:
        """All of it came; BadRequest where the gzip has no end."""
        if not self._inflater.eof:
            raise BadRequest(f"The gzip of {shown(self._name)} ends before its end.", hint="Send all of it.")
