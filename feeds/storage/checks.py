"""Whether what a store holds fits together: trees, leaves, bodies, the index, the log, counts, and attachments.

Reads one moment of the store from end to end, a document at a time, and changes nothing; mending is in `repairs`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Connection, and_, func, or_, select

from feeds.attachments.stubs import MARK, hashed, split
from feeds.errors import Damaged
from feeds.findings import Findings, Progress
from feeds.revisions import revision_digest
from feeds.storage.blobcheck import ContentCheck, RefCheck, stray_problems
from feeds.storage.indexcheck import IndexCheck
from feeds.storage.schema import CONFLICTS, DELETED, MISSING, OWN, barrels, blobs, docs, log, paths, revs, shapes
from feeds.storage.session import streamed
from feeds.storage.state import decode, other_leaves
from feeds.tree import Node, Tree, leaves, ordered_leaves, tree_of

if TYPE_CHECKING:
    from feeds.store import Store

_TELL_EVERY = 1_000  # documents between two calls of the progress callback


class Check:
    """One check of a whole store."""

    def __init__(self, store: Store, progress: Progress | None = None) -> None:
        self._store = store
        self._progress = progress
        self._done = self._total = 0
        self.found = Findings()

    def run(self) -> Findings:
        """Look at everything, at one moment of the store."""
        try:
            with self._store.database.snapshot(patient=True) as connection:
                self._file(connection)
                self._rows(connection)
        except Damaged as error:
            self.found.broken = True
            self.found.add(error.reason)
        self._contents()
        self._tell(0)
        return self.found

    def _rows(self, connection: Connection) -> None:
        known = connection.execute(select(barrels).order_by(barrels.c.barrel)).all()
        present = [row for row in known if not row.dropped]
        self._total = sum(row.live + row.deleted for row in present)
        self._total += connection.execute(select(func.count()).select_from(blobs)).scalar() or 0
        for row in present:
            self._barrel(connection, row)
        self._strays(connection, [row.barrel for row in known])

    def _contents(self) -> None:
        """The bytes of attachments, which do not change: without holding on to that one moment."""
        check = ContentCheck(self._store)
        for problem in check.problems(self._tell):
            self.found.add(problem)
        self.found.damaged, self.found.sound = check.damaged, check.sound
        if check.looked_at:
            self.found.count("contents", check.looked_at)

    def _tell(self, documents: int) -> None:
        self._done += documents
        if self._progress is not None and (not documents or self._done % _TELL_EVERY == 0):
            self._progress(self._done, max(self._done, self._total))

    def _file(self, connection: Connection) -> None:
        if connection.dialect.name == "sqlite":
            for (line,) in connection.exec_driver_sql("PRAGMA integrity_check"):
                if line != "ok":
                    self.found.broken = True
                    self.found.add(f"database file: {line}")

    # -- one barrel

    def _barrel(self, connection: Connection, row: Any) -> None:
        self.found.count("barrels")
        index, refs = IndexCheck(connection, row.barrel), RefCheck(connection, row.barrel)
        live = deleted = size = 0
        for document, stored in self._documents(connection, row, refs):
            winner = _Document(document, stored).check(row, self.found)
            if winner is None:
                continue
            live += not winner.deleted
            deleted += winner.deleted
            if not winner.deleted and winner.data is not None:
                size += winner.bytes
                index.expect(document.id, document.doc, winner.data)
        for problem in index.problems(row.seq):
            self.found.index.add(row.barrel)
            self.found.add(f"{row.name}: {problem}")
        for problem in refs.problems():
            self.found.refs.add(row.barrel)
            self.found.add(f"{row.name}: {problem}")
        self.found.count("paths", index.rows)
        self._counts(row, {"live": live, "deleted": deleted, "bytes": size})
        self._log(connection, row)

    def _documents(self, connection: Connection, row: Any, refs: RefCheck) -> Iterator[tuple[Any, list[Any]]]:
        """Each document with its revisions; revisions without a document are told."""
        stored = streamed(
            connection,
            select(revs).where(revs.c.barrel == row.barrel).order_by(revs.c.doc, revs.c.generation, revs.c.digest),
        )
        groups: Iterator[tuple[int, Iterable[Any]]] = groupby(stored, key=lambda rev: int(rev.doc))
        at = next(groups, None)
        for document in streamed(connection, select(docs).where(docs.c.barrel == row.barrel).order_by(docs.c.doc)):
            while at is not None and at[0] < document.doc:
                self._orphans(row, *at)
                at = next(groups, None)
            mine: list[Any] = []
            if at is not None and at[0] == document.doc:
                mine = list(_with_leaf_bodies(document, at[1], refs))
                at = next(groups, None)
            self.found.count("documents")
            self.found.count("revisions", len(mine))
            yield document, mine
            self._tell(1)
        while at is not None:
            self._orphans(row, *at)
            at = next(groups, None)

    def _orphans(self, row: Any, doc: int, stored: Iterable[Any]) -> None:
        number = sum(1 for _ in stored)
        self.found.add(f"{row.name}: {number} revisions belong to document number {doc}, which is not there")

    def _counts(self, row: Any, right: dict[str, int]) -> None:
        for name, number in right.items():
            if getattr(row, name) != number:
                self.found.counts.add(row.barrel)
                self.found.add(f"{row.name}: {name} is counted as {getattr(row, name)}, and is {number}")

    def _log(self, connection: Connection, row: Any) -> None:
        mine = log.c.barrel == row.barrel
        low, high, rows = connection.execute(
            select(func.min(log.c.seq), func.max(log.c.seq), func.count()).where(mine)
        ).one()
        self.found.count("changes", rows)
        newest = connection.execute(select(func.max(docs.c.seq)).where(docs.c.barrel == row.barrel)).scalar() or 0
        if max(high or 0, newest, row.forgotten) > row.seq:
            self.found.logs.add(row.barrel)
            self.found.add(f"{row.name}: the log goes on beyond its head {row.seq}")
        elif rows != row.seq - row.forgotten or (rows and (low, high) != (row.forgotten + 1, row.seq)):
            self.found.logs.add(row.barrel)
            self.found.add(f"{row.name}: the log has {rows} rows from {row.forgotten + 1} to {row.seq}")
        same = and_(log.c.barrel == docs.c.barrel, log.c.seq == docs.c.seq)
        other = or_(log.c.doc != docs.c.doc, log.c.generation != docs.c.generation, log.c.digest != docs.c.digest)
        wrong = connection.execute(
            select(docs.c.id, docs.c.seq)
            .select_from(docs.outerjoin(log, same))
            .where(docs.c.barrel == row.barrel, docs.c.seq > row.forgotten, or_(log.c.seq.is_(None), other))
        )
        for document_id, seq in wrong:
            self.found.logs.add(row.barrel)
            self.found.add(f"{row.name}: the log does not tell the change {seq} of {document_id!r}")

    def _strays(self, connection: Connection, known: list[int]) -> None:
        for table in (docs, revs, log, shapes):
            for barrel in connection.execute(select(table.c.barrel).where(table.c.barrel.not_in(known)).distinct()):
                self.found.add(f"{table.name} has rows of barrel number {barrel[0]}, which is not there")
        without = select(func.count()).select_from(paths.outerjoin(shapes, shapes.c.shape == paths.c.shape))
        number = connection.execute(without.where(shapes.c.shape.is_(None))).scalar()
        if number:
            self.found.add(f"{number} index rows belong to no shape")
        for problem in stray_problems(connection):
            self.found.add(problem)


@dataclass(frozen=True, slots=True)
class _Winner:
    deleted: bool
    data: dict[str, Any] | None
    bytes: int


@dataclass(slots=True)
class _Rev:
    """A revision without its body, but with what was seen of it."""

    node: Node
    seq: int
    body: bytes | None  # of leaves only
    has_body: bool
    digest_right: bool


def _with_leaf_bodies(document: Any, stored: Iterable[Any], refs: RefCheck) -> Iterator[_Rev]:
    """The revisions one by one, so that of all their bodies only the leaves' stay in memory."""
    kept = {(document.generation, document.digest), *(leaf.key for leaf in _others(document) or ())}
    for rev in stored:
        flags, body = rev.flags, rev.body
        node = Node(rev.generation, rev.digest, rev.parent, bool(flags & DELETED), bool(flags & MISSING))
        right = True
        if body is not None and flags & OWN:
            parent = None if rev.parent is None else f"{rev.generation - 1}-{rev.parent}"
            right = _digest(node.deleted, parent, body) == rev.digest
        if body is not None and body.startswith(MARK):
            refs.expect(rev.doc, rev.generation, rev.digest, body)
        yield _Rev(node, rev.seq, body if node.key in kept else None, body is not None, right)


def _digest(deleted: bool, parent: str | None, body: bytes) -> str | None:
    """The digest of a revision with this stored body; None where that cannot be read."""
    try:
        stubs, text = split(body)
    except (msgspec.MsgspecError, ValueError):
        return None
    return revision_digest(deleted, parent, text, hashed(stubs))


def _others(document: Any) -> list[Node] | None:
    """The leaves beside the winner; None where they cannot be read."""
    try:
        return other_leaves(document.others)
    except Damaged:
        return None


@dataclass(frozen=True, slots=True)
class _Document:
    row: Any
    stored: list[_Rev]

    def check(self, barrel: Any, found: Findings) -> _Winner | None:
        """Tell what is wrong with the document; its winner, if it has one."""
        row = self.row
        name = f"{barrel.name}: {row.id!r}"
        tree: Tree = tree_of(rev.node for rev in self.stored)
        right = [(leaf.generation, leaf.digest, leaf.deleted) for leaf in ordered_leaves(leaves(tree))]
        others = _others(row)
        told = [
            (row.generation, row.digest, bool(row.flags & DELETED)),
            *((leaf.generation, leaf.digest, leaf.deleted) for leaf in others or ()),
        ]
        if not right:
            found.add(f"{name} has no revision that could be read")
            return None
        if told != right or others is None:
            found.leaves.append((barrel.barrel, barrel.name, row.id))
            unreadable = " and what cannot be read" * (others is None)
            found.add(f"{name} has the leaves {_names(right)}, and is told with {_names(told)}{unreadable}")
        elif bool(row.flags & CONFLICTS) is not (len(right) > 1 and not right[1][2]):
            found.leaves.append((barrel.barrel, barrel.name, row.id))
            found.add(f"{name} is{' not' * (not row.flags & CONFLICTS)} listed among the conflicts")
        data: dict[str, Any] | None = None
        size = 0
        leaf_keys = {leaf[:2] for leaf in right}
        for rev in self.stored:
            if not rev.digest_right:
                found.add(f"{name}: the content of {rev.node.revision} is not what was written")
            if rev.node.key in leaf_keys:
                content = self._content(rev, name, found)
                if rev.node.key == (row.generation, row.digest):
                    data, size = content, len(rev.body or b"")
        if not row.doc <= row.seq <= barrel.seq:
            found.logs.add(barrel.barrel)
            found.add(f"{name} was changed at {row.seq}, which is not between {row.doc} and {barrel.seq}")
        return _Winner(told[0][2], data, size)

    def _content(self, rev: _Rev, name: str, found: Findings) -> dict[str, Any] | None:
        if not rev.has_body:
            found.add(f"{name}: the leaf {rev.node.revision} has no body")
            return None
        if rev.body is None:
            return None  # a leaf that the document's row does not know: told already
        try:
            data = decode(rev.body)
        except (msgspec.MsgspecError, ValueError):
            data = None
        if type(data) is not dict:
            found.add(f"{name}: the body of {rev.node.revision} is no JSON object")
            return None
        return data


def _names(told: list[tuple[int, str, bool]]) -> str:
    return ", ".join(f"{generation}-{digest}{' deleted' * deleted}" for generation, digest, deleted in told)
