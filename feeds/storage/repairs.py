"""Mending what a check found and what can be worked out again: leaves, the index, references, counts, the log's
beginning.

Bodies are never invented, and revisions never dropped. Each step runs in a transaction of its own on the writer's
thread, so that it sees what it mends as it is; a large index makes other writers wait.
"""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from sqlalchemy import Connection, and_, delete, func, or_, select, update

from feeds.errors import Damaged, SpileError
from feeds.findings import CheckReport, Findings, Progress
from feeds.storage.blobcheck import extra_refs, missing_refs
from feeds.storage.checks import Check
from feeds.storage.indexcheck import extra_rows, given_rows, standing_and_left
from feeds.storage.schema import (
    CONFLICTS,
    DELETED,
    EXPIRED,
    barrels,
    blob_refs,
    blobs,
    docs,
    gone,
    log,
    paths,
    revs,
    shapes,
)
from feeds.storage.session import streamed
from feeds.storage.state import in_conflict, other_leaves
from feeds.storage.transaction import Transaction
from feeds.tree import leaves, ordered_leaves

if TYPE_CHECKING:
    from feeds.store import Store

_BATCH = 1_000  # index rows that are too many, held while they are dropped


def checked(store: Store, repair: bool, progress: Progress | None) -> CheckReport:
    """Check a store, and mend what can be mended if asked for."""
    found = Check(store, progress).run()
    repaired = 0
    if repair and found.problems and not found.broken:
        Repair(store).run(found)
        left = Check(store, progress).run()
        repaired = max(0, len(found.problems) - len(left.problems))
    return CheckReport(found.problems, found.counted, repaired)


class Repair:
    """Mends one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def run(self, found: Findings) -> None:
        """Mend what can be mended; check again to see what was."""
        barrels_of_leaves = set()
        for barrel, name, document_id in found.leaves:
            barrels_of_leaves.add(barrel)
            self._leaves(barrel, name, document_id)
        for barrel in sorted(found.index | barrels_of_leaves):
            self._store.writer.call(partial(_mend_index, barrel), barrel)
        for barrel in sorted(found.logs):
            self._store.writer.call(partial(_mend_log, barrel), barrel)
        for barrel in sorted(found.refs):
            self._store.writer.call(partial(_mend_refs, barrel), barrel)
        self._store.blobs.rows.mark_damaged(found.damaged)
        self._store.blobs.rows.mark_sound(found.sound)
        for barrel in sorted(found.counts | found.index | barrels_of_leaves):
            self._store.writer.call(partial(_mend_counts, barrel), barrel)

    def _leaves(self, barrel: int, name: str, document_id: str) -> None:
        try:
            self._store.writer.call(partial(_mend_leaves, barrel, name, document_id), barrel)
        except SpileError:
            return  # a leaf without a body: the check that follows tells it again


def _mend_leaves(barrel: int, name: str, document_id: str, transaction: Transaction) -> None:
    """Tell the document with the leaves that its revisions have: a change, so that every reader hears of it."""
    connection = transaction.connection
    transaction.release(barrel)
    mine = and_(docs.c.barrel == barrel, docs.c.id == document_id)
    try:
        other_leaves(connection.execute(select(docs.c.others).where(mine)).scalar())
    except Damaged:
        connection.execute(update(docs).values(others=None).where(mine))
    work = transaction.work(barrel, name)
    work.fetch([document_id])
    state = work.states[document_id]
    if state is None:
        return
    right = ordered_leaves(leaves(work.tree(state)))
    told = [(leaf.key, leaf.deleted) for leaf in state.leaves]
    if right and [(leaf.key, leaf.deleted) for leaf in right] != told:
        work.body_of(state, right[0])
        work.change(state, document_id, right, None, None)
    transaction.release(barrel)
    flag = CONFLICTS if in_conflict(right) else 0
    connection.execute(update(docs).values(flags=docs.c.flags.bitwise_and(DELETED | EXPIRED) + flag).where(mine))


def _mend_index(barrel: int, transaction: Transaction) -> None:
    transaction.release(barrel)
    transaction.session.patient()
    connection = transaction.connection
    head, name = connection.execute(select(barrels.c.seq, barrels.c.name).where(barrels.c.barrel == barrel)).one()
    mine = select(shapes.c.shape).where(shapes.c.barrel == barrel)
    for table in (paths, gone):  # rows that no shape names any more belong to nobody
        connection.execute(delete(table).where(table.c.shape.not_in(select(shapes.c.shape))))
    connection.execute(delete(paths).where(paths.c.shape.in_(mine), paths.c.seq > head))
    while extra := list(extra_rows(transaction.connection, barrel, _BATCH)):
        transaction.session.many(transaction.statements.delete_path, extra)
    work = transaction.work(barrel, name)
    insert = transaction.statements.insert_missing(paths)
    given = given_rows(transaction.connection, barrel)
    while rows := list(islice(given, _BATCH)):
        transaction.session.many(insert, [(work.number(path), *rest) for path, *rest in rows])
    while both := standing_and_left(transaction.connection, barrel, _BATCH):
        transaction.session.many(transaction.statements.delete_gone, both)


def _mend_refs(barrel: int, transaction: Transaction) -> None:
    """Let references be what bodies give, as far as the contents are here."""
    transaction.release(barrel)
    transaction.session.patient()
    connection = transaction.connection
    extra = list(extra_refs(connection, barrel))
    missing = list(missing_refs(connection, barrel))
    for doc, generation, digest, blob in extra:
        connection.execute(
            delete(blob_refs).where(
                blob_refs.c.barrel == barrel,
                blob_refs.c.doc == doc,
                blob_refs.c.generation == generation,
                blob_refs.c.digest == digest,
                blob_refs.c.blob == blob,
            )
        )
    for begin in range(0, len(missing), _BATCH):
        batch = missing[begin : begin + _BATCH]
        here = connection.execute(select(blobs.c.digest).where(blobs.c.digest.in_({ref[3] for ref in batch})))
        known = {row[0] for row in here}
        rows = [(barrel, *ref) for ref in batch if ref[3] in known]
        transaction.session.many(transaction.statements.insert_missing(blob_refs), rows)


def _mend_counts(barrel: int, transaction: Transaction) -> None:
    transaction.release(barrel)
    transaction.session.patient()
    connection = transaction.connection
    winner = and_(
        revs.c.barrel == docs.c.barrel,
        revs.c.doc == docs.c.doc,
        revs.c.generation == docs.c.generation,
        revs.c.digest == docs.c.digest,
    )
    is_deleted = docs.c.flags.bitwise_and(DELETED) != 0
    mine = docs.c.barrel == barrel
    known = select(func.count()).select_from(docs.join(revs, winner)).where(mine)
    size = select(func.sum(func.length(revs.c.body))).select_from(docs.join(revs, winner)).where(mine, ~is_deleted)
    connection.execute(
        update(barrels)
        .values(
            live=connection.execute(known.where(~is_deleted)).scalar(),
            deleted=connection.execute(known.where(is_deleted)).scalar(),
            bytes=connection.execute(size).scalar() or 0,
        )
        .where(barrels.c.barrel == barrel)
    )


def _mend_log(barrel: int, transaction: Transaction) -> None:
    """Let the log begin behind the last change that it does not tell; readers from before are sent a snapshot."""
    transaction.release(barrel)
    transaction.session.patient()
    connection = transaction.connection
    head, forgotten = connection.execute(
        select(barrels.c.seq, barrels.c.forgotten).where(barrels.c.barrel == barrel)
    ).one()
    newest = connection.execute(select(func.max(docs.c.seq)).where(docs.c.barrel == barrel)).scalar() or 0
    last = connection.execute(select(func.max(log.c.seq)).where(log.c.barrel == barrel)).scalar() or 0
    head = max(head, newest, last)
    begin = max(min(forgotten, head), _last_gap(connection, barrel, head), _last_wrong(connection, barrel))
    connection.execute(update(barrels).values(seq=head, forgotten=begin).where(barrels.c.barrel == barrel))
    connection.execute(delete(log).where(log.c.barrel == barrel, log.c.seq <= begin))


def _last_gap(connection: Connection, barrel: int, head: int) -> int:
    """The greatest seq up to the head that has no row."""
    expected = head
    rows = streamed(connection, select(log.c.seq).where(log.c.barrel == barrel).order_by(log.c.seq.desc()))
    for (seq,) in rows:
        if seq != expected:
            break
        expected -= 1
    rows.close()
    return expected


def _last_wrong(connection: Connection, barrel: int) -> int:
    """The greatest seq at which the log tells something else than the document."""
    same = and_(log.c.barrel == docs.c.barrel, log.c.seq == docs.c.seq)
    other = or_(log.c.doc != docs.c.doc, log.c.generation != docs.c.generation, log.c.digest != docs.c.digest)
    query = select(func.max(log.c.seq)).select_from(docs.join(log, same)).where(docs.c.barrel == barrel, other)
    return int(connection.execute(query).scalar() or 0)
