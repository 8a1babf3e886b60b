"""The four verbs that write one document: put, set, merge, delete.

They only turn a body into a `Write`; which write is accepted is decided by feeds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from broker.requests.answers import accepted
from broker.requests.bodies import Body, read_body, read_fields
from broker.requests.nested import passing_on
from broker.requests.serving import Asked, Prepared, Serving
from feeds import Write
from feeds.body import check_document
from feeds.errors import BadRequest
from feeds.writes import check_patch, same

Read = Callable[[bytes], Body]
Make = Callable[[Body, str | None, int], Write]


class _Deletion(msgspec.Struct, forbid_unknown_fields=True):
    rev: str | None = msgspec.field(default=None, name="_rev")
    id: str | None = msgspec.field(default=None, name="_id")


async def write(serving: Serving, asked: Asked) -> bytes:
    """Serve a write from its topic and body; returns the answer on `accepted`."""
    verb, place = asked.place.verb, asked.place
    read, make = VERBS[verb]
    carried: list[str | None] = [None]

    with passing_on(serving, asked) as passing:

        def prepare() -> Prepared:
            body = read(asked.payload)
            carried[0] = body.token
            passing.take(body)
            token = body.bound(asked.client.name, verb, place.barrel, place.id or "")
            return make(body, place.id, serving.document_bytes_max), token

        written = await serving.write_one(asked, len(asked.payload), prepare)
        return accepted(written, carried[0], await passing.done(asked, written.id, written.rev))


def _put(body: Body, id: str | None, bytes_max: int) -> Write:
    return Write.put(body.fields, id=id, bytes_max=bytes_max)


def _set(body: Body, id: str | None, bytes_max: int) -> Write:
    return Write.put(body.fields, id=id, update=True, bytes_max=bytes_max)


def _merge(body: Body, id: str | None, bytes_max: int) -> Write:
    return Write.merge(_named(id, "merge"), body.fields, bytes_max=bytes_max)


def _delete(body: Body, id: str | None, bytes_max: int) -> Write:
    deletion = body.as_(_Deletion)
    id = _named(id, "delete")
    same("_id", id, deletion.id)
    if deletion.rev is None:
        raise BadRequest(
            "A deletion names the revision that it deletes.", hint='Send {"_rev": "<the document\'s _rev>"}.'
        )
    return Write.delete(id, rev=deletion.rev)


def _named(id: str | None, verb: str) -> str:
    if id is None:
        raise BadRequest(
            f"`{verb}` names a document.", hint=f"Publish to from/<user>/<client id>/{verb}/<barrel>/<id>."
        )
    return id


def _document(payload: bytes) -> Body:
    return read_fields(payload, check_document, "The document")


def _patch(payload: bytes) -> Body:
    return read_fields(payload, check_patch, "The merge patch")


# How each verb reads its body, in the words of what it takes, and what it makes of it.
VERBS: Final[dict[str, tuple[Read, Make]]] = {
    "put": (_document, _put),
    "set": (_document, _set),
    "merge": (_patch, _merge),
    "delete": (read_body, _delete),
}
