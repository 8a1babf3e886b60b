"""The revision tree as a value: nodes, and the mapping that holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import msgspec

from feeds.revisions import Revision

Key: TypeAlias = tuple[int, str]


class Node(msgspec.Struct, frozen=True):
    """One revision in its tree.

    `parent` is the digest of the parent, whose generation is one less; None stands for a first revision
    and for one whose ancestors were stemmed or never told. A `missing` node is known by name only, as the
    ancestor of another; it is never a leaf, and its `deleted` is False.
    """

    generation: int
    digest: str
    parent: str | None = None
    deleted: bool = False
    missing: bool = False

    @property
    def key(self) -> Key:
        """Where the node stands in its tree; comparing keys compares revisions."""
        return (self.generation, self.digest)

    @property
    def parent_key(self) -> Key | None:
        """Where the parent stands, or would stand."""
        return None if self.parent is None else (self.generation - 1, self.parent)

    @property
    def revision(self) -> Revision:
        """The name of the revision."""
        return Revision(self.generation, self.digest)


# Nobody changes a tree: every function of this package returns a new one, or the one it was given.
Tree: TypeAlias = Mapping[Key, Node]

EMPTY: Tree = MappingProxyType({})


def tree_of(nodes: Iterable[Node]) -> Tree:
    """The tree of these nodes, each given once."""
    return {(node.generation, node.digest): node for node in nodes}
