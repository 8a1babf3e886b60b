"""What is written to the index, inside the committer's transaction: chunks, trims, and the counts of each file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from feeds.blobs.checksums import RawRow
from feeds.blobs.values import State
from feeds.storage.session import SqliteSession

_T = State.TRIMMED.value
_W = State.WRITTEN.value
_INSERT = "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?)"
_INSERT_TRIMMED = f"INSERT INTO chunks VALUES (?, ?, ?, {_T}, NULL, NULL)"
_COUNT = (
    'UPDATE files SET "end" = max("end", ?2), written = written + ?3, trimmed = trimmed + ?4, epoch_written = ?5'
    " WHERE file = ?1"
)
_WRITTEN_IN = f'coalesce(sum(size), 0) FROM chunks WHERE file = ? AND "offset" >= ? AND "offset" < ? AND state = {_W}'
_TRIMMED_BEFORE = (
    'SELECT "offset", size, state FROM chunks WHERE file = ? AND "offset" <= ? ORDER BY "offset" DESC LIMIT 1'
)
_TRIMMED_IN = f'SELECT "offset", size FROM chunks WHERE file = ? AND "offset" > ? AND "offset" <= ? AND state = {_T}'
_DAMAGE_IN = 'SELECT "offset", size, code, found FROM damage WHERE file = ? AND "offset" < ? AND "offset" + size > ?'
SET_META = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"


@dataclass(slots=True)
class _Sum:
    end: int = 0
    written: int = 0
    trimmed: int = 0


@dataclass(slots=True)
class Ledger:
    """The changes of one transaction; `flush` sends what was gathered."""

    session: SqliteSession
    epoch: int
    _rows: list[tuple[int, ...]] = field(default_factory=list)
    _sums: dict[int, _Sum] = field(default_factory=dict)

    def wrote(self, file: int, rows: Sequence[RawRow]) -> None:
        """Chunks are durable at places that no row covered."""
        gathered = self._rows
        added = self._sums.get(file) or self._sums.setdefault(file, _Sum())
        for row in rows:
            gathered.append((file, *row))
            added.written += row[1]
        last = rows[-1]
        added.end = max(added.end, last[0] + last[1])

    def trimmed(
        self, file: int, start: int, end: int, first: int, last: int, rest: Sequence[RawRow]
    ) -> tuple[int, int]:
        """A range is given up: the chunks from `first` up to `last` go, `rest` is what stays of those at its edges.

        Gives the trimmed range that it is a part of now.
        """
        self.flush()
        session = self.session
        gone = session.rows(f"SELECT {_WRITTEN_IN}", (file, first, last))[0][0]
        session.run(
            f'DELETE FROM chunks WHERE file = ? AND "offset" >= ? AND "offset" < ? AND state = {_W}',
            (file, first, last),
        )
        whole_start, whole_end, before = self._merged(file, start, end)
        session.many(_INSERT, [(file, *row) for row in rest])
        session.run(_INSERT_TRIMMED, (file, whole_start, whole_end - whole_start))
        kept = sum(row[1] for row in rest)
        session.run(_COUNT, (file, whole_end, kept - gone, whole_end - whole_start - before, self.epoch))
        self._undamaged(file, start, end)
        return whole_start, whole_end

    def extent(self, file: int) -> tuple[int, int]:
        """How many bytes of a file are trimmed, and where it ends."""
        [(trimmed, end)] = self.session.rows('SELECT trimmed, "end" FROM files WHERE file = ?', (file,))
        return trimmed, end

    def _merged(self, file: int, start: int, end: int) -> tuple[int, int, int]:
        """The range together with the trimmed ones it touches, whose rows are taken away, and how much those had."""
        touching = [
            row[:2]
            for row in self.session.rows(_TRIMMED_BEFORE, (file, start))
            if row[2] == _T and row[0] + row[1] >= start
        ]
        touching += self.session.rows(_TRIMMED_IN, (file, start, end))
        if not touching:
            return start, end, 0
        self.session.many('DELETE FROM chunks WHERE file = ? AND "offset" = ?', [(file, at) for at, _ in touching])
        return (
            min(start, *(at for at, _ in touching)),
            max(end, *(at + size for at, size in touching)),
            sum(size for _, size in touching),
        )

    def _undamaged(self, file: int, start: int, end: int) -> None:
        """What is known to be damaged in a range is no damage any more."""
        for at, size, code, found in self.session.rows(_DAMAGE_IN, (file, end, start)):
            self.session.run('DELETE FROM damage WHERE file = ? AND "offset" = ?', (file, at))
            left = [(at, start - at), (end, at + size - end)]
            self.session.many(
                "INSERT INTO damage VALUES (?, ?, ?, ?, ?)",
                [(file, place, length, code, found) for place, length in left if length > 0],
            )

    def removed(self, file: int) -> None:
        """Of the file the name alone is kept, and that all of it is trimmed."""
        self.session.run("UPDATE files SET removed = 1 WHERE file = ?", (file,))
        self.session.run("DELETE FROM notes WHERE file = ?", (file,))

    def made(self, name: str) -> int:
        """A new file's number."""
        insert = 'INSERT INTO files (name, removed, "end", written, trimmed, epoch_written, epoch_noted)'
        self.session.run(f"{insert} VALUES (?, 0, 0, 0, 0, ?, 0)", (name, self.epoch))
        return int(self.session.rows("SELECT file FROM files WHERE name = ?", (name,))[0][0])

    def noted(self, file: int, key: str, value: str | None) -> None:
        """A file's metadata has another value under this key, or none."""
        self.session.run("DELETE FROM notes WHERE file = ? AND key = ?", (file, key))
        if value is not None:
            self.session.run("INSERT INTO notes VALUES (?, ?, ?)", (file, key, value))
        self.session.run("UPDATE files SET epoch_noted = ? WHERE file = ?", (self.epoch, file))

    def damaged(self, file: int, offset: int, size: int, code: str, found: float) -> None:
        """A range cannot be read; nothing where that is known, or where the range is trimmed by now."""
        sql = f'SELECT 1 FROM chunks WHERE file = ? AND "offset" = ? AND size = ? AND state = {_W}'
        if self.session.rows(sql, (file, offset, size)):
            self.session.run(
                "INSERT INTO damage VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", (file, offset, size, code, found)
            )

    def healthy(self, file: int, offset: int, size: int) -> None:
        """A chunk that was damaged can be read."""
        self.session.run('DELETE FROM damage WHERE file = ? AND "offset" = ? AND size = ?', (file, offset, size))

    def meta(self, key: str, value: str) -> None:
        """Keep a text for the folder."""
        self.session.run(SET_META, (key, value))

    def flush(self) -> None:
        """Send what was gathered."""
        if self._rows:
            self.session.many(_INSERT, self._rows)
            self.session.many(
                _COUNT,
                [(file, sums.end, sums.written, sums.trimmed, self.epoch) for file, sums in self._sums.items()],
            )
            self._rows = []
            self._sums = {}
