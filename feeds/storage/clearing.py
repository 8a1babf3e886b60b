"""Clearing away the rows of barrels that were dropped, some at a time.

A number is never used again for another barrel, so that nobody minds how long its rows stay. They wait for the
publishers, who read from them what brokers are to forget; see `publishers` for how long.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Table, bindparam, delete, literal_column, select, tuple_

from feeds.barrels import settings_of
from feeds.storage.database import Database
from feeds.storage.publishers import StoredPublishers
from feeds.storage.schema import barrels, docs, gone, locals_, log, paths, publishers, revs, shapes, tokens
from feeds.storage.statements import Statements
from feeds.storage.transaction import Transaction
from feeds.storage.writer import Writer

STEP = 500  # rows of one transaction
BODIES_STEP = 100  # the same of the table that holds bodies, which may be large

_NOTHING: Any = literal_column("0")


class Cut:
    """Takes rows of a table that have one value in their first column, in the order of their keys."""

    def __init__(self, statements: Statements, table: Table, step: int = STEP) -> None:
        owner, *keys = table.primary_key.columns
        if table is publishers:
            owner, keys = table.c.barrel, [table.c.broker]
        names = [f"key_{key.name}" for key in keys]
        place: ColumnElement[Any] = tuple_(*keys) if len(keys) > 1 else keys[0]
        binds: list[Any] = [bindparam(name) for name in names]
        mark: Any = tuple_(*binds) if len(keys) > 1 else binds[0]
        mine = owner == bindparam("owner")
        self._mark = statements.sql(
            select(*keys).where(mine).order_by(*keys).limit(literal_column("1")).offset(literal_column(str(step))),
            "owner",
        )
        self._below = statements.sql(delete(table).where(mine, place < mark), "owner", *names)
        self._all = statements.sql(delete(table).where(mine), "owner")

    def take(self, transaction: Transaction, owner: int) -> tuple[int, bool]:
        """Delete some rows; how many, and whether none are left."""
        marks = transaction.execute(self._mark, owner)
        statement, parameters = (self._below, (owner, *marks[0])) if marks else (self._all, (owner,))
        return transaction.session.count(statement, [parameters]), not marks


class Clearing:
    """Clears dropped barrels, one after the other, from the second round on that finds them owed to nobody.

    The first one leaves time to a publisher in another process that was just taking up the barrel.
    """

    def __init__(self, database: Database, statements: Statements, writer: Writer, told: StoredPublishers) -> None:
        self._database = database
        self._writer = writer
        self._told = told
        self._seen: set[int] = set()
        sql = statements.sql
        self._dropped = sql(
            select(barrels.c.barrel, barrels.c.settings)
            .where(barrels.c.dropped != _NOTHING)
            .order_by(barrels.c.barrel)
        )
        self._shapes = sql(
            select(shapes.c.shape)
            .where(shapes.c.barrel == bindparam("barrel"))
            .order_by(shapes.c.path)
            .limit(literal_column(str(STEP)))
            .offset(_NOTHING),
            "barrel",
        )
        self._delete_shape = sql(delete(shapes).where(shapes.c.shape == bindparam("shape")), "shape")
        self._delete_barrel = sql(delete(barrels).where(barrels.c.barrel == bindparam("barrel")), "barrel")
        self._cuts = [
            *(Cut(statements, table) for table in (publishers, tokens, locals_, log, docs)),
            Cut(statements, revs, BODIES_STEP),
        ]
        self._path_cuts = [Cut(statements, table) for table in (paths, gone)]

    def round(self, steps: int) -> int:
        """Up to so many small transactions; how many rows went."""
        cleared = 0
        dropped = self._due()
        seen, self._seen = self._seen, set(dropped)
        for barrel in dropped:
            if barrel not in seen:
                continue
            step = partial(self._step, barrel)
            while steps > 0:
                touched, done = self._writer.call(step)
                cleared += touched
                steps -= 1
                if done:
                    break
        return cleared

    def _due(self) -> list[int]:
        """The dropped barrels of which no broker has to be told any more."""
        with self._database.reading() as connection:
            dropped = connection.exec_driver_sql(self._dropped).all()
        if not dropped:
            return []
        for barrel, settings in dropped:
            self._told.forget_absent(barrel, settings_of(settings).log_kept)
        owed = self._told.owed()
        return [barrel for barrel, _ in dropped if barrel not in owed]

    def _step(self, barrel: int, transaction: Transaction) -> tuple[int, bool]:
        """Delete up to a step's rows of a barrel, and the barrel itself when nothing else is left."""
        cleared = 0
        for cut in self._cuts:
            touched, done = cut.take(transaction, barrel)
            cleared += touched
            if not done:
                return cleared, False
        for (shape,) in transaction.execute(self._shapes, barrel):
            for cut in self._path_cuts:
                touched, done = cut.take(transaction, shape)
                cleared += touched
                if not done:
                    return cleared, False
            transaction.execute(self._delete_shape, shape)
            cleared += 1
            if cleared >= STEP:
                return cleared, False
        if transaction.execute(self._shapes, barrel):
            return cleared, False
        transaction.execute(self._delete_barrel, barrel)
        return cleared + 1, True
