"""A barrel as the design describes it, in memory: small enough to check by eye, and deliberately slow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from feeds.body import canonical, merge_patch
from feeds.paths import document_paths, id_levels
from feeds.patterns import Pattern
from feeds.revisions import Revision, next_revision

Key = tuple[int, str]


@dataclass
class Node:
    parent: str | None
    deleted: bool
    data: dict[str, Any] | None  # None: known by name only


@dataclass
class Doc:
    born: int
    seq: int = 0
    nodes: dict[Key, Node] = field(default_factory=dict)

    def leaves(self) -> list[Key]:
        """The leaves, winner first."""
        parents = {(generation - 1, node.parent) for (generation, _), node in self.nodes.items()}
        found = [key for key, node in self.nodes.items() if key not in parents and node.data is not None]
        return sorted(found, key=lambda key: (not self.nodes[key].deleted, *key), reverse=True)

    @property
    def winner(self) -> Node:
        return self.nodes[self.leaves()[0]]

    def history(self, key: Key | None) -> list[Key]:
        path = []
        while key is not None and key in self.nodes:
            path.append(key)
            parent = self.nodes[key].parent
            key = None if parent is None else (key[0] - 1, parent)
        return path


@dataclass(frozen=True)
class State:
    """What stands under a document's id at one moment: the leaves, and the winner's paths."""

    changes: tuple[str, ...]
    deleted: bool
    paths: dict[str, Any]

    def matching(self, id: str, patterns: list[Pattern]) -> list[str]:
        told = [path for path in self.paths if any(each.matches(path.split("/")) for each in patterns)]
        own = "_id/" + id_levels(id)
        return sorted([own, *told] if any(each.matches(own.split("/")) for each in patterns) else told)


@dataclass(frozen=True)
class Change:
    seq: int
    id: str
    before: State | None
    after: State | None  # None: purged

    def moved(self) -> tuple[set[str], set[str]]:
        """The path texts that came and those that left."""
        before = set(self.before.paths) if self.before else set()
        after = set(self.after.paths) if self.after else set()
        return after - before, before - after


class Refused(Exception):
    """The model refuses too; its text is the name of the error."""


@dataclass
class Answer:
    rev: str
    seq: int | None = None
    repeated: bool = False
    unchanged: bool = False


class Model:
    """Takes the same writes as the barrel."""

    def __init__(self) -> None:
        self.seq = 0
        self.docs: dict[str, Doc] = {}
        self.log: list[Change] = []

    # -- reading

    def state(self, id: str) -> State | None:
        doc = self.docs.get(id)
        if doc is None:
            return None
        node = doc.winner
        data = {} if node.deleted or id.startswith("_design/") else node.data
        names = tuple(f"{generation}-{digest}" for generation, digest in doc.leaves())
        return State(names, node.deleted, dict(document_paths(data or {})))

    def states_at(self, seq: int) -> dict[str, State]:
        """Every document as it stood at a seq, without those that were purged since."""
        found: dict[str, State] = {}
        for change in self.log:
            if change.seq <= seq:
                if change.after is None:
                    found.pop(change.id, None)
                else:
                    found[change.id] = change.after
        purged = {change.id for change in self.log if change.seq > seq and change.after is None}
        return {id: state for id, state in found.items() if id not in purged}

    # -- writing

    def put(self, id: str, data: dict[str, Any], rev: str | None, update: bool, deleted: bool = False) -> Answer:
        doc = self.docs.get(id)
        if doc is None:
            if rev is not None:
                raise Refused("Conflict")
            return self._extend(id, None, deleted, data)
        leaf = self._leaf(doc, rev, update)
        return self._repeat(doc, rev, deleted, data) if leaf is None else self._extend(id, leaf, deleted, data)

    def delete(self, id: str, rev: str | None) -> Answer:
        doc = self.docs.get(id)
        if doc is None:
            raise Refused("Missing")
        if rev is None:
            raise Refused("Deleted" if doc.winner.deleted else "Conflict")
        leaf = self._leaf(doc, rev, False)
        if leaf is None:
            return self._repeat(doc, rev, True, {})
        if doc.nodes[leaf].deleted:
            raise Refused("Deleted")
        return self._extend(id, leaf, True, {})

    def merge(self, id: str, patch: dict[str, Any]) -> Answer:
        doc = self.docs.get(id)
        if doc is None:
            raise Refused("Missing")
        if doc.winner.deleted:
            raise Refused("Deleted")
        data = merge_patch(doc.winner.data, patch)
        leaf = doc.leaves()[0]
        if canonical(data) == canonical(doc.winner.data):
            return Answer(f"{leaf[0]}-{leaf[1]}", doc.seq, unchanged=True)
        return self._extend(id, leaf, False, data)

    def replicate(self, id: str, path: list[Key], deleted: bool, data: dict[str, Any]) -> Answer:
        name = f"{path[0][0]}-{path[0][1]}"
        doc = self.docs.get(id) or Doc(self.seq + 1)
        known = doc.nodes.get(path[0])
        repeated = known is not None and known.data is not None
        before = doc.leaves()
        for at, key in enumerate(path):
            parent = path[at + 1][1] if at + 1 < len(path) else None
            node = doc.nodes.setdefault(key, Node(parent, False, None))
            node.parent = node.parent or parent
            if at == 0 and not repeated:
                node.deleted, node.data = deleted, data
        if doc.leaves() == before:
            return Answer(name, repeated=repeated)
        self._changed(id, doc)
        return Answer(name, doc.seq, repeated=repeated)

    def purge(self, id: str, leaf: Key | None = None) -> Answer:
        doc = self.docs.get(id)
        if doc is None:
            raise Refused("Missing")
        staying = [each for each in doc.leaves() if each != leaf] if leaf is not None else []
        first = doc.leaves()[0]
        if not staying:
            before = self.state(id)
            self.seq += 1
            del self.docs[id]
            self.log.append(Change(self.seq, id, before, None))
            return Answer(f"{first[0]}-{first[1]}", self.seq)
        kept = {key for each in staying for key in doc.history(each)}
        before = self.state(id)
        doc.nodes = {key: node for key, node in doc.nodes.items() if key in kept}
        self._changed(id, doc, before)
        first = doc.leaves()[0]
        return Answer(f"{first[0]}-{first[1]}", self.seq)

    # -- rules

    def _leaf(self, doc: Doc, rev: str | None, update: bool) -> Key | None:
        if rev is None:
            if update or doc.winner.deleted:
                return doc.leaves()[0]
            raise Refused("Conflict")
        key = Revision.parse(rev).key
        return key if key in doc.leaves() else None

    def _repeat(self, doc: Doc, rev: str | None, deleted: bool, data: dict[str, Any]) -> Answer:
        assert rev is not None
        made = next_revision(Revision.parse(rev), deleted, canonical(data))
        node = doc.nodes.get(made.key)
        if node is None or node.data is None:
            raise Refused("Conflict")
        return Answer(str(made), repeated=True)

    def _extend(self, id: str, parent: Key | None, deleted: bool, data: dict[str, Any]) -> Answer:
        doc = self.docs.get(id) or Doc(self.seq + 1)
        made = next_revision(Revision(*parent) if parent else None, deleted, canonical(data))
        before = self.state(id)
        doc.nodes[made.key] = Node(parent[1] if parent else None, deleted, data)
        self._changed(id, doc, before)
        return Answer(str(made), self.seq)

    def _changed(self, id: str, doc: Doc, before: State | None = None) -> None:
        if before is None and id in self.docs:
            before = next((each.after for each in reversed(self.log) if each.id == id), None)
        self.seq += 1
        doc.seq = self.seq
        self.docs[id] = doc
        self.log.append(Change(self.seq, id, before, self.state(id)))
