"""Local documents: kept outside of the log, for checkpoints, and never replicated."""

from __future__ import annotations

from broker.http.answers import Answer, encode_json, etag, json_answer
from broker.http.call import Call
from broker.http.endpoint import route
from feeds import Barrel

_PLACE = "/barrels/{barrel}/local/{id...}"


async def get_local(call: Call) -> Answer:
    """The local document."""
    barrel, id = _place(call, write=False)
    document = await call.in_thread(barrel.local_get, id)
    return Answer(200, document.json(), [(b"etag", etag(document.rev))])


async def put_local(call: Call) -> Answer:
    """Write a local document: `_rev`, `rev` or `If-Match` names the revision that it replaces."""
    barrel, id = _place(call, write=True)
    rev = call.if_match() or call.options().text("rev")
    body = await call.body(call.services.limits.document_bytes_max)
    written = await call.in_thread(lambda: barrel.local_put(id, body, rev=rev))
    answer = encode_json({"id": written.id, "rev": written.rev})
    return Answer(201 if written.created else 200, answer, [(b"etag", etag(written.rev))])


async def delete_local(call: Call) -> Answer:
    """Delete a local document."""
    barrel, id = _place(call, write=True)
    rev = call.if_match() or call.options().text("rev")
    written = await call.in_thread(lambda: barrel.local_delete(id, rev=rev))
    return json_answer({"id": written.id, "rev": written.rev})


def _place(call: Call, *, write: bool) -> tuple[Barrel, str]:
    name = call.param("barrel")
    call.allow("write" if write else "read", name, "_local/" + call.param("id"))
    return call.services.store.barrel(name), call.param("id")


ROUTES = [
    route("GET", _PLACE, "get_local", get_local),
    route("PUT", _PLACE, "put_local", put_local, ("rev",)),
    route("DELETE", _PLACE, "delete_local", delete_local, ("rev",)),
]
