"""Looking for damage before a reader meets it: the scrubber's steps, and the check of everything."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from feeds.blobs.checksums import RawRow
from feeds.blobs.committer import Committer
from feeds.blobs.handles import Handles, punch
from feeds.blobs.index import FileRow, Index
from feeds.blobs.owned import OwnedFile
from feeds.blobs.reading import Reader, spans
from feeds.blobs.registry import Registry
from feeds.blobs.values import Damage, Scrubbed, State
from feeds.errors import BadChecksum, PartialRead, SpileError, Trimmed
from feeds.findings import PROBLEMS_MAX, CheckReport

_CURSOR = "scrubbed"
_ROWS_MAX = 256  # at a time
_OVERLAPS = (
    'SELECT count(*) FROM (SELECT "offset", lag("offset" + size) OVER (ORDER BY "offset") AS before FROM chunks'
    ' WHERE file = ?) WHERE before > "offset"'
)
_SUMS = (
    f"SELECT coalesce(sum(size) FILTER (WHERE state = {State.WRITTEN.value}), 0),"
    f' coalesce(sum(size) FILTER (WHERE state = {State.TRIMMED.value}), 0), coalesce(max("offset" + size), 0)'
    " FROM chunks WHERE file = ?"
)


class Scrubber:
    """Verifies chunks in the order of the index. Thread-safe; one step at a time."""

    def __init__(
        self,
        index: Index,
        registry: Registry,
        handles: Handles,
        committer: Committer,
        reader: Reader,
        clock: Callable[[], float],
    ) -> None:
        self._index = index
        self._registry = registry
        self._handles = handles
        self._committer = committer
        self._reader = reader
        self._clock = clock
        self._guard = threading.Lock()
        self.verified = 0

    def step(self, bytes_max: int) -> Scrubbed:
        """Verify up to about that many bytes, and remember where it ended."""
        with self._guard:
            began = file, offset = self._cursor()
            known = {(damage.file, damage.offset, damage.size) for damage in self._index.damage()}
            chunks = size = 0
            damaged: list[Damage] = []
            finished = False
            while size < bytes_max:
                row = self._index.next_file(file)
                if row is None:
                    file, offset, finished = 0, 0, True
                    break
                if row[0] != file:
                    file, offset = row[0], 0
                rows = self._index.rows(file, offset, row[3], _ROWS_MAX) if offset < row[3] else []
                rows = _first(rows, bytes_max - size)
                if not rows:
                    file, offset = file + 1, 0
                    continue
                for each, error in self._looked(row, rows):
                    chunks += 1
                    size += each[1]
                    if error is not None:
                        damaged.append(Damage(row[1], each[0], each[1], error.code, self._clock()))
                    elif (row[1], each[0], each[1]) in known:
                        self._forget(row, each)
                offset = rows[-1][0] + rows[-1][1]
            self.verified += size
            if (file, offset) != began:
                self._committer.call(lambda ledger: ledger.meta(_CURSOR, f"{file} {offset}"))
            return Scrubbed(chunks, size, damaged, finished)

    def check(self, progress: Callable[[int, int], None] | None) -> CheckReport:
        """Verify everything, and tell every problem as text."""
        problems: list[str] = []
        total = self._index.written()
        files = done = chunks = 0
        with self._index.reading() as connection:
            for (said,) in connection.exec_driver_sql("PRAGMA quick_check(100)").all():
                if said != "ok":
                    problems.append(f"the index of the blob files: {said}")
        on_disk = set(os.listdir(self._handles.path("")))
        for row in self._index.every_file(removed=True):
            files += 1
            on_disk.discard(row[1])
            if len(problems) < PROBLEMS_MAX:
                problems += [f"the blob file {row[1]}: {problem}" for problem in self._counted(row[0])]
            if not row[2]:
                for each, error in self._all(row):
                    chunks += 1
                    done += each[1]
                    if error is not None and len(problems) < PROBLEMS_MAX:
                        problems.append(error.reason)
                    if progress is not None:
                        progress(min(done, total), total)
        # A file is in the index before it is on the disk, so that what is left of the list is not ours.
        problems += [f"{name} stands among the blob files, and is none of them" for name in sorted(on_disk)]
        return CheckReport(problems[:PROBLEMS_MAX], {"blob_files": files, "blob_chunks": chunks, "blob_bytes": done})

    def _cursor(self) -> tuple[int, int]:
        file, _, offset = (self._index.meta(_CURSOR) or "0 0").partition(" ")
        return int(file), int(offset)

    def _all(self, row: FileRow) -> Iterator[tuple[RawRow, SpileError | None]]:
        offset = 0
        while offset < row[3] and (rows := self._index.rows(row[0], offset, row[3], _ROWS_MAX)):
            yield from self._looked(row, rows)
            offset = rows[-1][0] + rows[-1][1]

    def _looked(self, row: FileRow, rows: list[RawRow]) -> Iterator[tuple[RawRow, SpileError | None]]:
        """The chunks among the rows, each with what is wrong with it; trimmed ranges give their room back again."""
        try:
            owner = self._registry.find(row[1])
        except Trimmed:
            return
        if owner is None:
            return
        for each in rows:
            if each[2] == State.TRIMMED:
                self._punch(owner, each)
        for span in spans([each for each in rows if each[2] == State.WRITTEN]):
            try:
                self._reader.verified(owner, span)
            except (BadChecksum, PartialRead, Trimmed):
                yield from ((each, self._reader.is_damaged(owner, each)) for each in span)
            else:
                yield from ((each, None) for each in span)

    def _punch(self, owner: OwnedFile, row: RawRow) -> None:
        """A crash between a trim and its hole leaves the room taken."""
        try:
            with self._handles.borrowed(owner.name) as fd:
                punch(fd, row[0], row[0] + row[1])
        except FileNotFoundError:
            return

    def _forget(self, row: FileRow, each: RawRow) -> None:
        owner = self._registry.find(row[1])
        if owner is not None:
            self._reader.healthy(owner, each)

    def _counted(self, file: int) -> list[str]:
        """Whether the index agrees with itself about a file, at one moment."""

        def asked(statement: str) -> Any:
            return connection.exec_driver_sql(statement, (file,)).all()[0]

        with self._index.database.snapshot() as connection:
            overlaps = asked(_OVERLAPS)[0]
            written, trimmed, end = asked(_SUMS)
            kept = asked('SELECT written, trimmed, "end" FROM files WHERE file = ?')
        problems = [f"{overlaps} of its chunks overlap"] if overlaps else []
        if tuple(kept) != (written, trimmed, end):
            problems.append(f"its counts are {tuple(kept)}, and its chunks say {(written, trimmed, end)}")
        return problems


def _first(rows: list[RawRow], size: int) -> list[RawRow]:
    """The first rows that have so many bytes to read together."""
    for at, row in enumerate(rows, 1):
        size -= row[1] if row[2] == State.WRITTEN else 0
        if size <= 0:
            return rows[:at]
    return rows
