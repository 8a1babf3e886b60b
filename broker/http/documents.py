"""Single documents: reading, writing, patching and deleting them.

Conditions of HTTP (`If-Match`, `If-None-Match`) are turned into revisions here; what they mean is decided by feeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import quote

import msgspec

from broker.http.answers import Answer, AnyAnswer, Header, encode_json, etag, revisions_in
from broker.http.call import Call
from broker.http.endpoint import route
from broker.http.intake import body_through
from broker.http.nested import READ_OPTIONS, WRITE_OPTIONS, passed_on, read_search, whose_headers, write_reach
from broker.http.presence import while_there
from broker.http.related import RELATED, boundary_of, read_related
from broker.http.with_contents import inlined_answer, related_answer, wants_related
from broker.nested import PARTLY, not_kept, shown
from feeds import Barrel, Document, Token, Write, Written
from feeds.attachments.given import INLINE_TEXT_MAX
from feeds.errors import BadRequest, Conflict, Deleted, NotFound, PreconditionFailed, SpileError
from feeds.paths import id_levels
from listeners.nested import ReadTold, Search, WriteTold
from listeners.nested.seeking import not_found

# Larger bodies take milliseconds to check: on a thread, so that nobody else waits for it.
_CHECKED_INLINE_BYTES_MAX: Final = 32 << 10


class _Head(msgspec.Struct):
    rev: str = msgspec.field(name="_rev")


async def put_document(call: Call) -> Answer:
    """Write a whole document under the id in the path."""
    name, id = call.param("barrel"), call.param("id")
    call.allow("write", name, document_path(id))
    barrel = call.services.store.barrel(name)
    options = call.options()
    update = options.flag("update")
    boundary = boundary_of(call.header(b"content-type"))
    body = await call.document() if boundary is None else b""
    rev, conditional = await _condition(call, barrel, id, options.text("rev"))
    fresh = call.header(b"if-none-match")
    if fresh is not None:
        _check_fresh(fresh, rev, update)
        conditional = True

    def put(text: bytes) -> Write:
        write = Write.put(text, id=id, rev=rev, update=update, bytes_max=call.services.limits.document_bytes_max)
        if fresh is not None and write.rev is not None:
            raise BadRequest("The document has a _rev, and the request says that it must be new.")
        return write

    if boundary is None:
        write = await _checked(call, body, lambda: put(body))
    else:
        write, body = await _related(call, barrel, boundary, put)
    token = call.token("set" if update else "put", name, id, body)
    return await _write(call, barrel, write, token, conditional)


async def create_document(call: Call) -> Answer:
    """Write a document whose id is in its `_id`, or is made here."""
    name = call.param("barrel")
    body = await call.document()
    write = await _checked(call, body, lambda: Write.put(body, bytes_max=call.services.limits.document_bytes_max))
    call.allow("write", name, document_path(write.id))
    barrel = call.services.store.barrel(name)
    written, told = await _submitted(call, barrel, write, call.token("put", name, "", body), False)
    answer = _written_answer(written, told)
    where = f"/barrels/{quote(name, safe='')}/docs/{quote(written.id)}"
    answer.headers.append((b"location", where.encode()))
    return answer


async def patch_document(call: Call) -> Answer:
    """Apply a JSON merge patch (RFC 7396) onto `_rev`, `If-Match` or `rev`, else onto the winner."""
    name, id = call.param("barrel"), call.param("id")
    call.allow("write", name, document_path(id))
    barrel = call.services.store.barrel(name)
    body = await call.document()
    rev, conditional = await _condition(call, barrel, id, call.options().text("rev"))
    bytes_max = call.services.limits.document_bytes_max
    write = await _checked(call, body, lambda: Write.merge(id, body, rev=rev, bytes_max=bytes_max))
    return await _write(call, barrel, write, call.token("merge", name, id, body), conditional)


async def delete_document(call: Call) -> Answer:
    """Delete a document: `rev` or `If-Match` names the leaf that the deletion extends."""
    name, id = call.param("barrel"), call.param("id")
    call.allow("write", name, document_path(id))
    barrel = call.services.store.barrel(name)
    asked = call.options().text("rev")
    token = call.token("delete", name, id, (call.if_match() or asked or "").encode())
    try:
        rev, conditional = await _condition(call, barrel, id, asked)
    except PreconditionFailed:
        if token is None:
            raise
        rev, conditional = None, True  # nothing is there: maybe since this very request, sent before, deleted it
    return await _write(call, barrel, Write.delete(id, rev=rev), token, conditional)


async def get_document(call: Call) -> AnyAnswer:
    """The document as its winner, or as the revision asked for."""
    name, id = call.param("barrel"), call.param("id")
    call.allow("read", name, document_path(id))
    barrel = call.services.store.barrel(name)
    options = call.options()
    rev = options.text("rev")
    revs, conflicts, history = (options.flag(option) for option in ("revs", "conflicts", "history"))
    inlined = options.flag("attachments")
    related = wants_related(call.header(b"accept"))
    search = read_search(options, here_only=conflicts or history or inlined or related)

    def read() -> Document:
        return barrel.get(id, rev=rev, revs=revs, conflicts=conflicts, history=history)

    headers: list[Header] = [(b"vary", b"accept")]
    try:
        document = await call.in_thread(read)
    except Deleted:
        raise
    except NotFound:
        if search is None:
            raise
        told = await _found_elsewhere(call, barrel, id, rev, search)
        headers += whose_headers(told)
        if not told.kept:
            if conflicts or history or inlined or related:
                raise not_kept(told) from None
            doc = shown(told, revs)
            return Answer(200, doc, [*headers, (b"etag", etag(msgspec.json.decode(doc, type=_Head).rev))])
        document = await call.in_thread(read)
    if not conflicts and not history:
        # Both can change while the winner stays: no entity tag, no 304.
        held = call.header(b"if-none-match")
        if related:
            return await related_answer(call, barrel, document.json(), headers)
        headers.append((b"etag", etag(document.rev)))
        if held is not None and _matches(held, document.rev):
            return Answer(304, b"", headers)
    if inlined:
        return await inlined_answer(call, barrel, document.json(), headers)
    return Answer(200, document.json(), headers)


def document_path(id: str) -> str:
    """Where a document stands among the paths of its barrel."""
    return f"_id/{id_levels(id)}"


def written_json(written: Written) -> dict[str, object]:
    """An accepted write as it is answered."""
    answer: dict[str, object] = {"id": written.id, "rev": written.rev, "seq": written.seq}
    if written.repeated:
        answer["repeated"] = True
    if written.unchanged:
        answer["unchanged"] = True
    return answer


async def submit_one(call: Call, barrel: Barrel, write: Write, token: Token | None) -> Written:
    """Hand one write to the writer and wait for its outcome; what refused it is raised."""
    outcome = (await call.written(barrel.submit((write,), token=token)))[0]
    if isinstance(outcome, SpileError):
        raise outcome
    return outcome


async def absorbed(call: Call, barrel: Barrel, write: Write) -> Write:
    """The write, with the contents that it brings along stored."""
    if not write.is_waiting:
        return write
    (stored,) = await call.in_step(lambda: barrel.absorb((write,), who=call.who))
    call.waits_from_now()
    return stored


async def _related(call: Call, barrel: Barrel, boundary: str, put: Callable[[bytes], Write]) -> tuple[Write, bytes]:
    """The document of a body with contents behind it, all of them stored; and what tells that body from others."""
    limits = call.services.limits
    text_max = limits.document_bytes_max + INLINE_TEXT_MAX

    def take(body: Iterable[bytes]) -> tuple[Write, bytes]:
        came = read_related(body, boundary, barrel, put, text_max)
        (write,) = barrel.absorb((came.write,), follows=came.follows, who=call.who)
        return write, b"\n".join((came.text, *(each.sha256.encode() for each in came.follows.values())))

    return await body_through(call, take, limits.attachment_bytes_max + text_max)


async def _write(call: Call, barrel: Barrel, write: Write, token: Token | None, conditional: bool) -> Answer:
    return _written_answer(*await _submitted(call, barrel, write, token, conditional))


async def _submitted(
    call: Call, barrel: Barrel, write: Write, token: Token | None, conditional: bool
) -> tuple[Written, WriteTold | None]:
    """What was written, and how far it went where it was to be passed on."""
    reach = write_reach(call.options())
    if reach is None:
        return await _written(call, barrel, write, token, conditional), None
    with call.nest.place():
        written = await _written(call, barrel, write, token, conditional)
        return written, await passed_on(call, barrel, written.id, written.rev, reach)


def _written_answer(written: Written, told: WriteTold | None) -> Answer:
    answer, status = written_json(written), 201 if written.created else 200
    if told is not None:
        answer["p2p"] = told
        status = status if told.complete else PARTLY
    return Answer(status, encode_json(answer), [(b"etag", etag(written.rev))])


async def _written(call: Call, barrel: Barrel, write: Write, token: Token | None, conditional: bool) -> Written:
    write = await absorbed(call, barrel, write)
    try:
        return await submit_one(call, barrel, write, token)
    except (Conflict, NotFound) as error:
        if conditional:
            raise PreconditionFailed(f"The document is not at the revision required: {error.reason}") from error
        raise


async def _found_elsewhere(call: Call, barrel: Barrel, id: str, rev: str | None, search: Search) -> ReadTold:
    """The document from a peer; NotFound tells who was asked."""
    if search.keep:
        call.allow("write", barrel.name, document_path(id))
        call.check_deliberate()
    with call.nest.place():
        told = await while_there(call, call.nest.look_further(barrel, id, rev, search), "spile-http-look")
    if not isinstance(told.doc, msgspec.Raw):
        raise not_found(id, told)
    return told


async def _checked(call: Call, body: bytes, check: Callable[[], Write]) -> Write:
    if len(body) <= _CHECKED_INLINE_BYTES_MAX:
        return check()
    return await call.in_thread(check)


async def _condition(call: Call, barrel: Barrel, id: str, rev: str | None) -> tuple[str | None, bool]:
    """The revision that the request wants to extend, and whether it said so as a condition (then it fails as 412)."""
    wanted = call.if_match()
    if wanted is None:
        return rev, False
    if wanted == "*":
        try:
            wanted = (await call.in_thread(barrel.get, id)).rev
        except NotFound as error:
            raise PreconditionFailed("If-Match: * wants a document that is there.") from error
    if rev is not None and rev != wanted:
        raise BadRequest(f"If-Match says {wanted!r}, and `rev` says {rev!r}.", hint="Send one of the two.")
    return wanted, True


def _check_fresh(header: str, rev: str | None, update: bool) -> None:
    if revisions_in(header) != ["*"]:
        raise BadRequest("If-None-Match on a write can only be `*`.", hint="It means: only if it is not there.")
    if rev is not None or update:
        raise BadRequest("If-None-Match: * creates only; a revision or `update` contradicts it.")


def _matches(header: str, rev: str) -> bool:
    held = revisions_in(header)
    return rev in held or "*" in held


_PLACE: Final = "/barrels/{barrel}/docs/{id...}"
_READ: Final = ("rev", "revs", "conflicts", "history", "attachments")

ROUTES = [
    route("POST", "/barrels/{barrel}/docs", "create_document", create_document, WRITE_OPTIONS),
    route("GET", _PLACE, "get_document", get_document, (*_READ, *READ_OPTIONS)),
    route("PUT", _PLACE, "put_document", put_document, ("rev", "update", *WRITE_OPTIONS), streams=RELATED),
    route("PATCH", _PLACE, "patch_document", patch_document, ("rev", *WRITE_OPTIONS)),
    route("DELETE", _PLACE, "delete_document", delete_document, ("rev", *WRITE_OPTIONS)),
]
