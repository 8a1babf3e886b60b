"""Which endpoint serves a raw path.

Pure. The path is taken as it came over the wire, since a decoded one no longer tells a barrel's `/` from the one
that ends its name. A template's `{name}` is one segment, `{name...}` everything to the end, slashes included.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar
from urllib.parse import unquote_to_bytes

from feeds.errors import BadRequest

T = TypeVar("T")

_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(slots=True)
class _Node(Generic[T]):
    literals: dict[str, _Node[T]] = field(default_factory=dict)
    segment: tuple[str, _Node[T]] | None = None
    rest: tuple[str, _Node[T]] | None = None
    methods: dict[str, T] = field(default_factory=dict)
    template: str = ""


@dataclass(frozen=True, slots=True)
class Match(Generic[T]):
    """The place that a path names: what it serves by method, and the still encoded parts of the path."""

    template: str
    methods: Mapping[str, T]
    params: Mapping[str, str]

    @property
    def allow(self) -> str:
        """The methods it knows, as the `Allow` header wants them."""
        known = set(self.methods) - {"WEBSOCKET"}
        return ", ".join(sorted(known | {"HEAD"} if "GET" in known else known))


class Router(Generic[T]):
    """Templates and what they serve. Literal segments win over parameters, whatever the order of adding."""

    def __init__(self, routes: Iterable[tuple[str, str, T]] = ()) -> None:
        self._root: _Node[T] = _Node()
        self._routes: list[tuple[str, str, T]] = []
        for method, template, target in routes:
            self.add(method, template, target)

    @property
    def routes(self) -> list[tuple[str, str, T]]:
        """Every (method, template, target) in the order of adding."""
        return list(self._routes)

    def add(self, method: str, template: str, target: T) -> None:
        """Serve `method` on `template`; a second target for the same place is a mistake and raises ValueError."""
        node = self._root
        for part in template.removeprefix("/").split("/"):
            node = _child(node, part)
        if method in node.methods or node.template not in ("", template):
            raise ValueError(f"{method} {template} stands beside {node.template}")
        node.template = template
        node.methods[method] = target
        self._routes.append((method, template, target))

    def match(self, raw_path: str) -> Match[T] | None:
        """The place of a raw path (without the query), or None."""
        segments = raw_path[1:].split("/")
        params: dict[str, str] = {}
        node = _walk(self._root, segments, 0, params)
        return Match(node.template, node.methods, params) if node is not None else None


def decode(segment: str, what: str) -> str:
    """The text behind a percent-encoded part of a path; BadRequest names `what` is wrong with it."""
    if "%" not in segment:
        return segment
    if found := _BROKEN_ESCAPE.search(segment):
        raise BadRequest(
            f"The {what} holds a broken percent-encoding: {segment[found.start() : found.start() + 3]!r}.",
            hint="Write a percent sign itself as %25.",
        )
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"The {what} is not UTF-8.", hint="Percent-encode the bytes of its UTF-8 text.") from error


def _child(node: _Node[T], part: str) -> _Node[T]:
    if not part.startswith("{"):
        return node.literals.setdefault(part, _Node())
    name = part[1:-1]
    if name.endswith("..."):
        node.rest = node.rest or (name[:-3], _Node())
        return node.rest[1]
    node.segment = node.segment or (name, _Node())
    return node.segment[1]


def _walk(node: _Node[T], segments: list[str], at: int, params: dict[str, str]) -> _Node[T] | None:
    if at == len(segments):
        return node if node.methods else None
    part = segments[at]
    if (literal := node.literals.get(part)) is not None:
        found = _walk(literal, segments, at + 1, params)
        if found is not None:
            return found
    if node.segment is not None and part:
        name, child = node.segment
        found = _walk(child, segments, at + 1, params)
        if found is not None:
            params[name] = part
            return found
    if node.rest is not None and any(segments[at:]):
        name, child = node.rest
        params[name] = "/".join(segments[at:])
        return child
    return None
