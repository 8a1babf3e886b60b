"""The leaves of a revision tree: the revisions that nothing was written upon."""

from __future__ import annotations

from feeds.tree.model import Node, Tree


def leaves(tree: Tree) -> tuple[Node, ...]:
    """The live heads and the tombstones of the tree, in no particular order; none only if it is empty.

    Nodes that are missing do not count: there is nothing to read in them.
    """
    if len(tree) == 1:
        return tuple(node for node in tree.values() if not node.missing)
    parents = {(node.generation - 1, node.parent) for node in tree.values()}
    return tuple(node for key, node in tree.items() if key not in parents and not node.missing)
