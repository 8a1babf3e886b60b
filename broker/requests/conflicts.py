"""Documents in conflict over MQTT: the calls `conflicts` and `resolve`."""

from __future__ import annotations

from typing import Any

import msgspec

from broker.requests.answers import encode_json, too_large, written_fields
from broker.requests.bodies import Body, read_body
from broker.requests.serving import Asked, Prepared, Result, Serving, document_path
from feeds.errors import BadRequest


class _Listing(msgspec.Struct, forbid_unknown_fields=True):
    id: str | None = None
    after: str = ""
    limit: int = 100


class _Resolution(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    rev: str | None = None
    doc: dict[str, Any] | None = None
    leaves: list[str] = []


async def conflicts(serving: Serving, asked: Asked, body: Body) -> bytes:
    """Documents in conflict by `{after?, limit?}`: `{results, next}`; or the live leaves of one by `{id}`:
    `{id, leaves}`, each a document, the winner first."""
    given = body.as_(_Listing)
    barrel = serving.barrel(asked)
    id = given.id
    if id is None:
        serving.allow(asked, "read")
        return encode_json(
            await serving.in_thread(lambda: barrel.conflicts.page(after=given.after, limit=given.limit))
        )
    if given.after:
        raise BadRequest("`after` goes with a list, and not with an `id`.")
    serving.allow(asked, "read", document_path(id))
    leaves = await serving.in_thread(barrel.conflicts.leaves, id)
    answer = b'{"id":%b,"leaves":[%b]}' % (encode_json(id), b",".join(leaf.json() for leaf in leaves))
    if len(answer) > serving.limits.answer_bytes_max:
        hint = 'Read the leaves one by one: `get` with {"conflicts": true}, and then with each {"rev": …}.'
        raise too_large(len(answer), serving.limits.answer_bytes_max, hint)
    return answer


async def resolve(serving: Serving, asked: Asked) -> Result:
    """End a conflict by `{id, rev | doc, leaves?}`; the result is `{id, rev, seq}`."""
    carried: list[str | None] = [None]

    def prepare() -> Prepared:
        body = read_body(asked.payload)
        carried[0] = body.token
        given = body.as_(_Resolution)
        token = body.bound(asked.client.name, "resolve", asked.place.barrel, given.id)
        conflicts = serving.barrel(asked).conflicts
        return conflicts.resolution(given.id, rev=given.rev, doc=given.doc, leaves=given.leaves), token

    written = await serving.write_one(asked, len(asked.payload), prepare)
    return encode_json(written_fields(written)), carried[0]
