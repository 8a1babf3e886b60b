"""The broker's durable state: one SQLite file, one thread, changes committed in groups.

Knows statements and order, not what they mean: sessions are written by `sessionbook`, retained messages by
`retained`. Without a directory the same tables live in memory, and end with the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from feeds.errors import Damaged, NewerSchema, StoreLocked, Unavailable

T = TypeVar("T")
log = logging.getLogger("spile.mqtt.state")

FILE = "mqtt.sqlite3"
SCHEMA_VERSION = 2
LAZY_S = 0.2  # until a change is committed that nobody waits for
RETRY_S = 1.0  # between tries to write what the disk did not take

_SCHEMA = """
CREATE TABLE sessions (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, user TEXT,
    client_id TEXT NOT NULL, seen REAL NOT NULL);
CREATE TABLE filters (session INTEGER NOT NULL, filter TEXT NOT NULL, qos INTEGER NOT NULL,
    PRIMARY KEY (session, filter)) WITHOUT ROWID;
CREATE TABLE queued (session INTEGER NOT NULL, row INTEGER NOT NULL, topic TEXT NOT NULL, payload BLOB NOT NULL,
    qos INTEGER NOT NULL, retain INTEGER NOT NULL, packet_id INTEGER, released INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (session, row));
CREATE TABLE received (session INTEGER NOT NULL, packet_id INTEGER NOT NULL,
    PRIMARY KEY (session, packet_id)) WITHOUT ROWID;
CREATE TABLE retained (key BLOB PRIMARY KEY, qos INTEGER NOT NULL, payload BLOB NOT NULL);
"""

# Since version 2: up to where a filter was told what is retained; NULL: all of it.
_REPLAYS = "ALTER TABLE filters ADD COLUMN replay BLOB"

# Every statement may be repeated, since a group whose commit failed is written again.
_ADD_ROW = "INSERT OR REPLACE INTO queued (session, row, topic, payload, qos, retain) VALUES (?, ?, ?, ?, ?, ?)"
_DROP_ROW = "DELETE FROM queued WHERE session = ? AND row = ?"


class Change:
    """One statement that is to be committed; `sql` None when it was taken back before."""

    __slots__ = ("parameters", "sql")

    def __init__(self, sql: str | None, parameters: tuple[Any, ...]) -> None:
        self.sql = sql
        self.parameters = parameters


class StateFile:
    """Holds the file from `open` to `close`. All methods belong to the loop's thread.

    `awaited` counts the changes that somebody should wait for before acknowledging: compare it before and
    after, and await `commit()` when it moved. `failure` says what is wrong while changes cannot be written.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._changes: list[Change] = []
        self._rows: dict[tuple[int, int], Change] = {}
        self._waiters: list[asyncio.Future[None]] = []
        self._wake = asyncio.Event()
        self._lazy: asyncio.TimerHandle | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.awaited = 0
        self.failure: str | None = None

    @property
    def depth(self) -> int:
        """How many changes wait to be written."""
        return len(self._changes)

    async def open(self) -> asyncio.Task[None]:
        """Open the file and start writing; the task returned ends only with `close`, or when it fails.

        Raises StoreLocked when another process holds the file, NewerSchema, or Unavailable.
        """
        self._thread = ThreadPoolExecutor(1, "spile-mqtt-state")
        try:
            self._connection = await self._in_thread(self._connect)
        except BaseException:
            self._thread.shutdown(wait=False)
            raise
        self._task = asyncio.create_task(self._write(), name="spile mqtt state")
        return self._task

    async def close(self) -> None:
        """Write what is left, and let the file go."""
        if self._thread is None or self._task is None:
            return
        self._closing = True
        self._wake.set()
        await asyncio.wait([self._task])
        if self._lazy is not None:
            self._lazy.cancel()
        if self._connection is not None:
            await self._in_thread(self._connection.close)
        self._thread.shutdown(wait=False)

    def change(self, sql: str, *parameters: Any, awaited: bool = False) -> None:
        """Have this written with the next commit."""
        self._changes.append(Change(sql, parameters))
        self.awaited += awaited
        self._soon()

    def add_row(self, session: int, row: int, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        """Keep a message for a persistent session."""
        change = Change(_ADD_ROW, (session, row, topic, payload, qos, int(retain)))
        self._changes.append(change)
        self._rows[session, row] = change
        self.awaited += 1
        self._soon()

    def drop_row(self, session: int, row: int) -> None:
        """Forget a message that was acknowledged; one not yet written is not written at all."""
        unwritten = self._rows.pop((session, row), None)
        if unwritten is not None:
            unwritten.sql, unwritten.parameters = None, ()
        else:
            self.change(_DROP_ROW, session, row)

    def commit(self) -> asyncio.Future[None]:
        """Done when everything asked for so far is on disk; fails with Unavailable when that cannot be."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._closing or self._task is None or self._task.done():
            waiter.set_exception(Unavailable("The MQTT broker is stopping; its state is not written any more."))
        elif self.failure is not None:
            waiter.set_exception(Unavailable(f"The MQTT broker's state cannot be written: {self.failure}"))
        else:
            self._waiters.append(waiter)
            self._wake.set()
        return waiter

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run a query in the file's thread; it sees everything asked for before."""
        if self._changes or self.failure is not None:
            await self.commit()  # raises while what was asked for before cannot be written
        connection = self._connection
        if connection is None:
            raise Unavailable("The MQTT broker's state is closed.")
        try:
            return await self._in_thread(lambda: query(connection))
        except sqlite3.Error as fault:
            raise Unavailable(f"The MQTT broker's state cannot be read: {fault}") from fault

    def _soon(self) -> None:
        if self._lazy is None:
            self._lazy = asyncio.get_running_loop().call_later(LAZY_S, self._lazily)

    def _lazily(self) -> None:
        self._lazy = None
        self._wake.set()

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            changes, self._changes = self._changes, []
            waiters, self._waiters = self._waiters, []
            self._rows = {}
            await self._write_group(changes, waiters)
            if self._closing:
                if not self._changes:
                    return
                self._wake.set()

    async def _write_group(self, changes: list[Change], waiters: list[asyncio.Future[None]]) -> None:
        while True:
            try:
                if changes:
                    await self._in_thread(lambda: self._apply(changes))
            except sqlite3.OperationalError as fault:
                # A full disk, mostly. Whoever waits is told; the changes stay first in line.
                if self.failure is None:
                    log.error("The MQTT broker's state cannot be written: %s", fault)
                self.failure = str(fault)
                waiters += self._waiters
                self._waiters = []
                self._fail(waiters)
                waiters = []
                if self._closing:
                    log.error("%d changes to the MQTT broker's state are lost", len(changes))
                    return
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._until_closing(), RETRY_S)
                continue
            except BaseException:
                self.failure = "the task that writes it has died"
                self._fail(waiters + self._waiters)
                raise
            self.failure = None
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
            return

    async def _until_closing(self) -> None:
        while not self._closing:
            await self._wake.wait()
            self._wake.clear()

    def _fail(self, waiters: list[asyncio.Future[None]]) -> None:
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(Unavailable(f"The MQTT broker's state cannot be written: {self.failure}"))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        assert self._thread is not None
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _apply(self, changes: list[Change]) -> None:
        connection = self._connection
        assert connection is not None
        connection.execute("BEGIN IMMEDIATE")
        try:
            for change in changes:
                if change.sql is not None:
                    connection.execute(change.sql, change.parameters)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _connect(self) -> sqlite3.Connection:
        place = ":memory:"
        if self._directory is not None:
            try:
                self._directory.mkdir(parents=True, exist_ok=True)
            except OSError as fault:
                raise Unavailable(f"{self._directory} cannot be made: {fault}") from fault
            place = str(self._directory / FILE)
        connection = None
        try:
            connection = sqlite3.connect(place, timeout=1, isolation_level=None, check_same_thread=False)
            _prepare(connection, place)
        except sqlite3.Error as fault:
            if connection is not None:
                connection.close()
            if "locked" in str(fault):
                raise StoreLocked(f"Another process holds the MQTT broker's state {place}.") from fault
            if isinstance(fault, sqlite3.OperationalError):
                raise Unavailable(f"The MQTT broker's state {place} cannot be opened: {fault}") from fault
            raise Damaged(
                f"The MQTT broker's state {place} is damaged: {fault}",
                hint="Move the file away; stored MQTT sessions and retained messages are lost with it. A barrel whose"
                " `retain` is turned off and on again has its documents retained anew.",
            ) from fault
        except NewerSchema:
            if connection is not None:
                connection.close()
            raise
        return connection


def _prepare(connection: sqlite3.Connection, place: str) -> None:
    # Exclusive: two brokers on one file would each deliver the other's messages.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise NewerSchema(f"The MQTT broker's state {place} was written by a newer Spile.")
    if version == 0:
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
    if version < SCHEMA_VERSION:
        connection.execute(_REPLAYS)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")
