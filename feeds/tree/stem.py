"""Forgetting the oldest revisions of long branches."""

from __future__ import annotations

from feeds.errors import BadRequest
from feeds.tree.leaves import leaves
from feeds.tree.model import Key, Node, Tree


def stem(tree: Tree, revs_limit: int) -> tuple[Tree, tuple[Node, ...]]:
    """The tree with the newest `revs_limit` revisions of every leaf's branch, and the nodes that went,
    newest first.

    An ancestor stays while the branch of any leaf needs it. A kept node whose parent went becomes a root.
    Leaves, and so the winner, never change. The tree itself comes back where nothing went. BadRequest for
    a limit below 1.
    """
    if revs_limit < 1:
        raise BadRequest(f"revs_limit is {revs_limit}.", hint="Keep at least the leaf itself: 1 or more.")
    if len(tree) <= revs_limit:
        return tree, ()
    kept, oldest = _kept(tree, revs_limit)
    if len(kept) == len(tree):
        return tree, ()
    stemmed = dict(tree)
    removed = tuple(stemmed.pop(key) for key in tree.keys() - kept.keys())
    for node in oldest:
        if node.parent_key not in stemmed:
            stemmed[node.key] = Node(node.generation, node.digest, None, node.deleted, node.missing)
    return stemmed, tuple(sorted(removed, key=_by_revision, reverse=True))


def _kept(tree: Tree, revs_limit: int) -> tuple[dict[Key, int], list[Node]]:
    """What is within the limit of some leaf, with how many may be kept from there on, and where it ends."""
    kept: dict[Key, int] = {}
    oldest: list[Node] = []
    for leaf in leaves(tree):
        node: Node | None = leaf
        key: Key = leaf.key
        left = revs_limit
        # Where another branch has passed with as much left to go, everything below is kept already.
        while node is not None and left > kept.get(key, 0):
            kept[key] = left
            left -= 1
            if left == 0:
                oldest.append(node)
            if node.parent is None:
                break
            key = (node.generation - 1, node.parent)
            node = tree.get(key)
    return kept, oldest


def _by_revision(node: Node) -> Key:
    return (node.generation, node.digest)
