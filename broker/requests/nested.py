"""Nested calls over MQTT: what a request says about them, and the calls that services make of each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from broker.nested import reach_of
from broker.requests.answers import encode_json
from broker.requests.bodies import Body
from broker.requests.serving import Asked, Serving, document_path
from feeds.body import check_id
from feeds.errors import BadRequest
from listeners.nested import Reach, ReadAsked, WriteAsked, WriteTold

_FIELDS = ("_p2p_write", "_p2p_depth", "_p2p_timeout")
_ASKS = b'"_p2p_write"'


class _Passing(msgspec.Struct, forbid_unknown_fields=True):
    write: int | None = msgspec.field(default=None, name="_p2p_write")
    depth: int | None = msgspec.field(default=None, name="_p2p_depth")
    timeout: int | None = msgspec.field(default=None, name="_p2p_timeout")


class PassingOn:
    """What the write of one request is to come to beyond this service."""

    def __init__(self, serving: Serving, has_place: bool) -> None:
        self._serving = serving
        self._has_place = has_place
        self._reach: Reach | None = None

    def take(self, body: Body) -> None:
        """Take off what the body says about it; BadRequest for what cannot be meant."""
        given: dict[str, Any] = {name: body.fields.pop(name) for name in _FIELDS if name in body.fields}
        if not given:
            return
        try:
            told = msgspec.convert(given, _Passing)
        except msgspec.ValidationError as error:
            raise BadRequest(f"The nested call cannot be meant: {error}") from None
        self._reach = reach_of(told.write, told.depth, told.timeout)
        if self._reach is not None and not self._has_place:
            raise BadRequest("`_p2p_write` is to be written without escapes.")

    async def done(self, asked: Asked, id: str, rev: str) -> WriteTold | None:
        """Pass on what was written, if that is wanted."""
        if self._reach is None:
            return None
        return await self._serving.nest.pass_on(self._serving.barrel(asked), id, rev, self._reach)


@contextmanager
def passing_on(serving: Serving, asked: Asked) -> Iterator[PassingOn]:
    """For the length of a write; Overloaded, before anything is done, where too many nested calls are in work."""
    if _ASKS not in asked.payload:
        yield PassingOn(serving, has_place=False)
        return
    with serving.nest.place():
        yield PassingOn(serving, has_place=True)


async def p2p_write(serving: Serving, asked: Asked, body: Body) -> bytes:
    """Pass on a revision that is here."""
    given = body.as_(WriteAsked)
    reach = given.reach()
    serving.allow(asked, "write", document_path(check_id(given.id)))
    barrel = serving.barrel(asked)
    with serving.nest.place():
        await serving.in_thread(lambda: barrel.get(given.id, rev=given.rev))
        told = await serving.nest.pass_on(barrel, given.id, given.rev, reach, given.seen)
    return encode_json(told)


async def p2p_read(serving: Serving, asked: Asked, body: Body) -> bytes:
    """Give a document from here, or from peers."""
    given = body.as_(ReadAsked)
    search = given.search()
    path = document_path(check_id(given.id))
    serving.allow(asked, "read", path)
    if given.keep:
        serving.allow(asked, "write", path)
    barrel = serving.barrel(asked)
    with serving.nest.place():
        return encode_json(await serving.nest.look(barrel, given.id, given.rev, search, given.seen))
