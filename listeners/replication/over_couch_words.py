"""How CouchDB writes things: paths of documents, errors, sequences. Pure."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import msgspec

from feeds.errors import (
    BadRequest,
    Conflict,
    Exists,
    Forbidden,
    MissingStub,
    NotFound,
    Overloaded,
    PreconditionFailed,
    RateLimited,
    SpileError,
    Timeout,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from listeners.replication.errors import BadPeer
from listeners.replication.requests import segment

_BELOW = ("_design/", "_local/")
_DIGITS_MAX = 18  # of what a server counts; of more it is a name
_NUMBER = re.compile(rf'[\s\["]*([0-9]{{1,{_DIGITS_MAX}}})(?![0-9])')
_encode = msgspec.json.Encoder().encode


class NotServed(BadPeer):
    """The server does not know this request."""

    hint = "Not every server that speaks CouchDB's protocol does all of it."


class _Refusal(msgspec.Struct):
    error: str | bool | None = None
    reason: Any = None


_STATUS: dict[int, type[SpileError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    405: NotServed,
    408: Timeout,
    409: Conflict,
    412: PreconditionFailed,
    413: TooLarge,
    414: TooLarge,
    415: NotServed,
    417: Forbidden,  # by a function of the database that validates documents
    429: RateLimited,
    501: NotServed,
    503: Overloaded,
    504: Timeout,
}
_BARE = (405, 414, 415, 501)
"""Often told by what stands before a server, without words."""
_NAMES: dict[str, type[SpileError]] = {
    "file_exists": Exists,
    "missing_stub": MissingStub,
    "not_found": NotFound,
    "conflict": Conflict,
    "forbidden": Forbidden,
    "unauthorized": Unauthorized,
    "too_large": TooLarge,
    "document_too_large": TooLarge,
    "attachment_too_large": TooLarge,
    "request_entity_too_large": TooLarge,
    "too_many_requests": RateLimited,
    "timeout": Timeout,
    "internal_server_error": Unavailable,
    "service_unavailable": Unavailable,
    "unknown_error": Unavailable,
}


def couch_refusal(status: int, body: bytes) -> SpileError | None:
    """The error that an answer tells of; None where that is no error of CouchDB's."""
    try:
        told = msgspec.json.decode(body, type=_Refusal)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        if status not in _BARE:
            return None
        return _STATUS[status](f"The server answers with HTTP status {status}")
    if told.error is None and told.reason is None:
        return None
    name = told.error if isinstance(told.error, str) else ""
    kind = _NAMES.get(name) if status in (412, 500) else None
    if kind is None:
        kind = _STATUS.get(status, Unavailable if status >= 500 else BadRequest)
    return kind(_reason(name, told.reason))


def document_refusal(name: str, reason: Any) -> SpileError:
    """The error of one document among many."""
    # As a function that validates documents may say what it does not like: asking again does not help.
    kind = BadRequest if name == "unknown_error" else _NAMES.get(name, BadRequest)
    return kind(_reason(name, reason))


def _reason(name: str, reason: Any) -> str:
    said = reason if isinstance(reason, str) else "" if reason is None else _encode(reason).decode()
    return f"{said[:500] or 'No reason was given.'} ({name})" if name else said[:500] or "No reason was given."


def document_path(id: str) -> str:
    """The path of a document below its database, as CouchDB's own replicator writes it."""
    for below in _BELOW:
        if id.startswith(below):
            return f"/{below}{segment(id.removeprefix(below))}"
    return "/" + segment(id)


def attachment_path(id: str, name: str) -> str:
    """The path of an attachment: its levels stay levels."""
    return document_path(id) + "/" + "/".join(map(segment, name.split("/")))


def seq_text(seq: Any) -> str:
    """A sequence as text: whatever the server gave, to be given back as it was."""
    return seq if isinstance(seq, str) else _encode(seq).decode()


def seq_number(seq: Any) -> int | None:
    """How far a sequence is, where it begins with a number as most do."""
    found = _NUMBER.match(seq_text(seq))
    return None if found is None else int(found[1])


def plain_number(position: str) -> int | None:
    """A position of a server that counts with numbers; None for one of another kind."""
    return seq_number(position) if position.isascii() and position.isdigit() else None


def in_query(**options: Any) -> str:
    """A query string; what is not text is written as JSON."""
    told = (
        f"{name}={quote(each if isinstance(each, str) else _encode(each).decode(), safe='')}"
        for name, each in options.items()
        if each is not None
    )
    return "?" + "&".join(told)
