"""The tasks of a store, as they are asked for, changed and shown. What runs them is another's affair.

Blocks on the database. For a service `Tasks` stands before it; the command line uses it on a store of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from broker.health import moment
from broker.replication.reports import Report
from broker.replication.task import Secrets, Task
from feeds import Store
from feeds.errors import Conflict
from feeds.storage.locks import Fence
from feeds.storage.replications import ENDED, PAUSED, RESTORED, RUN, StoredReplication, StoredReplications, Told

COUNT_MAX = 100
CANCELLED = {"state": "cancelled"}
_RESTORED = "This store was restored from a backup, or copied: it does not write elsewhere before somebody says so."
_RESUME = "Resume it if it is to run here, and not at the store that the backup was taken from."


@dataclass(frozen=True, slots=True)
class Entry:
    """A task as it stands in the store."""

    row: StoredReplication
    task: Task
    secrets: Secrets
    report: Report

    @property
    def id(self) -> str:
        """What the task is called by."""
        return self.row.id

    @property
    def runs(self) -> bool:
        """Whether it is wanted to run."""
        return self.row.wanted == RUN

    def shown(self, live: Report | None = None) -> dict[str, Any]:
        """Everything that may be shown, with what is known by now if it runs in this process."""
        told = self.report if live is None else live
        if self.row.wanted == PAUSED:
            told = msgspec.structs.replace(told, state="paused", reason=None, error=None, hint=None, retry_at=None)
        elif self.row.wanted == RESTORED:
            told = msgspec.structs.replace(told, state="paused", reason=_RESTORED, error=None, hint=_RESUME)
        elif self.row.wanted == RUN and told.state in ("stopped", "done", "failed"):
            told = msgspec.structs.replace(told, state="starting")
        return {
            "id": self.id,
            **described(self.task),
            "created": moment(self.row.created),
            "created_by": self.row.who,
            "document": self.row.document,
            "credentials": self.secrets.ends,
            **told.as_dict(),
        }


class Ledger:
    """The tasks of one store. Thread-safe."""

    def __init__(self, store: Store, count_max: int = COUNT_MAX) -> None:
        """There are `count_max` tasks at most."""
        self.rows = StoredReplications(store.database, store.statements, store.writer)
        self._count_max = count_max

    def entries(self) -> list[Entry]:
        """Every task, the oldest first."""
        return [entry_of(row) for row in self.rows.all()]

    def entry(self, id: str) -> Entry:
        """One task; NotFound if there is none of this id."""
        return entry_of(self.rows.get(id))

    def create(self, task: Task, secrets: Secrets, who: str) -> tuple[Entry, bool]:
        """Have it run from now on; whether it is new. What is there already gets these secrets, if there are any, and
        runs again if it had ended; a paused one stays so. TooLarge where there are too many."""
        given = msgspec.json.encode(secrets).decode() if secrets.ends else None
        row, made = self.rows.add(task.id, msgspec.json.encode(task).decode(), given, who, self._count_max)
        return entry_of(row), made

    def pause(self, id: str) -> Entry:
        """Let it rest until it is resumed; Conflict for one that has ended."""
        if self.rows.get(id).wanted == ENDED:
            raise Conflict(f"The replication {id} has ended", hint="Resume it to run it again, or cancel it.")
        return entry_of(self.rows.want(id, PAUSED))

    def resume(self, id: str) -> Entry:
        """Have it run: at once where it waits, and again where it has ended."""
        return entry_of(self.rows.want(id, RUN))

    def cancel(self, id: str) -> Entry:
        """Forget it; what it was. What was replicated stays, and so do the checkpoints."""
        return entry_of(self.rows.remove(id))

    def tell(self, told: Sequence[tuple[Entry, Report, bool]], fence: Fence | None) -> None:
        """Keep how far tasks are, and which of them have come to their end. LockLost as the fence says."""
        encode = msgspec.json.encode
        self.rows.tell(
            [
                Told(entry.id, entry.row.created, entry.row.version, encode(report).decode(), ended)
                for entry, report, ended in told
            ],
            fence,
        )


def described(task: Task) -> dict[str, Any]:
    """What is replicated and how, as it is shown."""
    return {
        "source": task.source,
        "target": task.target,
        "continuous": task.continuous,
        "both": task.both,
        "patterns": list(task.patterns),
        "ids": None if task.ids is None else list(task.ids),
        "selector": task.selector,
        "leaves": task.leaves,
        "create_target": task.create_target,
    }


def entry_of(row: StoredReplication) -> Entry:
    """A task out of its row."""
    decode = msgspec.json.decode
    secrets = Secrets() if row.secrets is None else decode(row.secrets, type=Secrets)
    report = Report("starting", row.created) if row.report is None else decode(row.report, type=Report)
    return Entry(replace(row, secrets=None), decode(row.task, type=Task), secrets, report)
