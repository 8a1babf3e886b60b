"""Replications as they are stored: what is replicated, what is to become of it, and how far it was when last told.

What a task says is JSON that is understood elsewhere. Of the processes of a store the one that runs the tasks tells
how far they are, under the fence that it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from sqlalchemy import bindparam, delete, func, select, update

from feeds.errors import Conflict, Deleted, NotFound, TooLarge
from feeds.storage.database import Database
from feeds.storage.locks import Fence, check_fence
from feeds.storage.replicator import StoredDocument, StoredDocuments
from feeds.storage.schema import replications, replicator
from feeds.storage.statements import Statements
from feeds.storage.transaction import Transaction
from feeds.storage.writer import Writer

DOCUMENTS_EACH = 10  # documents for each task that there may be: those of one-time replications stay behind them

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
    document: str | None = None
    """The document that describes it, where there is one."""


@dataclass(frozen=True, slots=True)
class Told:
    """How far a task is, and whether the one of this version came to its end."""

    id: str
    created: float
    """As the task says that is told of: one that was made after it is another one."""
    version: int
    report: str
    ended: bool


Secret = Callable[[StoredReplication | None], str | None]
"""The secrets of a task, as JSON, where this is the task that there was before."""


class StoredReplications:
    """The tasks of one store, and the documents that describe some of them. Thread-safe."""

    def __init__(self, database: Database, statements: Statements, writer: Writer) -> None:
        self.documents = StoredDocuments(statements)
        self._database = database
        self._writer = writer
        sql = statements.sql
        id_: Any = bindparam("id")
        mine = replications.c.id == id_
        known = select(*replications.c, replicator.c.id.label("document")).select_from(
            replications.outerjoin(replicator, replicator.c.task == replications.c.id)
        )
        self._all = sql(known.order_by(replications.c.created, replications.c.id))
        self._one = sql(known.where(mine), "id")
        self._count = sql(select(func.count()).select_from(replications))
        self._upsert = statements.upsert(replications, "task", "secrets", "wanted", "version", "report")
        self._delete = sql(delete(replications).where(mine), "id")
        self._tell = sql(
            update(replications).values(report=bindparam("new_report")).where(mine), *("new_report", "id")
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

        One that is there is written as it is asked for now, gets these secrets, if there are any, and runs again if
        it has ended; a paused one stays so. TooLarge where there are `count_max` already.
        """

        def add(transaction: Transaction) -> tuple[StoredReplication, bool]:
            found = self._find(transaction, id)
            if found is not None:
                wanted = RUN if found.wanted == ENDED else found.wanted
                changed = replace(found, task=task, secrets=secrets or found.secrets, wanted=wanted)
                if changed != found:
                    if found.wanted == ENDED:
                        self.documents.touch(transaction, id)
                    found = self._put(transaction, replace(changed, version=found.version + 1))
                return found, False
            _check_count(transaction.execute(self._count)[0][0], count_max)
            return self._make(transaction, id, task, secrets, who), True

        done: tuple[StoredReplication, bool] = self._writer.call(add)
        return done

    def want(self, id: str, wanted: str) -> StoredReplication:
        """Say what is to become of a task; NotFound if there is none. One that runs begins anew when it is to run."""

        def change(transaction: Transaction) -> StoredReplication:
            found = self._find(transaction, id)
            if found is None:
                raise _unknown(id)
            if found.wanted == wanted != RUN:
                return found
            if found.wanted == ENDED:
                self.documents.touch(transaction, id)
            return self._put(transaction, replace(found, wanted=wanted, version=found.version + 1))

        changed: StoredReplication = self._writer.call(change)
        return changed

    def remove(self, id: str) -> StoredReplication:
        """Forget a task, and delete the document that describes it; what it was. NotFound if there is none."""

        def remove(transaction: Transaction) -> StoredReplication:
            found = self._find(transaction, id)
            if found is None:
                raise _unknown(id)
            self.documents.bury(transaction, id)
            transaction.execute(self._delete, id)
            return found

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
                found = self._find(transaction, each.id)
                if found is None or found.created != each.created:
                    continue
                transaction.execute(self._tell, each.report, each.id)
                if each.ended and found.version == each.version:
                    ended = replace(found, report=each.report, wanted=ENDED, version=found.version + 1)
                    self._put(transaction, ended)
                    self.documents.touch(transaction, each.id)

        self._writer.call(tell)

    # -- by documents

    def described(self, seq: int) -> list[tuple[StoredDocument, StoredReplication | None]]:
        """Every document that has changed since, in order, with the task that it describes: as of one moment."""
        with self._database.snapshot() as connection:
            found = self.documents.after(connection, seq)
            rows = connection.exec_driver_sql(self._all).all() if found else []
        tasks = {row[0]: StoredReplication(*row) for row in rows}
        return [(each, tasks.get(each.task or "")) for each in found]

    def describing(self, id: str) -> tuple[StoredDocument, StoredReplication | None] | None:
        """One document, or its deletion, with the task that it describes: as of one moment."""
        with self._database.snapshot() as connection:
            found = self.documents.get(connection, id)
            row = connection.exec_driver_sql(self._one, (found.task,)).first() if found and found.task else None
        return None if found is None else (found, None if row is None else StoredReplication(*row))

    def put_document(
        self, id: str, rev: str | None, body: str, task: tuple[str, str], secret: Secret, who: str, count_max: int
    ) -> StoredDocument:
        """Write a document over its revision `rev`, and have the task that it describes, an id and JSON, run from now
        on; what it described before is forgotten. While another document's runs the same, it describes none.

        Conflict for another revision than the present one; TooLarge where there are `count_max` tasks already, or
        many times as many documents.
        """
        key, text = task

        def put(transaction: Transaction) -> StoredDocument:
            before = _replaced(self.documents.find(transaction, id), rev)
            if before is None or before.body is None:
                _check_count(self.documents.count(transaction), count_max * DOCUMENTS_EACH)
            old = None if before is None or before.task is None else self._find(transaction, before.task)
            same = self._find(transaction, key)
            is_taken = same is not None and same.document not in (None, id) and same.wanted != ENDED
            if same is None and old is None and not is_taken:
                _check_count(transaction.execute(self._count)[0][0], count_max)
            if old is not None and old.id != key:
                transaction.execute(self._delete, old.id)
            if same is not None and is_taken:
                outcome = msgspec.json.encode({"taken": key, "by": same.document}).decode()
                return self.documents.put(transaction, before, id, task=None, body=body, outcome=outcome)
            if same is not None and same.document != id:
                self.documents.release(transaction, key, _outcome(same))
            made = self.documents.put(transaction, before, id, task=key, body=body)
            self._begin(transaction, same, key, text, secret(old or same), who)
            return made

        made: StoredDocument = self._writer.call(put)
        return made

    def delete_document(self, id: str, rev: str | None) -> StoredDocument:
        """Delete a document at its revision `rev`, and forget the task that it describes. Conflict for another
        revision, NotFound or Deleted where there is none."""

        def drop(transaction: Transaction) -> StoredDocument:
            found = self.documents.find(transaction, id)
            if found is None:
                raise NotFound(f"There is no document {id!r}")
            if found.body is None:
                raise Deleted(f"The document {id!r} was deleted")
            before = _replaced(found, rev)
            if found.task is not None:
                transaction.execute(self._delete, found.task)
            return self.documents.put(transaction, before, id, task=None, body=None)

        made: StoredDocument = self._writer.call(drop)
        return made

    # -- rows

    def _begin(
        self,
        transaction: Transaction,
        before: StoredReplication | None,
        id: str,
        task: str,
        secrets: str | None,
        who: str,
    ) -> None:
        """Have a task begin that may be there; one that has ended counts anew."""
        if before is None or before.wanted == ENDED:
            if before is not None:
                transaction.execute(self._delete, id)
            self._make(transaction, id, task, secrets, who)
            return
        self._put(transaction, replace(before, task=task, secrets=secrets, wanted=RUN, version=before.version + 1))

    def _find(self, transaction: Transaction, id: str) -> StoredReplication | None:
        rows = transaction.execute(self._one, id)
        return StoredReplication(*rows[0]) if rows else None

    def _make(self, transaction: Transaction, id: str, task: str, secrets: str | None, who: str) -> StoredReplication:
        now = transaction.now
        return self._put(transaction, StoredReplication(id, task, secrets, RUN, int(now * 1e6), None, who, now))

    def _put(self, transaction: Transaction, row: StoredReplication) -> StoredReplication:
        values = (row.id, row.task, row.secrets, row.wanted, row.version, row.report, row.who, row.created)
        transaction.execute(self._upsert, *values)
        return row


def _outcome(task: StoredReplication) -> str:
    """What a document tells of a task that another one describes from now on."""
    report = msgspec.Raw((task.report or "null").encode())
    return msgspec.json.encode({"id": task.id, "created": task.created, "report": report}).decode()


def _replaced(before: StoredDocument | None, rev: str | None) -> StoredDocument | None:
    """What a write over `rev` replaces; Conflict where that is not what is there."""
    present = None if before is None else before.rev
    if rev != present and not (rev is None and before is not None and before.body is None):
        raise Conflict(f"The revision is {present}, not {rev}")
    return before


def _check_count(count: int, count_max: int) -> None:
    if count >= count_max:
        raise TooLarge(
            f"There are {count} replications already",
            hint="Cancel one that is not needed any more, or raise `replications_max`.",
        )


def _unknown(id: str) -> NotFound:
    return NotFound(f"There is no replication {id[:80]!r}", hint="GET /replications shows those that there are.")
