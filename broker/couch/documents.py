"""Single documents: reading, writing, deleting and copying them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
from msgspec import UNSET

from broker.couch import local
from broker.couch.contents import multipart_document, multipart_revisions
from broker.couch.errors import CouchError, bad_request
from broker.couch.face import check_json, check_reserved, database, decoded, document_id, query_of
from broker.couch.paging import paged_answer
from broker.couch.query import Query
from broker.couch.reading import Beside, Told, as_json, checked_rev, open_revisions, read
from broker.couch.related import related_write
from broker.couch.writing import edited, grafted, told_of_write
from broker.http.answers import Answer, AnyAnswer, Header, encode_json, etag, revisions_in
from broker.http.call import Call
from broker.http.documents import absorbed, document_path
from broker.http.related import boundary_of
from broker.http.routing import decode
from feeds import Barrel, Document, Write, Written
from feeds.attachments.given import Given
from feeds.attachments.stubs import split
from feeds.body import check_id
from feeds.errors import BadRequest, Conflict, Deleted, SpileError
from feeds.naming import new_id

_CHECKED_INLINE_BYTES_MAX: Final = 32 << 10
_GROWS: Final = b'"gzip"'
_LOCAL: Final = b'"_local'
_RELATED: Final = "multipart/related"
_MIXED: Final = "multipart/mixed"
_JSON: Final = "application/json"


async def get_document(call: Call) -> AnyAnswer:
    """The document as its winner, as the revision asked for, or several of its revisions."""
    id = document_id(call)
    if local.is_local(id):
        return await local.get_local(call)
    barrel = database(call, path=document_path(id))
    query = query_of(call)
    beside, rev = Beside.of(query), query.text("rev")
    if query.text("open_revs") == "all":
        return await _revisions(call, barrel, id, None, beside)
    if query.has("open_revs"):
        revs = query.json("open_revs")
        if not isinstance(revs, list) or not all(isinstance(each, str) for each in revs):
            raise bad_request("`open_revs` is `all`, or an array of revisions.")
        return await _revisions(call, barrel, id, [checked_rev(each) for each in revs], beside)
    rev = None if rev is None else checked_rev(rev)
    document = await call.in_thread(read, barrel, id, rev, beside)
    headers: list[Header] = [] if beside.is_of_the_tree else [(b"etag", etag(document.rev))]
    held = call.header(b"if-none-match") if headers else None
    if held is not None and (document.rev in revisions_in(held) or "*" in revisions_in(held)):
        return Answer(304, b"", headers)
    if beside.attachments and _accepts(call, _RELATED):
        return await multipart_document(call, barrel, document, beside, headers)
    in_thread = call.in_step if beside.attachments else call.in_thread
    return Answer(200, await in_thread(as_json, barrel, document, beside), headers)


async def _revisions(call: Call, barrel: Barrel, id: str, revs: list[str] | None, beside: Beside) -> AnyAnswer:
    found = open_revisions(barrel, id, revs, beside)
    if not _accepts(call, _JSON):
        return await multipart_revisions(call, barrel, found, beside)
    return await paged_answer(call, _listed(barrel, found, beside), contents=beside.attachments)


def _listed(barrel: Barrel, found: Iterable[list[Told]], beside: Beside) -> Iterator[bytes]:
    comma = b"["
    for part in found:
        rows = [
            encode_json({"missing": each[0]})
            if isinstance(each, tuple)
            else b'{"ok":' + as_json(barrel, each, beside) + b"}"
            for each in part
        ]
        if rows:
            yield comma + b",".join(rows)
            comma = b","
    yield b"]" if comma == b"," else b"[]"


def _accepts(call: Call, kind: str) -> bool:
    """Whether `Accept` names this very type, as CouchDB asks it."""
    accepted = (call.header(b"accept") or "").lower().replace(";", ",").split(",")
    return any(each.strip() == kind for each in accepted)


async def put_document(call: Call) -> Answer:
    """Write a document under the id in the path; with `new_edits=false` a revision that was made elsewhere."""
    id = document_id(call)
    if local.is_local(id):
        return await local.put_local(call)
    barrel = database(call, "write", document_path(id))
    query = query_of(call)
    edits = query.flag("new_edits", True)
    if not edits:
        call.allow("write", barrel.name)  # its stubs may name whatever any document of the barrel has
    rev = base_revision(call, query)
    bytes_max = call.services.limits.document_bytes_max

    def made(text: bytes) -> Write:
        write = edited(text, bytes_max, id=id, rev=rev) if edits else grafted(_under(id, text), bytes_max)
        if write.id != id:
            raise bad_request("The document ID in the body is not the one in the URL.")
        return write

    check_document_id(id)
    boundary = boundary_of(call.header(b"content-type"))
    if boundary is not None:
        write = await related_write(call, barrel, boundary, made)
    else:
        write = await _checked(call, await call.document(), made)
    return written_answer(await submit(call, barrel, write), edits=edits)


async def post_document(call: Call) -> Answer:
    """Write a document whose id is in its `_id`, or is made here."""
    check_json(call)
    barrel = database(call, "write")
    query = query_of(call)
    edits = query.flag("new_edits", True)
    bytes_max = call.services.limits.document_bytes_max

    def made(text: bytes) -> Write:
        return edited(text, bytes_max) if edits else grafted(text, bytes_max)

    text = await call.document()
    if _LOCAL in text and (id := _id_in(text)) is not None and local.is_local(id) and id != local.PREFIX:
        return await local.post_local(call, barrel, id, text)
    write = await _checked(call, text, made)
    return written_answer(await submit(call, barrel, write), edits=edits)


def _id_in(text: bytes) -> str | None:
    doc = decoded(text, Any)
    id = doc.get("_id") if isinstance(doc, dict) else None
    return id if isinstance(id, str) else None


async def delete_document(call: Call) -> Answer:
    """Delete a document: `rev` or `If-Match` names the leaf that the deletion extends."""
    id = document_id(call)
    if local.is_local(id):
        return await local.delete_local(call)
    barrel = database(call, "write", document_path(id))
    rev = base_revision(call, query_of(call))
    if rev is None:
        await call.in_thread(barrel.get, id)  # which says that it is not there
        raise Conflict("A deletion needs the revision that it deletes")
    try:
        written = await submit(call, barrel, Write.delete(id, rev=rev))
    except Deleted as error:
        raise Conflict("That revision is a deletion") from error
    if written.repeated:
        raise Conflict("That revision was deleted before")
    return written_answer(written, 200)


async def copy_document(call: Call) -> Answer:
    """Write the document again under the id in `Destination`, over the revision that it may name there."""
    id = document_id(call)
    barrel = database(call, path=document_path(id))
    target, over = _destination(call)
    call.allow("write", barrel.name, document_path(target))
    rev = query_of(call).text("rev")
    document = await call.in_thread(read, barrel, id, None if rev is None else checked_rev(rev), Beside())
    bytes_max = call.services.limits.document_bytes_max
    write = await call.in_thread(_copied, barrel, document, target, over, bytes_max)
    return written_answer(await submit(call, barrel, write))


def _copied(barrel: Barrel, document: Document, target: str, over: str | None, bytes_max: int) -> Write:
    """The same keys and attachments under another id."""
    stubs, body = split(document.body)
    attachments = {}
    for name, stub in stubs.items():
        kind = None if stub.content_type is UNSET else stub.content_type
        if stub.sha256 is not None:
            attachments[name] = Given(kind, content=barrel.store.blobs.find(stub.sha256).content)
        elif stub.link is not UNSET:
            attachments[name] = Given(kind, link=stub.link)
    write = Write.put(body, id=target, rev=over, bytes_max=bytes_max)
    return msgspec.structs.replace(write, attachments=attachments or None)


async def submit(call: Call, barrel: Barrel, write: Write) -> Written:
    """Store what a write brings along and write it; what refuses it is raised in the face's words."""
    try:
        write = await absorbed(call, barrel, write)
        (outcome,) = await call.written(barrel.submit((write,)))
    except SpileError as error:
        error.details.setdefault("id", write.id)
        raise told_of_write(error) from error
    if isinstance(outcome, SpileError):
        outcome.details.setdefault("id", write.id)
        raise told_of_write(outcome)
    return outcome


def written_answer(written: Written, status: int = 201, *, edits: bool = True) -> Answer:
    """What was written; the very same edit a second time is a conflict, the very same replicated revision is not."""
    if edits and written.repeated:
        raise Conflict("The very same was written before")
    body = encode_json({"ok": True, "id": written.id, "rev": written.rev})
    return Answer(status, body, [(b"etag", etag(written.rev))])


async def _checked(call: Call, text: bytes, made: Callable[[bytes], Write]) -> Write:
    """Larger bodies take milliseconds to check, and so do those that grow: on a thread, so that nobody else waits."""
    if len(text) <= _CHECKED_INLINE_BYTES_MAX and _GROWS not in text:
        return made(text)
    return await call.in_thread(made, text)


def _under(id: str, text: bytes) -> bytes:
    """A replicated document with the id that only the path gives."""
    doc = decoded(text, Any)
    if not isinstance(doc, dict) or "_id" in doc:
        return text
    return encode_json({"_id": id, **doc})


def base_revision(call: Call, query: Query) -> str | None:
    """The revision that the request builds on, from the query or the header."""
    rev, held = query.text("rev"), call.header(b"if-match")
    named = revisions_in(held) if held is not None else []
    if len(named) > 1 or (named and rev is not None and named != [rev]):
        raise bad_request("Document rev and etag have different values")
    if named:
        rev = named[0]
    return None if rev is None else checked_rev(rev)


def _destination(call: Call) -> tuple[str, str | None]:
    header = call.header(b"destination")
    if header is None:
        raise bad_request("Destination header is mandatory for COPY.")
    if "://" in header:
        raise bad_request("Destination URL must be relative.")
    place, _, options = header.partition("?")
    try:
        plain = place.lstrip("/").encode("latin-1").decode()  # some send it as it is
    except UnicodeDecodeError as error:
        raise bad_request("Destination is not UTF-8.") from error
    target = check_reserved(decode(plain, "Destination")) or new_id()
    check_document_id(target)
    rev = dict(parse_qsl(options)).get("rev")
    return target, None if rev is None else checked_rev(rev)


def check_document_id(id: str) -> None:
    """Refuse what no document of Spile's can be called."""
    try:
        check_id(id)
    except BadRequest as error:
        raise CouchError(403, "forbidden", f"{error.reason}. {error.hint}") from error
