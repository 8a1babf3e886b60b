"""Rows of changes as CouchDB tells them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from broker.couch import stubs
from broker.couch.feed_options import Asked
from broker.http.answers import encode_json
from feeds import Barrel, Row
from feeds.errors import SpileError
from feeds.storage.reading import Wanted
from listeners.stream.contents import with_contents

_CONTENTS_BYTES = 1 << 20  # of one document in a feed, as in those of Spile
_LEAF = b'},{"rev":'


class Change(msgspec.Struct, gc=False):
    """One row: its place, which only Spile reads, and all of it as JSON."""

    seq: bytes
    json: bytes


def told_rows(barrel: Barrel, rows: Sequence[Row], asked: Asked, epoch: str, most: int | None = None) -> list[Change]:
    """Those of the rows that are asked for, `most` of them, as they are answered. Blocks where documents are told.

    They are put together as bytes: objects for the leaves of each would cost as much as all the rest.
    """
    if asked.chooses:
        rows = [row for row in rows if asked.tells(row)][:most]
    life = b"-" + epoch.encode()
    docs = _documents(barrel, rows, asked) if asked.docs else None
    told = []
    for place, row in enumerate(rows):
        seq = b"%d%b" % (row.seq, life)
        changes = _LEAF.join(map(encode_json, row.changes)) if asked.all_leaves else encode_json(row.rev)
        deleted = b',"deleted":true' if row.deleted else b""
        doc = b"" if docs is None else b',"doc":' + docs[place]
        text = b'{"seq":"%b","id":%b,"changes":[{"rev":%b}]%b%b}' % (seq, encode_json(row.id), changes, deleted, doc)
        told.append(Change(seq, text))
    return told


def _documents(barrel: Barrel, rows: Sequence[Row], asked: Asked) -> list[bytes]:
    if asked.attachments:
        rows = [with_contents(barrel, row, _CONTENTS_BYTES, None) for row in rows]
    docs = [bytes(row.doc) if isinstance(row.doc, Raw) else b"" for row in rows]
    docs = stubs.told(barrel, docs, inline=asked.attachments)
    if asked.conflicts:
        docs = _with_conflicts(barrel, rows, docs)
    return [doc or b"null" for doc in docs]


def _with_conflicts(barrel: Barrel, rows: Sequence[Row], docs: list[bytes]) -> list[bytes]:
    places = [place for place, row in enumerate(rows) if len(row.changes) > 1 and docs[place]]
    found = barrel.read([Wanted(rows[place].id, rows[place].rev, conflicts=True) for place in places])
    for place, each in zip(places, found, strict=True):
        conflicts: Any = None if isinstance(each, SpileError) else each.extra.get("_conflicts")
        if conflicts:
            docs[place] = docs[place][:-1] + b',"_conflicts":' + encode_json(conflicts) + b"}"
    return docs
