"""What a handler gives back: a whole answer, or one that comes in chunks.

Values only; `broker.http.exchange` sends them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import quote, unquote

import msgspec

Header = tuple[bytes, bytes]

JSON: Final = b"application/json"
LINES: Final = b"application/x-ndjson"
EVENTS: Final = b"text/event-stream"

encode_json = msgspec.json.Encoder().encode

_ETAG_SAFE: Final = "!#$&'()*+-./:;<=>?@[]^_`{|}~"


@dataclass(slots=True)
class Answer:
    """A status and a whole body."""

    status: int
    body: bytes = b""
    headers: list[Header] = field(default_factory=list)
    content_type: bytes = JSON


class Chunks(Protocol):
    """Where a body comes from, piece by piece. `close` is always called, at the end or before it."""

    async def next(self) -> bytes | None:
        """The next piece, or None at the end. It may be cancelled while it waits; then only `close` follows."""
        ...

    async def close(self) -> None:
        """Let go of what the pieces are made from."""
        ...


@dataclass(slots=True)
class Streamed:
    """An answer whose body comes in chunks, read only as fast as the client takes them.

    `live` answers have no end of their own: they are ended when the service stops.
    """

    chunks: Chunks
    content_type: bytes = JSON
    headers: list[Header] = field(default_factory=list)
    live: bool = False
    status: int = 200


AnyAnswer = Answer | Streamed


def json_answer(value: Any, status: int = 200, headers: list[Header] | None = None) -> Answer:
    """`value` as JSON."""
    return Answer(status, encode_json(value), headers or [])


def etag(rev: str) -> bytes:
    """A revision as entity tag. A replicated one may hold what a header may not; that is percent-encoded."""
    return b'"' + quote(rev, safe=_ETAG_SAFE).encode() + b'"'


def revisions_in(header: str) -> list[str]:
    """The revisions in an `If-Match` or `If-None-Match` header: `*` alone, or tags in quotes or bare."""
    tags = (tag.strip().removeprefix("W/").strip('"') for tag in header.split(","))
    return [unquote(tag) for tag in tags if tag]
