"""Nested calls: a write that is passed on from peer to peer, and a read that looks further where it finds nothing.

A `Nest` stands between a store and its `Neighbours`.
"""

from listeners.nested.messages import Holder, Miss, ReadAsked, ReadTold, WriteAsked, WriteTold
from listeners.nested.neighbours import Neighbours
from listeners.nested.nest import Nest, WrittenOn
from listeners.nested.places import PeerPlace
from listeners.nested.reach import Reach, Search

__all__ = [
    "Holder",
    "Miss",
    "Neighbours",
    "Nest",
    "PeerPlace",
    "Reach",
    "ReadAsked",
    "ReadTold",
    "Search",
    "WriteAsked",
    "WriteTold",
    "WrittenOn",
]
