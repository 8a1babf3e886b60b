"""Errors as CouchDB tells them: `{"error", "reason"}` with its own statuses and names.

A table over the codes of `feeds.errors`, and the errors that only CouchDB's clients know.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from broker.http.answers import Answer, Header, encode_json
from broker.http.errors import RETRY_AFTER_S, MethodNotAllowed, RangeNotSatisfiable, status_of
from feeds.errors import Conflict, Deleted, NotFound, SpileError, Unauthorized


class Told(NamedTuple):
    """An error in CouchDB's words."""

    status: int
    error: str
    reason: str


class CouchError(SpileError):
    """The request is refused in CouchDB's own words."""

    def __init__(self, status: int, error: str, reason: str) -> None:
        super().__init__(reason)
        self.told = Told(status, error, reason)


_NAMES: Final[dict[str, tuple[int, str]]] = {
    "exists": (412, "file_exists"),
    "rate_limited": (429, "too_many_requests"),
    "range_not_satisfiable": (416, "requested_range_not_satisfiable"),
    "overloaded": (503, "service_unavailable"),
    "unavailable": (503, "service_unavailable"),
    "internal": (500, "internal_server_error"),
}
_WAIT: Final = frozenset(("overloaded", "unavailable", "rate_limited"))


def bad_request(reason: str) -> CouchError:
    """The request cannot be understood."""
    return CouchError(400, "bad_request", reason)


def told(error: SpileError) -> Told:
    """An error in CouchDB's words."""
    if isinstance(error, CouchError):
        return error.told
    if isinstance(error, NotFound):
        return Told(404, "not_found", "deleted" if isinstance(error, Deleted) else "missing")
    if isinstance(error, Conflict):
        return Told(409, "conflict", "Document update conflict.")
    if isinstance(error, Unauthorized):
        return Told(401, error.code, f"{error.reason}: any name will do, with the token as password.")
    status, name = _NAMES.get(error.code) or (status_of(error), error.code)
    return Told(status, name, error.reason)


def error_answer(error: SpileError) -> Answer:
    """The answer to a request that is refused."""
    status, name, reason = told(error)
    headers: list[Header] = []
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allow.encode()))
    if isinstance(error, RangeNotSatisfiable):
        headers.append((b"content-range", b"bytes */%d" % error.details["length"]))
    if error.code in _WAIT:
        headers.append((b"retry-after", b"%d" % error.details.get("retry_after", RETRY_AFTER_S)))
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="spile", charset="UTF-8"'))
    return Answer(status, encode_json({"error": name, "reason": reason}), headers)
