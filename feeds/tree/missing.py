"""What of another's revisions a tree lacks, for the comparison that precedes replication."""

from __future__ import annotations

from collections.abc import Iterable

from feeds.revisions import Revision
from feeds.tree.leaves import leaves
from feeds.tree.model import Tree
from feeds.tree.winner import ordered_leaves


def missing(tree: Tree, revisions: Iterable[Revision]) -> tuple[Revision, ...]:
    """Those of the revisions that the tree does not know, in the order given.

    An ancestor known by name only counts as known: something newer is here, and peers do not send what
    was superseded (CouchDB answers `_revs_diff` the same way).
    """
    return tuple(revision for revision in revisions if revision.key not in tree)


def possible_ancestors(tree: Tree, revision: Revision) -> tuple[Revision, ...]:
    """The leaves that a revision missing here may descend from: those of a lower generation.

    For several missing revisions, ask with the one of the highest generation.
    """
    older = [leaf for leaf in ordered_leaves(leaves(tree)) if leaf.generation < revision.generation]
    return tuple(leaf.revision for leaf in older)
