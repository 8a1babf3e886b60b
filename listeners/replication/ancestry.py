"""What a revision's history says about its attachments: those that an ancestor has already need not go over again.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from listeners.replication.peer import Fetched


class _History(msgspec.Struct):
    start: int
    ids: list[str]


class _Head(msgspec.Struct):
    revisions: _History | None = msgspec.field(default=None, name="_revisions")
    attachments: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict, name="_attachments")


_head = msgspec.json.Decoder(_Head).decode


def held_generation(doc: bytes, known: Iterable[str]) -> int:
    """The generation of the newest of these revisions that a document descends from; 0 for none."""
    return _newest(_head(doc).revisions, known)


def beside_held(doc: Fetched, known: Iterable[str]) -> Fetched:
    """The revision without the contents that whoever has these revisions has already: their stubs say enough."""
    if not doc.blobs or not known:
        return doc
    head = _head(doc.json)
    held = _newest(head.revisions, known)
    blobs = tuple(blob for blob in doc.blobs if (head.attachments[blob.name].get("revpos") or held + 1) > held)
    return doc if len(blobs) == len(doc.blobs) else msgspec.structs.replace(doc, blobs=blobs)


def _newest(history: _History | None, known: Iterable[str]) -> int:
    if history is None:
        return 0
    # What is not behind the revision itself is none of its ancestors.
    ancestors = {
        f"{history.start - place}-{id}": history.start - place for place, id in enumerate(history.ids) if place
    }
    return max((ancestors[rev] for rev in known if rev in ancestors), default=0)
