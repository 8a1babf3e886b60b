"""Single attachments: putting them onto a document, reading them, taking them away.

Bodies pass through in pieces, both ways. An attachment belongs to a document, so that every change of one is a
revision of that; here conditions of HTTP are turned into revisions, or into what is to be replaced.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from mimetypes import MimeTypes
from typing import Final

import msgspec

from broker.http.answers import Answer, AnyAnswer, Header, encode_json, etag, revisions_in
from broker.http.call import Call
from broker.http.contents import Found, content_answer
from broker.http.digests import announced
from broker.http.documents import document_path, submit_one, written_json
from broker.http.endpoint import route
from broker.http.intake import body_through
from feeds import Barrel, Write, Written
from feeds.attachments.documents import Attachment
from feeds.attachments.given import Given, check_name, check_type
from feeds.attachments.stubs import DEFAULT_TYPE, SHA256, Content, stubs_of
from feeds.body import check_id
from feeds.errors import BadRequest, Conflict, NotFound, PreconditionFailed
from feeds.writes import Verb

_types: Final = MimeTypes()  # those that Python knows: the same on every machine


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a request puts or removes something, onto which revision, and what stands there."""

    barrel: Barrel
    id: str
    name: str
    rev: str | None
    before: str
    """The sha256 or the link that the winner has under that name; "" for nothing."""
    conditional: bool

    @property
    def instead(self) -> str | None:
        """What is meant to be replaced, where no revision says so."""
        return self.before if self.rev is None else None


async def put_attachment(call: Call) -> Answer:
    """Put the body under the name: onto `rev`, or onto the winner, or as the beginning of the document.

    `If-Match` names a revision of the document, or the content that is replaced by its tag. `upload` names an upload
    that was finished, in place of a body.
    """
    place = await _place(call)
    kind = call.header(b"content-type")
    kind = check_type(kind) if kind else _types.guess_type(place.name, strict=False)[0] or DEFAULT_TYPE
    content = await _content(call, place)
    write = Write.attach(place.id, place.name, content, content_type=kind, rev=place.rev, instead=place.instead)
    body = "\n".join((place.name, kind, content.sha256)).encode()
    written = await _submit(call, place, write, "attach", body)
    told = {**written_json(written), "digest": content.digest, "length": content.length}
    headers: list[Header] = [(b"etag", etag(content.digest))]
    return Answer(200 if place.before else 201, encode_json(told), headers)


async def get_attachment(call: Call) -> AnyAnswer:
    """The attachment of the winner, or of the revision asked for."""
    barrel_name, id, name = call.param("barrel"), call.param("id"), call.param("name")
    call.allow("read", barrel_name, document_path(id))
    barrel = call.services.store.barrel(barrel_name)
    rev = call.options().text("rev")
    found = await call.in_step(lambda: barrel.attachment(id, name, rev=rev))
    return await content_answer(call, _found(found))


async def delete_attachment(call: Call) -> Answer:
    """Take the attachment from `rev`, or from the winner."""
    place = await _place(call)
    write = Write.detach(place.id, place.name, rev=place.rev)
    if place.conditional and place.rev is None:
        write = msgspec.structs.replace(write, instead=place.before)
    written = await _submit(call, place, write, "detach", place.name.encode())
    return Answer(200, encode_json(written_json(written)))


def _found(attachment: Attachment) -> Found:
    if attachment.link is not None:
        raise BadRequest(
            f"The attachment is a link to {attachment.link}", hint="Fetch it from there.", link=attachment.link
        )
    assert attachment.digest is not None and attachment.md5 is not None and attachment.length is not None
    content = Content(attachment.digest.removeprefix(SHA256), attachment.md5, attachment.length)
    more = ((b"spile-rev", etag(attachment.rev).strip(b'"')),)
    return Found(content, attachment.name, attachment.content_type or DEFAULT_TYPE, attachment.read, more)


async def _place(call: Call) -> _Place:
    """What is named by the path and by the conditions, before anything of the body is taken."""
    barrel_name, id, name = call.param("barrel"), call.param("id"), call.param("name")
    call.allow("write", barrel_name, document_path(id))
    barrel = call.services.store.barrel(barrel_name)
    check_id(id)
    check_name(name)
    rev, wanted, fresh = call.options().text("rev"), call.if_match(), call.header(b"if-none-match")
    place = _Place(barrel, id, name, rev, await call.in_thread(_before, barrel, id, name), wanted is not None)
    if fresh is not None:
        if revisions_in(fresh) != ["*"]:
            raise BadRequest("If-None-Match on a write can only be `*`.", hint="It means: only if it is not there.")
        if place.before:
            raise PreconditionFailed("There is an attachment of that name.")
        place = replace(place, conditional=True)
    if wanted is None:
        return place
    if wanted == "*" or wanted.startswith(SHA256):
        if not place.before or (wanted != "*" and wanted != SHA256 + place.before):
            raise PreconditionFailed(
                "The attachment is another one now." if place.before else "There is no attachment of that name."
            )
        return place
    if rev is not None and rev != wanted:
        raise BadRequest(f"If-Match says {wanted!r}, and `rev` says {rev!r}.", hint="Send one of the two.")
    return replace(place, rev=wanted)


def _before(barrel: Barrel, id: str, name: str) -> str:
    try:
        stub = stubs_of(barrel.get(id).body).get(name)
    except NotFound:
        return ""
    return "" if stub is None else stub.meaning[1]


async def _content(call: Call, place: _Place) -> Content:
    """The content that the request brings, or that was uploaded before; stored, and what it was said to be."""
    said = announced(call.headers)
    length = call.declared if call.header(b"content-length") is not None else None
    upload = call.options().text("upload")
    blobs = place.barrel.store.blobs
    if upload is None:
        given = Given(sha256=said.sha256, md5=said.md5, length=length)
        most = call.services.limits.attachment_bytes_max
        return await body_through(
            call, lambda body: blobs.receive(body, length=length, announced=given, name=place.name), most
        )
    if call.has_body:
        raise BadRequest("A body and an upload are two contents.", hint="Send one of the two.")
    given = Given(sha256=said.sha256, md5=said.md5, upload=upload)
    return await call.in_step(lambda: _uploaded(call, place, given))


def _uploaded(call: Call, place: _Place, given: Given) -> Content:
    write = Write(Verb.ATTACH, place.id, patch={}, attachments={place.name: given})
    (write,) = place.barrel.absorb([write], who=call.who)
    assert write.attachments is not None
    absorbed = write.attachments[place.name]
    assert absorbed is not None and absorbed.content is not None
    return absorbed.content


async def _submit(call: Call, place: _Place, write: Write, verb: str, body: bytes) -> Written:
    token = call.token(verb, place.barrel.name, place.id, body)
    try:
        return await submit_one(call, place.barrel, write, token)
    except (Conflict, NotFound) as error:
        if place.conditional:
            raise PreconditionFailed(f"The document is not as required: {error.reason}") from error
        raise


_WHERE: Final = "/barrels/{barrel}/attachments/{id}/{name}"

ROUTES = [
    route("GET", _WHERE, "get_attachment", get_attachment, ("rev",)),
    route("PUT", _WHERE, "put_attachment", put_attachment, ("rev", "upload"), streams=""),
    route("DELETE", _WHERE, "delete_attachment", delete_attachment, ("rev",)),
]
