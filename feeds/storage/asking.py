"""Reading rows straight from the driver: SQLAlchemy's way around a statement costs more than a small one itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError


def rows_of(connection: Connection, statement: str, parameters: Sequence[Any]) -> list[Any]:
    """All rows of a statement in the driver's own words, as tuples; what the driver refuses is a DBAPIError."""
    driver: Any = connection.connection.driver_connection
    try:
        rows: list[Any] = driver.execute(statement, parameters).fetchall()
    except connection.dialect.loaded_dbapi.Error as error:
        lost = bool(getattr(driver, "closed", False))
        raise DBAPIError(None, None, error, connection_invalidated=lost) from error
    return rows
