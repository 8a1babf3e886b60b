"""Rows of changes as CouchDB tells them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from broker.couch import stubs
from broker.couch.feed_options import Asked
from broker.http.answers import encode_json
from feeds import Barrel, Row
from feeds.errors import SpileError
from feeds.storage.reading import Wanted
from listeners.stream.contents import with_contents

_CONTENTS_BYTES = 1 << 20  # of one document in a feed, as in those of Spile
_NULL = Raw(b"null")


class Leaf(msgspec.Struct, gc=False):
    """A revision in a row."""

    rev: str


class Change(msgspec.Struct, omit_defaults=True, gc=False):
    """One row. `seq` is text that only Spile reads."""

    seq: str
    id: str
    changes: tuple[Leaf, ...]
    deleted: bool = False
    doc: Raw | UnsetType = UNSET


def told_rows(barrel: Barrel, rows: Sequence[Row], asked: Asked, epoch: str) -> list[Change]:
    """Those of the rows that are asked for, as they are answered. Blocks where documents are told."""
    if asked.ids is not None or asked.selector is not None or asked.designs:
        rows = [row for row in rows if asked.tells(row)]
    told = [
        Change(
            f"{row.seq}-{epoch}",
            row.id,
            tuple(map(Leaf, row.changes)) if asked.all_leaves else (Leaf(row.rev),),
            row.deleted,
        )
        for row in rows
    ]
    if asked.docs:
        for change, doc in zip(told, _documents(barrel, rows, asked), strict=True):
            change.doc = doc
    return told


def _documents(barrel: Barrel, rows: Sequence[Row], asked: Asked) -> list[Raw]:
    if asked.attachments:
        rows = [with_contents(barrel, row, _CONTENTS_BYTES, None) for row in rows]
    docs = [bytes(row.doc) if isinstance(row.doc, Raw) else b"" for row in rows]
    docs = stubs.told(barrel, docs, inline=asked.attachments)
    if asked.conflicts:
        docs = _with_conflicts(barrel, rows, docs)
    return [Raw(doc) if doc else _NULL for doc in docs]


def _with_conflicts(barrel: Barrel, rows: Sequence[Row], docs: list[bytes]) -> list[bytes]:
    places = [place for place, row in enumerate(rows) if len(row.changes) > 1 and docs[place]]
    found = barrel.read([Wanted(rows[place].id, rows[place].rev, conflicts=True) for place in places])
    for place, each in zip(places, found, strict=True):
        conflicts: Any = None if isinstance(each, SpileError) else each.extra.get("_conflicts")
        if conflicts:
            docs[place] = docs[place][:-1] + b',"_conflicts":' + encode_json(conflicts) + b"}"
    return docs
