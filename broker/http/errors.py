"""Which HTTP status stands for which error, and how an error reads as an answer.

A table over `code`, and the errors that only HTTP knows. What went wrong is said by those who raise.
"""

from __future__ import annotations

from typing import Final

import msgspec

from broker.http.answers import Answer, Header
from feeds.errors import SpileError

RETRY_AFTER_S: Final = 1  # one group commit takes milliseconds; a second later the queue looks different

STATUS: Final[dict[str, int]] = {
    "bad_request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "not_written": 404,
    "method_not_allowed": 405,
    "exists": 409,
    "conflict": 409,
    "written": 409,
    "bad_epoch": 409,
    "replaced": 409,
    "peer_changed": 409,
    "epoch_changed": 410,
    "closed": 410,
    "trimmed": 410,
    "precondition_failed": 412,
    "missing_stub": 412,
    "too_large": 413,
    "range_not_satisfiable": 416,
    "token_reused": 422,
    "rate_limited": 429,
    "error": 500,
    "internal": 500,
    "damaged": 500,
    "bad_checksum": 500,
    "partial_read": 500,
    "bad_peer": 502,
    "unfit": 502,
    "overloaded": 503,
    "unavailable": 503,
    "store_locked": 503,
    "newer_schema": 503,
    "timeout": 504,
    "storage_full": 507,
}

_encode = msgspec.json.Encoder(enc_hook=str).encode


class MethodNotAllowed(SpileError):
    """This address does not know that method."""

    code = "method_not_allowed"
    hint = "Use one of the methods that `Allow` names."

    def __init__(self, reason: str | None = None, *, allow: str = "", hint: str | None = None) -> None:
        super().__init__(reason, hint=hint)
        self.allow = allow


class RangeNotSatisfiable(SpileError):
    """The range lies outside of the content."""

    code = "range_not_satisfiable"
    hint = "Ask for a range within it: its size is in `length` and in Content-Range."


class Internal(SpileError):
    """The service failed at this request."""

    code = "internal"
    hint = "The reason is the request's id; the service's log tells what happened under it."


def status_of(error: SpileError) -> int:
    """The status of an error; 500 for a code that the table does not have."""
    return STATUS.get(error.code, 500)


def error_answer(error: SpileError) -> Answer:
    """`{error, reason, hint, …}` with the status of its code, and the headers that belong to that status."""
    headers: list[Header] = []
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allow.encode()))
    if error.code in ("overloaded", "rate_limited", "unavailable"):
        headers.append((b"retry-after", b"%d" % error.details.get("retry_after", RETRY_AFTER_S)))
    if isinstance(error, RangeNotSatisfiable):
        headers.append((b"content-range", b"bytes */%d" % error.details["length"]))
    if error.code == "unauthorized":
        headers.append((b"www-authenticate", b'Basic realm="spile", charset="UTF-8"'))
    return Answer(status_of(error), _encode(error.as_dict()), headers)
