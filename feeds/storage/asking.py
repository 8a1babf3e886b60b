"""Speaking to the driver itself: SQLAlchemy's way around a statement costs more than a small one does.

What a driver refuses comes out as SQLAlchemy has it, and a transaction ends however its block ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

PAGE_BYTES_MAX = 8 << 20  # of bodies read at once, so that a page of large documents does not fill the memory


class Told:
    """Around what is asked of a connection's driver. As a generator it would cost several times more."""

    __slots__ = ("_driver", "_kind")

    def __init__(self, connection: Connection) -> None:
        self._driver = connection.connection.driver_connection
        self._kind = connection.dialect.loaded_dbapi.Error

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, self._kind):
            raise _refused(self._driver, error) from error


def rows_of(connection: Connection, statement: str, parameters: Sequence[Any]) -> list[Any]:
    """All rows of a statement in the driver's own words, as tuples; what the driver refuses is a DBAPIError."""
    driver: Any = connection.connection.driver_connection
    try:
        rows: list[Any] = driver.execute(statement, parameters).fetchall()
    except connection.dialect.loaded_dbapi.Error as error:
        raise _refused(driver, error) from error
    return rows


def page_rows(
    connection: Connection, statement: str, parameters: Sequence[Any], limit: int, body: int | None
) -> tuple[list[Any], bool]:
    """The same, up to the bound on bytes (one row at least), and whether there may be more behind them.

    `limit` is what the statement keeps to; `body` is the column that holds bodies, None without.
    """
    if body is None:
        rows = rows_of(connection, statement, parameters)
        return rows, len(rows) >= limit
    driver: Any = connection.connection.driver_connection
    rows, size = [], 0
    try:
        cursor = driver.execute(statement, parameters)
        for row in cursor:
            rows.append(row)
            held = row[body]
            if held is not None:
                size += len(held)
                if size >= PAGE_BYTES_MAX:
                    cursor.close()
                    return rows, True
    except connection.dialect.loaded_dbapi.Error as error:
        raise _refused(driver, error) from error
    return rows, len(rows) >= limit


@contextmanager
def one_transaction(connection: Connection, begin: str) -> Iterator[None]:
    """What the block does, all of it or nothing."""
    connection.exec_driver_sql(begin).close()
    try:
        yield
        connection.exec_driver_sql("COMMIT").close()
    except BaseException:
        if _has_transaction(connection):
            connection.exec_driver_sql("ROLLBACK").close()
        raise


def _refused(driver: Any, error: BaseException) -> DBAPIError:
    """The error as SQLAlchemy has it, and whether the connection went with it."""
    return DBAPIError(None, None, error, connection_invalidated=bool(getattr(driver, "closed", False)))


def _has_transaction(connection: Connection) -> bool:
    """Whether there is one left to be undone: a lost connection has none, and on a full or failing disk SQLite undoes
    it by itself."""
    if connection.invalidated:
        return False
    driver = connection.connection.driver_connection
    return not getattr(driver, "closed", False) and bool(getattr(driver, "in_transaction", True))
