"""Replications as they are stored: what is replicated, what is to become of it, and how far it was when last told.

What a task says is JSON that is understood elsewhere. Of the processes of a store the one that runs the tasks tells
how far they are, under the fence that it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import bindparam, delete, func, literal_column, select, update

from feeds.errors import NotFound, TooLarge
from feeds.storage.database import Database
from feeds.storage.locks import Fence, check_fence
from feeds.storage.schema import replications
from feeds.storage.statements import Statements
from feeds.storage.transaction import Transaction
from feeds.storage.writer import Writer

RUN, PAUSED, RESTORED, ENDED = "run", "paused", "restored", "ended"
"""What is wanted of a task: that it runs; nothing for now, since somebody said so, or since the store was restored
from a backup; nothing any more."""


@dataclass(frozen=True, slots=True)
class StoredReplication:
    """A task. `task`, `secrets` and `report` are JSON."""

    id: str
    task: str
    secrets: str | None
    wanted: str
    version: int
    """Grows whenever somebody changes what is wanted, or the secrets; begins at the time it was made, in
    microseconds, so that a task that was cancelled and made again is told apart."""
    report: str | None
    who: str
    created: float
    """Seconds of Unix time."""


@dataclass(frozen=True, slots=True)
class Told:
    """How far a task is, and whether the one of this version came to its end."""

    id: str
    version: int
    report: str
    ended: bool


class StoredReplications:
    """The tasks of one store. Thread-safe."""

    def __init__(self, database: Database, statements: Statements, writer: Writer) -> None:
        self._database = database
        self._writer = writer
        sql = statements.sql
        id_: Any = bindparam("id")
        one: Any = literal_column("1")
        mine = replications.c.id == id_
        self._all = sql(select(replications).order_by(replications.c.created, replications.c.id))
        self._one = sql(select(replications).where(mine), "id")
        self._count = sql(select(func.count()).select_from(replications))
        self._upsert = statements.upsert(replications, "secrets", "wanted", "version", "report")
        self._delete = sql(delete(replications).where(mine), "id")
        self._tell = sql(
            update(replications).values(report=bindparam("new_report")).where(mine), *("new_report", "id")
        )
        self._end = sql(
            update(replications)
            .values(wanted=literal_column(f"'{ENDED}'"), version=replications.c.version + one)
            .where(mine, replications.c.version == bindparam("version")),
            *("id", "version"),
        )

    def all(self) -> list[StoredReplication]:
        """Every task, the oldest first."""
        with self._database.reading() as connection:
            rows = connection.exec_driver_sql(self._all).all()
        return [StoredReplication(*row) for row in rows]

    def get(self, id: str) -> StoredReplication:
        """One task; NotFound if there is none of this id."""
        with self._database.reading() as connection:
            row = connection.exec_driver_sql(self._one, (id,)).first()
        if row is None:
            raise _unknown(id)
        return StoredReplication(*row)

    def add(
        self, id: str, task: str, secrets: str | None, who: str, count_max: int
    ) -> tuple[StoredReplication, bool]:
        """The task that is wanted to run from now on, and whether it is new.

        One that is there gets these secrets, if there are any, and runs again if it has ended; a paused one stays
        so. TooLarge where there are `count_max` already.
        """

        def add(transaction: Transaction) -> tuple[StoredReplication, bool]:
            rows = transaction.execute(self._one, id)
            if rows:
                found = StoredReplication(*rows[0])
                wanted = RUN if found.wanted == ENDED else found.wanted
                changed = replace(found, secrets=secrets or found.secrets, wanted=wanted)
                if changed != found:
                    found = self._put(transaction, replace(changed, version=found.version + 1))
                return found, False
            count = transaction.execute(self._count)[0][0]
            if count >= count_max:
                raise TooLarge(
                    f"There are {count} replications already",
                    hint="Cancel one that is not needed any more, or raise `replications_max`.",
                )
            made = StoredReplication(id, task, secrets, RUN, int(transaction.now * 1e6), None, who, transaction.now)
            return self._put(transaction, made), True

        done: tuple[StoredReplication, bool] = self._writer.call(add)
        return done

    def want(self, id: str, wanted: str) -> StoredReplication:
        """Say what is to become of a task; NotFound if there is none. One that runs begins anew when it is to run."""

        def change(transaction: Transaction) -> StoredReplication:
            rows = transaction.execute(self._one, id)
            if not rows:
                raise _unknown(id)
            found = StoredReplication(*rows[0])
            if found.wanted == wanted != RUN:
                return found
            return self._put(transaction, replace(found, wanted=wanted, version=found.version + 1))

        changed: StoredReplication = self._writer.call(change)
        return changed

    def remove(self, id: str) -> StoredReplication:
        """Forget a task; what it was. NotFound if there is none."""

        def remove(transaction: Transaction) -> StoredReplication:
            rows = transaction.execute(self._one, id)
            if not rows:
                raise _unknown(id)
            transaction.execute(self._delete, id)
            return StoredReplication(*rows[0])

        removed: StoredReplication = self._writer.call(remove)
        return removed

    def tell(self, told: Sequence[Told], fence: Fence | None) -> None:
        """Keep how far tasks are; one that somebody changed meanwhile has not ended.

        LockLost where the fence does not hold.
        """

        def tell(transaction: Transaction) -> None:
            if fence is not None:
                check_fence(transaction, fence)
            for each in told:
                transaction.execute(self._tell, each.report, each.id)
                if each.ended:
                    transaction.execute(self._end, each.id, each.version)

        self._writer.call(tell)

    def _put(self, transaction: Transaction, row: StoredReplication) -> StoredReplication:
        values = (row.id, row.task, row.secrets, row.wanted, row.version, row.report, row.who, row.created)
        transaction.execute(self._upsert, *values)
        return row


def _unknown(id: str) -> NotFound:
    return NotFound(f"There is no replication {id[:80]!r}", hint="GET /replications shows those that there are.")
