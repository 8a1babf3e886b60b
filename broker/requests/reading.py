"""The verb that reads one document: get."""

from __future__ import annotations

import msgspec

from broker.requests.answers import too_large, wrapped
from broker.requests.serving import Asked, Serving, document_path
from feeds.errors import BadRequest


class _Options(msgspec.Struct, forbid_unknown_fields=True):
    rev: str | None = None
    revs: bool = False
    conflicts: bool = False
    history: bool = False


async def get(serving: Serving, asked: Asked) -> bytes:
    """Read the document of the topic by `{rev?, revs?, conflicts?, history?}`; the answer on `document`."""
    async with serving.lanes.after_writes(asked.client.name):
        body = await serving.body(asked)
        options = body.as_(_Options)
        id = asked.place.id
        if id is None:
            raise BadRequest("`get` names a document.", hint="Publish to from/<user>/<client id>/get/<barrel>/<id>.")
        serving.allow(asked, "read", document_path(id))
        barrel = serving.barrel(asked)

        def read() -> tuple[str, bytes]:
            document = barrel.get(
                id,
                rev=options.rev,
                revs=options.revs,
                conflicts=options.conflicts,
                history=options.history,
            )
            return document.rev, document.json()

        rev, found = await serving.in_thread(read)
    if len(found) > serving.limits.answer_bytes_max:
        hint = 'Read it in ranges: call "body" with {id, rev, offset, length}.'
        raise too_large(len(found), serving.limits.answer_bytes_max, hint, id=id, rev=rev)
    return wrapped("doc", found, body.token)
