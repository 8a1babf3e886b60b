"""Reading the segments of a content from a bucket: every block verified before it is given out.

A slow reader may outlast the request that it reads from, and a connection may break: reading then goes on from the
block that is due, with a new request.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from feeds.blobs.checksums import crc32c
from feeds.blobs.objects_bucket import Bucket
from feeds.blobs.objects_format import (
    BLOCK_BYTES,
    HEADER_BYTES,
    SEGMENT_BYTES,
    Header,
    key_of,
    place_of,
    read_header,
)
from feeds.errors import BadChecksum, NotFound, PartialRead, Unavailable

TRIES_MAX = 3  # without a block in between; the library has tried for a while already


def read_range(bucket: Bucket, id: str, offset: int, length: int) -> Iterator[bytes]:
    """A range of a content, of exactly this length; PartialRead and BadChecksum name its place."""
    with as_damaged(id):
        while length:
            at, start = divmod(offset, SEGMENT_BYTES)
            end = min(SEGMENT_BYTES, start + length)
            yield from read_segment(bucket, id, at, start, end)
            offset += end - start
            length -= end - start


@contextmanager
def as_damaged(id: str) -> Iterator[None]:
    """Errors of reading, told with the place of the content."""
    try:
        yield
    except (BadChecksum, PartialRead) as error:
        raise type(error)(f"A stored content is damaged: {error.reason}", place=place_of(id)) from error


def read_segment(
    bucket: Bucket, id: str, at: int, start: int = 0, end: int | None = None, *, part: int | None = None
) -> Iterator[bytes]:
    """A range of a segment; without an `end`, up to where the segment ends."""
    done = start
    tries = 0
    while True:
        try:
            for piece in _read(bucket, id, at, done, end, key_of(id, at, part)):
                yield piece
                done += len(piece)
                tries = 0
            return
        except (BadChecksum, PartialRead, Unavailable):
            tries += 1
            if tries == TRIES_MAX:
                raise


def _read(bucket: Bucket, id: str, at: int, start: int, end: int | None, key: str) -> Iterator[bytes]:
    first = start // BLOCK_BYTES
    last = SEGMENT_BYTES // BLOCK_BYTES if end is None else -(-end // BLOCK_BYTES)
    behind = HEADER_BYTES + last * BLOCK_BYTES
    if first:
        header = _header(_Bytes(bucket.stream(key, 0, HEADER_BYTES), at), id, at)
        source = _Bytes(bucket.stream(key, HEADER_BYTES + first * BLOCK_BYTES, behind), at)
    else:
        source = _Bytes(bucket.stream(key, 0, behind), at)
        header = _header(source, id, at)
    if end is None:
        end = header.size
    if end > header.size:
        raise PartialRead(f"Segment {at} has {header.size} bytes, asked for were those up to {end}")
    for number in range(first, -(-end // BLOCK_BYTES)):
        block = source.take(header.block(number))
        if crc32c(block) != header.sums[number]:
            raise BadChecksum(f"Block {number} of segment {at} is damaged")
        before = number * BLOCK_BYTES
        yield block[max(0, start - before) : end - before] if start > before or end - before < len(block) else block


def _header(source: _Bytes, id: str, at: int) -> Header:
    return read_header(source.take(HEADER_BYTES), id, at)


class _Bytes:
    """A stream of pieces of any size, as so many bytes as are asked for."""

    def __init__(self, pieces: Iterator[bytes], at: int) -> None:
        self._pieces = pieces
        self._rest = bytearray()
        self._at = at

    def take(self, size: int) -> bytes:
        """The next bytes, exactly so many; PartialRead where the object ends before."""
        try:
            while len(self._rest) < size:
                self._rest += next(self._pieces)
        except StopIteration:
            raise PartialRead(f"The object of segment {self._at} is cut off") from None
        except NotFound:
            raise PartialRead(f"The object of segment {self._at} is gone") from None
        taken = bytes(self._rest[:size])
        del self._rest[:size]
        return taken
