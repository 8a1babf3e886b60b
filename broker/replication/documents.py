"""Documents that describe replications, in the database that CouchDB calls `_replicator`.

A document is a name with a revision beside a task, which runs, is shown and is cancelled like any other one. What is
asked here blocks on the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from broker.health import moment
from broker.replication.ledger import Entry, entry_of
from broker.replication.reports import Report
from broker.replication.task import Login, Secrets, Task, is_same
from feeds.errors import Deleted, NotFound
from feeds.storage.replications import ENDED, StoredReplication, StoredReplications
from feeds.storage.replicator import StoredDocument


class _Outcome(msgspec.Struct):
    """What became of the replication of a document that another one describes now, or why there was none."""

    id: str | None = None
    created: float = 0.0
    report: Report | None = None
    taken: str | None = None
    """The replication that another document had described."""
    by: str = ""


@dataclass(frozen=True, slots=True)
class Described:
    """A document, and the task that it describes."""

    stored: StoredDocument
    entry: Entry | None

    @property
    def id(self) -> str:
        """The document's id."""
        return self.stored.id

    @property
    def body(self) -> dict[str, Any]:
        """What was written, without what may not be shown."""
        body: dict[str, Any] = msgspec.json.decode(self.stored.body or "{}")
        return body

    def told(self) -> dict[str, Any]:
        """How its replication stands, as it is shown, or how it ended."""
        if self.entry is not None:
            return self.entry.shown()
        at, body = self.stored.at, self.body
        outcome = msgspec.json.decode(self.stored.outcome or "{}", type=_Outcome)
        report = outcome.report or Report("failed", at, _taken(outcome, self.id))
        return {
            "id": outcome.id,
            "source": _place(body.get("source")),
            "target": _place(body.get("target")),
            "created": moment(outcome.created or at),
            **report.as_dict(),
        }

    @property
    def ended(self) -> bool:
        """Whether its replication has come to its end, or had none."""
        return self.entry is None or self.entry.row.wanted == ENDED

    @property
    def deleted(self) -> bool:
        """Whether it was."""
        return self.stored.body is None


class Register:
    """The documents of one store. Thread-safe."""

    def __init__(self, rows: StoredReplications, count_max: int) -> None:
        """There are `count_max` documents at most."""
        self._rows = rows
        self._count_max = count_max

    def after(self, seq: int = 0) -> list[Described]:
        """Every one that has changed since, deletions among them, in the order of their changes."""
        found = self._rows.described(seq)
        return [Described(stored, None if row is None else entry_of(row)) for stored, row in found]

    def get(self, id: str) -> Described:
        """One of them; NotFound, or Deleted."""
        found = self._rows.describing(id)
        if found is None:
            raise NotFound(f"There is no document {id[:80]!r}")
        stored, row = found
        if stored.body is None:
            raise Deleted(f"The document {id[:80]!r} was deleted")
        return Described(stored, None if row is None else entry_of(row))

    def put(
        self, id: str, rev: str | None, body: Mapping[str, Any], task: Task, secrets: Secrets, who: str
    ) -> StoredDocument:
        """Write a document over its revision `rev`, and have what it describes run from now on.

        An end for which no login is given keeps the one that it has. Conflict, TooLarge.
        """
        encode = msgspec.json.encode

        def secret(before: StoredReplication | None) -> str | None:
            given = secrets if before is None else _kept(secrets, task, entry_of(before))
            return encode(given).decode() if given.ends else None

        described = (task.id, encode(task).decode())
        return self._rows.put_document(id, rev, encode(body).decode(), described, secret, who, self._count_max)

    def delete(self, id: str, rev: str | None) -> StoredDocument:
        """Delete a document at its revision `rev`, and cancel what it describes. Conflict, NotFound, Deleted."""
        return self._rows.delete_document(id, rev)


def _taken(outcome: _Outcome, id: str) -> str:
    """Why a document describes no replication, in CouchDB's words."""
    return (
        f"Replication `{outcome.taken}` specified by document `{id}` already started, triggered by document "
        f"`{outcome.by}` from db `_replicator`"
    )


def _place(end: Any) -> Any:
    return end.get("url") if isinstance(end, dict) else end


def _kept(secrets: Secrets, task: Task, before: Entry) -> Secrets:
    """These, and where there is none for an end that has not changed, the one that it had."""

    def of(given: Login | None, held: Login | None, place: str, was: str) -> Login | None:
        return given or (held if is_same(place, was) else None)

    old = before.secrets
    return Secrets(
        of(secrets.source, old.source, task.source, before.task.source),
        of(secrets.target, old.target, task.target, before.task.target),
    )
