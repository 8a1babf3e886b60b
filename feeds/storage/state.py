"""A document as the writer holds it during a transaction, and the paths that its winner stands on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from feeds.errors import Damaged
from feeds.paths import SURELY_FITS, Leaf, document_leaves, fits, leaf_path
from feeds.revisions import Revision
from feeds.storage.schema import DELETED, EXPIRED
from feeds.tree import Node
from feeds.values import cut_text, encode_value

PathKey = tuple[str, bytes, str]  # (shape, ordered value, places)

decode = msgspec.json.Decoder().decode
encode = msgspec.json.Encoder().encode
_decode_others = msgspec.json.Decoder(list[tuple[int, str, int]]).decode


class DocState:
    """One document: its leaves with the winner first, and the winner's body."""

    __slots__ = ("attached", "body", "doc", "expired", "expires", "id", "leaves", "paths", "seq", "skipped", "stored")

    def __init__(self, doc: int, document_id: str, seq: int, leaves: Sequence[Node], stored: bool) -> None:
        self.doc = doc
        self.id = document_id
        self.seq = seq
        self.leaves = leaves
        self.stored = stored  # whether the row is in the database yet
        self.body: bytes | None = None
        self.attached: bytes | None = None  # what the newest change did to attachments
        self.expires: float | None = None
        self.expired = False  # whether the newest change was an expiry
        self.paths: dict[PathKey, Leaf] | None = None  # of the winner, worked out when asked
        self.skipped = 0

    @property
    def deleted(self) -> bool:
        return self.leaves[0].deleted

    @property
    def winner(self) -> Node:
        return self.leaves[0]

    def winner_paths(self) -> dict[PathKey, Leaf]:
        """What the winner stands on in the index; empty for a deletion."""
        if self.paths is None:
            data = decode(self.body) if self.body is not None and not self.deleted else {}
            self.paths, self.skipped = index_paths(self.id, data)
        return self.paths


def index_paths(document_id: str, data: dict[str, Any]) -> tuple[dict[PathKey, Leaf], int]:
    """A document's leaves by their keys in the index, and how many were left out for their size."""
    if document_id.startswith("_design/"):
        return {}, 0
    found: dict[PathKey, Leaf] = {}
    leaves = document_leaves(data)
    for leaf in leaves:
        if fits(leaf):
            shape, places, value = leaf
            found[shape, encode_value(value), places] = leaf
    return found, len(leaves) - len(found)


def index_rows(
    document_id: str, data: dict[str, Any], known: Mapping[str, int], number: Callable[[str], int], doc: int, seq: int
) -> tuple[list[tuple[int, bytes, int, str, int]], int]:
    """The index rows of a new document, and how many leaves were left out: `index_paths` without a mapping.

    `known` are the numbers of shapes that are known already, `number` finds any.
    """
    if document_id.startswith("_design/"):
        return [], 0
    rows = []
    skipped = 0
    for shape, places, value in document_leaves(data):
        if (len(shape) > SURELY_FITS or places) and not fits((shape, places, value)):
            skipped += 1
        else:
            found = known.get(shape)
            rows.append((number(shape) if found is None else found, encode_value(value), doc, places, seq))
    return rows, skipped


def told_moves(
    old: dict[PathKey, Leaf], new: dict[PathKey, Leaf], came: Sequence[PathKey], left: Sequence[PathKey]
) -> tuple[list[str], list[list[Any]]]:
    """What the log tells of a move from `old` to `new`: path texts that came, and those that left with their values.

    The index is typed and orders numbers by value; texts are neither. So `1` to `"1"` moves in the index and not in
    the log, and `1` to `1.0` the other way round.
    """
    entered = {leaf_path(new[key]): None for key in came}
    gone = {leaf_path(old[key]): told_value(old[key][2]) for key in left}
    for key, leaf in new.items():
        was = old.get(key)
        if was is not None and (type(leaf[2]) is float or type(was[2]) is float):
            before, now = leaf_path(was), leaf_path(leaf)
            if before != now:
                entered[now], gone[before] = None, was[2]
    if entered and gone:
        for both in entered.keys() & gone.keys():
            del entered[both], gone[both]
    return list(entered), [[path, value] for path, value in gone.items()]


def told_value(value: Any) -> Any:
    """A value as a path that left is told with: long texts cut as in the path."""
    return cut_text(value) if type(value) is str else value


def state_of(row: Any) -> DocState:
    """The state that a row of `find_docs` describes."""
    document_id, doc, seq, generation, digest, flags, others, expires, body = row
    leaves = [Node(generation, digest, None, bool(flags & DELETED)), *other_leaves(others)]
    state = DocState(doc, document_id, seq, leaves, True)
    state.body = body
    state.expires = expires
    state.expired = bool(flags & EXPIRED)
    return state


def other_leaves(others: str | None) -> list[Node]:
    """The leaves beside the winner, from their column; Damaged where it cannot be read."""
    if not others:
        return []
    return [Node(generation, digest, None, bool(deleted)) for generation, digest, deleted in _others(others)]


def others_column(leaves: Sequence[Node]) -> str | None:
    """The leaves beside the winner, for their column."""
    if len(leaves) == 1:
        return None
    return encode([[leaf.generation, leaf.digest, int(leaf.deleted)] for leaf in leaves[1:]]).decode()


def change_names(generation: int, digest: str, others: str | None) -> list[str]:
    """Every leaf as text, winner first, from the columns of a row."""
    names = [f"{generation}-{digest}"]
    if others:
        names.extend(f"{generation}-{digest}" for generation, digest, _ in _others(others))
    return names


def _others(column: str) -> list[tuple[int, str, int]]:
    try:
        return _decode_others(column)
    except msgspec.MsgspecError as error:
        raise Damaged(f"A document's leaves cannot be read: {error}") from error


def live_names(generation: int, digest: str, others: str | None) -> tuple[str, ...]:
    """The live leaves of a document that lives as text, winner first, from the columns of its row."""
    return f"{generation}-{digest}", *(str(leaf.revision) for leaf in other_leaves(others) if not leaf.deleted)


def live_count(flags: int, others: str | None) -> int:
    """How many of a row's leaves live."""
    return (0 if flags & DELETED else 1) + sum(1 for leaf in other_leaves(others) if not leaf.deleted)


def in_conflict(leaves: Sequence[Node]) -> bool:
    """Whether a live leaf stands beside the winner, which is the first of them."""
    return len(leaves) > 1 and not leaves[1].deleted


def revision_of(node: Node) -> Revision:
    return Revision(node.generation, node.digest)
