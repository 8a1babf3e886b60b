"""Documents as CouchDB's clients read them: one or several of their revisions, with what is asked for beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from broker.couch import stubs
from broker.couch.errors import bad_request
from broker.couch.query import Query
from feeds import Barrel, Document
from feeds.attachments.given import INLINE_BYTES_MAX
from feeds.errors import BadRequest, NotFound, SpileError
from feeds.revisions import Revision
from feeds.storage.listing import leaves_of
from feeds.storage.reading import Wanted

_STATUS: Final = {"compacted": "missing"}


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
        )

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


def read_many(barrel: Barrel, asked: Sequence[tuple[str, str | None]], beside: Beside) -> list[Document | SpileError]:
    """As `read`, of many; in order, with the error where one fails."""
    found = barrel.read([beside.wanted(id, rev) for id, rev in asked])
    if not (beside.revs_info or beside.local_seq):
        return found
    return [each if isinstance(each, SpileError) else _shaped(barrel, each, beside) for each in found]


def open_revisions(
    barrel: Barrel, id: str, revs: Sequence[str] | None, beside: Beside
) -> list[Document | tuple[str, SpileError]]:
    """Some revisions of a document, or all its leaves (None); what is not here stands as its name and why. Blocks."""
    if revs is None:
        leaves = leaves_of(barrel, [id]).get(id, [])
        revs = [str(leaf.revision) for leaf in leaves]
        if not revs:
            raise NotFound(f"{id!r} was never written here")
    found = read_many(barrel, [(id, rev) for rev in revs], beside)
    told: dict[str, Document | tuple[str, SpileError]] = {}
    for rev, each in zip(revs, found, strict=True):
        if isinstance(each, SpileError):
            told[rev] = (rev, each)
        else:
            told.setdefault(each.rev, each)  # two that were asked for may have the same newest leaf
    return list(told.values())


def as_json(barrel: Barrel, document: Document, beside: Beside) -> bytes:
    """A document as it is answered: contents inline where they are wanted, else as stubs. Blocks."""
    (doc,) = as_jsons(barrel, [document], beside)
    return doc


def as_jsons(barrel: Barrel, documents: Sequence[Document], beside: Beside) -> list[bytes]:
    """As `as_json`, of many."""
    docs = [document.json() for document in documents]
    if beside.attachments:
        docs = [barrel.inlined(doc, INLINE_BYTES_MAX) for doc in docs]
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
    return replace(document, extra=extra)
