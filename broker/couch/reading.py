"""Documents as CouchDB's clients read them: one or several of their revisions, with what is asked for beside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from broker.couch import stubs
from broker.couch.errors import bad_request
from broker.couch.query import Query
from feeds import Barrel, Document
from feeds.attachments.given import INLINE_BYTES_MAX
from feeds.attachments.stubs import stubs_of
from feeds.errors import BadRequest, NotFound, SpileError
from feeds.revisions import Revision
from feeds.storage.listing import leaves_of, read_some
from feeds.storage.reading import Wanted

TOGETHER: Final = 100
"""Documents read at a time, fewer where they are large."""
TOGETHER_WITH_CONTENTS: Final = 4
"""The same with up to 16 MiB inline in each."""
_STATUS: Final = {"compacted": "missing"}

Told = Document | tuple[str, SpileError]
"""A revision, or the name of one that is not here and why."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What is wanted of a revision and beside it."""

    revs: bool = False
    revs_info: bool = False
    conflicts: bool = False
    deleted_conflicts: bool = False
    local_seq: bool = False
    latest: bool = False
    attachments: bool = False
    atts_since: tuple[str, ...] | None = None
    """Of the attachments only those that came after the newest of these revisions that it descends from."""
    stubs_only: bool = False
    """Whether it is said that contents are not wanted."""

    @classmethod
    def of(cls, query: Query) -> Beside:
        """What a request asks for."""
        meta = query.flag("meta")
        since = query.json("atts_since")
        if since is not None and (not isinstance(since, list) or not all(isinstance(rev, str) for rev in since)):
            raise bad_request("atts_since must be an array of revisions")
        return cls(
            revs=query.flag("revs"),
            revs_info=meta or query.flag("revs_info"),
            conflicts=meta or query.flag("conflicts"),
            deleted_conflicts=meta or query.flag("deleted_conflicts"),
            local_seq=query.flag("local_seq"),
            latest=query.flag("latest"),
            attachments=query.flag("attachments") or since is not None,
            atts_since=None if since is None else tuple(since),
            stubs_only=query.has("attachments") and not query.flag("attachments"),
        )

    @property
    def is_of_the_tree(self) -> bool:
        """Whether what is told beside a revision may change while that stays: there is no entity tag for it."""
        return self.revs_info or self.conflicts or self.deleted_conflicts or self.local_seq

    def since(self, revs: Sequence[str] | None) -> Beside:
        """The same for a document that the reader has at these revisions; the very same where it has none."""
        if not revs or self.stubs_only:
            return self
        return replace(self, attachments=True, atts_since=tuple(revs))

    def wanted(self, id: str, rev: str | None) -> Wanted:
        """The same as a document to read."""
        return Wanted(
            id,
            rev,
            self.revs,
            self.conflicts,
            self.revs_info,
            self.latest and rev is not None,
            self.deleted_conflicts,
        )


def checked_rev(rev: str) -> str:
    """A revision as it is called here; what is none is refused in CouchDB's words."""
    try:
        return str(Revision.parse(rev))
    except BadRequest as error:
        raise bad_request("Invalid rev format") from error


def read(barrel: Barrel, id: str, rev: str | None, beside: Beside) -> Document:
    """A document at its winner, or at `rev`; Missing, Deleted or NotFound. Blocks."""
    (found,) = barrel.read([beside.wanted(id, rev)])
    if isinstance(found, SpileError):
        raise found
    return _shaped(barrel, found, beside)


def read_many(
    barrel: Barrel, asked: Sequence[tuple[str, str | None]], beside: Beside
) -> Iterator[list[Document | SpileError]]:
    """As `read`, of many, as many at a time as fit into memory; in order, with the error where one fails."""
    together = TOGETHER_WITH_CONTENTS if beside.attachments else TOGETHER
    begin = 0
    while begin < len(asked):
        found = read_some(barrel, [beside.wanted(id, rev) for id, rev in asked[begin : begin + together]])
        begin += len(found)
        if beside.revs_info or beside.local_seq:
            found = [each if isinstance(each, SpileError) else _shaped(barrel, each, beside) for each in found]
        yield found


def open_revisions(barrel: Barrel, id: str, revs: Sequence[str] | None, beside: Beside) -> Iterator[list[Told]]:
    """Some revisions of a document, or all its leaves (None), as many at a time as fit into memory; what is not here
    stands as its name and why. Blocks."""
    if revs is None:
        leaves = leaves_of(barrel, [id]).get(id, [])
        revs = [str(leaf.revision) for leaf in leaves]
        if not revs:
            raise NotFound(f"{id!r} was never written here")
    names = set()
    left = iter(revs)
    for found in read_many(barrel, [(id, rev) for rev in revs], beside):
        told: list[Told] = []
        for each, rev in zip(found, left, strict=False):
            name = rev if isinstance(each, SpileError) else each.rev
            if name not in names:  # two that were asked for may have the same newest leaf
                told.append((rev, each) if isinstance(each, SpileError) else each)
            names.add(name)
        yield told


def held_generation(barrel: Barrel, document: Document, since: Sequence[str] | None) -> int:
    """The generation of the newest of these revisions that a document descends from; 0 for none. Blocks."""
    if not since or not stubs_of(document.body):
        return 0
    (found,) = barrel.read([Wanted(document.id, document.rev, history=True)])
    if isinstance(found, SpileError):
        return 0
    known = {each["rev"] for each in found.extra["_history"]} & set(since)
    return max((Revision.parse(rev).generation for rev in known), default=0)


def as_json(barrel: Barrel, document: Document, beside: Beside) -> bytes:
    """A document as it is answered: contents inline where they are wanted, else as stubs. Blocks."""
    (doc,) = as_jsons(barrel, [document], beside)
    return doc


def as_jsons(barrel: Barrel, documents: Sequence[Document], beside: Beside) -> list[bytes]:
    """As `as_json`, of many."""
    docs = [document.json() for document in documents]
    if beside.attachments:
        held = [held_generation(barrel, document, beside.atts_since) for document in documents]
        docs = [barrel.inlined(doc, INLINE_BYTES_MAX, since) for doc, since in zip(docs, held, strict=True)]
    return stubs.told(barrel, docs, inline=beside.attachments)


def _shaped(barrel: Barrel, document: Document, beside: Beside) -> Document:
    """The document with what is beside it under CouchDB's names."""
    extra: dict[str, Any] = {}
    for name, value in document.extra.items():
        if name == "_history":
            extra["_revs_info"] = [
                {"rev": each["rev"], "status": _STATUS.get(each["status"], each["status"])} for each in value
            ]
        elif name != "_branches":
            extra[name] = value
    if beside.local_seq:
        extra["_local_seq"] = barrel.position(document.seq)
    return msgspec.structs.replace(document, extra=extra)
