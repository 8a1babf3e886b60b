"""Single attachments: reading them, putting them onto a document, taking them away."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from hashlib import md5, sha256
from typing import Final

from broker.couch.documents import base_revision, check_document_id, submit, written_answer
from broker.couch.errors import CouchError, bad_request
from broker.couch.face import database, document_id, query_of
from broker.couch.reading import checked_rev
from broker.http.answers import Answer, AnyAnswer
from broker.http.call import Call
from broker.http.contents import Found, content_answer
from broker.http.documents import document_path
from broker.http.errors import MethodNotAllowed
from broker.http.intake import body_through
from feeds import Barrel, Write
from feeds.attachments.documents import Attachment
from feeds.attachments.given import Given, check_name, check_type
from feeds.attachments.links import link_type
from feeds.attachments.stubs import DEFAULT_TYPE, SHA256, Content
from feeds.errors import BadRequest, Conflict, Missing, NotFound
from feeds.storage.listing import leaves_of
from feeds.writes import Verb

_UNDERSCORED: Final = {
    "_view": "A view",
    "_show": "A show function",
    "_list": "A list function",
    "_update": "An update function",
    "_rewrite": "A rewrite function",
    "_search": "A search index",
    "_nouveau": "A search index",
    "_info": "A view group",
}


async def get_attachment(call: Call) -> AnyAnswer:
    """The attachment of the winner, or of the revision asked for; a part of it where `Range` says so."""
    id, name = _place(call)
    barrel = database(call, path=document_path(id))
    rev = query_of(call).text("rev")
    rev = None if rev is None else checked_rev(rev)
    return await content_answer(call, await call.in_step(_found, barrel, id, name, rev))


def _found(barrel: Barrel, id: str, name: str, rev: str | None) -> Found:
    try:
        attachment = barrel.attachment(id, name, rev=rev)
    except NotFound as error:
        if type(error) is NotFound and error.details.get("missing") is True:
            raise CouchError(404, "not_found", "Document is missing attachment") from error
        raise
    if attachment.link is not None:
        return _link(attachment, attachment.link)
    assert attachment.digest is not None and attachment.md5 is not None and attachment.length is not None
    content = Content(attachment.digest.removeprefix(SHA256), attachment.md5, attachment.length)
    return Found(content, attachment.name, attachment.content_type or DEFAULT_TYPE, attachment.read, tagged_by="md5")


def _link(attachment: Attachment, link: str) -> Found:
    """A link as the small text that it is shown as here."""
    text = link.encode()
    digest = b64encode(md5(text, usedforsecurity=False).digest()).decode()
    content = Content(sha256(text).hexdigest(), digest, len(text))

    def read(offset: int, length: int) -> Iterator[bytes]:
        yield text[offset : offset + length]

    return Found(content, attachment.name, link_type(attachment.content_type), read, tagged_by="md5")


async def put_attachment(call: Call) -> Answer:
    """Put the body under the name onto `rev`, or as the beginning of the document."""
    id, name = _place(call)
    barrel = database(call, "write", document_path(id))
    check_document_id(id)
    rev = base_revision(call, query_of(call))
    try:
        check_name(name)
        kind = check_type(call.header(b"content-type") or DEFAULT_TYPE)
    except BadRequest as error:
        raise CouchError(403, "forbidden", f"{error.reason}. {error.hint}") from error
    await call.in_thread(_check_base, barrel, id, rev)
    # Of a compressed body both are of what is sent: there its own checksum is what tells that all of it came.
    length = call.declared if call.header(b"content-length") is not None and not call.is_compressed else None
    digest = None if call.is_compressed else call.header(b"content-md5")
    given = Given(md5=digest, length=length)
    blobs = barrel.store.blobs
    content = await body_through(
        call,
        lambda body: blobs.receive(body, length=length, announced=given),
        call.services.limits.attachment_bytes_max,
    )
    if rev is not None:
        write = Write.attach(id, name, content, content_type=kind, rev=rev)
    else:
        # A document that begins with it: refused where one lives by then.
        write = Write(Verb.PUT, id, data={}, attachments={name: Given(kind, content=content)})
    return written_answer(await submit(call, barrel, write))


async def delete_attachment(call: Call) -> Answer:
    """Take the attachment from `rev`."""
    id, name = _place(call)
    barrel = database(call, "write", document_path(id))
    rev = base_revision(call, query_of(call))
    await call.in_thread(_check_base, barrel, id, rev)
    if rev is None:
        raise Conflict("Taking an attachment away needs the revision that has it")
    try:
        written = await submit(call, barrel, Write.detach(id, name, rev=rev))
    except Missing:
        raise
    except NotFound as error:
        raise CouchError(404, "not_found", "Document is missing attachment") from error
    return written_answer(written, 200)


def _check_base(barrel: Barrel, id: str, rev: str | None) -> None:
    """Refuse early what would be refused once all of it came: a revision that is not the document's, or none."""
    try:
        winner = barrel.get(id)
    except NotFound:
        return
    if rev is None:
        raise Conflict(f"{id!r} exists, and no revision is given")
    if rev != winner.rev and rev not in {str(leaf.revision) for leaf in leaves_of(barrel, [id]).get(id, ())}:
        raise Conflict(f"{rev} is no current revision of {id!r}")


async def run_function(call: Call) -> Answer:
    """What is asked of a design document with POST: a view for many keys, an update; an attachment takes none."""
    database(call)
    _place(call)
    raise MethodNotAllowed("POST is not served at an attachment.", allow="DELETE, GET, HEAD, PUT")


async def temporary_view(call: Call) -> Answer:
    """A view that comes with the question."""
    database(call)
    raise CouchError(410, "gone", "Temporary views are not served: Spile runs no functions. Ask with _find.")


def _place(call: Call) -> tuple[str, str]:
    id, name = document_id(call), call.param("name")
    if name.startswith("_"):
        if (what := _UNDERSCORED.get(name.partition("/")[0])) is not None and id.startswith("_design/"):
            raise CouchError(
                404,
                "not_found",
                f"{what} is not served: Spile keeps the functions of design documents and does not run them.",
            )
        raise bad_request("Attachment name can't start with '_'")
    return id, name
