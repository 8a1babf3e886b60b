"""Cursors as they are stored: how far each listener with a name has come in a barrel.

They stand under the barrel's name, not in the barrel: a listener that was away while its barrel was dropped and made
anew must be told so, and only its old position, of another epoch, says that it was here before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, select

from feeds.positions import Position
from feeds.storage.database import Database
from feeds.storage.schema import cursors
from feeds.storage.statements import Statements
from feeds.storage.transaction import Transaction
from feeds.storage.writer import Writer


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far one listener has come in one barrel."""

    barrel: str
    listener: str
    position: Position
    at: float
    """When it moved last, in seconds of Unix time."""


class StoredCursors:
    """The cursors of one store. Thread-safe."""

    def __init__(
        self, database: Database, statements: Statements, writer: Writer, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock
        sql = statements.sql
        barrel: Any = bindparam("barrel")
        listener: Any = bindparam("listener")
        columns = select(cursors).order_by(cursors.c.barrel, cursors.c.listener)
        of_barrel = columns.where(cursors.c.barrel == barrel)
        self._all = sql(columns)
        self._of_barrel = sql(of_barrel, "barrel")
        self._one = sql(of_barrel.where(cursors.c.listener == listener), "barrel", "listener")
        self._upsert = statements.upsert(cursors, "position", "at")
        self._delete = sql(
            delete(cursors).where(cursors.c.barrel == barrel, cursors.c.listener == listener), "barrel", "listener"
        )

    def get(self, barrel: str, listener: str) -> Position | None:
        """Where the listener stands in a barrel of this name, perhaps of an earlier epoch; None if it never was."""
        found = self._read(self._one, barrel, listener)
        return found[0].position if found else None

    def all(self, barrel: str | None = None) -> list[Cursor]:
        """Every cursor, or those of one barrel, by barrel and listener."""
        return self._read(self._all) if barrel is None else self._read(self._of_barrel, barrel)

    def put(self, moved: Iterable[tuple[str, str, Position]]) -> None:
        """Store where listeners stand, given as barrel, listener and position, in one commit."""
        at = self._clock()
        newest = {(barrel, listener): str(position) for barrel, listener, position in moved}
        rows = [(*key, position, at) for key, position in newest.items()]

        def save(transaction: Transaction) -> None:
            transaction.session.many(self._upsert, rows)

        self._writer.call(save)

    def forget(self, barrel: str, listener: str) -> bool:
        """Forget where the listener stands, so that it begins anew; whether there was a cursor."""

        def remove(transaction: Transaction) -> bool:
            found = bool(transaction.execute(self._one, barrel, listener))
            transaction.execute(self._delete, barrel, listener)
            return found

        return bool(self._writer.call(remove))

    def _read(self, statement: str, *parameters: Any) -> list[Cursor]:
        with self._database.reading() as connection:
            rows = connection.exec_driver_sql(statement, parameters).all()
        return [Cursor(row[0], row[1], Position.parse(row[2]), row[3]) for row in rows]
