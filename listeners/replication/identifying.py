"""What a replication is called: the same two ends and the same filter have one name, and with it their checkpoints.

Pure. Epochs are no part of it: a barrel that was created again is told by the positions in its checkpoint.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec

from listeners.replication.checkpoints import VERSION
from listeners.replication.filters import Filter
from listeners.replication.peer import Identity

_encode = msgspec.json.Encoder(order="deterministic").encode


def replication_id(source: Identity, target: Identity, filter: Filter) -> str:
    """The id of the `_local` documents that hold its checkpoints."""
    told = [VERSION, source.store, source.barrel, target.store, target.barrel, filter.canonical()]
    return "replication-" + sha256(_encode(told)).hexdigest()[:32]
