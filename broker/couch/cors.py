"""Pages of other origins: which may use the face, and how browsers are told.

Those of `allowed_origins`, with credentials. A page of any other origin is told nothing, so that the browser keeps
the answer from it; what would change something is refused before it comes here (`broker.http.origin`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from broker.http.answers import Answer, Header
from broker.http.call import Call

_METHODS: Final = b"GET, HEAD, POST, PUT, DELETE, COPY"
_HEADERS: Final = (
    b"accept, authorization, content-encoding, content-type, origin, referer, x-csrf-token, if-match, if-none-match, "
    b"range, destination"
)
_EXPOSED: Final = (
    b"content-type, cache-control, accept-ranges, content-range, content-length, etag, location, server, "
    b"x-couch-request-id"
)
_DAY_S: Final = b"86400"


def cors_headers(asked: Sequence[Header], origins: Collection[str]) -> list[Header]:
    """What belongs to the answer to a request with these headers; nothing where no page of another origin asked."""
    origin = next((value for name, value in asked if name == b"origin"), None)
    if origin is None:
        return []
    vary: Header = (b"vary", b"origin")
    if origin.decode("latin-1") not in origins:
        return [vary]
    return [
        vary,
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", _EXPOSED),
    ]


async def preflight(call: Call) -> Answer:
    """May a page ask with that method and those headers?"""
    headers: list[Header] = [(b"allow", _METHODS)]
    if call.header(b"access-control-request-method") is not None:
        headers += [
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", _HEADERS),
            (b"access-control-max-age", _DAY_S),
        ]
    return Answer(204, b"", headers)
