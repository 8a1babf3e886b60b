"""Which of a page's rows are meant by a filter, where rows alone do not tell."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

import msgspec

from feeds.rows import Row
from listeners.replication.batches import Batches
from listeners.replication.filters import Filter, Verdict
from listeners.replication.peer import Fetched, Wanted


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
    told = {(row.id, row.rev): row for row in documents}
    # What is not there has changed meanwhile, and comes again.
    async with aclosing(batches.look([Wanted(*name) for name in told])) as found:
        async for doc in found:
            (going if filter.fits(doc.json) else left).append(told[doc.id, doc.rev])
    return going + await _meant(deletions, filter, batches), left


async def _meant(deletions: Sequence[Row], filter: Filter, batches: Batches) -> list[Row]:
    """The deletions of what was meant, or of what nobody can look at any more."""
    rows = {row.id: row for row in deletions}
    wanted = [Wanted(row.id, row.rev) for row in deletions]
    staying: set[str] = set()
    while wanted:
        parents: list[Wanted] = []
        async with aclosing(batches.look(wanted)) as found:
            async for doc in found:
                if not _head(doc.json).deleted:
                    if not filter.meant(rows[doc.id], doc.json):
                        staying.add(doc.id)
                elif (parent := _parent(doc)) is not None:
                    # A deletion upon a deletion: what was deleted stands further back.
                    parents.append(Wanted(doc.id, parent))
        wanted = parents
    return [row for row in deletions if row.id not in staying]


def _parent(doc: Fetched) -> str | None:
    history = _head(doc.json).revisions
    if history is None or len(history.ids) < 2:
        return None
    return f"{history.start - 1}-{history.ids[1]}"
