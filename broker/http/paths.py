"""Finding documents by what stands under a path."""

from __future__ import annotations

from functools import partial
from typing import Final, Literal, cast

import msgspec

from broker.http.answers import Answer, json_answer
from broker.http.call import Call
from broker.http.endpoint import route
from broker.http.routing import decode
from feeds.paths import encode_segment, id_levels

LIMIT_MAX: Final = 1000
_LIMIT: Final = 100


async def find(call: Call) -> Answer:
    """The documents that have a value at the path, by value or by key, one page of them."""
    name = call.param("barrel")
    path = path_text(call.params["path"])
    call.allow("read", name, path)
    barrel = call.services.store.barrel(name)
    options = call.options()
    options.flag("consistent")  # a promise that always holds: the index is written with the document
    limit = options.number("limit", least=1, most=LIMIT_MAX)
    ask = partial(
        barrel.find,
        path,
        from_=options.scalar("from") if options.has("from") else msgspec.UNSET,
        to=options.scalar("to") if options.has("to") else msgspec.UNSET,
        prefix=options.text("prefix"),
        order=cast(Literal["key", "value"], options.choice("order", ("key", "value"), "key")),
        descending=options.flag("descending"),
        limit=_LIMIT if limit is None else limit,
        after=options.text("after"),
        docs=options.flag("docs"),
    )
    page = await call.in_thread(ask)
    return json_answer({"results": page.results, "next": page.next})


def path_text(raw: str) -> str:
    """The path behind a raw URL path: every segment decoded and encoded as paths are.

    A segment that is a bare `+` or `*` is a wildcard (a last `*` for all that follows); percent-encoded it is the
    character itself, but for a last `%23`: a bare `#` would end the URL. The slashes of an id may stand encoded.
    """
    segments = raw.removeprefix("/").split("/")
    encode = id_levels if segments[0] == "_id" else encode_segment
    path = [part if part in ("+", "*") else encode(decode(part, "path")) for part in segments]
    if segments[-1] == "%23":
        path[-1] = "#"
    return "/".join(path)


ROUTES = [
    route(
        "GET",
        "/barrels/{barrel}/paths/{path...}",
        "find",
        find,
        ("from", "to", "prefix", "order", "descending", "limit", "after", "docs", "consistent"),
    )
]
