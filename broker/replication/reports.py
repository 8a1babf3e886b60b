"""How far a replication is, as it is kept and shown: of each direction, and of all together.

Pure. The counts of a task go on over restarts: what a replicator counts is added to what was kept before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from broker.health import moment
from listeners.replication.progress import REFUSALS_MAX

ADDED = (
    *("read", "missing", "fetched", "written", "refused", "gone", "left", "purged", "bytes", "blobs", "blob_bytes"),
    *("retries", "checkpoints"),
)
"""The counts that go on."""
_WORST_FIRST = ("failed", "waiting", "running", "starting", "idle", "done", "stopped")


class Direction(msgspec.Struct):
    """One direction of a task: from which end to which, and what was done."""

    source: str
    target: str
    state: str = "starting"
    reason: str | None = None
    error: str | None = None
    counts: dict[str, int] = {}
    behind: int | None = None
    rate: float = 0.0
    session: str | None = None
    began: str | None = None
    """The position at which the session began."""
    position: str | None = None
    replication: str | None = None
    """The id of its checkpoints."""
    refusals: list[dict[str, str]] = []

    def as_dict(self) -> dict[str, Any]:
        """Everything as it is shown."""
        told = msgspec.structs.asdict(self)
        counts = told.pop("counts")
        return {**told, **{name: counts.get(name, 0) for name in ADDED}}


class Report(msgspec.Struct):
    """How far a task is. Times are seconds of Unix time."""

    state: str
    since: float
    reason: str | None = None
    error: str | None = None
    hint: str | None = None
    retry_at: float | None = None
    """When it is tried again, where it waits for that."""
    holder: str = ""
    """The process that runs it."""
    at: float = 0.0
    """When this was so."""
    directions: list[Direction] = []

    def settled(self) -> Report:
        """Without what changes all the time while nothing happens."""
        directions = [msgspec.structs.replace(each, rate=0.0) for each in self.directions]
        return msgspec.structs.replace(self, at=0.0, directions=directions)

    def as_dict(self) -> dict[str, Any]:
        """Everything as it is shown."""
        return {
            "state": self.state,
            "since": moment(self.since),
            "reason": self.reason,
            "error": self.error,
            "hint": self.hint,
            "retry_at": None if self.retry_at is None else moment(self.retry_at),
            "runs_at": self.holder or None,
            "told_at": moment(self.at) if self.at else None,
            "progress": summed(self.directions),
            "directions": [each.as_dict() for each in self.directions],
        }


def direction(source: str, target: str, stats: Mapping[str, Any], before: Direction | None) -> Direction:
    """What a replicator says of itself, with what was done before it."""
    counts = {name: int(stats[name]) for name in ADDED}
    refusals = list(stats["refusals"])
    if before is not None:
        counts = {name: count + before.counts.get(name, 0) for name, count in counts.items()}
        refusals = [*before.refusals, *refusals][-REFUSALS_MAX:]
    return Direction(
        source=source,
        target=target,
        state=stats["state"],
        reason=stats["reason"],
        error=stats["error"],
        counts=counts,
        behind=stats["behind"],
        rate=stats["rate"],
        session=stats["session"],
        began=stats["began"],
        position=stats["position"] or (None if before is None else before.position),
        replication=stats["id"] or (None if before is None else before.replication),
        refusals=refusals,
    )


def worst(directions: Sequence[Direction]) -> Direction:
    """The direction by which the whole is called."""
    return min(directions, key=lambda each: _WORST_FIRST.index(each.state))


def summed(directions: Sequence[Direction]) -> dict[str, Any]:
    """What was done in all directions; how far behind is known only where it is of each."""
    behind = [each.behind for each in directions]
    return {
        **{name: sum(each.counts.get(name, 0) for each in directions) for name in ADDED},
        "rate": round(sum(each.rate for each in directions), 1),
        "behind": None if None in behind or not behind else sum(each for each in behind if each is not None),
        "refusals": [{**refusal, "target": each.target} for each in directions for refusal in each.refusals],
    }
