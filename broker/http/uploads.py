"""Uploads that can be gone on with: started, sent in parts at their offsets, finished, given up.

The requests and headers are those of the IETF's draft on resumable uploads for HTTP (`Upload-Offset`,
`Upload-Complete`, `Upload-Length`), but for its interim answers, which ASGI cannot send. What becomes of a finished
upload is said elsewhere: a document names it, or a request that puts an attachment.

An upload is its caller's alone. One that is begun for a document (`doc`) asks for the right to write that, any other
for the right to write the whole barrel; and so does whatever is done with it later.
"""

from __future__ import annotations

import asyncio
import hashlib
from base64 import b64encode
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import http_sf

from broker.http.answers import Answer, Header, encode_json, json_answer
from broker.http.call import Call
from broker.http.digests import OF_CONTENT, OF_PART, OF_WHOLE, Announced, announced
from broker.http.documents import document_path
from broker.http.endpoint import route
from broker.http.errors import error_answer
from broker.http.intake import body_through, in_place
from feeds import Barrel
from feeds.attachments.given import Given
from feeds.attachments.stubs import SHA256
from feeds.attachments.uploads import PAGE_MAX, Begun, Uploads
from feeds.body import check_id
from feeds.errors import BadRequest, Conflict, NotFound, TooLarge

CHECKED_BYTES_MAX: Final = 8 << 20
"""A part with a digest of its own is checked before any of it is taken, and so is in memory."""
_LIMIT: Final = 100
_LENGTH_MAX: Final = 10**15  # what structured fields can tell


async def start_upload(call: Call) -> Answer:
    """Begin one, and take what comes with the request. `Upload-Length` and `Repr-Digest` bind it from now on, and so
    does `doc`, the id of the document that it is for; by its `label` the client finds it again."""
    barrel, doc = _of_document(call)
    label = call.options().text("label")
    complete = _complete(call)
    length = _number(call, b"upload-length")
    if complete and call.header(b"content-length") is not None:
        if length is not None and length != call.declared:
            raise BadRequest("Upload-Length and Content-Length differ, and this is all of it.")
        length = call.declared
    _check_size(call, length or 0)
    said = announced(call.headers, OF_CONTENT if complete else OF_WHOLE)
    if not complete and said.sha256 is None and said.md5 is not None:
        raise BadRequest("An upload is announced with its sha-256.", hint="Send an md5 with the last part.")
    digest = None if said.sha256 is None else SHA256 + said.sha256
    upload = await call.in_step(
        lambda: _uploads(barrel).start(barrel.key, call.who, length=length, digest=digest, doc=doc, label=label)
    )
    try:
        if call.has_body:
            await _append(call, barrel, upload.id, 0, said if complete else None)
        if complete:
            await _finish(call, barrel, upload.id, said)
    except BaseException:
        # Nobody was told of it yet, so that nobody can go on with it.
        await asyncio.shield(call.in_step(_give_up, barrel, upload.id, call.who))
        raise
    return await _told(call, barrel, upload.id, 201)


async def list_uploads(call: Call) -> Answer:
    """The caller's own that were not given up, or those for the document `doc`: the oldest first, a page of them."""
    barrel, doc = _of_document(call)
    options = call.options()
    limit = options.number("limit", least=1, most=PAGE_MAX) or _LIMIT
    after = options.text("after") or ""
    who = call.who
    found = await call.in_thread(lambda: _uploads(barrel).page(barrel.key, who, doc=doc, after=after, limit=limit))
    following = found[-1].id if len(found) == limit else None
    return json_answer({"results": [_listed(each) for each in found], "next": following})


async def tell_upload(call: Call) -> Answer:
    """How far it is: `Upload-Offset` is where the next part begins."""
    barrel = await _of_upload(call)
    return await _told(call, barrel, call.param("upload"))


async def append_upload(call: Call) -> Answer:
    """Take the part that begins at `Upload-Offset`; with `Upload-Complete: ?1` it is the last one.

    What came of a part that was cut off stays, and is gone on with.
    """
    barrel = await _of_upload(call)
    id, offset, complete = call.param("upload"), _number(call, b"upload-offset"), _complete(call)
    if offset is None:
        raise BadRequest("Where the part begins is not said.", hint="Send Upload-Offset: HEAD tells where it is.")
    _check_size(call, offset + call.declared)
    said = announced(call.headers, OF_WHOLE)
    try:
        if call.has_body:
            await _append(call, barrel, id, offset)
        else:
            await in_place(call, lambda: _append_nothing(barrel, id, offset, call.who))
        if complete:
            await _finish(call, barrel, id, said)
    except Conflict as error:
        answer = error_answer(error)
        if (size := error.details.get("size")) is not None:
            answer.headers.append((b"upload-offset", b"%d" % size))
        return answer
    return await _told(call, barrel, id)


async def abort_upload(call: Call) -> Answer:
    """Give it up."""
    barrel = await _of_upload(call)
    id = call.param("upload")
    await call.in_step(_uploads(barrel).abort, barrel.key, id, call.who)
    return Answer(200, encode_json({"aborted": id}))


def _of_document(call: Call) -> tuple[Barrel, str | None]:
    """The barrel, and the document that the request is for, where it is for one alone."""
    name, doc = call.param("barrel"), call.options().text("doc")
    if doc is not None:
        check_id(doc)
    _allow(call, doc)
    return call.services.store.barrel(name), doc


async def _of_upload(call: Call) -> Barrel:
    """The barrel of the caller's own upload, which may still be gone on with. To others it is not there, and neither
    is the barrel."""
    name, id, who = call.param("barrel"), call.param("upload"), call.who
    try:
        barrel = call.services.store.barrel(name)
        begun = await call.in_thread(_uploads(barrel).find, barrel.key, id, who)
    except NotFound:
        raise NotFound(
            f"You have no upload {id[:128]!r} in {name[:128]!r}",
            hint="Start one; after a day without a word it is given up.",
        ) from None
    _allow(call, begun.doc)
    return barrel


def _allow(call: Call, doc: str | None) -> None:
    call.allow("write", call.param("barrel"), "#" if doc is None else document_path(doc))


def _uploads(barrel: Barrel) -> Uploads:
    return barrel.store.uploads


def _append_nothing(barrel: Barrel, id: str, offset: int, who: str) -> None:
    """See that it stands where the caller thinks; one that is finished may be finished again."""
    uploads = _uploads(barrel)
    state = uploads.get(barrel.key, id, who)
    if state.content is None or state.size != offset:
        uploads.append(barrel.key, id, offset, b"", who)


def _give_up(barrel: Barrel, id: str, who: str) -> None:
    with suppress(NotFound):  # what was found to be something else is given up already
        _uploads(barrel).abort(barrel.key, id, who)


async def _append(call: Call, barrel: Barrel, id: str, offset: int, said: Announced | None = None) -> None:
    """Take the body as what follows on `offset`. A digest of the part is asked of it first, unless it is `said` to be
    all there is, which is checked in the end."""
    uploads, who = _uploads(barrel), call.who
    part = announced(call.headers, OF_PART) if said is None else Announced()
    if part.is_nothing:
        most = call.services.limits.attachment_bytes_max - offset
        await body_through(call, lambda body: uploads.append(barrel.key, id, offset, body, who), max(most, 1))
        return
    data = await call.body(CHECKED_BYTES_MAX)
    await call.took(len(data))
    await call.in_step(_check_part, data, part)
    await call.in_step(lambda: uploads.append(barrel.key, id, offset, data, who))


async def _finish(call: Call, barrel: Barrel, id: str, said: Announced) -> None:
    uploads, who = _uploads(barrel), call.who
    digest = None
    if said.sha256 is not None:
        digest = SHA256 + said.sha256
    elif said.md5 is not None:
        digest = f"md5-{said.md5}"
    content = await in_place(call, lambda: uploads.finish(barrel.key, id, who, digest=digest))
    Given(sha256=said.sha256, md5=said.md5).check(None, content)  # also of one that was finished before


async def _told(call: Call, barrel: Barrel, id: str, status: int = 200) -> Answer:
    who = call.who
    upload = await in_place(call, lambda: _uploads(barrel).get(barrel.key, id, who))
    told: dict[str, Any] = {"upload": id, "size": upload.size, "length": upload.length}
    told["complete"] = upload.content is not None
    if upload.doc is not None:
        told["doc"] = upload.doc
    if upload.content is not None:
        told |= {"digest": upload.content.digest, "md5": upload.content.md5}
    headers: list[Header] = [
        (b"upload-offset", b"%d" % upload.size),
        (b"upload-complete", b"?1" if upload.content is not None else b"?0"),
        (b"upload-limit", b"max-size=%d" % call.services.limits.attachment_bytes_max),
        (b"cache-control", b"no-store"),
    ]
    if upload.length is not None:
        headers.append((b"upload-length", b"%d" % upload.length))
    if status == 201:
        headers.append((b"location", f"/barrels/{quote(barrel.name, safe='')}/uploads/{quote(id)}".encode()))
    return Answer(status, encode_json(told), headers)


def _listed(begun: Begun) -> dict[str, Any]:
    told: dict[str, Any] = {"upload": begun.id, "length": begun.length, "complete": begun.is_finished}
    told |= {name: value for name, value in (("doc", begun.doc), ("label", begun.label)) if value is not None}
    return told | {"touched": datetime.fromtimestamp(begun.touched, UTC).isoformat(timespec="seconds")}


def _check_part(data: bytes, said: Announced) -> None:
    if said.sha256 is not None and hashlib.sha256(data).hexdigest() != said.sha256:
        raise _damaged()
    if said.md5 is not None and b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode() != said.md5:
        raise _damaged()


def _damaged() -> BadRequest:
    return BadRequest("The part is not what its digest says.", hint="Nothing of it was taken. Send it again.")


def _check_size(call: Call, size: int) -> None:
    most = call.services.limits.attachment_bytes_max
    if size > most:
        raise TooLarge(f"The upload has {size} bytes; {most} are allowed.", limit=most)


def _complete(call: Call) -> bool:
    found = _item(call, b"upload-complete")
    if found is not None and not isinstance(found, bool):
        raise BadRequest("Upload-Complete is ?1 or ?0.")
    return bool(found)


def _number(call: Call, name: bytes) -> int | None:
    found = _item(call, name)
    if found is not None and (type(found) is not int or not 0 <= found < _LENGTH_MAX):
        raise BadRequest(f"The header `{name.decode()}` is no number of bytes.")
    return found


def _item(call: Call, name: bytes) -> Any:
    text = call.header(name)
    if text is None:
        return None
    try:
        found: Any = http_sf.parse(text.encode("latin-1"), tltype="item")
    except (http_sf.StructuredFieldError, ValueError) as error:
        raise BadRequest(f"The header `{name.decode()}` cannot be read: {error}.") from None
    return found[0]


_ALL: Final = "/barrels/{barrel}/uploads"
_WHERE: Final = "/barrels/{barrel}/uploads/{upload}"

ROUTES = [
    route("GET", _ALL, "list_uploads", list_uploads, ("doc", "limit", "after")),
    route("POST", _ALL, "start_upload", start_upload, ("doc", "label"), streams=""),
    route("GET", _WHERE, "tell_upload", tell_upload),
    route("PATCH", _WHERE, "append_upload", append_upload, streams=""),
    route("DELETE", _WHERE, "abort_upload", abort_upload),
]
