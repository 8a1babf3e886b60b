"""The verb that reads one document: get."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from broker.nested import not_kept, search_of, shown, whose
from broker.requests.answers import too_large, wrapped
from broker.requests.serving import Asked, Serving, document_path
from feeds.errors import BadRequest, Deleted, NotFound
from listeners.nested import Search
from listeners.nested.seeking import not_found


class _Options(msgspec.Struct, forbid_unknown_fields=True):
    rev: str | None = None
    revs: bool = False
    conflicts: bool = False
    history: bool = False
    p2p_read: Literal["order", "first"] | None = None
    p2p_depth: int | None = None
    p2p_timeout: int | None = None
    keep: bool = False

    def search(self) -> Search | None:
        """How the document is looked for elsewhere."""
        here_only = self.conflicts or self.history
        return search_of(self.p2p_read, self.p2p_depth, self.p2p_timeout, keep=self.keep, here_only=here_only)


async def get(serving: Serving, asked: Asked) -> bytes:
    """Read the document of the topic by `{rev?, revs?, conflicts?, history?, p2p_read?, …}`; answered on `document`.

    With `p2p_read` one that is not here is looked for at peers.
    """
    async with serving.lanes.after_writes(asked.client.name):
        body = await serving.body(asked)
        options = body.as_(_Options)
        id = asked.place.id
        if id is None:
            raise BadRequest("`get` names a document.", hint="Publish to from/<user>/<client id>/get/<barrel>/<id>.")
        search = options.search()
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

        p2p: dict[str, Any] | None = None
        try:
            rev, found = await serving.in_thread(read)
        except Deleted:
            raise
        except NotFound:
            if search is None:
                raise
            if search.keep:
                serving.allow(asked, "write", document_path(id))
            with serving.nest.place():
                told = await serving.nest.look_further(barrel, id, options.rev, search)
            if not isinstance(told.doc, msgspec.Raw):
                raise not_found(id, told) from None
            p2p = whose(told)
            if told.kept:
                rev, found = await serving.in_thread(read)
            elif options.conflicts or options.history:
                raise not_kept(told) from None
            else:
                rev, found = options.rev or "", shown(told, options.revs)
    if len(found) > serving.limits.answer_bytes_max:
        hint = 'Read it in ranges: call "body" with {id, rev, offset, length}.'
        raise too_large(len(found), serving.limits.answer_bytes_max, hint, id=id, rev=rev)
    return wrapped("doc", found, body.token, p2p)
