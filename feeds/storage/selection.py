"""Which part of the path index a pattern means: shapes, and bounds of values on them.

A pattern is resolved against the barrel's distinct shapes, of which there may be as many as there are ids where ids
are keys. It selects a little too much at times (texts are cut, `1` and `"1"` are one in a pattern), so that whoever
reads the rows matches the document's own paths again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection

from feeds.paths import decode_segment, value_segment
from feeds.patterns import Pattern
from feeds.storage.ids import IdPattern
from feeds.storage.queries import Queries
from feeds.values import encode_value

Bounds = tuple[bytes, bytes]  # values from the first up to, not including, the second
Span = tuple[str, str]  # the same of paths of shapes

LOWEST, HIGHEST = b"", b"\xff"  # around every value that is indexed
EVERY_VALUE: Bounds = (LOWEST, HIGHEST)

# Control characters and noncharacters are encoded in paths: the one sorts behind the path itself and before all that
# begin with it, the other behind every path.
JUST_BEHIND = "\x01"
LAST_PATH = "\U0010ffff"

_SPANS_MAX = 8  # of one pattern: each number in it may be a key or a position
_PAGE, _PAGE_MAX = 64, 4_096  # shapes read at a time


@dataclass(frozen=True, slots=True)
class Selection:
    """Where all matches are: the numbers of shapes by the bounds of values on them, exact ids, and spans of ids."""

    shapes: Mapping[Bounds, Sequence[int]]
    ids: Sequence[str]
    id_spans: Sequence[Span]


class Places:
    """The shapes that one pattern means, and the values on each.

    With `named` the last level may name a value, as in `region/Europe`. `bounds` are those of the values on shapes
    that the whole pattern names; None where it has to end with `#` to name one.
    """

    def __init__(self, levels: Sequence[str], *, named: bool = True, bounds: Bounds | None = None) -> None:
        rest = levels[-1] == "#"
        exact = levels[:-1] if rest else levels
        named = named and len(exact) > 1
        if bounds is None and rest:
            bounds = EVERY_VALUE
        self.spans = _spans(exact, rest, named)
        self._whole = re.compile(_expression(exact, rest)).fullmatch
        self._whole_bounds = [] if bounds is None else [bounds]
        self._but_last = re.compile(_expression(exact[:-1], False)).fullmatch if named else None
        self._named_bounds: list[Bounds] = []
        if named:
            ways = [EVERY_VALUE] if exact[-1] == "+" else [(value, value + b"\x00") for value in _named(exact[-1])]
            self._named_bounds = sorted(ways)

    def bounds(self, path: str) -> Sequence[Bounds]:
        """The values that are meant on a shape, in order; none where the shape is not meant."""
        if self._whole_bounds and self._whole(path):
            return self._whole_bounds
        return self._named_bounds if self._but_last is not None and self._but_last(path) else ()


def select(
    connection: Connection, queries: Queries, barrel: int, patterns: Sequence[Pattern], shapes_max: int
) -> Selection | None:
    """What the patterns mean together; None where only a look at every document tells, or where more than
    `shapes_max` shapes would have to be looked at."""
    found: dict[Bounds, dict[int, None]] = {}
    ids: list[str] = []
    id_spans: list[Span] = []
    looked_at = 0
    for pattern in patterns:
        levels = pattern.levels
        if levels[0] in ("+", "#"):
            return None  # it may match `_id/…` as well
        if levels[0] == "_id":
            wanted = IdPattern(levels)
            if wanted.exact is not None:
                ids.append(wanted.exact)
            else:
                id_spans.extend(wanted.spans)
            continue
        places = Places(levels)
        for shape, path in shapes_in(connection, queries, barrel, places.spans):
            looked_at += 1
            if looked_at > shapes_max:
                return None
            for bounds in places.bounds(path):
                found.setdefault(bounds, {})[shape] = None
    return Selection({bounds: list(numbers) for bounds, numbers in found.items()}, ids, id_spans)


def shapes_in(
    connection: Connection, queries: Queries, barrel: int, spans: Sequence[Span], *, descending: bool = False
) -> Iterator[tuple[int, str]]:
    """The barrel's shapes in these spans as (number, path), in the order of paths; read as they are asked for."""
    statement = queries.shapes_between_back if descending else queries.shapes_between
    page = _PAGE
    for low, high in reversed(spans) if descending else spans:
        while low < high:
            rows = connection.exec_driver_sql(statement, (barrel, low, high, page)).all()
            yield from ((row[0], row[1]) for row in rows)
            if len(rows) < page:
                break
            last = rows[-1][1]
            low, high = (low, last) if descending else (last + JUST_BEHIND, high)
            page = min(4 * page, _PAGE_MAX)


def _spans(exact: Sequence[str], rest: bool, named: bool) -> list[Span]:
    """Where the shapes lie that some levels may mean: under every spelling of those before the first wildcard."""
    prefixes: list[tuple[str, ...]] = [()]
    used = 0
    for level in exact:
        spellings = (level, "+") if _is_position(level) else (level,)
        if level == "+" or len(prefixes) * len(spellings) > _SPANS_MAX:
            break
        prefixes = [(*prefix, spelling) for prefix in prefixes for spelling in spellings]
        used += 1
    if not used:
        return [("", LAST_PATH)]
    whole = used == len(exact)
    below = "0" if rest or not whole else JUST_BEHIND  # "0" is what follows on "/"
    spans = {(path, path + below) for path in map("/".join, prefixes)}
    if named and whole:
        spans.update((path, path + JUST_BEHIND) for path in ("/".join(prefix[:-1]) for prefix in prefixes))
    return sorted(spans)


def _expression(levels: Sequence[str], rest: bool) -> str:
    """A regular expression for the shapes that some levels mean; a number may be a position in an array."""
    if not levels:
        return "(?s:.*)" if rest else "(?!)"
    parts = []
    for level in levels:
        if level == "+":
            parts.append("[^/]*")
        else:
            parts.append(f"(?:{level}|[+])" if _is_position(level) else re.escape(level))
    return "/".join(parts) + ("(?s:/.*)?" if rest else "")


def _is_position(level: str) -> bool:
    return level.isascii() and level.isdecimal()


def _named(segment: str) -> list[bytes]:
    """The indexed values whose last path segment is this: the text, and what else is written like it."""
    found = []
    text = decode_segment(segment)
    if text is not None:
        found.append(encode_value(text))
    value: Any
    try:
        value = msgspec.json.decode(segment)
    except (msgspec.MsgspecError, ValueError):
        return found
    if type(value) is not str and value_segment(value) == segment:
        found.append(encode_value(value))
    return found
