"""The writer's conversation with its database: one transaction after the other, in as few exchanges as can be.

What gives no rows may wait until something is read or committed, and then goes in one exchange with it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import Connection, Select

from feeds.storage.asking import Told
from feeds.storage.batches import Copy, Many

if TYPE_CHECKING:
    import sqlite3

    from feeds.storage.postgres import BoundedConnection

_STREAMED = 500  # rows held at a time
COPY_MIN = 200  # rows; for fewer, the exchanges of a COPY of its own cost more than arrays do
COPY_BYTES_MIN = 256 * 1024  # of bodies: an array of them is put together here, and taken apart there

Read = tuple[str, Sequence[Any]]

_COMMIT: Read = ("COMMIT", ())


class Session(Protocol):
    """What a transaction may ask for. Errors are SQLAlchemy's DBAPIError, whichever the driver."""

    @property
    def connection(self) -> Connection:
        """For what is asked seldom; all that was sent before is done by then."""

    def begin(self, reads: Sequence[Read]) -> list[list[Any]]:
        """Open a transaction; the rows of these statements, which are its first."""

    def rows(self, statement: str, parameters: Sequence[Any]) -> list[Any]:
        """The rows of a statement, none of one that gives none."""

    def run(self, statement: str, parameters: Sequence[Any]) -> None:
        """Run a statement that gives no rows."""

    def many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement for each row of parameters."""

    def count(self, statement: str, rows: Sequence[Sequence[Any]]) -> int:
        """As `many`, and how many rows of the table it touched."""

    def patient(self) -> None:
        """Statements may take long until the end of the transaction."""

    def commit(self) -> None:
        """Make the transaction stand."""

    def rollback(self) -> None:
        """Undo what there is of a transaction."""

    def is_usable(self) -> bool:
        """Whether another transaction can be begun on it, as far as can be told without asking."""

    def close(self) -> None:
        """Let the connection go."""


class SqliteSession:
    """On the file: an exchange costs nothing. SQLAlchemy's way around each statement would be a fifth of a write."""

    def __init__(self, connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        self.connection = connection
        self._driver: sqlite3.Connection = driver
        self._told = Told(connection)

    def begin(self, reads: Sequence[Read]) -> list[list[Any]]:
        with self._told:
            self._driver.execute("BEGIN IMMEDIATE")
            return [self._driver.execute(*read).fetchall() for read in reads]

    def rows(self, statement: str, parameters: Sequence[Any]) -> list[Any]:
        with self._told:
            return self._driver.execute(statement, parameters).fetchall()

    def run(self, statement: str, parameters: Sequence[Any]) -> None:
        with self._told:
            self._driver.execute(statement, parameters)

    def many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        self.count(statement, rows)

    def count(self, statement: str, rows: Sequence[Sequence[Any]]) -> int:
        with self._told:
            if len(rows) == 1:
                return self._driver.execute(statement, rows[0]).rowcount
            return self._driver.executemany(statement, rows).rowcount if rows else 0

    def patient(self) -> None:
        """They may as it is."""

    def commit(self) -> None:
        with self._told:
            self._driver.execute("COMMIT")

    def rollback(self) -> None:
        with self._told:
            if self._driver.in_transaction:
                self._driver.execute("ROLLBACK")

    def is_usable(self) -> bool:
        return True

    def close(self) -> None:
        self.connection.close()


class PostgresSession:
    """Over a network, perhaps: what gives no rows is gathered, and sent as one pipeline."""

    def __init__(self, connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        self._connection = connection
        self._driver: BoundedConnection = driver
        self._told = Told(connection)
        self._answer_s = driver.answer_s
        self._waiting: list[Read] = []

    @property
    def connection(self) -> Connection:
        self._exchange()
        return self._connection

    def begin(self, reads: Sequence[Read]) -> list[list[Any]]:
        self._waiting = [("BEGIN", ())]
        return self._exchange(reads)

    def rows(self, statement: str, parameters: Sequence[Any]) -> list[Any]:
        if _gives_rows(statement):
            return self._exchange([(statement, parameters)])[0]
        self._waiting.append((statement, parameters))
        return []

    def run(self, statement: str, parameters: Sequence[Any]) -> None:
        self._waiting.append((statement, parameters))

    def many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        copy = statement.copy if isinstance(statement, Many) else None
        if copy is not None and (len(rows) >= COPY_MIN or _is_large(copy, rows)):
            self._exchange()
            self._copy(copy, rows)
        elif rows:
            self._waiting.append(_as_one(statement, rows))

    def count(self, statement: str, rows: Sequence[Sequence[Any]]) -> int:
        if not rows:
            return 0
        self._exchange()
        with self._told:
            return self._driver.execute(*_as_one(statement, rows)).rowcount

    def patient(self) -> None:
        from feeds.storage.postgres import PATIENT_S

        self._waiting.append(("SET LOCAL statement_timeout = 0", ()))
        self._driver.answer_s = PATIENT_S

    def commit(self) -> None:
        self._waiting.append(_COMMIT)
        self._exchange()
        self._driver.answer_s = self._answer_s

    def rollback(self) -> None:
        self._waiting.clear()
        self._driver.answer_s = self._answer_s
        if not self._driver.closed:
            with self._told:
                self._driver.execute("ROLLBACK")

    def is_usable(self) -> bool:
        return not self._connection.invalidated and not self._driver.is_stale()

    def close(self) -> None:
        let_go(self._connection)

    def _exchange(self, reads: Sequence[Read] = ()) -> list[list[Any]]:
        """Send what waits, and these behind it; the rows of these.

        The last one goes by itself: a pipeline ends with a message that stops the server's clock for sessions that
        hang inside a transaction, and holding a barrel's row without it is not to happen.
        """
        waiting, self._waiting = self._waiting, []
        statements = [*waiting, *reads]
        if not statements:
            return []
        with self._told:
            if waiting[-1:] == [_COMMIT]:
                self._pipeline(statements)
                return []
            cursors = self._pipeline(statements[:-1])
            cursors.append(self._driver.execute(*_given(statements[-1])))
            return [cursor.fetchall() for cursor in cursors[len(waiting) :]]

    def _pipeline(self, statements: Sequence[Read]) -> list[Any]:
        import psycopg

        if len(statements) < 2:
            return [self._driver.execute(*_given(each)) for each in statements]
        failed: psycopg.Error | None = None
        cursors = []
        try:
            with self._driver.pipeline():
                try:
                    for each in statements:
                        cursors.append(self._driver.execute(*_given(each)))
                except psycopg.Error as error:
                    failed = error
        except psycopg.Error as error:
            failed = failed or _cause(error)
        if failed is not None:
            raise failed
        return cursors

    def _copy(self, copy: Copy, rows: Sequence[Sequence[Any]]) -> None:
        with self._told, self._driver.cursor() as cursor, cursor.copy(copy.text) as stream:
            stream.set_types(copy.types)
            write = stream.write_row
            for row in rows:
                write(row)


def streamed(connection: Connection, query: Select[Any]) -> Generator[Any, None, None]:
    """The rows of a result that may be large, read as they are asked for; inside a transaction."""
    with connection.execute(query, execution_options={"stream_results": True, "yield_per": _STREAMED}) as result:
        yield from result


def let_go(connection: Connection) -> None:
    """Close a connection that may be lost, without asking it anything."""
    if not connection.invalidated:
        connection.invalidate()
    connection.close()


def _is_large(copy: Copy, rows: Sequence[Sequence[Any]]) -> bool:
    body = copy.body
    return body is not None and sum(len(row[body] or b"") for row in rows) >= COPY_BYTES_MIN


def _cause(error: Any) -> Any:
    """The error of the statement that failed, not of those behind it, which were left out for that."""
    import psycopg

    while isinstance(error, psycopg.errors.PipelineAborted) and isinstance(error.__context__, psycopg.Error):
        error = error.__context__
    return error


def _as_one(statement: str, rows: Sequence[Sequence[Any]]) -> Read:
    if len(rows) == 1:
        return statement, rows[0]
    assert isinstance(statement, Many) and statement.arrays is not None, "a statement for many rows"
    return statement.arrays, [list(column) for column in zip(*rows, strict=True)]


def _given(read: Read) -> tuple[Any, Any]:
    """The statement as plain text for the driver, which remembers it, and its parameters if there are any."""
    statement, parameters = read
    return str(statement), parameters or None


def _gives_rows(statement: str) -> bool:
    return statement[:6].upper() == "SELECT" or "RETURNING" in statement
