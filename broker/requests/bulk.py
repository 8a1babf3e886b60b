"""Many documents in one request: the call `bulk`, with the body and the result of HTTP's `_bulk`."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec

from broker.requests.answers import encode_json, too_large, written_fields
from broker.requests.attached import all_with_contents
from broker.requests.bodies import Body, checked_token, read_body
from broker.requests.serving import Asked, Result, Serving
from feeds import Outcome, Write, Written
from feeds.errors import BadRequest, SpileError, TooLarge
from feeds.storage.bulk import BulkRequest, bulk_request

_RESULT_BYTES = 112  # a revision, a seq, `repeated`, and the names of all fields

Prepared = list[Write | SpileError]


class _Bulk(BulkRequest, kw_only=True):
    token: Any = msgspec.field(default=msgspec.UNSET, name="_token")


async def bulk(serving: Serving, asked: Asked) -> Result:
    """Write `{docs, new_edits?, update?}`: each is accepted or refused by itself, and answered in order.

    TooLarge before anything is written where the answer could not hold that all was accepted, and afterwards
    (with what became of them, counted) where long refusals make it too large.

    What is replicated (`new_edits` is false) is idempotent by itself: its token is told back, and not kept.
    """
    serving.allow(asked, "write")

    def prepare() -> tuple[bool, Body, Prepared]:
        request = bulk_request(asked.payload, _Bulk)
        replicated = request.new_edits is False
        return replicated, _body(asked.payload, request.token, replicated), _prepare(serving, request)

    written: list[Outcome] = []
    with serving.lanes.lane(asked.client.name) as lane:
        async with lane.turn:
            replicated, body, prepared = await serving.checked(len(asked.payload), prepare)
            barrel = serving.barrel(asked)
            prepared = await all_with_contents(serving, asked, barrel, prepared)
            future = None
            if prepared:
                token = None if replicated else body.bound(asked.client.name, "bulk", barrel.name, "")
                lane.last = future = barrel.submit(prepared, token=token)
        if future is not None:
            written = await serving.outcomes(asked, future)
    return _told(written, serving.limits.answer_bytes_max), body.token


def _body(payload: bytes, token: Any, replicated: bool) -> Body:
    """What the request's token is bound to: its fields, or its text where some document in it cannot be read."""
    if token is None or token is msgspec.UNSET:
        return Body({}, None)
    if replicated:
        return Body({}, checked_token(token))
    try:
        return read_body(payload)
    except BadRequest:
        return Body({"text": sha256(payload).hexdigest()}, checked_token(token))


def _prepare(serving: Serving, asked: _Bulk) -> Prepared:
    most = serving.limits.bulk_documents_max
    if len(asked.docs) > most:
        raise TooLarge(
            f"{len(asked.docs)} documents are in one request; it takes {most}.",
            hint="Send fewer at a time. Nothing of this request was written.",
        )
    prepared = asked.writes(serving.document_bytes_max)
    size = sum(_RESULT_BYTES + len(encode_json(each.id)) for each in prepared if isinstance(each, Write))
    if size > serving.limits.answer_bytes_max:
        raise too_large(
            size,
            serving.limits.answer_bytes_max,
            "Send fewer documents at a time. Nothing of this request was written.",
        )
    return prepared


def _told(outcomes: list[Outcome], bytes_max: int) -> bytes:
    answer = encode_json({"results": [_outcome(each) for each in outcomes]})
    if len(answer) > bytes_max:
        accepted = sum(isinstance(each, Written) for each in outcomes)
        raise too_large(
            len(answer),
            bytes_max,
            "What could be written was written; send fewer documents at a time to hear of each.",
            written=accepted,
            refused=len(outcomes) - accepted,
        )
    return answer


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return outcome.as_dict() if isinstance(outcome, SpileError) else written_fields(outcome)
