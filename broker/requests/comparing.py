"""What is missing here, asked for many at once: the calls `revs_diff` and `blobs_diff`, for replicators."""

from __future__ import annotations

from typing import Annotated

import msgspec

from broker.requests.answers import encode_json
from broker.requests.blobs import SHA256_DIGEST, digest_of
from broker.requests.bodies import Body
from broker.requests.serving import Asked, Serving
from feeds import Barrel
from feeds.attachments.held import held_content
from feeds.errors import NotFound

_DIGESTS_MAX = 1_000
"""Of one request: each is looked up by itself, and whoever brings documents asks for those of a batch."""
_ANCESTORS_MAX = 100
"""Of a document with thousands of leaves: some are enough to find an attachment that need not be sent again."""
_FRAME_BYTES = 1024  # of an answer beside its result: an escaped token


class _Digests(msgspec.Struct, forbid_unknown_fields=True):
    digests: Annotated[
        list[Annotated[str, msgspec.Meta(pattern=SHA256_DIGEST)]], msgspec.Meta(max_length=_DIGESTS_MAX)
    ]


async def revs_diff(serving: Serving, asked: Asked, body: Body) -> bytes:
    """Which of the revisions in `{id: [rev, …]}` are not known here.

    Where the answer would be too large, the first `possible_ancestors` of each document are told.
    """
    serving.allow(asked, "read")
    revisions = body.as_(dict[str, list[str]])
    found = await serving.in_thread(serving.barrel(asked).revs_diff, revisions)
    answer = encode_json(found)
    if len(answer) + _FRAME_BYTES <= serving.limits.answer_bytes_max:
        return answer
    for told in found.values():
        del told.get("possible_ancestors", [])[_ANCESTORS_MAX:]
    return encode_json(found)


async def blobs_diff(serving: Serving, asked: Asked, body: Body) -> bytes:
    """Which of the contents in `{digests: […]}` no document of the barrel has: `{missing: […]}`."""
    serving.allow(asked, "read")
    digests = body.as_(_Digests).digests
    missing = await serving.in_thread(_missing, serving.barrel(asked), digests)
    return encode_json({"missing": missing})


def _missing(barrel: Barrel, digests: list[str]) -> list[str]:
    return [digest for digest in digests if not _is_held(barrel, digest)]


def _is_held(barrel: Barrel, digest: str) -> bool:
    try:
        held_content(barrel, digest_of(digest))
    except NotFound:
        return False
    return True
