"""Taking documents from a target that left the filter, as far as the source knows what is there.

What was written at the target by others stays: it is not the source's to take away.
"""

from __future__ import annotations

from collections.abc import Sequence

from feeds.rows import Row
from listeners.replication.peer import Peer
from listeners.replication.retrying import Attempt


async def purge_left(rows: Sequence[Row], source: Peer, target: Peer, attempt: Attempt) -> None:
    """Purge the target's leaves of these documents that are leaves of the source, or ancestors of them."""
    told = {row.id: list(row.changes) for row in rows}
    if not told:
        return
    missing = await attempt(lambda: target.revs_diff(told))
    purged = {id: [rev for rev in revs if rev not in missing.get(id, ((), ()))[0]] for id, revs in told.items()}
    older = {id: list(ancestors) for id, (_, ancestors) in missing.items() if ancestors}
    if older:
        unknown = await attempt(lambda: source.revs_diff(older))
        for id, ancestors in older.items():
            purged[id] += [rev for rev in ancestors if rev not in unknown.get(id, ((), ()))[0]]
    there = {id: list(dict.fromkeys(revs)) for id, revs in purged.items() if revs}
    if there:
        await attempt(lambda: target.purge(there))
