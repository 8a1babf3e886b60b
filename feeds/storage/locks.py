"""Locks with a name, which one process of a store has at a time: for what must not be done twice, as publishing.

A holder says every so often that it lives (`beat`). A rival takes the lock when it is free, when the holder's
sessions in the database have all ended, or when no beat came for `EXPIRY_S` while the rival was watching. No time of
one machine is compared with that of another, so that a clock which jumps does no harm. Whoever takes a lock begins a
new term; what is done under an earlier one is refused (`Fence`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from sqlalchemy import Connection, bindparam, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import DBAPIError

from feeds.errors import StoreLocked
from feeds.storage.database import Database
from feeds.storage.refusals import is_lost, translate, translated
from feeds.storage.schema import locks
from feeds.storage.session import let_go
from feeds.storage.statements import Statements
from feeds.storage.transaction import Transaction
from feeds.storage.writer import Writer

log = logging.getLogger("spile.store")

BEAT_S = 0.5
EXPIRY_S = 3.0  # six beats missed; with the looks of a rival, four a second, the next one is at work within 4 s
ANSWER_S = 1.5  # for one statement: a beat that takes longer comes too late anyway

FREE = ""


class LockLost(StoreLocked):
    """Another process has taken the lock."""

    hint = "Nothing is to be done: that process goes on with the work."


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock as it is stored. `at` is the last beat, in seconds of Unix time by the database's clock."""

    holder: str
    term: int
    beats: int
    at: float
    session: str | None
    """The name of all of the holder's sessions in the database; None where they cannot be seen."""


@dataclass(frozen=True, slots=True)
class Fence:
    """What a holder shows to do something under its lock."""

    name: str
    holder: str
    term: int


class Locks(Protocol):
    """The locks of one store, as one process sees them. Thread-safe. Database errors come out as SpileError."""

    are_shared: bool
    """Whether another process can take one at all."""

    def acquire(self, name: str, holder: str) -> Fence | None:
        """Take the lock, if that is possible now; None while another has it. To be called again and again."""

    def beat(self, fence: Fence) -> bool:
        """Say that the holder lives; False where the lock is another's, or of another term."""

    def release(self, fence: Fence) -> None:
        """Give the lock back, if it is still held."""

    def state(self, name: str) -> Lock | None:
        """How the lock stands; None if nobody ever took it."""

    def close(self) -> None:
        """Let the connection go."""


def open_locks(database: Database, statements: Statements, writer: Writer) -> Locks:
    """The locks of a store."""
    return SharedLocks(database, statements) if database.is_shared else OwnLocks(database, statements, writer)


def check_fence(transaction: Transaction, fence: Fence) -> None:
    """LockLost unless the lock is still held as the fence says. In a transaction that is store-wide, this and what
    a later holder does in another one come one after the other."""
    if not transaction.execute(_sql(transaction.statements).held, fence.name, fence.holder, fence.term):
        raise LockLost(f"Another process has taken the lock {fence.name!r}")


class SharedLocks:
    """On PostgreSQL: on a connection of their own, with short waits, so that nothing else can hold up a beat."""

    are_shared = True

    def __init__(
        self,
        database: Database,
        statements: Statements,
        *,
        expiry_s: float = EXPIRY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._sql = _sql(statements)
        self._expiry_s = expiry_s
        self._clock = clock
        self._guard = threading.Lock()
        self._connection: Connection | None = None
        self._session: str | None = None
        self._seen: dict[str, tuple[tuple[int, int], float]] = {}  # the last beat that was seen of each, and when

    def acquire(self, name: str, holder: str) -> Fence | None:
        """As `Locks` says. The sessions of a holder that hangs are ended: one may be inside of a transaction."""
        with self._asking() as connection:
            row = connection.exec_driver_sql(self._sql.watched, (name,)).first()
            if row is None:
                given: tuple[Any, ...] = (name, holder, self._session)
                taken = connection.exec_driver_sql(self._sql.make, given).first()
                return None if taken is None else Fence(name, holder, taken[0])
            found, is_gone = Lock(*row[:5]), bool(row[5])
            hangs = not (found.holder in (FREE, holder) or is_gone)
            if hangs and not self._is_silent(name, found):
                return None
            given = (holder, self._session, name, found.holder, found.term, found.beats)
            taken = connection.exec_driver_sql(self._sql.take, given).first()
            if taken is None:
                return None  # it beats after all, or another rival was faster
            if hangs and found.session is not None:
                self._end(connection, found.session)
            return Fence(name, holder, taken[0])

    def beat(self, fence: Fence) -> bool:
        with self._asking() as connection:
            given = (fence.name, fence.holder, fence.term)
            return connection.exec_driver_sql(self._sql.beat, given).first() is not None

    def release(self, fence: Fence) -> None:
        with self._asking() as connection:
            connection.exec_driver_sql(self._sql.release, (fence.name, fence.holder, fence.term)).close()

    def state(self, name: str) -> Lock | None:
        with self._asking() as connection:
            row = connection.exec_driver_sql(self._sql.state, (name,)).first()
        return None if row is None else Lock(*row)

    def close(self) -> None:
        with self._guard:
            self._let_go()

    def _is_silent(self, name: str, found: Lock) -> bool:
        beat, now = (found.term, found.beats), self._clock()
        seen = self._seen.get(name)
        if seen is None or seen[0] != beat:
            self._seen[name] = beat, now
            return False
        return now - seen[1] >= self._expiry_s

    def _end(self, connection: Connection, session: str) -> None:
        try:
            ended = connection.exec_driver_sql(_END_SESSIONS, (session,)).all()
        except DBAPIError as error:
            if is_lost(error):
                self._let_go()
            log.warning(
                "the sessions of a process that hangs could not be ended; they may hold up others for seconds: %s",
                translate(error).reason,
            )
        else:
            log.warning("ended %d sessions of the process that hung, %s", len(ended), session)

    @contextmanager
    def _asking(self) -> Iterator[Connection]:
        with self._guard:
            try:
                with translated():
                    if self._connection is not None and _is_ended(self._connection):
                        self._let_go()
                    if self._connection is None:
                        self._connection = self._connect()
                    yield self._connection
            except BaseException:
                self._let_go()
                raise

    def _connect(self) -> Connection:
        connection = self._database.engine.connect()
        try:
            driver: Any = connection.connection.driver_connection
            driver.answer_s = ANSWER_S
            connection.exec_driver_sql(_TIMEOUTS, (f"{ANSWER_S * 800:.0f}ms",)).close()
            self._session = connection.exec_driver_sql(_OWN_SESSION).scalar()
        except BaseException:
            let_go(connection)
            raise
        return connection

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            let_go(connection)


class OwnLocks:
    """On SQLite: one process holds the store, so that every lock is its own and needs no beats; terms count on."""

    are_shared = False

    def __init__(self, database: Database, statements: Statements, writer: Writer) -> None:
        self._database = database
        self._writer = writer
        self._sql = _sql(statements)

    def acquire(self, name: str, holder: str) -> Fence:
        """As `Locks` says: at once."""

        def take(transaction: Transaction) -> int:
            for row in transaction.execute(self._sql.state, name):
                found = Lock(*row)
                given = (holder, None, name, found.holder, found.term, found.beats)
                return int(transaction.execute(self._sql.take, *given)[0][0])
            return int(transaction.execute(self._sql.make, name, holder, None)[0][0])

        return Fence(name, holder, self._writer.call(take))

    def beat(self, fence: Fence) -> bool:
        found = self.state(fence.name)
        return found is not None and (found.holder, found.term) == (fence.holder, fence.term)

    def release(self, fence: Fence) -> None:
        given = (fence.name, fence.holder, fence.term)
        self._writer.call(lambda transaction: transaction.execute(self._sql.release, *given))

    def state(self, name: str) -> Lock | None:
        with self._database.reading() as connection:
            row = connection.exec_driver_sql(self._sql.state, (name,)).first()
        return None if row is None else Lock(*row)

    def close(self) -> None:
        """There is no connection of its own."""


_POSTGRES_NOW = "extract(epoch FROM clock_timestamp())::double precision"
_SQLITE_NOW = "(julianday('now') - 2440587.5) * 86400.0"
_GONE = (
    "locks.session IS NOT NULL AND NOT EXISTS"
    " (SELECT FROM pg_stat_get_activity(NULL) AS each WHERE each.application_name = locks.session)"
)
_OWN_SESSION = (
    "SELECT application_name FROM pg_stat_get_activity(pg_backend_pid())"
    " WHERE application_name = current_setting('application_name') AND application_name <> ''"
)
_TIMEOUTS = "SELECT set_config(name, %s::text, false) FROM unnest(ARRAY['statement_timeout', 'lock_timeout']) AS name"
_END_SESSIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_get_activity(NULL)"
    " WHERE application_name = %s::text AND pid <> pg_backend_pid()"
)


class _Sql:
    """The statements for one dialect."""

    def __init__(self, statements: Statements) -> None:
        sql = statements.sql
        make: Any = sqlite_insert if statements.is_sqlite else postgresql_insert
        now: Any = literal_column(_SQLITE_NOW if statements.is_sqlite else _POSTGRES_NOW)
        one: Any = literal_column("1")
        name: Any = bindparam("name")
        holder: Any = bindparam("holder")
        term: Any = bindparam("term")
        key = locks.c.name == name
        mine = (key, locks.c.holder == holder, locks.c.term == term)
        columns = (locks.c.holder, locks.c.term, locks.c.beats, locks.c.at, locks.c.session)
        self.state = sql(select(*columns).where(key), "name")
        # As `state`, and whether the holder's sessions are all gone
        gone = select(*columns, literal_column(_GONE)).where(key)
        self.watched = self.state if statements.is_sqlite else sql(gone, "name")
        self.held = sql(select(locks.c.term).where(*mine), "name", "holder", "term")
        self.make = sql(
            make(locks)
            .values(name=name, holder=holder, term=one, beats=one, at=now, session=bindparam("session"))
            .on_conflict_do_nothing()
            .returning(locks.c.term),
            *("name", "holder", "session"),
        )
        was = (locks.c.holder == bindparam("was_holder"), locks.c.term == term, locks.c.beats == bindparam("beats"))
        self.take = sql(
            update(locks)
            .values(
                holder=bindparam("new_holder"),
                term=locks.c.term + one,
                beats=locks.c.beats + one,
                at=now,
                session=bindparam("new_session"),
            )
            .where(key, *was)
            .returning(locks.c.term),
            *("new_holder", "new_session", "name", "was_holder", "term", "beats"),
        )
        self.beat = sql(
            update(locks).values(beats=locks.c.beats + one, at=now).where(*mine).returning(locks.c.term),
            *("name", "holder", "term"),
        )
        self.release = sql(
            update(locks).values(holder=literal_column("''"), session=literal_column("NULL")).where(*mine),
            *("name", "holder", "term"),
        )


def _is_ended(connection: Connection) -> bool:
    """Whether the server ended it meanwhile."""
    driver: Any = connection.connection.driver_connection
    return bool(driver.is_stale())


@cache
def _sql(statements: Statements) -> _Sql:
    return _Sql(statements)
