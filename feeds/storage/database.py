"""Connections to the store's database, and its errors in our words.

One connection belongs to the writer for good; readers borrow from a small pile. All run in autocommit, and
transactions are opened and ended by statement, so that nothing is in a transaction by accident.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import NullPool

from feeds.errors import BadRequest, Damaged, SpileError, StorageFull, Unavailable
from feeds.storage.lockfile import LockFile

READERS_MAX = 16  # connections kept for readers; each costs its page cache
BUSY_MS = 5_000  # how long to wait for another process's transaction (a backup tool, a shell)
_WRITER_CACHE_KIB = 32 * 1024  # holds the inner pages of the path index of some million paths
_READER_CACHE_KIB = 2 * 1024
_CHECKPOINT_PAGES = 4_000  # 16 MiB of log between checkpoints: fewer random writes under load


class Database:
    """The engine of one store, its writer's connection and its readers'."""

    def __init__(self, url: str, *, create: bool = True, exclusive: bool = True) -> None:
        """Open the database at a URL or in a folder. Without `exclusive` it may only be read: another process may
        hold the store."""
        self.url, self.path = _resolve(url)
        self.lock: LockFile | None = None
        if self.path is not None:
            if not create and not self.path.exists():
                raise Unavailable(
                    f"There is no store at {self.path}", hint="Check the path, or let `spile serve` make one."
                )
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                if exclusive:
                    self.lock = LockFile(self.path.with_name("spile.lock"))
            except OSError as error:
                raise Unavailable(
                    f"The store's folder {self.path.parent} cannot be written: {error.strerror}",
                    hint="Choose another folder with --data, or mend its permissions.",
                ) from None
        try:
            self.engine: Engine = create_engine(self.url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            self.close()
            raise BadRequest(
                f"The database URL cannot be used: {error}",
                hint="Use sqlite:///folder/spile.db, or a folder.",
            ) from None
        if self.path is not None:
            event.listen(self.engine, "connect", _set_up_sqlite)
        self._idle: list[Connection] = []
        self._guard = threading.Lock()
        self._closed = False

    def connect_writer(self) -> Connection:
        """A connection of the writer's own."""
        connection = self.engine.connect()
        if self.path is not None:
            connection.exec_driver_sql(f"PRAGMA cache_size = -{_WRITER_CACHE_KIB}").close()
        return connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A reader's connection for the length of the block; database errors come out as SpileError."""
        with self._guard:
            if self._closed:
                raise Unavailable("The store is closed")
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            with translated():
                connection = self.engine.connect()
        try:
            with translated():
                yield connection
        except SpileError:
            self._give_back(connection)
            raise
        except BaseException:
            connection.invalidate()
            connection.close()
            raise
        else:
            self._give_back(connection)

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """As `reading`, but all statements of the block see the same moment."""
        with self.reading() as connection:
            connection.exec_driver_sql("BEGIN").close()
            try:
                yield connection
            finally:
                connection.exec_driver_sql("COMMIT").close()

    def _give_back(self, connection: Connection) -> None:
        with self._guard:
            if not self._closed and len(self._idle) < READERS_MAX:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close every idle connection and release the lock file."""
        if hasattr(self, "_guard"):
            with self._guard:
                self._closed = True
                idle, self._idle = self._idle, []
            for connection in idle:
                connection.close()
            self.engine.dispose()
        if self.lock is not None:
            self.lock.release()
            self.lock = None


def _resolve(url: str) -> tuple[str, Path | None]:
    """A database URL and, for SQLite, its file; a plain path names a folder that holds `spile.db`."""
    if "://" not in url and not url.startswith("sqlite:"):
        path = Path(url).expanduser()
        path = path if path.suffix == ".db" else path / "spile.db"
        return f"sqlite:///{path}", path
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise BadRequest(f"The database URL cannot be read: {error}") from None
    if parsed.get_backend_name() != "sqlite":
        raise BadRequest(
            f"Databases of the kind {parsed.get_backend_name()!r} are not known",
            hint="Use SQLite: sqlite:///folder/spile.db, or just the folder.",
        )
    if not parsed.database or parsed.database == ":memory:":
        raise BadRequest("A store needs a file", hint="Use sqlite:///folder/spile.db, or just the folder.")
    return url, Path(parsed.database)


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute(f"PRAGMA cache_size = -{_READER_CACHE_KIB}")
    cursor.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    cursor.execute("PRAGMA journal_size_limit = 67108864")
    cursor.execute("PRAGMA temp_store = MEMORY")
    cursor.close()


@contextmanager
def translated() -> Iterator[None]:
    """Database errors inside the block come out as the SpileError that says what to do."""
    try:
        yield
    except DBAPIError as error:
        raise translate(error) from error


def translate(error: DBAPIError) -> SpileError:
    """The SpileError for what the driver said."""
    text = str(error.orig)
    if "disk is full" in text or "No space left" in text:
        return StorageFull(f"The store's disk is full: {text}")
    if "locked" in text or "busy" in text:
        return Unavailable(
            f"The database is locked by another process: {text}",
            hint="End the other program's transaction; the request may be repeated.",
        )
    if "malformed" in text or "not a database" in text or "corrupt" in text:
        return Damaged(f"The database file is damaged: {text}")
    if "readonly" in text or "unable to open" in text:
        return Unavailable(f"The database cannot be written: {text}", hint="Check the folder's permissions and disk.")
    if "disk I/O error" in text:
        return Unavailable(f"The disk failed: {text}", hint="Check the disk and its free space.")
    return Unavailable(f"The database refused: {text}")
