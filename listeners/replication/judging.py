"""Which of a page's rows are meant by a filter, where rows alone do not tell."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from feeds.rows import Row
from listeners.replication.batches import Batches
from listeners.replication.filters import Filter, Verdict
from listeners.replication.peer import Fetched, Wanted

_TOGETHER = 50  # looked at together; they are let go of after it


class _History(msgspec.Struct):
    start: int
    ids: list[str]


class _Head(msgspec.Struct):
    revisions: _History | None = msgspec.field(default=None, name="_revisions")
    deleted: bool = msgspec.field(default=False, name="_deleted")


_head = msgspec.json.Decoder(_Head).decode


async def judged(rows: Sequence[Row], filter: Filter, batches: Batches) -> tuple[list[Row], list[Row]]:
    """The rows that go over, and those that left. Documents that are needed to say so are fetched."""
    if filter.is_everything:
        return list(rows), []
    going: list[Row] = []
    left: list[Row] = []
    documents: list[Row] = []
    deletions: list[Row] = []
    lists = {
        Verdict.GOES: going,
        Verdict.LEFT: left,
        Verdict.ASK_DOCUMENT: documents,
        Verdict.ASK_PARENT: deletions,
    }
    for row in rows:
        verdict = filter.judge(row)
        if verdict is not Verdict.STAYS:
            lists[verdict].append(row)
    for begin in range(0, len(documents), _TOGETHER):
        part = documents[begin : begin + _TOGETHER]
        found = await _found(batches, [Wanted(row.id, row.rev) for row in part])
        for row in part:
            doc = found.get((row.id, row.rev))
            if doc is not None:  # else it changed meanwhile, and comes again
                (going if filter.fits(doc.json) else left).append(row)
    for begin in range(0, len(deletions), _TOGETHER):
        going += await _meant(deletions[begin : begin + _TOGETHER], filter, batches)
    return going, left


async def _meant(deletions: Sequence[Row], filter: Filter, batches: Batches) -> list[Row]:
    """The deletions of what was meant, or of what nobody can look at any more."""
    rows = {row.id: row for row in deletions}
    found = await _found(batches, [Wanted(row.id, row.rev) for row in deletions])
    staying: set[str] = set()
    while found:
        # A deletion upon a deletion: what was deleted stands further back.
        deleted = [doc for doc in found.values() if _head(doc.json).deleted]
        staying |= {
            id for (id, _), doc in found.items() if doc not in deleted and not filter.meant(rows[id], doc.json)
        }
        parents = [Wanted(doc.id, parent) for doc in deleted if (parent := _parent(doc)) is not None]
        found = await _found(batches, parents)
    return [row for row in deletions if row.id not in staying]


async def _found(batches: Batches, wanted: Sequence[Wanted]) -> dict[tuple[str, str], Fetched]:
    return {(doc.id, doc.rev): doc for doc in await batches.look(wanted)} if wanted else {}


def _parent(doc: Fetched) -> str | None:
    history = _head(doc.json).revisions
    if history is None or len(history.ids) < 2:
        return None
    return f"{history.start - 1}-{history.ids[1]}"
