"""What stands at the end of a route: the handler, its name, and the options that it knows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from broker.http.answers import AnyAnswer
from broker.http.call import Call

Handler = Callable[[Call], Awaitable[AnyAnswer]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`name` is what the description calls the operation; `options` are its query parameters, no others pass."""

    name: str
    handler: Handler
    options: frozenset[str] = frozenset()


Route = tuple[str, str, Endpoint]


def route(method: str, template: str, name: str, handler: Handler, options: Sequence[str] = ()) -> Route:
    """A row of the route table."""
    return method, template, Endpoint(name, handler, frozenset(options))
