"""Taking documents from a target that left the filter, as far as the source knows what is there.

What was written at the target by others stays: it is not the source's to take away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from feeds.errors import Conflict, NotFound, SpileError, TooLarge
from feeds.revisions import GENERATION_MAX
from feeds.rows import Row
from listeners.replication.comparing import compared
from listeners.replication.errors import BadPeer
from listeners.replication.peer import Peer, Refusals
from listeners.replication.progress import Progress
from listeners.replication.retrying import Attempt

LEAVES_MAX = 200
"""Of one document, purged together: so many names fit into any message."""
_TOGETHER = 100
"""Documents: with as many leaves of long names three MiB."""
_CONFLICTS_MAX = 3
_BEYOND_ALL = f"{GENERATION_MAX}-none"
"""Of a revision that is later than all others, every leaf is a possible ancestor."""


async def purge_left(rows: Sequence[Row], source: Peer, target: Peer, attempt: Attempt, progress: Progress) -> None:
    """Purge the target's leaves of these documents that the source knows, as they are there by now.

    Counted are the documents from which something was taken. One that changes whenever it is to be purged, or may
    not be, or is still there afterwards, is refused by name.
    """
    told = {row.id: row for row in rows}
    waiting: Iterable[str] = list(told)
    purged: dict[str, set[str]] = {}
    conflicts: Counter[str] = Counter()
    vague: set[str] = set()

    def refused(id: str, _rev: str, error: TooLarge) -> None:
        vague.add(id)
        progress.refuse(id, told[id].rev, error)

    while waiting:
        there = await compared(target, {id: [_BEYOND_ALL] for id in waiting}, attempt, refused)
        leaves = {id: list(ancestors) for id, (_, ancestors) in there.items() if id in told}
        strange = {id: each for id, revs in leaves.items() if (each := _beside(revs, told[id].changes))}
        unknown = await compared(source, strange, attempt, refused)
        ours = {id: _beside(revs, unknown.get(id, ((), ()))[0])[:LEAVES_MAX] for id, revs in leaves.items()}
        asked = {id: revs for id, revs in ours.items() if revs and id not in vague}
        for id in [id for id, revs in asked.items() if not purged.get(id, set()).isdisjoint(revs)]:
            progress.refuse(
                id, told[id].rev, BadPeer(f"{target.name} says that it has purged {id!r:.80}, and it is still there")
            )
            del asked[id], purged[id]
        if not asked:
            break
        refusals: dict[str, SpileError] = {}
        ids = list(asked)
        for begin in range(0, len(ids), _TOGETHER):
            part = {id: asked[id] for id in ids[begin : begin + _TOGETHER]}
            refusals.update(await attempt(lambda part=part: _purged(target, part)))  # type: ignore[misc]
        # One that is not there any more was taken by a purge of which the answer was lost.
        for id in asked:
            if isinstance(refusals.get(id), NotFound | None):
                purged.setdefault(id, set()).update(asked[id])
        for id, error in refusals.items():
            conflicts[id] += 1
            if isinstance(error, NotFound) or (isinstance(error, Conflict) and conflicts[id] < _CONFLICTS_MAX):
                continue
            progress.refuse(id, told[id].rev, error)
            del asked[id]
        waiting = asked
    progress.purged += len(purged)


async def _purged(target: Peer, asked: Mapping[str, Sequence[str]]) -> Refusals:
    """What refused it; raises where one cannot be told yet, as then all is asked again."""
    refusals = await target.purge(asked)
    for error in refusals.values():
        if error.retryable:
            raise error
    return refusals


def _beside(revs: Sequence[str], others: Iterable[str]) -> list[str]:
    left = set(others)
    return [rev for rev in revs if rev not in left]
