"""What stands at the end of a route: the handler, its name, and the options that it knows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from broker.http.answers import Answer, AnyAnswer, Header
from broker.http.call import Call
from broker.http.errors import error_answer
from feeds.errors import SpileError

Handler = Callable[[Call], Awaitable[AnyAnswer]]
Refuse = Callable[[SpileError, Sequence[Header], Collection[str]], Answer]
"""What a face answers to a request with these headers that its handler does not get to see; the last are the origins
whose pages may read it."""


def _refuse(error: SpileError, headers: Sequence[Header], origins: Collection[str]) -> Answer:
    return error_answer(error)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`name` is what the description calls the operation; `options` are its query parameters, no others pass.

    What `writes` waits for the writer, and is not let in while too much does. Bodies of a type that begins with
    `streams` are taken piece by piece, and charged for as they come. What `inflates` takes compressed ones.
    """

    name: str
    handler: Handler
    options: frozenset[str] = frozenset()
    writes: bool = False
    streams: str | None = None
    inflates: bool = False
    refuse: Refuse = _refuse


Route = tuple[str, str, Endpoint]


_WRITING: Final = frozenset(("PUT", "PATCH", "DELETE", "POST"))


def route(
    method: str,
    template: str,
    name: str,
    handler: Handler,
    options: Sequence[str] = (),
    *,
    reads: bool = False,
    streams: str | None = None,
) -> Route:
    """A row of the route table. What is done by POST writes, unless it only `reads`."""
    return method, template, Endpoint(name, handler, frozenset(options), method in _WRITING and not reads, streams)
