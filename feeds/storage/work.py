"""What one transaction does to one barrel: collected in memory, then written in a few batches.

Rules are in `apply`; this module knows rows. Nothing here outlives the transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from feeds.attachments.stubs import MARK, moves, stubs_of
from feeds.barrels import settings_of
from feeds.errors import Damaged
from feeds.merging.functions import Attempt, Merging
from feeds.paths import leaf_path
from feeds.storage.expiry import expiry_of
from feeds.storage.holdings import BarrelHoldings
from feeds.storage.schema import CONFLICTS, DELETED, EXPIRED, FRESH, MISSING, PURGED
from feeds.storage.session import Session
from feeds.storage.shapes import ShapeNumbers
from feeds.storage.state import (
    DocState,
    decode,
    encode,
    in_conflict,
    index_paths,
    index_rows,
    others_column,
    state_of,
    told_moves,
    told_value,
)
from feeds.storage.statements import Statements
from feeds.tree import Key, Node, Tree, stem, tree_of

BODIES_KEPT = 32  # superseded bodies of a document that is written often, before compaction takes them
_STEM_EVERY = 16  # a branched tree is read whole to be stemmed, so not at every write


class BarrelWork:
    """The rows that a transaction reads and writes of one barrel."""

    def __init__(
        self,
        session: Session,
        statements: Statements,
        shapes: ShapeNumbers,
        barrel: int,
        name: str,
        row: Sequence[Any],
        now: float,
        backlog_max: int,
        merging: Merging,
    ) -> None:
        self._backlog_max = backlog_max
        self.merging = merging
        self.session = session
        self.statements = statements
        self.shapes = shapes
        self.barrel = barrel
        self.name = name
        self.now = now
        self.seq, self.live, self.deleted, self.bytes, self.forgotten, self.skipped = row[:6]
        self.settings = settings_of(row[6])
        self.epoch: str = row[7]
        self.holdings = BarrelHoldings(session, statements, barrel)
        self.head_before = self.seq
        self._numbers = shapes.known(barrel)
        self._expires = self.settings.ttl is not None or self.settings.ttl_field is not None
        self.states: dict[str, DocState | None] = {}
        self.unsettled: dict[str, None] = {}  # ids of documents in conflict that the barrel's rule has to look at
        self.attempts: list[Attempt] = []
        self._new: dict[int, DocState] = {}
        self._changed: dict[int, DocState] = {}
        self._revs: dict[tuple[int, int, str], tuple[Any, ...]] = {}
        self._rev_updates: list[tuple[Any, ...]] = []
        self._rev_links: list[tuple[Any, ...]] = []
        self._log: list[tuple[Any, ...]] = []
        self._path_inserts: list[tuple[Any, ...]] = []
        self._path_ops: dict[tuple[int, bytes, int, str], int | None] = {}
        self._gone_ops: dict[tuple[int, bytes, int, str], int | None] = {}
        self._grown: dict[int, tuple[DocState, int]] = {}  # generation before this transaction

    # -- reading

    def run(self, statement: str, *parameters: Any) -> list[Any]:
        """The rows of a statement."""
        return self.session.rows(statement, parameters)

    def run_delete(self, statement: str, key: tuple[Any, ...]) -> None:
        """Run a statement that gives no rows."""
        self.session.run(statement, key)

    def fetch(self, ids: Iterable[str]) -> None:
        """Read the states of documents that are going to be written."""
        wanted = [document_id for document_id in dict.fromkeys(ids) if document_id not in self.states]
        if not wanted:
            return
        self.take(wanted, self.run(self.statements.find_docs, self.barrel, self.statements.as_list(wanted)))

    def take(self, wanted: Iterable[str], rows: Iterable[Any]) -> None:
        """Take the states of documents from rows of `find_docs`."""
        for document_id in wanted:
            self.states[document_id] = None
        for row in rows:
            self.states[row[0]] = state_of(row)

    def find_rev(self, state: DocState, key: Key) -> tuple[str | None, int, int, bytes | None] | None:
        """A revision's (parent, flags, seq, body), also of one written in this transaction."""
        row = self._revs.get((state.doc, *key))
        if row is not None:
            return row[4], row[5], row[6], row[7]
        if not state.stored:
            return None
        rows = self.run(self.statements.find_rev, self.barrel, state.doc, *key)
        return tuple(rows[0]) if rows else None

    def oldest(self, state: DocState) -> int:
        """The least generation that is stored of a document with one leaf; older ones may be collected."""
        if state.leaves[0].generation == 1:
            return 1
        if not state.stored:
            return state.leaves[0].generation
        return int(self.run(self.statements.oldest, self.barrel, state.doc)[0][0])

    def body_of(self, state: DocState, leaf: Node) -> bytes:
        """The body of a leaf; a leaf without one is damage."""
        found = self.find_rev(state, leaf.key)
        if found is None or found[3] is None:
            raise Damaged(f"The leaf {leaf.revision} of {state.id!r} has no body")
        return found[3]

    def load_body(self, state: DocState) -> None:
        """Read the winner's body if it was left out for its size."""
        if state.body is None and not state.deleted:
            found = self.find_rev(state, state.winner.key)
            state.body = None if found is None else found[3]

    def tree(self, state: DocState) -> Tree:
        """All revisions known of a document."""
        nodes = {}
        if state.stored:
            for generation, digest, parent, flags in self.run(self.statements.find_tree, self.barrel, state.doc):
                nodes[generation, digest] = (parent, flags)
        for (doc, generation, digest), row in self._revs.items():
            if doc == state.doc:
                nodes[generation, digest] = (row[4], row[5])
        return tree_of(
            Node(generation, digest, parent, bool(flags & DELETED), bool(flags & MISSING))
            for (generation, digest), (parent, flags) in nodes.items()
        )

    # -- writing

    def add_rev(self, doc: int, node: Node, seq: int, body: bytes | None, origin: int = 0) -> None:
        """Store a revision that the document did not have; `origin` is OWN for one made here."""
        flags = (DELETED if node.deleted else 0) | (MISSING if node.missing else 0) | origin
        self._revs[doc, node.generation, node.digest] = (
            *(self.barrel, doc, node.generation, node.digest, node.parent, flags, seq),
            body,
        )
        if body is not None and body.startswith(MARK):
            self.holdings.refer(doc, node.key, body)

    def heal_rev(self, state: DocState, node: Node, seq: int, body: bytes | None) -> None:
        """Store what is known now of a revision: its parent, or (with a body) that it is missing no more."""
        key = (state.doc, node.generation, node.digest)
        if key in self._revs:
            old = self._revs[key]
            flags, kept = (old[5], old[7]) if body is None else (DELETED if node.deleted else 0, body)
            self._revs[key] = (*old[:4], node.parent, flags, seq if body is not None else old[6], kept)
        elif body is None:
            self._rev_links.append((node.parent, self.barrel, *key))
        else:
            self._rev_updates.append((self.barrel, *key, node.parent, DELETED if node.deleted else 0, seq, body))
        if body is not None and body.startswith(MARK):
            self.holdings.refer(state.doc, node.key, body)

    def change(
        self,
        state: DocState | None,
        document_id: str,
        leaves: Sequence[Node],
        body: bytes | None,
        data: dict[str, Any] | None,
        expired: bool = False,
    ) -> DocState:
        """Make `leaves` (winner first) the leaves of the document: a new seq, a log row, the index.

        `body` and `data` are the new winner's where it changed and they are at hand.
        """
        self.seq = seq = self.seq + 1
        winner = leaves[0]
        old_live: tuple[Key, ...] = ()
        if state is None:
            state = DocState(seq, document_id, seq, leaves, False)
            was_live, was_known, old_winner, old_bytes = False, False, None, 0
            self.states[document_id] = state
            self._new[state.doc] = state
        else:
            self.load_body(state)
            old_winner = state.winner
            was_live, was_known = not old_winner.deleted, True
            old_bytes = len(state.body or b"") if was_live else 0
            old_live = tuple(leaf.key for leaf in state.leaves[1:] if not leaf.deleted)
            if state.doc not in self._new:
                self._changed[state.doc] = state
            if state.doc not in self._grown:
                self._grown[state.doc] = (state, old_winner.generation)
        entered: bytes | None = None
        gone: bytes | None = None
        state.attached = None
        expired = expired and winner.deleted  # a conflict that lives on stands for the document
        flags = (DELETED if winner.deleted else 0) | (EXPIRED if expired else 0)
        if old_winner is None or old_winner.key != winner.key:
            if body is None:
                body = self.body_of(state, winner)
            if data is None:
                data = {} if winner.deleted else decode(body)
            if not was_live and not winner.deleted:
                flags |= FRESH
            if body.startswith(MARK) or (state.body is not None and state.body.startswith(MARK)):
                state.attached = self._told_attachments(state, was_live, winner, body)
            if was_known:
                entered, gone = self._move_paths(state, document_id, body, {} if winner.deleted else data, seq)
            elif not winner.deleted:
                state.body = body
                rows, skipped = index_rows(document_id, data, self._numbers, self.number, state.doc, seq)
                self._path_inserts += rows
                self.skipped += skipped
            else:
                state.body = body
            if self._expires or state.expires is not None:
                state.expires = None if winner.deleted else expiry_of(self.settings, self.now, data)
        state.leaves = leaves
        state.seq = seq
        state.expired = expired
        if tuple(leaf.key for leaf in leaves[1:] if not leaf.deleted) != old_live:
            flags |= CONFLICTS
        if len(leaves) > 1 and self.settings.merge is not None and in_conflict(leaves):
            self.unsettled[document_id] = None
        self._count(was_known, was_live, winner.deleted, old_bytes, len(state.body or b""))
        self._log.append(
            (
                *(
                    self.barrel,
                    seq,
                    state.doc,
                    winner.generation,
                    winner.digest,
                    flags,
                    others_column(leaves),
                ),
                *(entered, gone, int(self.now * 1000), state.attached),
            )
        )
        return state

    def _told_attachments(self, state: DocState, was_live: bool, winner: Node, body: bytes) -> bytes | None:
        """What changes for readers when this winner and its body take the place of the state's."""
        told = moves(stubs_of(state.body) if was_live else {}, {} if winner.deleted else stubs_of(body))
        return None if told is None else encode(told)

    def _count(self, was_known: bool, was_live: bool, deleted: bool, old_bytes: int, new_bytes: int) -> None:
        self.bytes += (0 if deleted else new_bytes) - old_bytes
        self.live += (not deleted) - was_live
        self.deleted += deleted - (was_known and not was_live)

    def _move_paths(
        self, state: DocState, document_id: str, body: bytes, data: dict[str, Any], seq: int
    ) -> tuple[bytes | None, bytes | None]:
        """Bring the index from the old winner's paths to the new one's; what the log tells of it."""
        old = {} if state.deleted else state.winner_paths()
        state.body = body
        state.paths, skipped = index_paths(document_id, data)
        self.skipped += skipped
        new, number, doc = state.paths, self.number, state.doc
        came = [key for key in new if key not in old] if old else list(new)
        left = [key for key in old if key not in new]
        entered, gone = ([], []) if state.deleted else told_moves(old, new, came, left)
        for shape, value, places in came:
            at = (number(shape), value, doc, places)
            self._path_ops[at] = seq
            self._gone_ops[at] = None
        for shape, value, places in left:
            at = (number(shape), value, doc, places)
            self._path_ops[at] = None
            self._gone_ops[at] = seq
        return encode(entered) if entered else None, encode(gone) if gone else None

    def number(self, shape: str) -> int:
        """The number of a shape in this barrel."""
        found = self._numbers.get(shape)
        return found if found is not None else self.shapes.number(self, shape)

    def log_purge(self, document_id: str, state: DocState) -> None:
        """A row that tells the publisher to clear what it retained, and that a conflict is over."""
        self.seq += 1
        gone = [[leaf_path(leaf), told_value(leaf[2])] for leaf in state.winner_paths().values()]
        winner = state.winner
        flags = PURGED | DELETED | (CONFLICTS if in_conflict(state.leaves) else 0)
        self._log.append(
            (
                *(self.barrel, self.seq, state.doc, winner.generation, winner.digest, flags, document_id),
                *(None, encode(gone) if gone else None, int(self.now * 1000), None),
            )
        )

    # -- to the database

    def flush(self) -> None:
        """Write everything collected so far."""
        run, sql = self._many, self.statements
        run(sql.insert_doc, [self._doc_row(state) for state in self._new.values()])
        run(
            sql.update_doc,
            [
                (*self._doc_row(state)[3:], self.barrel, state.doc)
                for state in self._changed.values()
                if state.doc not in self._new
            ],
        )
        run(sql.insert_rev, list(self._revs.values()))
        run(sql.upsert_rev, self._rev_updates)
        run(sql.link_rev, self._rev_links)
        self.holdings.flush()
        run(sql.insert_log, self._log)
        run(sql.insert_path, self._path_inserts)
        run(sql.delete_path, [key for key, seq in self._path_ops.items() if seq is None])
        run(sql.upsert_path, [(*key, seq) for key, seq in self._path_ops.items() if seq is not None])
        run(sql.delete_gone, [key for key, seq in self._gone_ops.items() if seq is None])
        run(sql.upsert_gone, [(*key, seq) for key, seq in self._gone_ops.items() if seq is not None])
        self._trim()
        if self.seq != self.head_before:
            run(
                sql.save_barrel,
                [(self.seq, self.live, self.deleted, self.bytes, self.skipped, self.barrel)],
            )
        for state in self._new.values():
            state.stored = True
        for collected in (
            *(self._new, self._changed, self._revs, self._rev_updates, self._rev_links, self._log),
            *(self._path_inserts, self._path_ops, self._gone_ops, self._grown),
        ):
            collected.clear()

    def _many(self, statement: str, rows: list[Any]) -> None:
        if rows:
            self.session.many(statement, rows)

    def _doc_row(self, state: DocState) -> tuple[Any, ...]:
        winner = state.leaves[0]
        flags = (DELETED if winner.deleted else 0) | (EXPIRED if state.expired else 0)
        if in_conflict(state.leaves):
            flags |= CONFLICTS
        return (
            *(self.barrel, state.doc, state.id, state.seq, winner.generation, winner.digest, flags),
            *(others_column(state.leaves), state.expires, state.attached),
        )

    def _trim(self) -> None:
        """Stem what grew beyond revs_limit, and compact documents that are written often."""
        limit = self.settings.revs_limit
        stems, compacts, branched = [], [], []
        for state, before in self._grown.values():
            now = state.winner.generation
            if len(state.leaves) > 1:
                if now > limit and now // _STEM_EVERY != before // _STEM_EVERY:
                    branched.append(state)
                continue
            if now > limit:
                stems.append((self.barrel, state.doc, now - limit))
            if now // BODIES_KEPT != before // BODIES_KEPT and now > BODIES_KEPT:
                compacts.append((self.barrel, state.doc, now - BODIES_KEPT))
        if stems or compacts or branched:
            told = self.told()
            self._many(self.statements.stem_line, [(*each, told) for each in stems])
            self._many(self.statements.compact_line, [(*each, told) for each in compacts])
            for state in branched:
                self._stem_branched(state, told)

    def told(self) -> int:
        """Up to where every publisher has told this barrel's changes, or is too far behind to wait for."""
        (row,) = self.run(self.statements.told, self.barrel)
        waited_for: int = self.seq - self._backlog_max
        return int(self.seq) if row[0] is None else max(int(row[0]), waited_for)

    def _stem_branched(self, state: DocState, told: int) -> None:
        _, removed = stem(self.tree(state), self.settings.revs_limit)
        self._many(
            self.statements.delete_told_rev,
            [(self.barrel, state.doc, node.generation, node.digest, told) for node in removed],
        )
