"""Which part of the path index a pattern means: shapes, and ranges of values on them.

A pattern is resolved against the barrel's distinct shapes first, of which there are few, and becomes ranges of the
index. It selects a little too much at times (texts are cut, `1` and `"1"` are one in a pattern), so that whoever
reads the rows matches the document's own paths again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection

from feeds.paths import decode_segment, value_segment
from feeds.patterns import Pattern
from feeds.storage.queries import Queries
from feeds.values import encode_value

LOWEST, HIGHEST = b"", b"\xff"  # around every value that is indexed


@dataclass(frozen=True, slots=True)
class Range:
    """The values from `low` up to, not including, `high` on one shape."""

    shape: int
    path: str
    low: bytes
    high: bytes


@dataclass(frozen=True, slots=True)
class Selection:
    """The ranges of the index that hold all matches, or None where only a look at every document tells."""

    ranges: tuple[Range, ...] | None
    ids: tuple[str, ...] = ()


def select(connection: Connection, queries: Queries, barrel: int, patterns: Sequence[Pattern]) -> Selection:
    """What the patterns mean together."""
    ranges: dict[Range, None] = {}
    ids: list[str] = []
    for pattern in patterns:
        levels = pattern.levels
        if levels[0] in ("+", "#"):
            return Selection(None)  # it may match `_id/…` as well
        if levels[0] == "_id":
            if "+" in levels or "#" in levels:
                return Selection(None)
            document_id = "/".join(decode_segment(level) or "" for level in levels[1:])
            ids.append(document_id)
            continue
        for found in pattern_ranges(connection, queries, barrel, levels):
            ranges[found] = None
    return Selection(tuple(ranges), tuple(ids))


def pattern_ranges(connection: Connection, queries: Queries, barrel: int, levels: Sequence[str]) -> list[Range]:
    """The ranges of one pattern that does not begin with a wildcard."""
    rest = levels[-1] == "#"
    exact = levels[:-1] if rest else levels
    found = []
    for shape, path in shapes_under(connection, queries, barrel, exact):
        places = path.split("/")
        if len(places) == len(exact) - 1 and matches_shape(exact[:-1], places):
            if exact[-1] == "+":
                found.append(Range(shape, path, LOWEST, HIGHEST))
            else:
                for value in values_named(exact[-1]):
                    found.append(Range(shape, path, value, value + b"\x00"))
        if rest and len(places) >= len(exact) and matches_shape(exact, places[: len(exact)]):
            found.append(Range(shape, path, LOWEST, HIGHEST))
    return found


def shapes_under(
    connection: Connection, queries: Queries, barrel: int, levels: Sequence[str]
) -> list[tuple[int, str]]:
    """The barrel's shapes that begin with the pattern's first level (a literal), as (number, path)."""
    if not levels or levels[0] == "+":
        rows = connection.exec_driver_sql(queries.shapes_all, (barrel,))
    else:
        first = levels[0]
        rows = connection.exec_driver_sql(queries.shapes_between, (barrel, first, first + "0"))
        return [(row[0], row[1]) for row in rows if row[1] == first or row[1].startswith(first + "/")]
    return [(row[0], row[1]) for row in rows]


def matches_shape(levels: Sequence[str], shape: Sequence[str]) -> bool:
    """Whether pattern levels can match a shape's; an array's `+` stands for any position."""
    for level, place in zip(levels, shape, strict=True):
        if level != "+" and level != place and not (place == "+" and level.isdecimal()):
            return False
    return True


def values_named(segment: str) -> list[bytes]:
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
