"""What a selector says about the path index: where all documents that it matches have a value.

Pure. Only what has to hold is used: a condition at the top, or one of a top-level `$and`. An index holds leaves, so
that a condition which a list or an object may fulfil, like `$gt`, is two readings: of the value itself, and of
everything below it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import msgspec

from feeds.paths import LEVELS_MAX, PATH_BYTES_MAX, encode_segment
from feeds.selector.collation import compare
from feeds.selector.model import Condition, Every, Node
from feeds.selector.regexes import literal_prefix

Kind: TypeAlias = Literal["equal", "prefix", "range", "exists"]

_LOWEST: Any = None  # the first of all values
_HIGHEST: Any = []  # in the order of the index the last of all leaves
_NUMBERS = (-1.7976931348623157e308, 1.7976931348623157e308)
_KINDS: tuple[Kind, ...] = ("equal", "prefix", "range", "exists")
_VALUE_BYTES_MAX = 310  # of an encoded, cut text at the end of a path, with room
_POSITION_BYTES_MAX = 10  # of an array position, where a pattern has `+`
_BY_ID = ("_id",)


@dataclass(frozen=True, slots=True)
class Reading:
    """One search of the index: a pattern of key paths, and the values there, both ends included.

    It is what `feeds.storage.find.Query` takes; `prefix` stands instead of `low` and `high`.
    """

    pattern: str
    low: Any = msgspec.UNSET
    high: Any = msgspec.UNSET
    prefix: str | None = None


@dataclass(frozen=True, slots=True)
class Bound:
    """What every match has at `path`, where `+` is some position of an array: in one of the readings it is found.

    `equal` is one value or one of some, `prefix` texts that begin with it, `range` from a value on, up to one, or
    both, `exists` anything at all. A bound that `needs_every_path` reads below its path: it finds every match only in
    a barrel where no path was too long or too deep for the index.
    """

    path: str
    kind: Kind
    readings: tuple[Reading, ...]

    @property
    def needs_every_path(self) -> bool:
        return any(reading.pattern.endswith("/#") for reading in self.readings)


@dataclass(frozen=True, slots=True)
class _Interval:
    """Values from `low` to `high`; with `containers` also lists and objects with something in them."""

    low: Any
    high: Any
    containers: bool

    def __and__(self, other: _Interval) -> _Interval:
        return _Interval(
            max(self.low, other.low, key=_Ordered),
            min(self.high, other.high, key=_Ordered),
            self.containers and other.containers,
        )


class _Ordered:
    """A value as a key to compare by."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __lt__(self, other: _Ordered) -> bool:
        return compare(self._value, other._value) < 0


_Path: TypeAlias = tuple[str, ...]
_ANYTHING = _Interval(_LOWEST, _HIGHEST, True)


def bounds_of(node: Node) -> tuple[Bound, ...]:
    """What has to be in the index, the narrowest first, each place once."""
    found = list(_bounds(node, ()))
    named = {bound.path for bound in found if bound.kind != "exists"}
    told: dict[tuple[str, ...], Bound] = {}
    for bound in sorted(found, key=_width):
        if bound.kind != "exists" or bound.path not in named:
            told.setdefault((bound.path, bound.kind, repr(bound.readings)), bound)
    return tuple(told.values())


def _width(bound: Bound) -> tuple[int, int]:
    return _KINDS.index(bound.kind), len(bound.readings)


def _bounds(node: Node, above: _Path) -> Iterator[Bound]:
    """The bounds of one value: of a document, or of some element of the array that `above` leads to."""
    parts = node.parts if isinstance(node, Every) else (node,)
    intervals: dict[_Path, _Interval] = {}
    for part in parts:
        if not isinstance(part, Condition):
            continue
        path = above + tuple(map(encode_segment, part.path))
        if not _is_indexed(path):
            continue
        yield from _apart(part, path)
        for place, interval in _intervals(part, path):
            intervals[place] = intervals.get(place, _ANYTHING) & interval
    for place, interval in intervals.items():
        if place != _BY_ID or interval != _ANYTHING:
            yield _ranged(place, interval)


def _apart(condition: Condition, path: _Path) -> Iterator[Bound]:
    """What is no interval of one value: prefixes, lists of values, elements."""
    operator, argument = condition.operator, condition.argument
    if condition.negated:
        return
    if operator in ("$elemMatch", "$allMatch"):
        if path != _BY_ID:
            yield from _bounds(argument, (*path, "+"))
    elif operator == "$beginsWith":
        yield _texts(path, argument)
    elif operator == "$regex":
        yield _texts(path, literal_prefix(argument))
    elif operator == "$type" and argument == "string":
        yield _texts(path, "")
    elif operator == "$in" and all(map(_is_leaf, argument)):
        places = [path] if path == _BY_ID else [path, (*path, "+")]
        yield _equal(path, [Reading("/".join(place), value, value) for place in places for value in argument])
    elif operator == "$all" and path != _BY_ID and not (len(argument) == 1 and type(argument[0]) is list):
        element = (*path, "+")
        yield from (_equal(element, [Reading("/".join(element), one, one)]) for one in argument if _is_leaf(one))
    elif operator == "$eq":
        for place, leaf in _leaves(argument, path):
            if not _is_scalar(leaf) and _is_indexed(place):
                yield _equal(place, [Reading("/".join(place), leaf, leaf)])


def _intervals(condition: Condition, path: _Path) -> Iterator[tuple[_Path, _Interval]]:
    """Where values have to be, and between what; a condition that says nothing else says that something is there."""
    operator, argument = condition.operator, condition.argument
    if operator == "$exists":
        if argument:
            yield path, _ANYTHING
    elif operator == "$eq":
        for place, leaf in _leaves(argument, path):
            if _is_scalar(leaf) and _is_indexed(place):
                yield place, _Interval(leaf, leaf, False)
    elif operator in ("$lt", "$lte") and _is_scalar(argument):
        yield path, _Interval(_LOWEST, argument, False)
    elif operator in ("$gt", "$gte") and _is_scalar(argument):
        yield path, _Interval(argument, _HIGHEST, True)
    elif condition.negated:
        yield path, _ANYTHING
    elif operator == "$type" and argument in _TYPES:
        yield path, _TYPES[argument]
    elif operator == "$mod":
        yield path, _TYPES["number"]
    elif operator == "$size" and argument:
        yield (*path, str(argument - 1)), _ANYTHING
    elif not (operator in ("$beginsWith", "$regex") or (operator == "$type" and argument == "string")):
        yield path, _ANYTHING


_TYPES = {
    "null": _Interval(None, None, False),
    "boolean": _Interval(False, True, False),
    "number": _Interval(*_NUMBERS, False),
}


def _ranged(path: _Path, interval: _Interval) -> Bound:
    low, high, name = interval.low, interval.high, "/".join(path)
    if not interval.containers and compare(low, high) == 0:
        return _equal(path, [Reading(name, low, high)])
    if path == _BY_ID:
        return Bound(name, "range", (Reading(name, low, high),))
    if interval == _ANYTHING:
        return Bound(name, "exists", (Reading(name + "/#", low, high),))
    itself = Reading(name, low, high)
    below = (Reading(name + "/+/#", _LOWEST, _HIGHEST),) if interval.containers else ()
    return Bound(name, "range", (itself, *below))


def _texts(path: _Path, prefix: str) -> Bound:
    name = "/".join(path)
    return Bound(name, "prefix" if prefix else "range", (Reading(name, prefix=prefix),))


def _equal(path: _Path, readings: list[Reading]) -> Bound:
    return Bound("/".join(path), "equal", tuple(readings))


def _leaves(value: Any, path: _Path) -> Iterator[tuple[_Path, Any]]:
    """The leaves of a value that stands at a path, as the index has them."""
    if type(value) is dict and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, encode_segment(key)))
    elif type(value) is list and value:
        for position, inner in enumerate(value):
            yield from _leaves(inner, (*path, str(position)))
    else:
        yield path, value


def _is_scalar(value: Any) -> bool:
    return type(value) is not dict and type(value) is not list


def _is_leaf(value: Any) -> bool:
    return _is_scalar(value) or not value


def _is_indexed(path: _Path) -> bool:
    """Whether the index surely has what stands at this path: `_id` alone of the reserved fields, and nothing long."""
    if not path or "" in path or (path[0].startswith("_") and path != _BY_ID):
        return False
    size = sum(_POSITION_BYTES_MAX if level == "+" else len(level.encode()) + 1 for level in path)
    return len(path) + 3 <= LEVELS_MAX and size + _POSITION_BYTES_MAX + _VALUE_BYTES_MAX <= PATH_BYTES_MAX
