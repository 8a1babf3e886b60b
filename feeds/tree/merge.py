"""The union of what two replicas know of a document's revisions.

Merging is a join: commutative, associative, idempotent. So replicas that heard the same things, in any
order and any number of times, hold the same tree.
"""

from __future__ import annotations

from feeds.tree.model import Key, Node, Tree


def merge(a: Tree, b: Tree) -> Tree:
    """The tree that knows what `a` or `b` knows; it is `a` itself where `b` tells nothing new."""
    merged: dict[Key, Node] | None = None
    for key, told in b.items():
        known = a.get(key)
        node = told if known is None else join(known, told)
        if node is not known:
            if merged is None:
                merged = dict(a)
            merged[key] = node
    return a if merged is None else merged


def join(known: Node, told: Node) -> Node:
    """What two tellings of one revision say together; it is `known` itself where `told` adds nothing.

    A known parent beats none, a body beats a missing one. A revision's name stands for its content and
    its parent, so that nothing else can differ between honest peers; where it does, every replica takes
    the greater parent, and live rather than deleted.
    """
    parent = known.parent if (told.parent or "") <= (known.parent or "") else told.parent
    missing = known.missing and told.missing
    deleted = not missing and (known.deleted or known.missing) and (told.deleted or told.missing)
    if parent == known.parent and missing == known.missing and deleted == known.deleted:
        return known
    return Node(known.generation, known.digest, parent, deleted, missing)
