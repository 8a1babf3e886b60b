"""A document larger than a message, read in ranges: the call `body`."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from typing import Annotated

import msgspec

from broker.requests.answers import encode_json
from broker.requests.bodies import Body
from broker.requests.serving import Asked, Serving, document_path
from feeds.errors import BadRequest

# Of an answer beside its data: an id of 512 bytes (escaped), a token, names and numbers.
_FRAME_BYTES = 2 * 1024


class _Range(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    rev: str | None = None
    offset: Annotated[int, msgspec.Meta(ge=0)] = 0
    length: Annotated[int, msgspec.Meta(ge=1)] | None = None
    revs: bool = False


async def body_range(serving: Serving, asked: Asked, body: Body) -> bytes:
    """A range of a document's JSON by `{id, rev?, offset?, length?, revs?}`.

    `{id, rev, offset, length, total, sha256, data}`: `data` is base64 of as much as was asked for and
    fits into a message, `total` and `sha256` are of the whole JSON. Who reads on names the `rev` of the first
    answer.
    """
    wanted = body.as_(_Range)
    serving.allow(asked, "read", document_path(wanted.id))
    barrel = serving.barrel(asked)
    length_max = range_bytes_max(serving.limits.answer_bytes_max)

    def read() -> bytes:
        document = barrel.get(wanted.id, rev=wanted.rev, revs=wanted.revs)
        whole = document.json()
        if wanted.offset > len(whole):
            raise BadRequest(
                f"The document has {len(whole)} bytes; there is nothing at {wanted.offset}.", total=len(whole)
            )
        length = length_max if wanted.length is None else min(wanted.length, length_max)
        part = whole[wanted.offset : wanted.offset + length]
        return encode_json(
            {
                "id": document.id,
                "rev": document.rev,
                "offset": wanted.offset,
                "length": len(part),
                "total": len(whole),
                "sha256": sha256(whole).hexdigest(),
                "data": b64encode(part).decode(),
            }
        )

    return await serving.in_thread(read)


def range_bytes_max(answer_bytes_max: int) -> int:
    """How much of a document fits into one answer, as base64 makes 4 bytes of 3."""
    return max(1, (answer_bytes_max - _FRAME_BYTES) // 4 * 3)
