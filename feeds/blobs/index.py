"""What readers ask the index: which chunks a range has, which files there are.

Only the committer writes to it. Readers see what is committed, and never wait for it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from feeds.blobs.checksums import RawRow
from feeds.blobs.values import Damage, State
from feeds.storage.asking import rows_of
from feeds.storage.database import READERS_MAX, Database

ROWS_MAX = 1_000  # of one question; a reader that needs more asks again

_ROWS = (
    'SELECT "offset", size, state, checksum, tag FROM chunks WHERE file = ?1 AND "offset" >= coalesce('
    '(SELECT max("offset") FROM chunks WHERE file = ?1 AND "offset" <= ?2), ?2)'
    ' AND "offset" < ?3 ORDER BY "offset" LIMIT ?4'
)
_TRIMMED = (
    'SELECT 1 FROM chunks WHERE file = ?1 AND "offset" < ?3 AND "offset" + size > ?2'
    f" AND state = {State.TRIMMED.value}"
    ' AND "offset" >= coalesce((SELECT max("offset") FROM chunks WHERE file = ?1 AND "offset" <= ?2), ?2) LIMIT 1'
)
_FILE = 'SELECT file, name, removed, "end", written, trimmed, epoch_written, epoch_noted FROM files'
_DAMAGE = 'SELECT name, "offset", size, code, found FROM damage JOIN files USING (file) ORDER BY name, "offset"'

FileRow = tuple[int, str, int, int, int, int, int, int]  # as in `_FILE`


class Index:
    """The index beside the blob files, for reading. Thread-safe."""

    def __init__(self, path: Path) -> None:
        """StoreLocked where another process has it."""
        self.database = Database(str(path))
        # More connections would only be made and closed: SQLite answers from memory, and hundreds may ask.
        self._slots = threading.BoundedSemaphore(READERS_MAX)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for the length of the block; who finds all of them taken waits."""
        with self._slots, self.database.reading() as connection:
            yield connection

    def _ask(self, statement: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        with self.reading() as connection:
            return rows_of(connection, statement, parameters)

    def rows(self, file: int, start: int, end: int, rows_max: int = ROWS_MAX) -> list[RawRow]:
        """The rows that have a byte in a range, in order; not more than the first so many."""
        found = self._ask(_ROWS, (file, start, end, rows_max))
        if found and found[0][0] + found[0][1] <= start:
            del found[0]
        return found

    def has_trimmed(self, file: int, start: int, end: int) -> bool:
        """Whether any byte of the range is trimmed."""
        return bool(self._ask(_TRIMMED, (file, start, end)))

    def file(self, name: str) -> FileRow | None:
        """A file by its name."""
        found = self._ask(f"{_FILE} WHERE name = ?", (name,))
        return found[0] if found else None

    def files(self, after: str, limit: int, *, removed: bool = False) -> list[FileRow]:
        """The first so many files by name that come after one, with those that were removed or without."""
        which = "" if removed else " AND removed = 0"
        return self._ask(f"{_FILE} WHERE name > ?{which} ORDER BY name LIMIT ?", (after, limit))

    def every_file(self, *, removed: bool = False) -> Iterator[FileRow]:
        """All of them by name, a page at a time."""
        after = ""
        while rows := self.files(after, ROWS_MAX, removed=removed):
            yield from rows
            after = rows[-1][1]

    def written(self) -> int:
        """The bytes that can be read, of all files."""
        return int(self._ask("SELECT coalesce(sum(written), 0) FROM files")[0][0])

    def next_file(self, file: int) -> FileRow | None:
        """The first file with this number or a later one that has bytes to read."""
        found = self._ask(f"{_FILE} WHERE file >= ? AND written > 0 ORDER BY file LIMIT 1", (file,))
        return found[0] if found else None

    def notes(self, file: int) -> dict[str, str]:
        """A file's metadata."""
        return dict(self._ask("SELECT key, value FROM notes WHERE file = ? ORDER BY key", (file,)))

    def damage(self) -> list[Damage]:
        """What is known to be damaged."""
        return [Damage(*row) for row in self._ask(_DAMAGE)]

    def meta(self, key: str) -> str | None:
        """A text that is kept for the folder."""
        found = self._ask("SELECT value FROM meta WHERE key = ?", (key,))
        return found[0][0] if found else None

    def close(self) -> None:
        """Let the database go."""
        self.database.close()
