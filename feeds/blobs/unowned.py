"""Reading contents that another process may hold: of a backup that is taken beside a running service.

Bytes of a content never change, so that no lock is needed while nothing is removed. Checksums of chunks are not
looked at here: whoever reads a whole content compares its sha256.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from feeds.blobs.contents import PIECE_BYTES_MAX
from feeds.blobs.handles import DISK_ERRORS, refusal
from feeds.blobs.local_places import parse, spans
from feeds.errors import PartialRead


class Readable(Protocol):
    """The part of `Contents` that a backup needs."""

    def read(self, place: str, offset: int, length: int) -> Iterator[bytes]:
        """The bytes of a range, in pieces of at most `PIECE_BYTES_MAX`."""


class UnownedFolder:
    """The blob files of a folder, just as they are."""

    def __init__(self, folder: Path) -> None:
        self._files = folder / "files"

    def read(self, place: str, offset: int, length: int) -> Iterator[bytes]:
        """The bytes of a range, not verified; PartialRead where they are not there, Unavailable where it cannot be
        known."""
        for name, begin, size in spans(parse(place), offset, length):
            yield from self._pieces(place, name, begin, size)

    def _pieces(self, place: str, name: str, begin: int, size: int) -> Iterator[bytes]:
        try:
            with (self._files / name).open("rb") as file:
                file.seek(begin)
                while size:
                    piece = file.read(min(size, PIECE_BYTES_MAX))
                    if not piece:
                        raise PartialRead(f"The blob file {name} is shorter than what was written to it", place=place)
                    size -= len(piece)
                    yield piece
        except OSError as error:
            if not isinstance(error, FileNotFoundError) and error.errno not in DISK_ERRORS:
                raise refusal(error, "reading") from error
            raise PartialRead(f"The blob file {name} cannot be read: {error.strerror}", place=place) from error
