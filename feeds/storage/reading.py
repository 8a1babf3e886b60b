"""Reading documents: one or many, any revision, with its history and its conflicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection

from feeds.errors import Deleted, Missing, NotFound, SpileError
from feeds.revisions import Revision
from feeds.rows import document_json
from feeds.storage.asking import rows_of
from feeds.storage.queries import Queries
from feeds.storage.schema import DELETED, EXPIRED, MISSING
from feeds.storage.state import other_leaves
from feeds.tree import Key, Node

_TREES = 50  # histories read together: each may be a thousand revisions long
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Document(msgspec.Struct, frozen=True):
    """A document at one of its revisions; `extra` holds what was asked for beside it."""

    id: str
    rev: str
    deleted: bool
    body: bytes
    seq: int = 0
    """The place of its newest change in the log, whichever revision this is."""
    extra: dict[str, Any] = {}

    def json(self) -> bytes:
        """The whole document as JSON bytes, `_id` and `_rev` first."""
        whole = document_json(self.id, self.rev, self.body, self.deleted)
        return whole if not self.extra else whole[:-1] + b"," + _encode(self.extra)[1:]

    @property
    def data(self) -> dict[str, Any]:
        """The whole document as a mapping."""
        found: dict[str, Any] = _decode(self.json())
        return found


class Wanted(msgspec.Struct, frozen=True):
    """A document to read, and what beside it."""

    id: str
    rev: str | None = None
    revs: bool = False
    conflicts: bool = False
    history: bool = False
    latest: bool = False
    """In place of `rev` the newest leaf that descends from it, where there is one; it may be a deletion."""
    deleted_conflicts: bool = False
    """Adds `_deleted_conflicts`: the leaves that are deletions, but for the one that was read."""


class Reader:
    """Reads documents of one barrel on one connection."""

    def __init__(self, connection: Connection, queries: Queries, barrel: int, now: float) -> None:
        self._connection = connection
        self._queries = queries
        self._barrel = barrel
        self._now = now

    def _rows(self, statement: str, *parameters: Any) -> Sequence[Any]:
        return rows_of(self._connection, statement, parameters)

    def documents(self, wanted: Sequence[Wanted], bytes_max: int | None = None) -> list[Document | SpileError]:
        """Each document asked for, or why it cannot be read, in order.

        With `bytes_max` only the first of them that reach so many bytes together; large ones are looked up by
        themselves then, for which the connection has to see one state.
        """
        ids = list(dict.fromkeys(each.id for each in wanted))
        statement = self._queries.docs_by_id if bytes_max is None else self._queries.docs_by_id_small
        rows = {row[2]: row for row in self._rows(statement, self._barrel, self._queries.as_list(ids))}
        found: list[Document | SpileError] = []
        size = 0
        for begin in range(0, len(wanted), _TREES):
            part = wanted[begin : begin + _TREES]
            trees = self._trees(
                {rows[each.id][0] for each in part if each.id in rows and _in_tree(each, rows[each.id])}
            )
            for each in part:
                row = rows.get(each.id)
                try:
                    document = self._document(each, row, trees.get(row[0], {}) if row is not None else {})
                except SpileError as error:
                    found.append(error)
                    continue
                found.append(document)
                size += len(document.body)
                if bytes_max is not None and size >= bytes_max:
                    return found
        return found

    def _trees(self, numbers: set[int]) -> dict[int, dict[Key, Any]]:
        """All revisions known of some documents, by their numbers."""
        trees: dict[int, dict[Key, Any]] = {}
        if numbers:
            listed = self._queries.as_list(sorted(numbers))
            for row in self._rows(self._queries.find_trees, self._barrel, listed):
                trees.setdefault(row[5], {})[row[0], row[1]] = row
        return trees

    def _document(self, wanted: Wanted, row: Any, tree: Mapping[Key, Any]) -> Document:
        if row is None:
            raise Missing(f"{wanted.id!r} was never written here")
        doc, seq, document_id, generation, digest, flags, others, expires, _, body = row
        leaves = [(generation, digest), *(leaf.key for leaf in other_leaves(others))]
        if wanted.rev is not None:
            revision = Revision.parse(wanted.rev)
            if wanted.latest and revision.key not in leaves:
                revision = _newest(tree, leaves, revision)
            if revision.key != (generation, digest) or body is None:
                body, flags = self._revision(document_id, doc, revision)
            generation, digest = revision.generation, revision.digest
        elif flags & DELETED:
            how = "has expired" if flags & EXPIRED else "was deleted"
            raise Deleted(f"{wanted.id!r} {how}", rev=f"{generation}-{digest}")
        elif expires is not None and expires <= self._now:
            raise Deleted(f"{wanted.id!r} has expired")
        elif body is None:
            body, flags = self._revision(document_id, doc, Revision(generation, digest))
        extra: dict[str, Any] = {}
        if wanted.conflicts:
            live = [str(leaf.revision) for leaf in other_leaves(others) if not leaf.deleted]
            if live:
                extra["_conflicts"] = live
        if wanted.deleted_conflicts:
            told_winner = [f"{row[3]}-{row[4]}"] if row[5] & DELETED else []
            gone = told_winner + [str(leaf.revision) for leaf in other_leaves(others) if leaf.deleted]
            gone = [rev for rev in gone if rev != f"{generation}-{digest}"]
            if gone:
                extra["_deleted_conflicts"] = gone
        if wanted.revs or wanted.history:
            told: dict[Key, str] = {}
            path = _branch(tree, (generation, digest), told)
            if wanted.revs:
                extra["_revisions"] = {"start": generation, "ids": [name for (_, name), _ in path]}
            if wanted.history:
                extra["_history"] = _told(path)
                branches = [_told(_branch(tree, leaf, told)) for leaf in leaves if leaf != (generation, digest)]
                if branches:
                    extra["_branches"] = branches
        return Document(document_id, f"{generation}-{digest}", bool(flags & DELETED), body, seq, extra)

    def _revision(self, document_id: str, doc: int, revision: Revision) -> tuple[bytes, int]:
        rows = self._rows(self._queries.find_rev, self._barrel, doc, revision.generation, revision.digest)
        if not rows:
            raise NotFound(
                f"{document_id!r} has no revision {revision} here", hint="Its history (`history`) names those known."
            )
        _, flags, _, body = rows[0]
        if body is None:
            why = "was never sent here" if flags & MISSING else "was superseded, and compacted since"
            raise NotFound(f"The body of {revision} {why}", hint="Read the current revision.")
        return body, flags

    def leaves(self, ids: Sequence[str]) -> dict[str, list[Node]]:
        """Every leaf of these documents, the winner first; those that were never written here are left out."""
        found = {}
        for row in self._rows(self._queries.docs_by_id, self._barrel, self._queries.as_list(list(ids))):
            winner = Node(row[3], row[4], None, bool(row[5] & DELETED))
            found[row[2]] = [winner, *other_leaves(row[6])]
        return found

    def revs_diff(self, asked: Mapping[str, Sequence[str]]) -> dict[str, dict[str, list[str]]]:
        """For each document the revisions that are not here, and the leaves they may descend from."""
        ids = self._queries.as_list(list(asked))
        rows = {row[2]: row for row in self._rows(self._queries.docs_by_id, self._barrel, ids)}
        answer: dict[str, dict[str, list[str]]] = {}
        for document_id, names in asked.items():
            revisions = [Revision.parse(name) for name in names]
            row = rows.get(document_id)
            missing = revisions
            if row is not None:
                missing = [each for each in revisions if not self._knows(row, each)]
            if not missing:
                continue
            answer[document_id] = {"missing": [str(each) for each in missing]}
            if row is not None:
                newest = max(each.generation for each in missing)
                leaves = [(row[3], row[4]), *(leaf.key for leaf in other_leaves(row[6]))]
                older = [f"{generation}-{digest}" for generation, digest in leaves if generation < newest]
                if older:
                    answer[document_id]["possible_ancestors"] = older
        return answer

    def _knows(self, row: Any, revision: Revision) -> bool:
        if (row[3], row[4]) == revision.key:
            return True
        found = self._rows(self._queries.find_rev, self._barrel, row[0], revision.generation, revision.digest)
        return bool(found)


def _in_tree(wanted: Wanted, row: Any) -> bool:
    """Whether more than its leaves has to be known of a document."""
    if wanted.revs or wanted.history:
        return True
    return wanted.latest and wanted.rev is not None and wanted.rev != f"{row[3]}-{row[4]}"


def _newest(tree: Mapping[Key, Any], leaves: Sequence[Key], revision: Revision) -> Revision:
    """The greatest of the leaves that descend from a revision, or that revision itself."""
    below = [leaf for leaf in leaves if revision.key in {key for key, _ in _branch(tree, leaf, {})}]
    return Revision(*max(below)) if below else revision


def _branch(tree: Mapping[Key, Any], leaf: Key, told: dict[Key, str]) -> list[tuple[Key, str]]:
    """The revisions from `leaf` back, with whether their bodies can be read, up to and with the first one that was
    told already; they are told from now on."""
    path: list[tuple[Key, str]] = []
    at: Key | None = leaf
    while at is not None and at in tree:
        if at in told:
            path.append((at, told[at]))
            break
        generation, _, parent, flags, no_body, _ = tree[at]
        if flags & MISSING:
            status = "missing"
        elif flags & DELETED:
            status = "deleted"
        else:
            status = "compacted" if no_body else "available"
        path.append((at, status))
        told[at] = status
        at = None if parent is None else (generation - 1, parent)
    return path


def _told(path: Sequence[tuple[Key, str]]) -> list[dict[str, str]]:
    return [{"rev": f"{key[0]}-{key[1]}", "status": status} for key, status in path]
