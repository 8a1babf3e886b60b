"""Reading ranges of blob files: every chunk that is touched is verified as a whole before a byte of it is given.

Readers take no locks. What they find at odds with the index they look up again: a trim may have come between.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from feeds.blobs.checksums import RawRow, crc32c
from feeds.blobs.committer import Committer
from feeds.blobs.handles import DISK_ERRORS, Handles, read_all, refusal
from feeds.blobs.index import ROWS_MAX, Index
from feeds.blobs.names import check_range
from feeds.blobs.owned import OwnedFile
from feeds.blobs.registry import Registry
from feeds.blobs.values import CHUNK_BYTES_MAX, Chunk, State, Tag
from feeds.errors import BadChecksum, NotWritten, PartialRead, SpileError, Trimmed

logger = logging.getLogger("spile.blobs")

WINDOW_BYTES = 16 * 1024 * 1024  # of a range are looked up in the index at once
RANGES_MAX = 100  # that are told of a range with holes
_LOOKED_AT_MAX = 100_000  # rows, to tell them
_TRIES_MAX = 3
_W = State.WRITTEN.value


class Reader:
    """Reads what is committed. Thread-safe."""

    def __init__(
        self,
        index: Index,
        registry: Registry,
        handles: Handles,
        committer: Committer,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._index = index
        self._registry = registry
        self._handles = handles
        self._committer = committer
        self._clock = clock
        self._guard = threading.Lock()
        self._told: set[tuple[int, int]] = set()

    def pieces(self, name: str, offset: int, size: int) -> Iterator[bytes]:
        """A range as verified pieces; see `BlobFiles.pieces`."""
        end = check_range(offset, size)
        owner = self._registry.find(name)
        if owner is None:
            raise NotWritten(f"There is no file {name}", ranges=[])
        position = offset
        while position < end:
            rows = self._covering(owner, position, min(end, position + WINDOW_BYTES), (offset, end))
            for span in spans(rows):
                for row, data in self.verified(owner, span):
                    start, stop = max(position - row[0], 0), min(end - row[0], row[1])
                    yield data if stop - start == row[1] else data[start:stop]
                    position = row[0] + stop

    def read(self, name: str, offset: int, size: int) -> bytes:
        """A range in one."""
        pieces = list(self.pieces(name, offset, size))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def chunks(self, name: str, offset: int, size: int) -> list[Chunk]:
        """The whole chunks that touch a range."""
        end = check_range(offset, size)
        owner = self._registry.find(name)
        found: list[Chunk] = []
        while owner is not None and (rows := self._index.rows(owner.file, offset, end)):
            for span in spans([row for row in rows if row[2] == _W]):
                found.extend(Chunk(row[0], data, row[3], Tag(row[4])) for row, data in self.verified(owner, span))
            offset = rows[-1][0] + rows[-1][1]
            if offset >= end:
                break
        return found

    def verified(self, owner: OwnedFile, rows: Sequence[RawRow]) -> list[tuple[RawRow, bytes]]:
        """Chunks that stand side by side, read at once, each with its bytes."""
        start = rows[0][0]
        try:
            with self._handles.borrowed(owner.name) as fd:
                data = read_all(fd, rows[-1][0] + rows[-1][1] - start, start)
        except FileNotFoundError:
            raise self._explain(owner, rows[0], PartialRead(f"{owner.name} is not there any more")) from None
        except OSError as error:
            if error.errno not in DISK_ERRORS:
                raise refusal(error, "reading") from error
            reason = f"{owner.name} cannot be read at {start}: {error.strerror}"
            raise self._explain(owner, rows[0], BadChecksum(reason)) from error
        found = []
        for row in rows:
            at = row[0] - start
            piece = data if len(rows) == 1 else data[at : at + row[1]]
            if len(piece) != row[1]:
                short = f"{owner.name} ends at {start + len(data)}, inside of the {row[1]} bytes at {row[0]}"
                raise self._explain(owner, row, PartialRead(short, file=owner.name, offset=row[0], size=row[1]))
            if crc32c(piece) != row[3]:
                raise self._explain(owner, row, bad_checksum(owner.name, row))
            found.append((row, piece))
        return found

    def is_damaged(self, owner: OwnedFile, row: RawRow) -> SpileError | None:
        """What is wrong with a chunk; None where nothing is, or where it was trimmed meanwhile."""
        try:
            self.verified(owner, [row])
        except (BadChecksum, PartialRead) as error:
            return error
        except Trimmed:
            return None
        return None

    def healthy(self, owner: OwnedFile, row: RawRow) -> None:
        """A chunk that was damaged was read."""
        with self._guard:
            self._told.discard((owner.file, row[0]))
        self._committer.tell(lambda ledger: ledger.healthy(owner.file, row[0], row[1]))

    def _explain(self, owner: OwnedFile, row: RawRow, error: SpileError) -> SpileError:
        """The error for a chunk that cannot be read: damage, which is noted, or the trim that came between."""
        if owner.removed or self._index.rows(owner.file, row[0], row[0] + 1, 1)[:1] != [row]:
            return Trimmed(f"Bytes of {owner.name} at {row[0]} were trimmed while they were read")
        with self._guard:
            known = (owner.file, row[0]) in self._told
            if len(self._told) < _LOOKED_AT_MAX:
                self._told.add((owner.file, row[0]))
        if not known:
            logger.error("damage in the blob files: %s", error.reason)
            now = self._clock()
            self._committer.tell(lambda ledger: ledger.damaged(owner.file, row[0], row[1], error.code, now))
        return error

    def _covering(self, owner: OwnedFile, start: int, end: int, whole: tuple[int, int]) -> list[RawRow]:
        """The chunks from `start` on, up to `end` or as many as are looked up at once; an error for a gap."""
        rows = self._index.rows(owner.file, start, end)
        position = start
        for row in rows:
            if row[2] != _W or row[0] > position:
                break
            position = row[0] + row[1]
        else:
            if position >= end or (position > start and len(rows) == ROWS_MAX):
                return rows
        raise self._gap(owner, *whole)

    def _gap(self, owner: OwnedFile, start: int, end: int) -> SpileError:
        if self._index.has_trimmed(owner.file, start, end):
            return Trimmed(f"Bytes of {owner.name} between {start} and {end} were trimmed")
        ranges: list[list[int]] = []
        position, looked_at = start, 0
        while position < end and looked_at < _LOOKED_AT_MAX:
            rows = self._index.rows(owner.file, position, end)
            for row in rows:
                first, last = max(row[0], start), min(row[0] + row[1], end)
                if ranges and sum(ranges[-1]) == first:
                    ranges[-1][1] += last - first
                elif len(ranges) < RANGES_MAX:
                    ranges.append([first, last - first])
                else:
                    rows = []
                    break
            if not rows:
                break
            looked_at += len(rows)
            position = rows[-1][0] + rows[-1][1]
        return NotWritten(f"Bytes of {owner.name} between {start} and {end} were never written", ranges=ranges)


def spans(rows: Sequence[RawRow]) -> Iterator[Sequence[RawRow]]:
    """Rows that stand side by side, together up to CHUNK_BYTES_MAX, to be read at once."""
    first = 0
    for at in range(1, len(rows)):
        row, before = rows[at], rows[at - 1]
        if row[0] != before[0] + before[1] or row[0] + row[1] - rows[first][0] > CHUNK_BYTES_MAX:
            yield rows[first:at]
            first = at
    if rows:
        yield rows[first:]


def bad_checksum(name: str, row: RawRow) -> BadChecksum:
    """A chunk is not what was written."""
    return BadChecksum(f"The {row[1]} bytes at {row[0]} of {name} are damaged", file=name, offset=row[0], size=row[1])
