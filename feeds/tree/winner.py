"""Which leaf of a revision tree readers see, and the order of the others.

Pure: takes leaves, returns leaves. Storage and replication build on it; it knows neither.
"""

from __future__ import annotations

from collections.abc import Sequence

from feeds.tree.model import Node


def winner(leaves: Sequence[Node]) -> Node:
    """The leaf that every replica picks, whatever order it learned them in.

    Live beats deleted, then the higher generation, then the greater digest in byte order (the rule of
    CouchDB, so that peers agree). There must be a leaf.
    """
    return max(leaves, key=_rank)


def conflicts(leaves: Sequence[Node]) -> tuple[Node, ...]:
    """The live leaves that are not the winner, greatest revision first."""
    return tuple(leaf for leaf in ordered_leaves(leaves)[1:] if not leaf.deleted)


def ordered_leaves(leaves: Sequence[Node]) -> tuple[Node, ...]:
    """All leaves in falling order of what decides the winner, so that the winner is first.

    This is the order of `changes` in a row of the log, in CouchDB too: tombstones come last.
    """
    return tuple(leaves) if len(leaves) < 2 else tuple(sorted(leaves, key=_rank, reverse=True))


def _rank(leaf: Node) -> tuple[bool, int, str]:
    return (not leaf.deleted, leaf.generation, leaf.digest)
