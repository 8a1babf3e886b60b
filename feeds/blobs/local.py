"""Contents in the blob files of this machine.

A small content is one chunk that is appended to files which it shares with others, and its place says where that is.
A larger one has files to itself, `<name>^0`, `<name>^1`, … of 1 GiB each, and its name is its place from its first
byte on: so what a crash left of it can be found, gone on with, or removed, without any further record.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any
from uuid import uuid4

from feeds.blobs.contents import LEFT_S, Known, Scrubbed
from feeds.blobs.contents_incoming import Pieces
from feeds.blobs.contents_suspects import Suspects
from feeds.blobs.files import BlobFiles
from feeds.blobs.hashing import Digests
from feeds.blobs.local_places import FILE_BYTES, Large, Small, no_name, parse, spans
from feeds.blobs.objects_bucket import claim
from feeds.blobs.objects_folder import Folder
from feeds.blobs.values import Damage, State
from feeds.errors import BadChecksum, Conflict, NotWritten, PartialRead, SpileError, Trimmed

logger = logging.getLogger("spile.blobs")

PENDING_MAX = 16  # pieces of one content that are not yet durable: 16 MiB, so that a sync and the next pieces overlap


class LocalContents:
    """`Contents` on the blob files of a folder, which this owns and closes."""

    def __init__(self, files: BlobFiles, folder: Path) -> None:
        self._files = files
        self._folder = folder
        self._guard = threading.Lock()
        self._writing: set[str] = set()  # the names of large contents
        self._suspects = Suspects()
        self._owed: set[str] = set()  # names of large contents that could not be removed

    @classmethod
    def open(cls, folder: Path) -> LocalContents:
        """Those in a folder, made where it is missing. StoreLocked where another process holds it."""
        return cls(BlobFiles.open(folder), folder)

    @property
    def identity(self) -> str:
        return self._files.identity

    @property
    def files(self) -> BlobFiles:
        """What lies below."""
        return self._files

    def claim(self, owner: str) -> None:
        claim(Folder(self._folder), owner)

    def begin(self, length: int | None = None) -> Pieces:
        large = Large(uuid4().hex)
        self._take(str(large))
        return self._incoming(large, length)

    def resume(self, state: str, length: int | None = None) -> Pieces:
        large = parse(state)
        if not isinstance(large, Large):
            raise no_name(state)
        self._take(state)
        digests = Digests()
        try:
            size, edges = self._durable(large)
            for piece in self._pieces(state, spans(large, 0, size)):
                digests.update(piece)
        except BaseException:
            digests.stop()
            self._let_go(state)
            raise
        return self._incoming(large, length, size, digests, edges)

    def read(self, place: str, offset: int, length: int) -> Iterator[bytes]:
        found = parse(place)
        if isinstance(found, Small) and offset + length > found.size:
            raise _missing(place, f"it has {found.size} bytes, asked for was the range {offset}+{length}")
        return self._pieces(place, spans(found, offset, length))

    def remove(self, name: str) -> None:
        found = parse(name)
        if isinstance(found, Small):
            info = self._files.file(found.file)
            if info is not None and not info.removed:
                self._files.trim(found.file, found.offset, found.size)
            return
        self._take(name)
        try:
            self._trim(found)
        finally:
            self._let_go(name)

    def leftovers(self, known: Known, *, left_s: float = LEFT_S) -> int:
        self._seal()
        count = 0
        for name in self._suspects.look(self._names(), partial(self._known, known), left_s):
            try:
                self.remove(name)
            except Conflict:  # it is being written: someone resumed it
                continue
            count += 1
        return count

    def scrub(self, bytes_max: int) -> Scrubbed:
        self._remove_owed()
        step = self._files.scrub(bytes_max)
        return Scrubbed(step.bytes, self._named(step.damaged), step.finished)

    def check(self, progress: Callable[[int], None] | None = None) -> Iterator[str]:
        report = self._files.check(None if progress is None else lambda done, _total: progress(done))
        yield from report.problems

    def stats(self) -> dict[str, Any]:
        with self._guard:
            incoming = len(self._writing)
        return {"incoming": incoming, **self._files.stats()}

    def close(self) -> None:
        self._files.close()

    def _incoming(
        self,
        large: Large,
        length: int | None,
        size: int = 0,
        digests: Digests | None = None,
        edges: Sequence[int] = (),
    ) -> Pieces:
        name = str(large)
        sink = _LocalSink(self._files, large, size, edges, lambda: self._trim(large))
        return Pieces(sink, name, lambda: self._let_go(name), length=length, size=size, digests=digests)

    def _known(self, known: Known, names: Sequence[str]) -> set[str]:
        """Those that somebody knows of, and those that are being written, which may be known by then."""
        with self._guard:
            written = self._writing.intersection(names)
        return written | known(names)

    def _take(self, name: str) -> None:
        with self._guard:
            if name in self._writing:
                raise Conflict(
                    "This content is being written by another request",
                    hint="Let one request at a time send it; ask how far it is, and go on from there.",
                )
            self._writing.add(name)

    def _let_go(self, name: str) -> None:
        with self._guard:
            self._writing.discard(name)

    def _pieces(self, place: str, ranges: list[tuple[str, int, int]]) -> Iterator[bytes]:
        for file, offset, size in ranges:
            with _as_lost(place):
                yield from self._files.pieces(file, offset, size)

    def _durable(self, large: Large) -> tuple[int, list[int]]:
        """How many bytes are there from the start on, and where what is there beyond a gap begins and ends: a write
        failed, on a full disk maybe, and a later one did not."""
        total, edges, at = 0, list[int](), 0
        while at == 0 or self._files.file(large.file(at)) is not None:
            for row in self._files.checksum_list(large.file(at)):
                if row.state is State.TRIMMED:
                    raise _missing(str(large), "it was given up")
                start = at * FILE_BYTES + row.offset
                if start == total:
                    total += row.size
                else:
                    edges += [start, start + row.size]
            at += 1
        return total, edges

    def _trim(self, large: Large) -> None:
        """The last file first, so that a crash in the middle leaves no gap behind which files would be forgotten."""
        count = 0
        while self._files.file(large.file(count)) is not None:
            count += 1
        try:
            for at in reversed(range(count)):
                self._files.remove(large.file(at))
        except SpileError:
            with self._guard:
                self._owed.add(str(large))
            raise

    def _remove_owed(self) -> None:
        """Try again what could not be removed when it was given up."""
        with self._guard:
            owed, self._owed = self._owed, set()
        for name in owed:
            try:
                self.remove(name)
            except SpileError as error:
                logger.debug("%s cannot be removed yet: %s", name, error)

    def _seal(self) -> None:
        """Of the files that small contents were appended to, give up what no content came to stand in."""
        for info in self._files.every_file():
            is_left = info.name.startswith("small^") and not info.current
            if is_left and (not info.written or info.written + info.trimmed < info.end):
                self._files.seal(info.name)

    def _names(self) -> Iterator[tuple[str, int]]:
        """Each copy that is there, and its size so far."""
        for name, infos in groupby(self._files.every_file(), lambda info: info.name.rpartition("^")[0]):
            if name.startswith("large^"):
                found = list(infos)  # one for each GiB
                if any(info.written for info in found):
                    yield name, sum(info.end for info in found)
                continue
            for info in infos:
                for row in self._files.checksum_list(info.name):
                    if row.state is State.WRITTEN:
                        yield str(Small(info.name, row.offset, row.size)), row.size

    def _named(self, damaged: list[Damage]) -> tuple[str, ...]:
        names: dict[str, None] = {}
        for each in damaged:
            if each.file.startswith("large^"):
                names[each.file.rpartition("^")[0]] = None
            else:
                names[str(Small(each.file, each.offset, each.size))] = None
        return tuple(names)


class _LocalSink:
    """The files of one content; a content of one piece goes to those of the small ones."""

    def __init__(
        self, files: BlobFiles, large: Large, size: int, edges: Sequence[int], remove: Callable[[], None]
    ) -> None:
        """`edges` are where writes are divided, so that one is either of bytes that are there or of new ones."""
        self._files = files
        self._large = large
        self._size = size
        self._edges = edges
        self._held: bytes | None = None
        self._pending: deque[Future[None]] = deque()
        self._remove = remove

    def put(self, piece: bytes) -> None:
        if self._size == 0 and self._held is None:
            self._held = piece
            return
        self._spill()
        self._write(piece)

    def finish(self) -> str:
        if self._size == 0:
            if self._held is None:
                return str(Small(f"small^{uuid4().hex}^0", 0, 0))
            placed = self._files.append("small", self._held)
            return str(Small(placed.file, placed.offset, placed.size))
        self._settle()
        return str(self._large)

    def suspend(self) -> None:
        self._spill()
        self._settle()

    def stop(self) -> None:
        while self._pending:
            self._pending.popleft().exception()

    def remove(self) -> None:
        self._remove()

    def _spill(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            self._write(held)

    def _write(self, piece: bytes) -> None:
        end = self._size + len(piece)
        cuts = [edge for edge in self._edges if self._size < edge < end]
        for part_end in (*cuts, end):
            for file, offset, size in spans(self._large, self._size, part_end - self._size):
                part, piece = piece[:size], piece[size:]
                self._pending.append(self._files.write_soon(file, offset, part))
                self._size += size
        while len(self._pending) > PENDING_MAX:
            self._pending.popleft().result()

    def _settle(self) -> None:
        while self._pending:
            self._pending.popleft().result()


def _missing(place: str, why: str) -> PartialRead:
    return PartialRead(f"Bytes of a stored content are missing: {why}", place=place)


@contextmanager
def _as_lost(place: str) -> Iterator[None]:
    try:
        yield
    except (NotWritten, Trimmed, PartialRead) as error:
        raise _missing(place, error.reason) from error
    except BadChecksum as error:
        raise BadChecksum(f"A stored content is damaged: {error.reason}", place=place) from error
