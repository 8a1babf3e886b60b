"""Whether a revision that a source sent is the one that was asked for, before it is written anywhere.

Pure. Looked at are its names, its history and the stubs of its attachments; what is the user's is passed on as bytes.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from feeds.attachments.given import read_attachments
from feeds.errors import BadRequest, SpileError
from feeds.revisions import Revision
from feeds.rows import Row
from listeners.replication.errors import Unfit
from listeners.replication.peer import Blob, Fetched


class _Revisions(msgspec.Struct):
    start: int
    ids: list[str]


class _Head(msgspec.Struct):
    id: str = msgspec.field(name="_id")
    rev: str = msgspec.field(name="_rev")
    revisions: _Revisions | UnsetType = msgspec.field(default=UNSET, name="_revisions")
    attachments: dict[str, Any] | UnsetType = msgspec.field(default=UNSET, name="_attachments")


_read = msgspec.json.Decoder(_Head).decode


def verified(id: str, rev: str, doc: bytes) -> Fetched:
    """The document, if it is this revision of this document with a history that fits; Unfit says what is wrong."""
    try:
        head = _read(doc)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unfit(f"What came for {rev} of {id!r} cannot be read: {error}") from None
    if head.id != id or head.rev != rev:
        raise Unfit(f"Asked for {rev} of {id!r}, the source gave {head.rev!r:.80} of {head.id!r:.80}")
    revision = Revision.parse(rev)
    told = head.revisions
    if told is UNSET:
        if revision.generation != 1:
            raise Unfit(f"{rev} of {id!r} came without its history")
    elif told.start != revision.generation or not told.ids or told.ids[0] != revision.digest:
        raise Unfit(f"The history of {id!r} does not begin with {rev}")
    elif len(told.ids) > told.start:
        raise Unfit(f"The history of {rev} of {id!r} is longer than there are generations")
    if head.attachments is UNSET:
        return Fetched(id, rev, doc)
    return Fetched(id, rev, doc, _blobs(id, rev, head.attachments))


def verified_or_not(id: str, rev: str, doc: bytes) -> Fetched | SpileError:
    """As `verified`, with what is wrong in its place."""
    try:
        return verified(id, rev, doc)
    except Unfit as error:
        return error


def of_row(row: Row) -> Fetched | None:
    """The winner as its row brought it along, where it needs no history and is all there."""
    if not isinstance(row.doc, msgspec.Raw) or not row.rev.startswith("1-"):
        return None
    return verified(row.id, row.rev, bytes(row.doc))


def _blobs(id: str, rev: str, told: dict[str, Any]) -> tuple[Blob, ...]:
    found = []
    try:
        attachments = read_attachments(told)
    except SpileError as error:
        raise Unfit(f"The attachments of {rev} of {id!r} are none: {error.reason}") from None
    for name, given in attachments.items():
        if given is None or given.link is not None:
            continue
        if given.upload is not None or given.follows:
            raise Unfit(f"The attachment {name!r:.80} of {rev} of {id!r} is no stub")
        if given.data is None and told[name].get("digest") is not None and given.length is not None:
            found.append(Blob(id, rev, name, told[name]["digest"], given.length))
    return tuple(found)


def check_revisions(id: str, revs: list[str]) -> None:
    """Refuse a row that names no document, or whose leaves are no revisions."""
    if not id or (id[0] == "_" and not id.startswith("_design/")):
        # Targets that know `_local` documents among others would write over checkpoints.
        raise Unfit(f"The source tells of {id!r:.80}, and no document of a log is called so")
    for rev in revs:
        try:
            Revision.parse(rev)
        except BadRequest as error:
            raise Unfit(f"The source tells a leaf of {id!r:.80} that is no revision: {error.reason}") from None
