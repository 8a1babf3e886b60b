"""Revision trees: which versions a document had, which of them are heads, and which one readers see.

Pure: values in, values out. Bodies, seqs and storage are others' business.
"""

from feeds.tree.graft import Grafted, graft
from feeds.tree.history import history, lineage
from feeds.tree.leaves import leaves
from feeds.tree.merge import merge
from feeds.tree.missing import missing, possible_ancestors
from feeds.tree.model import EMPTY, Key, Node, Tree, tree_of
from feeds.tree.stem import stem
from feeds.tree.winner import conflicts, ordered_leaves, winner

__all__ = [
    "EMPTY",
    "Grafted",
    "Key",
    "Node",
    "Tree",
    "conflicts",
    "graft",
    "history",
    "leaves",
    "lineage",
    "merge",
    "missing",
    "ordered_leaves",
    "possible_ancestors",
    "stem",
    "tree_of",
    "winner",
]
