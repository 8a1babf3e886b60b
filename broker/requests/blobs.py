"""Contents of attachments over MQTT, in ranges: `blob` reads one, `blob_put` uploads one, `blob_drop` gives it up."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import Annotated, Any

import msgspec

from broker.requests.answers import encode_json
from broker.requests.bodies import Body, read_part
from broker.requests.naming import Key, Named, Purpose
from broker.requests.ranges import range_bytes_max
from broker.requests.serving import Asked, Result, Serving, document_path
from feeds import Barrel, Content
from feeds.attachments.held import held_content
from feeds.body import check_id
from feeds.errors import BadRequest, Conflict, NotFound, SpileError, TooLarge

SHA256_DIGEST = "^(sha256-)?[0-9a-f]{64}$"
"""How a client may name a content."""


class _Range(msgspec.Struct, forbid_unknown_fields=True):
    digest: Annotated[str, msgspec.Meta(pattern=SHA256_DIGEST)]
    doc: str | None = None
    offset: Annotated[int, msgspec.Meta(ge=0)] = 0
    length: Annotated[int, msgspec.Meta(ge=1)] | None = None


class _Part(msgspec.Struct, forbid_unknown_fields=True):
    upload: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    digest: Annotated[str, msgspec.Meta(pattern=SHA256_DIGEST)]
    offset: Annotated[int, msgspec.Meta(ge=0)]
    total: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
    data: str
    doc: str | None = None

    @property
    def purpose(self) -> Purpose:
        return self.digest, self.total, self.doc


class _Drop(msgspec.Struct, forbid_unknown_fields=True):
    upload: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    doc: str | None = None


async def blob_range(serving: Serving, asked: Asked, body: Body) -> bytes:
    """A range of a content by `{digest, doc?, offset?, length?}`, if some document of the barrel has it, or `doc`.

    `{digest, offset, length, total, data}`: `data` is base64 of as much as was asked for and fits into a message.
    """
    wanted = body.as_(_Range)
    serving.allow(asked, "read", _path(wanted.doc))
    barrel = serving.barrel(asked)
    length_max = range_bytes_max(serving.limits.answer_bytes_max)
    length = length_max if wanted.length is None else min(wanted.length, length_max)

    def read() -> bytes:
        content = held_content(barrel, digest_of(wanted.digest), wanted.doc)
        part = b"".join(barrel.store.blobs.read(content.sha256, wanted.offset, length))
        told = {"digest": content.digest, "offset": wanted.offset, "length": len(part), "total": content.length}
        return encode_json({**told, "data": b64encode(part).decode()})

    return await serving.in_thread(read)


async def blob_put(serving: Serving, asked: Asked) -> Result:
    """Take `{upload, digest, offset, total, data, doc?}`: the next range of a content, in base64.

    `upload` is a name of the client's own, or the `id` that an answer told; `doc` is the only document that may name
    it, and without one the right to write the whole barrel is asked for. The result is `{upload, id, received}`,
    and with the last range `digest`, `md5` and `length` as well: from then on a document may name it as `upload`.
    What came already is passed over; Conflict with `size` in its details says where to go on instead.
    """
    with serving.lanes.lane(asked.client.name) as lane:
        async with lane.turn:
            part, data, token = await serving.checked(len(asked.payload), lambda: read_part(asked.payload, _Part))
            try:
                return await _take(serving, asked, part, data), token
            except SpileError as error:
                error.details.setdefault("upload", part.upload)
                raise


async def blob_drop(serving: Serving, asked: Asked) -> Result:
    """Give up the upload of `{upload, doc?}`, a name of the client's own or an `id`: `{upload, dropped}`.

    One that is not there (any more) was given up already: `dropped` is false.
    """
    with serving.lanes.lane(asked.client.name) as lane:
        async with lane.turn:
            body = await serving.body(asked)
            drop = body.as_(_Drop)
            serving.allow(asked, "write", _path(drop.doc))
            barrel, named = serving.barrel(asked), drop.upload
            id = serving.names.id(asked.client.name, barrel.name, named)
            dropped = await serving.in_thread(_give_up, serving, barrel.name, id, asked.who)
            serving.names.forget((asked.client.name, barrel.name, named))
            return encode_json({"upload": named, "dropped": dropped}), body.token


async def _take(serving: Serving, asked: Asked, part: _Part, data: bytes) -> bytes:
    serving.allow(asked, "write", _path(part.doc))
    barrel, limit = serving.barrel(asked), serving.limits.blob_bytes_max
    if part.total > limit:
        raise TooLarge(f"The content has {part.total} bytes; {limit} are allowed.", limit=limit)
    if part.offset + len(data) > part.total:
        raise BadRequest(f"The range ends at {part.offset + len(data)}, and the content at {part.total}.")
    key, names = (asked.client.name, barrel.name, part.upload), serving.names
    named = names.use(key, part.purpose, _now())
    if named is None:
        named = await _begin(serving, asked, barrel, part, key)
    try:
        size, content = await serving.in_thread(_go_on, barrel, named.id, asked.who, part, data)
    except NotFound:
        names.forget(key)
        raise
    except BadRequest:
        names.forget(key)  # other bytes than announced: the store has given it up
        raise
    told: dict[str, Any] = {"upload": part.upload, "id": named.id, "received": size}
    if content is not None:
        named.is_finished = True
        told |= {"digest": content.digest, "md5": content.md5, "length": content.length}
    return encode_json(told)


async def _begin(serving: Serving, asked: Asked, barrel: Barrel, part: _Part, key: Key) -> Named:
    """The upload of a name that is not known: one that the client knows by its id, or a new one."""
    store, who = barrel.store, asked.who
    given_up = serving.names.make_room(asked.client.name, _now())

    def begin() -> str:
        if given_up is not None:
            _give_up(serving, *given_up, who)
        try:
            return store.uploads.get(barrel.key, part.upload, who).id
        except NotFound:
            if part.offset:
                raise Conflict(
                    f"There is no upload {part.upload!r}, and you sent what follows on {part.offset}",
                    hint="Begin at 0, or go on with the `id` that was told for it.",
                    size=0,
                ) from None
        digest = digest_of(part.digest)
        return store.uploads.start(barrel.key, who, length=part.total, digest=digest, doc=part.doc).id

    named = Named(await serving.in_thread(begin), part.purpose, _now())
    serving.names.keep(key, named)
    return named


def _give_up(serving: Serving, barrel: str, id: str, who: str) -> bool:
    store = serving.store
    try:
        store.uploads.abort(store.barrel(barrel).key, id, who)
    except NotFound:
        return False  # the store was quicker, or the barrel was dropped
    return True


def _go_on(barrel: Barrel, id: str, who: str, part: _Part, data: bytes) -> tuple[int, Content | None]:
    uploads, key = barrel.store.uploads, barrel.key
    upload = uploads.get(key, id, who)
    if (upload.length, upload.doc) != (part.total, part.doc):
        raise BadRequest(f"The upload {id} was begun with another total or doc: {upload.length}, {upload.doc}.")
    if upload.content is not None:
        return upload.size, upload.content
    size = upload.size
    if part.offset + len(data) > size:
        # What came already is not taken again; where there is a gap, `append` says where to go on.
        size = uploads.append(key, id, max(part.offset, size), data[max(0, size - part.offset) :], who)
    if size < part.total:
        return size, None
    return size, uploads.finish(key, id, who, digest=digest_of(part.digest))


def _path(doc: str | None) -> str:
    return "#" if doc is None else document_path(check_id(doc))


def digest_of(text: str) -> str:
    """A content's digest as stubs have it."""
    return text if text.startswith("sha256-") else f"sha256-{text}"


def _now() -> float:
    return asyncio.get_running_loop().time()
