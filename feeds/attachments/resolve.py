"""How what a caller gave and what the parent has become the attachments of a new revision.

Pure. What a barrel holds already is asked through `Holdings`.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import UNSET

from feeds.attachments.given import ATTACHMENTS_MAX, Attachments, Given
from feeds.attachments.stubs import DEFAULT_TYPE, Content, Stub, Stubs
from feeds.errors import BadRequest, MissingStub, TooLarge
from feeds.faults import shown


class Holdings(Protocol):
    """What is stored already."""

    def md5_of(self, sha256: str) -> str | None:
        """The md5 of a content."""

    def held(self, sha256: str | None, md5: str | None) -> Content | None:
        """The content of this digest, if some document of the barrel has it."""


def resolve(
    given: Attachments,
    parent: Stubs,
    generation: int,
    holdings: Holdings,
    *,
    replicated: bool = False,
    patch: bool = False,
) -> Stubs:
    """The attachments of a revision of this `generation`, whose parent has those of `parent`.

    A `patch` leaves those it does not name. A `replicated` revision keeps types and `revpos` as they are given, and
    its stubs may name whatever the barrel holds. MissingStub where a stub names what is not here, BadRequest where
    it does not agree with what it names.
    """
    stubs = dict(parent) if patch else {}
    for name, each in given.items():
        if each is None:
            stubs.pop(name, None)
            continue
        stub = _stub(name, each, parent, generation, holdings, replicated)
        before = parent.get(name)
        # The same again is no change, so that it came when it came.
        stubs[name] = before if before is not None and not replicated and stub.meaning == before.meaning else stub
    if len(stubs) > ATTACHMENTS_MAX:
        raise TooLarge(
            f"The document would have {len(stubs)} attachments; {ATTACHMENTS_MAX} are allowed",
            hint="Spread them over several documents.",
        )
    return stubs


def _stub(name: str, given: Given, parent: Stubs, generation: int, holdings: Holdings, replicated: bool) -> Stub:
    revpos = generation
    if replicated and given.revpos is not None and given.revpos <= generation:
        revpos = given.revpos
    if given.link is not None:
        kind = UNSET if given.content_type is None else given.content_type
        return Stub(content_type=kind, link=given.link, revpos=revpos)
    if given.content is not None:
        return _of(given.content.digest, given.content.length, given.content_type, revpos)
    if given.is_waiting:
        raise ValueError(f"the content of {name!r} was not stored before it was written")
    kept = _kept(name, given, parent, holdings, replicated)
    if kept is not None and kept.link is not UNSET:
        return Stub(content_type=kept.content_type, link=kept.link, revpos=revpos)
    if kept is not None:
        assert kept.digest is not UNSET and kept.length is not UNSET and kept.content_type is not UNSET
        _check_length(name, given, kept.length)
        return _of(kept.digest, kept.length, given.content_type or kept.content_type, revpos)
    content = holdings.held(given.sha256, given.md5) if replicated else None
    own = _of_its_name(name, given, parent, replicated)
    if content is None and replicated and given.md5 is not None and own is not None and own.digest is not UNSET:
        # CouchDB tells the md5 of what it has compressed: there the name alone says what is meant.
        assert own.length is not UNSET and own.content_type is not UNSET
        return _of(own.digest, own.length, given.content_type or own.content_type, revpos)
    if content is None:
        raise _missing(name, given, parent.get(name))
    _check_length(name, given, content.length)
    return _of(content.digest, content.length, given.content_type, revpos)


def _of(digest: str, length: int, content_type: str | None, revpos: int) -> Stub:
    return Stub(content_type=content_type or DEFAULT_TYPE, digest=digest, length=length, revpos=revpos, stub=True)


def _kept(name: str, given: Given, parent: Stubs, holdings: Holdings, replicated: bool) -> Stub | None:
    """What of the parent's a stub means: the one of its name, or (renamed) another with its digest."""
    if given.sha256 is None and given.md5 is None:
        return _of_its_name(name, given, parent, replicated)
    for each in (parent.get(name), *parent.values()):
        sha256 = each.sha256 if each is not None else None
        if sha256 is None or (given.sha256 or sha256) != sha256:
            continue
        if given.md5 is None or holdings.md5_of(sha256) == given.md5:
            return each
    return None


def _of_its_name(name: str, given: Given, parent: Stubs, replicated: bool) -> Stub | None:
    """What the parent has under the name. A replicated stub that came with another revision is of something else,
    which is not here: its own parent may have been compacted, and this be an ancestor's."""
    own = parent.get(name)
    if own is not None and replicated and given.revpos not in (None, own.revpos):
        return None
    return own


def _check_length(name: str, given: Given, length: int) -> None:
    if given.length is not None and given.length != length:
        raise BadRequest(
            f"The stub of {shown(name)} tells a length of {given.length}, and its content has {length} bytes",
            hint="Send the stub as it was read.",
        )


def _missing(name: str, given: Given, own: Stub | None) -> MissingStub:
    digest = f"sha256-{given.sha256}" if given.sha256 else f"md5-{given.md5}" if given.md5 else None
    if own is not None and own.link is not UNSET:
        why = "what the parent has under that name is a link"
    elif own is not None:
        why = f"the parent has {own.digest} under that name, not {digest}"
    elif digest is not None:
        why = f"{digest} is not here"
    else:
        why = "the parent has no attachment of that name"
    return MissingStub(f"{shown(name)} is sent as a stub, and {why}", name=name, digest=digest)
