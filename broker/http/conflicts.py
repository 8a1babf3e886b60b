"""Documents in conflict: listing them, looking at their leaves, resolving them."""

from __future__ import annotations

from typing import Final

import msgspec

from broker.http.answers import Answer, encode_json, etag, json_answer
from broker.http.call import Call
from broker.http.documents import absorbed, document_path, submit_one, written_json
from broker.http.endpoint import route
from feeds import Document
from feeds.attachments.given import INLINE_TEXT_MAX
from feeds.errors import BadRequest
from feeds.storage.conflicts import PAGE_MAX

_LIMIT: Final = 100
_AROUND_BYTES_MAX: Final = 256 << 10  # what may stand around a document in a resolution: the names of its leaves
_PLACE: Final = "/barrels/{barrel}/conflicts/{id...}"


class Resolution(msgspec.Struct, forbid_unknown_fields=True):
    """What a conflict is resolved by: `rev` or `doc`; and the live leaves that the client saw."""

    rev: str | None = None
    doc: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    leaves: list[str] = []


async def list_conflicts(call: Call) -> Answer:
    """The documents in conflict in the order of their ids, one page of them."""
    name = call.param("barrel")
    call.allow("read", name)
    barrel = call.services.store.barrel(name)
    options = call.options()
    limit = options.number("limit", least=1, most=PAGE_MAX)
    after = options.text("after") or ""
    page = await call.in_thread(lambda: barrel.conflicts.page(after=after, limit=limit or _LIMIT))
    return json_answer(page)


async def get_conflict(call: Call) -> Answer:
    """The live leaves of a document, the winner first."""
    name, id = call.param("barrel"), call.param("id")
    call.allow("read", name, document_path(id))
    barrel = call.services.store.barrel(name)
    return Answer(200, leaves_json(id, await call.in_thread(barrel.conflicts.leaves, id)))


async def resolve_conflict(call: Call) -> Answer:
    """Let one leaf stand, or a document in place of all of them."""
    name, id = call.param("barrel"), call.param("id")
    call.allow("write", name, document_path(id))
    barrel = call.services.store.barrel(name)
    bytes_max = call.services.limits.document_bytes_max + _AROUND_BYTES_MAX
    body = await call.body(bytes_max, INLINE_TEXT_MAX)
    given = await call.in_thread(read_resolution, body)
    doc = None if isinstance(given.doc, msgspec.UnsetType) else bytes(given.doc)
    write = await call.in_thread(lambda: barrel.conflicts.resolution(id, rev=given.rev, doc=doc, leaves=given.leaves))
    write = await absorbed(call, barrel, write)
    written = await submit_one(call, barrel, write, call.token("resolve", name, id, body))
    return Answer(200, encode_json(written_json(written)), [(b"etag", etag(written.rev))])


def read_resolution(body: bytes) -> Resolution:
    """The body of a resolution; BadRequest says what does not fit."""
    try:
        return msgspec.json.decode(body, type=Resolution)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadRequest(
            f"The body is no resolution: {error}",
            hint='Send {"rev": "<the leaf that stands>"} or {"doc": {…}}, and maybe "leaves": [rev, …].',
        ) from error


def leaves_json(id: str, leaves: list[Document]) -> bytes:
    """Leaves as they are told, each a document."""
    return b'{"id":%b,"leaves":[%b]}' % (encode_json(id), b",".join(leaf.json() for leaf in leaves))


ROUTES = [
    route("GET", "/barrels/{barrel}/conflicts", "list_conflicts", list_conflicts, ("limit", "after")),
    route("GET", _PLACE, "get_conflict", get_conflict),
    route("POST", _PLACE, "resolve_conflict", resolve_conflict),
]
