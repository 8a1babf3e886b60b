"""Connections to the store's database, and who has which.

One connection belongs to the writer for good; readers borrow from a small pile. All run in autocommit, and
transactions are opened and ended by statement, so that nothing is in a transaction by accident. What PostgreSQL needs
of its own is in `postgres`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import NullPool

from feeds.errors import BadRequest, SpileError, Unavailable
from feeds.storage.asking import one_transaction
from feeds.storage.lockfile import LockFile
from feeds.storage.reach import Reach
from feeds.storage.refusals import too_many_readers, translate, translated
from feeds.storage.session import PostgresSession, Session, SqliteSession, let_go
from feeds.storage.statements import LOCK_CLASS, USE_LOCK
from feeds.structs import prepare

READERS_MAX = 16  # connections of readers: kept in any case, and on PostgreSQL no more are made
READER_WAIT_S = 5.0  # for one of them to come free
BUSY_MS = 5_000  # how long to wait for another process's transaction (a backup tool, a shell)
_WRITER_CACHE_KIB = 32 * 1024  # holds the inner pages of the path index of some million paths
_READER_CACHE_KIB = 2 * 1024
_CHECKPOINT_PAGES = 4_000  # 16 MiB of log between checkpoints: fewer random writes under load


_END_SESSION = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE pid = %s AND application_name = current_setting('application_name')"
)


class Database:
    """The engine of one store, its writer's connection and its readers'."""

    def __init__(self, url: str, *, create: bool = True, exclusive: bool = True) -> None:
        """Open the database at a URL or in a folder. Without `exclusive` it may only be read: another process may
        hold the store."""
        prepare()  # before there are threads that read
        parsed, self.path = _resolve(url)
        self.url = parsed.render_as_string(hide_password=True)
        """Where it is, to be told: without a password."""
        self.reach = Reach()
        self.lock: LockFile | None = None
        self._idle: list[Connection] = []
        self._guard = threading.Lock()
        self._closed = False
        self._writer_pid: int | None = None  # of the writer's session in PostgreSQL, also when it is lost
        self._slots = threading.BoundedSemaphore(READERS_MAX) if self.path is None else None
        if self.path is None:
            self.engine = _postgres(parsed)
            self._check_server()
            return
        self._take_folder(self.path, create, exclusive)
        self.engine = create_engine(parsed, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        event.listen(self.engine, "connect", _set_up_sqlite)

    engine: Engine

    @property
    def is_shared(self) -> bool:
        """Whether other processes may write to it as well."""
        return self.path is None

    def _take_folder(self, path: Path, create: bool, exclusive: bool) -> None:
        if not create and not path.exists():
            raise Unavailable(f"There is no store at {path}", hint="Check the path, or let `spile serve` make one.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if exclusive:
                self.lock = LockFile(path.with_name("spile.lock"))
        except OSError as error:
            raise Unavailable(
                f"The store's folder {path.parent} cannot be written: {error.strerror}",
                hint="Choose another folder with --data, or mend its permissions.",
            ) from None

    def _check_server(self) -> None:
        from feeds.storage.postgres import check_server

        with self.reading() as connection:
            driver: Any = connection.connection.driver_connection
            check_server(driver)

    def connect(self) -> Connection:
        """A connection of the caller's own; Unavailable where none can be had."""
        self.reach.check()
        try:
            return self.engine.connect()
        except DBAPIError as error:
            refusal = translate(error)
            if self.is_shared:
                self.reach.lost(refusal.reason)
            raise refusal from error

    def connect_writer(self) -> Session:
        """A connection of the writer's own."""
        connection = self.connect()
        try:
            with translated():
                if self.path is not None:
                    connection.exec_driver_sql(f"PRAGMA cache_size = -{_WRITER_CACHE_KIB}").close()
                    return SqliteSession(connection)
                if self._writer_pid is not None:
                    # Behind a black hole the server may not know yet that the one before is lost, and what it locked.
                    connection.exec_driver_sql(_END_SESSION, (self._writer_pid,)).close()
                # Whoever makes the store's barrels anew needs to be alone with it.
                connection.exec_driver_sql(f"SELECT pg_advisory_lock_shared({LOCK_CLASS}, {USE_LOCK})").close()
        except SpileError:
            let_go(connection)
            raise
        self._writer_pid = _driver(connection).info.backend_pid
        return PostgresSession(connection)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A reader's connection for the length of the block; database errors come out as SpileError."""
        if self._slots is not None and not self._slots.acquire(timeout=READER_WAIT_S):
            raise too_many_readers(READERS_MAX)
        try:
            connection = self._borrow()
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
        finally:
            if self._slots is not None:
                self._slots.release()

    @contextmanager
    def snapshot(self, *, patient: bool = False) -> Iterator[Connection]:
        """As `reading`, but all statements of the block see the same moment. `patient`: they may take long."""
        with self.reading() as connection:
            begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if self.is_shared else "BEGIN"
            with one_transaction(connection, begin), _patience(connection, patient and self.is_shared):
                yield connection

    def _borrow(self) -> Connection:
        while True:
            with self._guard:
                if self._closed:
                    raise Unavailable("The store is closed")
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return self.connect()
            if not (self.is_shared and _is_stale(connection)):
                return connection
            let_go(connection)

    def _give_back(self, connection: Connection) -> None:
        if self.is_shared and _is_lost(connection):
            let_go(connection)
            self.reach.lost("The connection to the database was lost")
            return
        with self._guard:
            if not self._closed and len(self._idle) < READERS_MAX:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close every idle connection and release the lock file."""
        with self._guard:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        if hasattr(self, "engine"):
            self.engine.dispose()
        if self.lock is not None:
            self.lock.release()
            self.lock = None


def _resolve(url: str) -> tuple[URL, Path | None]:
    """A database URL and, for SQLite, its file; a plain path names a folder that holds `spile.db`."""
    if "://" not in url and not url.startswith("sqlite:"):
        path = Path(url).expanduser()
        path = path if path.suffix == ".db" else path / "spile.db"
        return URL.create("sqlite", database=str(path)), _file(path)
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # What they say may repeat a part of the password.
        raise BadRequest(
            "The database URL cannot be read",
            hint="Write postgresql://user:password@host:5432/name, percent-encoding what is special in the password.",
        ) from None
    kind = parsed.get_backend_name()
    if kind == "postgresql":
        if not parsed.database:
            raise BadRequest("The database URL names no database", hint="Use postgresql://user@host/name.")
        return parsed, None
    if kind != "sqlite":
        raise BadRequest(
            f"Databases of the kind {kind!r} are not known",
            hint="Use SQLite (sqlite:///folder/spile.db, or just the folder), or postgresql://user@host/name.",
        )
    if not parsed.database or parsed.database == ":memory:":
        raise BadRequest("A store needs a file", hint="Use sqlite:///folder/spile.db, or just the folder.")
    return parsed, _file(Path(parsed.database))


def _file(path: Path) -> Path:
    """The path, if a file can be there."""
    if not path.name or path.is_dir():
        raise BadRequest(f"{path} is a folder", hint="Name the file in it: sqlite:///folder/spile.db.")
    return path


def _postgres(url: URL) -> Engine:
    if url.drivername not in ("postgresql", "postgresql+psycopg"):
        raise BadRequest(f"The driver {url.get_driver_name()!r} is not used here", hint="Write just postgresql://…")
    try:
        from feeds.storage.postgres import postgres_engine

        return postgres_engine(url)
    except (ImportError, NoSuchModuleError):
        raise BadRequest(
            "The driver for PostgreSQL is not installed", hint="Install it: pip install 'spile[postgresql]'."
        ) from None


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection


def _is_lost(connection: Connection) -> bool:
    return connection.invalidated or bool(_driver(connection).closed)


def _is_stale(connection: Connection) -> bool:
    return connection.invalidated or bool(_driver(connection).is_stale())


@contextmanager
def _patience(connection: Connection, patient: bool) -> Iterator[None]:
    """Statements inside the block, and inside the running transaction, may take long."""
    if not patient:
        yield
        return
    with _driver(connection).patient():
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0").close()
        yield


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
