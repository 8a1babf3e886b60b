"""Documents that describe replications, as they are stored: names with revisions beside the tasks of a store.

A document and its task change in one transaction, so that neither is ever without the other. A deletion is kept, as
those who follow the documents are to hear of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, delete, func, literal_column, null, select, update

from feeds.revisions import Revision, next_revision
from feeds.storage.schema import replicator
from feeds.storage.statements import Statements
from feeds.storage.transaction import Transaction

DELETIONS_KEPT = 10_000  # changes; who looks less often than that finds out by reading all documents


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document. `body` is JSON without secrets, and None of one that was deleted."""

    id: str
    rev: str
    seq: int
    task: str | None
    """The replication that it describes."""
    body: str | None
    outcome: str | None
    """JSON of what became of its replication where another document describes it now, or why it had none."""
    at: float
    """Seconds of Unix time of its newest change."""


class StoredDocuments:
    """The documents of one store. Thread-safe; what takes a connection or a transaction is a part of it."""

    def __init__(self, statements: Statements) -> None:
        sql = statements.sql
        mine = replicator.c.id == bindparam("id")
        after = replicator.c.seq > bindparam("seq")
        self._one = sql(select(replicator).where(mine), "id")
        self._of_task = sql(select(replicator).where(replicator.c.task == bindparam("task")), "task")
        self._after = sql(select(replicator).where(after).order_by(replicator.c.seq), "seq")
        self._head = sql(select(func.max(replicator.c.seq)))
        self._count = sql(select(func.count()).select_from(replicator).where(replicator.c.body.isnot(None)))
        self._upsert = statements.upsert(replicator, "rev", "seq", "task", "body", "outcome", "at")
        self._release = sql(
            update(replicator)
            .values(task=null(), outcome=bindparam("new_outcome"))
            .where(replicator.c.task == bindparam("old_task")),
            *("new_outcome", "old_task"),
        )
        old: Any = literal_column(str(DELETIONS_KEPT))
        self._forget = sql(
            delete(replicator).where(replicator.c.body.is_(None), replicator.c.seq < bindparam("head") - old), "head"
        )

    def after(self, connection: Connection, seq: int) -> list[StoredDocument]:
        """Every one that has changed since, deletions among them, in the order of their changes."""
        return [StoredDocument(*row) for row in connection.exec_driver_sql(self._after, (seq,))]

    def get(self, connection: Connection, id: str) -> StoredDocument | None:
        """One of them, or its deletion."""
        row = connection.exec_driver_sql(self._one, (id,)).first()
        return None if row is None else StoredDocument(*row)

    def find(self, transaction: Transaction, id: str) -> StoredDocument | None:
        """As `get`."""
        rows = transaction.execute(self._one, id)
        return StoredDocument(*rows[0]) if rows else None

    def of(self, transaction: Transaction, task: str) -> StoredDocument | None:
        """The one that describes a replication."""
        rows = transaction.execute(self._of_task, task)
        return StoredDocument(*rows[0]) if rows else None

    def count(self, transaction: Transaction) -> int:
        """How many there are, without deletions."""
        return int(transaction.execute(self._count)[0][0])

    def put(
        self,
        transaction: Transaction,
        before: StoredDocument | None,
        id: str,
        *,
        task: str | None,
        body: str | None,
        outcome: str | None = None,
    ) -> StoredDocument:
        """Write the next revision of a document."""
        parent = None if before is None else Revision.parse(before.rev)
        content = msgspec.json.encode([task, body, outcome])
        seq = (transaction.execute(self._head)[0][0] or 0) + 1
        rev = str(next_revision(parent, body is None, content))
        made = StoredDocument(id, rev, seq, task, body, outcome, transaction.now)
        transaction.execute(self._upsert, made.id, made.rev, made.seq, made.task, made.body, made.outcome, made.at)
        if body is None:
            transaction.execute(self._forget, seq)
        return made

    def touch(self, transaction: Transaction, task: str) -> None:
        """Give the document of a task, if there is one, another revision: what it tells of the task has changed."""
        before = self.of(transaction, task)
        if before is not None:
            self.put(transaction, before, before.id, task=task, body=before.body)

    def release(self, transaction: Transaction, task: str, outcome: str) -> None:
        """Let the document of a task, if there is one, tell by itself what became of it: it describes none any more.
        What it tells is the same, and so is its revision."""
        transaction.execute(self._release, outcome, task)

    def bury(self, transaction: Transaction, task: str) -> None:
        """Delete the document of a task, if there is one."""
        before = self.of(transaction, task)
        if before is not None:
            self.put(transaction, before, before.id, task=None, body=None)
