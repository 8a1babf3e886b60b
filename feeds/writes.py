"""What a caller intends to write, checked before it waits for the writer, and what comes back.

Pure. A `Write` that exists is well-formed; whether it is accepted depends on the revisions that the writer finds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from typing import Any

import msgspec

from feeds.attachments.given import Attachments, Given, check_name, check_type, read_attachments
from feeds.attachments.stubs import Content
from feeds.body import (
    DOCUMENT_BYTES_MAX,
    Draft,
    as_bytes,
    canonical,
    check_id,
    check_values,
    draft,
    is_too_large,
    kind_of,
    read_json,
)
from feeds.errors import BadRequest, SpileError, TooLarge
from feeds.faults import shown
from feeds.naming import new_id
from feeds.revisions import Revision

TOKEN_BYTES_MAX = 128

_LONE = re.compile("[\ud800-\udfff]")


class Verb(Enum):
    """What a write does to its document."""

    PUT = "put"
    SET = "set"  # extends the winner, whatever it is
    MERGE = "merge"
    ATTACH = "attach"  # one attachment, onto a document that need not be there
    DELETE = "delete"
    REPLICATE = "replicate"
    EXPIRE = "expire"
    PURGE = "purge"
    CHOOSE = "choose"  # one live leaf stands, the others are deleted
    SUPERSEDE = "supersede"  # a document stands in place of all live leaves
    SETTLE = "settle"  # the barrel's merge rule is asked


class Written(msgspec.Struct, frozen=True):
    """An accepted write. `seq` is its place in the log (of the newest change where nothing was stored)."""

    id: str
    rev: str
    seq: int
    created: bool = False
    """The document did not live before."""
    repeated: bool = False
    """The very same write was accepted before."""
    unchanged: bool = False
    """A merge patch that changes nothing; nothing was stored."""


Outcome = Written | SpileError


@dataclass(frozen=True, slots=True)
class Token:
    """What a client names a request by, so that repeating it does no harm."""

    key: str
    scope: str
    digest: str

    @classmethod
    def of(cls, key: str, who: str, verb: str, barrel: str, document_id: str, body: bytes) -> Token:
        """The token `key` of `who` for this very request."""
        if not isinstance(key, str) or not 1 <= len(key.encode(errors="replace")) <= TOKEN_BYTES_MAX:
            raise BadRequest(f"A token is text of 1 to {TOKEN_BYTES_MAX} bytes")
        if _LONE.search(key):
            raise BadRequest(f"The token {shown(key)} holds a lone surrogate", hint="A UUID makes a good token.")
        return cls(key, "\n".join((who, verb, barrel, document_id)), blake2b(body, digest_size=16).hexdigest())


class Write(msgspec.Struct, frozen=True):
    """One intended write to one document."""

    verb: Verb
    id: str
    rev: Revision | None = None
    deleted: bool = False
    data: dict[str, Any] | None = None
    body: bytes = b"{}"
    patch: Any = None
    history: tuple[Revision, ...] = ()
    leaves: tuple[Revision, ...] = ()
    """Those that a purge removes, all for none; those that whoever resolves a conflict saw, unless none are told."""
    expired: bool = False
    attachments: Attachments | None = None
    """All of them; those of a merge and of an attach are added to what is there."""
    instead: str | None = None
    """The sha256 or the link that an attach onto the winner means to replace, "" for none."""

    @property
    def is_waiting(self) -> bool:
        """Whether contents have to be stored before it can be submitted. See `Barrel.absorb`."""
        return self.attachments is not None and any(
            each is not None and each.is_waiting for each in self.attachments.values()
        )

    @classmethod
    def put(
        cls,
        doc: bytes | str | Mapping[str, Any],
        *,
        id: str | None = None,
        rev: str | None = None,
        update: bool = False,
        bytes_max: int = DOCUMENT_BYTES_MAX,
    ) -> Write:
        """Write a whole document; with `update` and no revision it extends the winner, whatever that is."""
        return cls.of_draft(draft(doc, bytes_max=bytes_max), id=id, rev=rev, update=update)

    @classmethod
    def of_draft(cls, given: Draft, *, id: str | None = None, rev: str | None = None, update: bool = False) -> Write:
        """As `put`, of a document that was checked already."""
        if given.revisions is not None:
            raise BadRequest(
                "_revisions goes with replicated writes only",
                hint="Leave it out, or write with new_edits=false.",
            )
        base = same("_rev", rev, given.rev)
        document_id = same("_id", check_id(id) if id is not None else None, given.id) or new_id()
        verb = Verb.SET if update and base is None else Verb.PUT
        revision = Revision.parse(base) if base is not None else None
        return cls(verb, document_id, revision, given.deleted, given.data, given.body, attachments=given.attachments)

    @classmethod
    def merge(
        cls,
        id: str,
        patch: bytes | str | Mapping[str, Any],
        *,
        rev: str | None = None,
        bytes_max: int = DOCUMENT_BYTES_MAX,
    ) -> Write:
        """Apply a JSON merge patch (RFC 7396) onto `rev`, or else onto the winner.

        Attachments stay, but for those that its `_attachments` names: null takes one away.
        """
        value: Any = patch
        if isinstance(value, (bytes, bytearray, memoryview, str)):
            value = as_bytes(value, "The merge patch")
            if is_too_large(value, bytes_max):
                raise TooLarge(f"The merge patch has {len(value)} bytes; {bytes_max} are allowed")
            value = read_json(value, what="The merge patch")
        value = check_patch(dict(value) if isinstance(value, Mapping) else value)
        check_values(value)
        for name in ("_id", "_rev"):
            if name in value and type(value[name]) is not str:
                raise BadRequest(f"{name} must be text, not {kind_of(value[name])}", hint="Send it as it was given.")
        same("_id", id, value.pop("_id", None))
        base = same("_rev", rev, value.pop("_rev", None))
        attachments = None
        if "_attachments" in value:
            attachments = read_attachments(value.pop("_attachments"), patch=True) or None
        for key in value:
            if key[:1] == "_":
                raise BadRequest(
                    f"A merge patch cannot set {shown(key)}", hint="Patch your own keys; delete with a delete."
                )
        body = canonical(value)
        if len(body) > bytes_max:
            raise TooLarge(f"The merge patch has {len(body)} bytes; {bytes_max} are allowed")
        revision = Revision.parse(base) if base is not None else None
        return cls(Verb.MERGE, check_id(id), revision, body=body, patch=value, attachments=attachments)

    @classmethod
    def attach(
        cls,
        id: str,
        name: str,
        content: Content,
        *,
        content_type: str | None = None,
        rev: str | None = None,
        instead: str | None = None,
    ) -> Write:
        """Put one attachment onto `rev`, or onto the winner, or begin the document with it.

        `instead` is what the caller saw under that name when it began: the sha256 or the link, "" for nothing.
        """
        given = Given(None if content_type is None else check_type(content_type), content=content)
        revision = Revision.parse(rev) if rev is not None else None
        attachments = {check_name(name): given}
        return cls(Verb.ATTACH, check_id(id), revision, patch={}, attachments=attachments, instead=instead)

    @classmethod
    def detach(cls, id: str, name: str, *, rev: str | None = None) -> Write:
        """Take one attachment from `rev`, or from the winner; refused where it has none of that name."""
        revision = Revision.parse(rev) if rev is not None else None
        return cls(Verb.ATTACH, check_id(id), revision, patch={}, attachments={check_name(name): None})

    @classmethod
    def delete(cls, id: str, *, rev: str | None = None) -> Write:
        """Delete a document; `rev` is the leaf to put the deletion on."""
        return cls(Verb.DELETE, check_id(id), Revision.parse(rev) if rev is not None else None, deleted=True)

    @classmethod
    def replicate(
        cls,
        doc: bytes | str | Mapping[str, Any],
        *,
        bytes_max: int = DOCUMENT_BYTES_MAX,
        expired: bool = False,
    ) -> Write:
        """Write a revision as another replica made it, with its history if `_revisions` tells one."""
        given = draft(doc, bytes_max=bytes_max)
        if given.id is None or given.rev is None:
            raise BadRequest("A replicated document has an _id and a _rev", hint="Send both, as they were read.")
        rev = Revision.parse(given.rev)
        history: tuple[Revision, ...] = (rev,)
        if given.revisions is not None:
            start, digests = given.revisions
            if start != rev.generation or digests[0] != rev.digest:
                raise BadRequest("_revisions does not begin with _rev", hint="Send the history as it was read.")
            history = tuple(Revision.parse(f"{start - step}-{digest}") for step, digest in enumerate(digests))
        return cls(
            Verb.REPLICATE,
            given.id,
            rev,
            given.deleted,
            given.data,
            given.body,
            history=history,
            expired=expired,
            attachments=given.attachments,
        )

    @classmethod
    def expire(cls, id: str) -> Write:
        """Delete the document if its winner has expired; rechecked when it is written."""
        return cls(Verb.EXPIRE, id, deleted=True, expired=True)

    @classmethod
    def purge(cls, id: str, revs: tuple[str, ...] = ()) -> Write:
        """Remove the document here, or only the branches that end in `revs`."""
        return cls(Verb.PURGE, check_id(id), leaves=tuple(map(Revision.parse, revs)))

    @classmethod
    def choose(cls, id: str, rev: str, *, leaves: Sequence[str] = ()) -> Write:
        """End the conflict of a document: the live leaf `rev` stands, the others are deleted."""
        return cls(Verb.CHOOSE, check_id(id), Revision.parse(rev), leaves=tuple(map(Revision.parse, leaves)))

    @classmethod
    def supersede(
        cls,
        id: str,
        doc: bytes | str | Mapping[str, Any],
        *,
        leaves: Sequence[str] = (),
        bytes_max: int = DOCUMENT_BYTES_MAX,
    ) -> Write:
        """End the conflict of a document: `doc` stands in place of all live leaves, written upon its `_rev` or the
        winner. Its stubs may name attachments of any of them."""
        put = cls.put(doc, id=id, bytes_max=bytes_max)
        return msgspec.structs.replace(put, verb=Verb.SUPERSEDE, leaves=tuple(map(Revision.parse, leaves)))

    @classmethod
    def settle(cls, id: str) -> Write:
        """Ask the barrel's merge rule about a document; it stays as it is where it is not in conflict."""
        return cls(Verb.SETTLE, id)


def check_patch(value: Any) -> dict[str, Any]:
    """The patch, if it is one of a document."""
    if type(value) is not dict:
        raise BadRequest(
            f"A merge patch of a document is a JSON object, not {kind_of(value)}",
            hint='Send {"key": new value or null}.',
        )
    return value


def same(what: str, given: str | None, inside: Any) -> str | None:
    """The value given beside a document or inside it; BadRequest when both are there and differ."""
    if inside is not None and type(inside) is not str:
        raise BadRequest(f"{what} must be text")
    if given is not None and inside is not None and given != inside:
        raise BadRequest(
            f"{what} is {shown(given)} in the request and {shown(inside)} in the document",
            hint="Send it once, or the same twice.",
        )
    return given if given is not None else inside
