"""Local documents: the call `local`, for checkpoints beside the log."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from broker.requests.answers import encode_json
from broker.requests.serving import Asked, Result, Serving
from feeds.errors import BadRequest
from feeds.paths import id_levels


class _Local(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    op: Literal["get", "put", "delete"]
    doc: dict[str, Any] | None = None
    rev: str | None = None


async def local(serving: Serving, asked: Asked) -> Result:
    """Serve `{id, op: get | put | delete, doc?, rev?}`; the result is `{doc}` or `{id, rev}`.

    A client's calls on local documents are served one after the other.
    """
    with serving.lanes.lane(f"{asked.client.name}\nlocal") as lane:
        async with lane.turn:
            body = await serving.body(asked)
            return await _serve(serving, asked, body.as_(_Local)), body.token


async def _serve(serving: Serving, asked: Asked, given: _Local) -> bytes:
    serving.allow(asked, "read" if given.op == "get" else "write", f"_local/{id_levels(given.id)}")
    barrel = serving.barrel(asked)
    id, doc, rev = given.id, given.doc, given.rev
    if (doc is not None) is not (given.op == "put"):
        raise BadRequest("`doc` goes with `put`, and only with that.")
    if given.op == "get":
        if rev is not None:
            raise BadRequest("A local document is read as it is; `rev` goes with `put` and `delete`.")
        return b'{"doc":' + (await serving.in_thread(barrel.local_get, id)).json() + b"}"
    if doc is not None:
        written = await serving.in_thread(lambda: barrel.local_put(id, doc, rev=rev))
    else:
        written = await serving.in_thread(lambda: barrel.local_delete(id, rev=rev))
    return encode_json({"id": written.id, "rev": written.rev})
