"""`_local` documents: checkpoints, kept beside the log."""

from __future__ import annotations

from typing import Any, Final

from broker.couch.errors import bad_request
from broker.couch.face import database, decoded, query_of
from broker.couch.writing import fault_of, refused
from broker.http.answers import Answer, encode_json, etag
from broker.http.call import Call
from feeds import Barrel, Written
from feeds.errors import BadRequest, TooLarge

PREFIX: Final = "_local/"


def is_local(id: str) -> bool:
    """Whether a document of this id is kept beside the log."""
    return id.startswith(PREFIX)


async def get_local(call: Call) -> Answer:
    """The local document."""
    id = _id(call)
    barrel = database(call, path=PREFIX + id)
    document = await call.in_thread(barrel.local_get, id)
    return Answer(200, document.json(), [(b"etag", etag(document.rev))])


async def put_local(call: Call) -> Answer:
    """Write a local document over the revision that it names, or over whatever is there."""
    id = _id(call)
    barrel = database(call, "write", PREFIX + id)
    text = await call.body(call.services.limits.document_bytes_max)
    written = await call.in_thread(write_local, barrel, id, text, query_of(call).text("rev"))
    return _answer(written, 201)


async def post_local(call: Call, barrel: Barrel, id: str, text: bytes) -> Answer:
    """Write a local document that was posted as one of the database."""
    return _answer(await call.in_thread(write_local, barrel, id.removeprefix(PREFIX), text), 201)


async def delete_local(call: Call) -> Answer:
    """Remove a local document."""
    id = _id(call)
    barrel = database(call, "write", PREFIX + id)
    rev = query_of(call).text("rev")
    return _answer(await call.in_thread(lambda: barrel.local_delete(id, rev=rev)), 200)


def write_local(barrel: Barrel, id: str, text: bytes, rev: str | None = None) -> Written:
    """Write a local document of this text, or remove it where that says so. Blocks."""
    doc: Any = decoded(text, Any)
    if not isinstance(doc, dict):
        raise bad_request("Document must be a JSON object")
    if (fault := fault_of(doc)) is not None:
        raise fault
    try:
        if doc.get("_deleted") is True:
            return barrel.local_delete(id, rev=doc.get("_rev", rev))
        doc.pop("_deleted", None)
        doc.pop("_revisions", None)
        return barrel.local_put(id, doc, rev=rev)
    except (BadRequest, TooLarge) as error:
        raise refused(text, error) from error


def _id(call: Call) -> str:
    if "local" in call.params:
        return call.param("local")
    return call.param("id").removeprefix(PREFIX)


def _answer(written: Written, status: int) -> Answer:
    body = encode_json({"ok": True, "id": written.id, "rev": written.rev})
    return Answer(status, body, [(b"etag", etag(written.rev))])
