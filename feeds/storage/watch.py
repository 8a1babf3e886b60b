"""What other processes do to the same database: heard by notification, and looked for every second in any case.

A thread with a connection of its own, so that a store's writer has nothing to do with it. It is also the one who
finds out that a database which was away is back.
"""

from __future__ import annotations

import logging
import math
import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_when_event_set,
    wait_exponential,
    wait_random,
)

from feeds.errors import SpileError
from feeds.storage.database import Database
from feeds.storage.refusals import translated
from feeds.storage.session import let_go
from feeds.storage.statements import LOCK_CLASS, USE_LOCK

log = logging.getLogger("spile.store")

CHANNEL = "spile_changes"
LOOK_S = 1.0  # so late is seen what no notification told
GATHER_S = 0.002  # commits that come within are told by one notification each barrel
FIRST_WAIT_S, WAIT_MAX_S = 0.1, 2.0  # between attempts to reach a database that is away
_LOG_S = 60.0

Listed = Sequence[tuple[str, int, str, int, str]]  # name, key, epoch, head, settings of every barrel


class Watcher(Protocol):
    """Who is told."""

    def looked(self, read: Callable[[], Listed]) -> None:
        """Read how the barrels stand now."""

    def heard(self, barrel: str, seq: int) -> None:
        """Another process wrote to a barrel."""


class Watch:
    """The thread and its connection."""

    def __init__(self, database: Database, barrels: str, watcher: Watcher) -> None:
        """`barrels` is the statement that reads the directory."""
        self._database = database
        self._barrels = barrels
        self._watcher = watcher
        self._guard = threading.Lock()
        self._hints: dict[str, int] = {}  # what to tell the others of; the guard is held for these two
        self._changed = False
        self._others = False  # whether another process is known of: alone there is nobody to tell
        self._look_at = 0.0
        self._stopping = threading.Event()
        self._receiver, self._sender = os.pipe()
        os.set_blocking(self._sender, False)
        os.set_blocking(self._receiver, False)
        database.reach.on_lost = self.look
        self._thread = threading.Thread(target=self._run, name="spile-watch", daemon=True)
        self._thread.start()

    # -- for others, from any thread

    def committed(self, barrel: str, seq: int) -> None:
        """This process wrote to a barrel."""
        if self._others:
            with self._guard:
                self._hints[barrel] = seq
            self._wake()

    def changed(self) -> None:
        """This process made, configured or dropped a barrel."""
        if self._others:
            with self._guard:
                self._changed = True
            self._wake()

    def look(self) -> None:
        """Look at the database now, as it may be away."""
        self._look_at = 0.0
        self._wake()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive() and not self._stopping.is_set()

    def close(self) -> None:
        """End the thread."""
        self._database.reach.on_lost = lambda: None
        self._stopping.set()
        self._wake()
        self._thread.join()
        os.close(self._sender)
        os.close(self._receiver)

    def _wake(self) -> None:
        try:
            os.write(self._sender, b".")
        except BlockingIOError:
            return  # it has enough to wake up from

    # -- the thread

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._watch()
            except Exception:
                log.exception("watching the database failed, and begins again")
                self._stopping.wait(LOOK_S)

    def _watch(self) -> None:
        """From one connection's first moment to its last."""
        connection = self._connected()
        if connection is None:
            return
        try:
            with translated():
                self._listen(connection)
        except SpileError as error:
            self._database.reach.lost(error.reason)
        finally:
            let_go(connection)

    def _connected(self) -> Connection | None:
        """A connection that listens, as soon as there can be one; None at the end."""
        logged = 0.0

        def tell(state: RetryCallState) -> None:
            nonlocal logged
            error = state.outcome.exception() if state.outcome is not None else None
            if isinstance(error, SpileError):
                self._database.reach.lost(error.reason)
                if time.monotonic() - logged > _LOG_S or not logged:
                    logged = time.monotonic()
                    log.warning("the database is away, and is tried again: %s", error.reason)

        retrying = Retrying(
            retry=retry_if_exception_type(SpileError),
            wait=wait_exponential(FIRST_WAIT_S, WAIT_MAX_S) + wait_random(0, FIRST_WAIT_S),
            stop=stop_when_event_set(self._stopping),
            sleep=self._sleep,
            before_sleep=tell,
            reraise=True,
        )
        try:
            connection = retrying(self._connect)
        except SpileError:
            return None  # it is to end
        if logged:
            log.info("the database is back")
        return connection

    def _sleep(self, seconds: float) -> None:
        self._stopping.wait(seconds)

    def _connect(self) -> Connection:
        with translated():
            connection = self._database.engine.connect()
        try:
            with translated():
                # The store is in use also while its writer has no session, as after a restart of the server.
                connection.exec_driver_sql(f"SELECT pg_advisory_lock_shared({LOCK_CLASS}, {USE_LOCK})").close()
                connection.exec_driver_sql(f"LISTEN {CHANNEL}").close()
                connection.exec_driver_sql(f"NOTIFY {CHANNEL}, 'hello'").close()
                self._look(connection)
        except BaseException:
            let_go(connection)
            raise
        return connection

    def _listen(self, connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        mine = driver.info.backend_pid
        poll = select.poll()  # `select` knows no descriptors above 1,023
        poll.register(driver.fileno(), select.POLLIN)
        poll.register(self._receiver, select.POLLIN)
        while True:
            # What came in with the answer to a statement, or while this was heard, is seen on the socket no more.
            heard = self._hear(connection, driver, mine)
            wait_s = 0.0 if heard else max(0.0, self._look_at - time.monotonic())
            ready = [descriptor for descriptor, _ in poll.poll(math.ceil(wait_s * 1000))]
            if self._stopping.is_set():
                return
            if self._receiver in ready:
                if self._hints:
                    self._stopping.wait(GATHER_S)
                os.read(self._receiver, 4096)
                self._tell(connection)
            if time.monotonic() >= self._look_at:
                self._look(connection)

    def _tell(self, connection: Connection) -> None:
        """Notify the others of what was done here."""
        with self._guard:
            hints, self._hints = self._hints, {}
            changed, self._changed = self._changed, False
        told = [f"{seq} {barrel}" for barrel, seq in hints.items()]
        if changed:
            told.append("barrels")
        if told:
            self._notify(connection, told)

    def _notify(self, connection: Connection, told: list[str]) -> None:
        statement = "SELECT pg_notify(%s::text, told) FROM unnest(%s::text[]) AS told"
        connection.exec_driver_sql(statement, (CHANNEL, told)).close()

    def _hear(self, connection: Connection, driver: Any, mine: int) -> bool:
        """Take what was notified; whether there was anything."""
        try:
            notes = list(driver.notifies(timeout=0))
        except Exception as error:
            if _is_of_driver(error):
                raise DBAPIError(None, None, error, connection_invalidated=driver.closed) from error
            raise
        heard = [note.payload for note in notes if note.pid != mine]
        if heard:
            self._others = True
        if "hello" in heard:
            self._notify(connection, ["here"])
        newest: dict[str, int] = {}
        for payload in heard:
            seq, _, barrel = payload.partition(" ")
            if barrel and seq.isdecimal():
                newest[barrel] = max(int(seq), newest.get(barrel, 0))
        if "barrels" in heard or "hello" in heard:
            self._look(connection)
        for barrel, seq in newest.items():
            self._watcher.heard(barrel, seq)
        return bool(notes)

    def _look(self, connection: Connection) -> None:
        self._look_at = time.monotonic() + LOOK_S

        def read() -> Listed:
            listed = [tuple(row) for row in connection.exec_driver_sql(self._barrels).all()]
            self._database.reach.back()
            return listed

        self._watcher.looked(read)


def _is_of_driver(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] == "psycopg"
