"""A change as an application is told it, and the boundaries of a snapshot."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import msgspec

from feeds import Moves
from listeners.stream.actions import Item

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Change(msgspec.Struct, frozen=True, omit_defaults=True, dict=True, kw_only=True):
    """One document's newest state, as the feed tells it.

    `rev` is the winner and `changes` are all leaves, winner first. `paths` are those that matched the patterns;
    `entered` says that the document did not match before, `removed` that it does not match any more. `doc` is
    the document, None when it was not asked for, or was left out for its size (`doc_omitted`). `attachments`
    says which came, changed and went with the newest change, and is left out where none did. Within a
    `snapshot`, what is not told before its end does not exist any more.
    """

    seq: int
    position: str
    id: str
    rev: str
    changes: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    entered: bool = False
    removed: bool = False
    deleted: bool = False
    expired: bool = False
    snapshot: bool = False
    doc_omitted: bool = False
    attachments: Moves | msgspec.UnsetType = msgspec.UNSET
    raw: msgspec.Raw | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="doc")

    @cached_property
    def doc(self) -> dict[str, Any] | None:
        """The document with its `_id` and `_rev`, read when it is first asked for."""
        return None if isinstance(self.raw, msgspec.UnsetType) else _decode(self.raw)

    def json(self) -> bytes:
        """The change as one JSON object: the row of the feed with its `position`."""
        return _encode(self)


class Snapshot(msgspec.Struct, frozen=True):
    """A boundary of a snapshot: the feed begins to tell everything there is, or has done so.

    At the end, an application drops what it holds and was not told since the beginning.
    """

    position: str


def change_of(item: Item) -> Change:
    """The change that a row is to the application."""
    row = item.row
    assert row is not None
    return Change(
        seq=row.seq,
        position=f"{row.seq}-{item.epoch}",
        id=row.id,
        rev=row.rev,
        changes=tuple(row.changes),
        paths=() if isinstance(row.paths, msgspec.UnsetType) else tuple(row.paths),
        entered=row.entered,
        removed=row.removed,
        deleted=row.deleted,
        expired=row.expired,
        snapshot=item.snapshot,
        doc_omitted=row.doc_omitted,
        attachments=row.attachments,
        # A copy: the row's own is a window on the whole array.
        raw=row.doc if isinstance(row.doc, msgspec.UnsetType) else row.doc.copy(),
    )


def snapshot_of(item: Item) -> Snapshot:
    """The boundary that an item without a row is."""
    return Snapshot(f"{item.seq}-{item.epoch}")
