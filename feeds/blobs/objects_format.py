"""How a content is cut into objects, and how an object looks. Pure.

A content of the id `<32 hex>` is a row of segments of 8 MiB, the last one shorter, each an object of its own under
`objects/<first 2 hex>/<other 30>/<number>`. An upload that is suspended keeps its unfinished segment as a part,
beside the others: `<number>-<size>`. Every object begins with a header that has the checksums of its blocks, so that
any range can be verified wherever it is kept, and an object in the wrong place is noticed.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from google_crc32c import extend

from feeds.blobs.checksums import crc32c
from feeds.blobs.contents import PIECE_BYTES_MAX
from feeds.blobs.local_places import no_name
from feeds.errors import BadChecksum

BLOCK_BYTES = PIECE_BYTES_MAX
BLOCKS_MAX = 8
SEGMENT_BYTES = BLOCKS_MAX * BLOCK_BYTES  # of every segment but the last: part of what a place means

_MAGIC = b"SpileOb1"
_HEADER = struct.Struct(f">8s16sII{BLOCKS_MAX}I")
_SUM = struct.Struct(">I")
HEADER_BYTES = _HEADER.size + _SUM.size
OBJECT_BYTES = HEADER_BYTES + SEGMENT_BYTES  # of a full segment's object

_PLACE = re.compile(r"ob1:([0-9a-f]{32})")
_LEAF = re.compile(r"([0-9]{6,9})(?:-([0-9]{7}))?")


@dataclass(frozen=True, slots=True)
class Header:
    """What an object says of itself."""

    id: str
    at: int
    """Which segment of its content it is."""
    size: int
    """Of its data."""
    sums: tuple[int, ...]
    """The crc32c of each block."""

    def pack(self) -> bytes:
        """The header as it is stored."""
        sums = (*self.sums, *(0,) * (BLOCKS_MAX - len(self.sums)))
        packed = _HEADER.pack(_MAGIC, bytes.fromhex(self.id), self.at, self.size, *sums)
        return packed + _SUM.pack(crc32c(packed))

    def block(self, at: int) -> int:
        """The size of a block."""
        return min(BLOCK_BYTES, self.size - at * BLOCK_BYTES)


def header_of(id: str, at: int, pieces: Iterable[bytes]) -> Header:
    """The header of a segment with this data, which comes in pieces of any size."""
    size = 0
    sums: list[int] = []
    for piece in pieces:
        done = 0
        while done < len(piece):
            room = BLOCK_BYTES - size % BLOCK_BYTES
            part = piece[done : done + room]
            if room == BLOCK_BYTES:
                sums.append(0)  # the crc32c of nothing
            sums[-1] = int(extend(sums[-1], part))
            size += len(part)
            done += len(part)
    return Header(id, at, size, tuple(sums))


def read_header(packed: bytes, id: str, at: int) -> Header:
    """The header of the object that stands for this segment; BadChecksum where it is none, or another's."""
    if len(packed) != HEADER_BYTES or _SUM.unpack(packed[_HEADER.size :])[0] != crc32c(packed[: _HEADER.size]):
        raise BadChecksum(f"The header of segment {at} is damaged")
    magic, found, number, size, *sums = _HEADER.unpack(packed[: _HEADER.size])
    if (magic, found.hex(), number) != (_MAGIC, id, at) or size > SEGMENT_BYTES:
        raise BadChecksum(f"Another object stands in the place of segment {at}")
    return Header(id, at, size, tuple(sums[: -(-size // BLOCK_BYTES)]))


def place_of(id: str) -> str:
    """The place of a content, which is the state of its upload too."""
    return f"ob1:{id}"


def id_of(place: str) -> str:
    """The id of a place; BadRequest for what is none."""
    found = _PLACE.fullmatch(place)
    if found is None:
        raise no_name(place)
    return found[1]


def folder_of(id: str) -> str:
    """What stands before the names of all objects of a content."""
    return f"objects/{id[:2]}/{id[2:]}"


def key_of(id: str, at: int, part: int | None = None) -> str:
    """The key of a segment's object, or of a part of it with this many bytes."""
    return f"{folder_of(id)}/{at:06d}" + ("" if part is None else f"-{part:07d}")


def segment_of(key: str) -> tuple[str, int, bool] | None:
    """The id and number of a key's segment, and whether it is a part of one; None for a key that is not ours."""
    names = key.split("/")
    if len(names) != 4 or names[0] != "objects" or re.fullmatch("[0-9a-f]{32}", names[1] + names[2]) is None:
        return None
    leaf = _LEAF.fullmatch(names[3])
    return None if leaf is None else (names[1] + names[2], int(leaf[1]), leaf[2] is not None)
