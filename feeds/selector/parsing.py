"""Reading a selector: from JSON as somebody wrote it to conditions, or to a refusal that names the place.

Pure. Everything is bounded here: size, depth, the number of operators and of steps in regular expressions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from feeds.body import INTEGER_MAX, INTEGER_MIN, kind_of
from feeds.errors import BadRequest, TooLarge
from feeds.faults import shown
from feeds.selector import fields, regexes
from feeds.selector.model import EVERYTHING, Condition, Constant, Node, every, some
from feeds.selector.operators import JOINS, NOT_HERE, ON_MEMBERS, OPERATORS, OPPOSITES, Operator

BYTES_MAX = 256 * 1024  # as JSON: some thousand ids in an `$in`
DEPTH_MAX = 64  # of objects and lists in each other; a selector is matched level by level
OPERATORS_MAX = 1_000  # each may be asked for every document
_PLACE_CHARACTERS_MAX = 120
_INTEGERS_OF_DOUBLES = 2**53

_encode = msgspec.json.Encoder().encode


def parse(value: Any) -> Node:
    """The conditions of a selector; BadRequest or TooLarge names the operator and the place."""
    if type(value) is not dict:
        raise BadRequest(
            f"A selector is an object, not {kind_of(value)}",
            hint='Send an object of fields and conditions, like {"region": "Europe", "year": {"$gt": 2010}}.',
        )
    _check_size(value)
    return _Reader().selector(value, (), Place(), negated=False, member=False)


class Place:
    """Where in the selector something stands, as keys and positions from the top."""

    __slots__ = ("_above", "_step", "depth")

    def __init__(self, above: Place | None = None, step: str | int = "") -> None:
        self.depth: int = above.depth + 1 if above is not None else 0
        self._above = above
        self._step = step

    def __truediv__(self, step: str | int) -> Place:
        place = Place(self, step)
        if place.depth > DEPTH_MAX:
            raise TooLarge(
                f"The selector is nested deeper than {DEPTH_MAX} levels", hint="Write it flatter: a.b for a in b."
            )
        return place

    def __str__(self) -> str:
        text = "".join(reversed(list(self._steps()))).removeprefix(".")
        if len(text) > _PLACE_CHARACTERS_MAX:
            text = "…" + text[-_PLACE_CHARACTERS_MAX:]
        return "at " + text if text else "at the top"

    def _steps(self) -> Iterator[str]:
        place = self
        while place._above is not None:
            yield f"[{place._step}]" if type(place._step) is int else f".{place._step}"
            place = place._above


class _Reader:
    """Reads one selector, and counts what it costs."""

    def __init__(self) -> None:
        self._operators = 0
        self._steps = 0

    def selector(self, value: Any, path: tuple[str, ...], place: Place, *, negated: bool, member: bool) -> Node:
        """A selector, or the condition on a field; within `$elemMatch` and its kin (`member`) no field is needed."""
        named = bool(path) or member
        if type(value) is not dict:
            if not named:
                raise BadRequest(
                    f"A selector is an object, not {kind_of(value)}, {place}",
                    hint='Name a field, like {"year": 1977}.',
                )
            return self._condition("$eq", value, path, place, negated=negated)
        if not value:
            return self._condition("$eq", {}, path, place, negated=negated) if named else Constant(not negated)
        parts = [self._entry(key, inner, path, place, negated=negated, member=member) for key, inner in value.items()]
        return some(parts) if negated else every(parts)

    def _entry(
        self, key: Any, value: Any, path: tuple[str, ...], place: Place, *, negated: bool, member: bool
    ) -> Node:
        if type(key) is not str:
            raise BadRequest(f"The key {shown(str(key))} is not text, {place}", hint="JSON keys are strings.")
        if not key.startswith("$"):
            return self.selector(
                value, path + _read_field(key, path, place), place / key, negated=negated, member=member
            )
        operator = _operator(key, place)
        place = place / key
        if not operator.admits(value):
            raise _unfit(key, operator, value, place)
        if key in JOINS:
            return self._join(key, value, path, place, negated=negated, member=member)
        if not path and not member:
            raise BadRequest(
                f"{key} wants a field to look at, {place}", hint=f"Name the field around it: {operator.example}."
            )
        return self._condition(key, value, path, place, negated=negated)

    def _join(
        self, key: str, value: Any, path: tuple[str, ...], place: Place, *, negated: bool, member: bool
    ) -> Node:
        self._count_operator(place)
        if key == "$not":
            return self.selector(value, path, place, negated=not negated, member=member)
        if not value:
            return EVERYTHING  # an empty list narrows nothing, whatever the operator: CouchDB's rule
        within = negated != (key == "$nor")
        parts = [
            self.selector(inner, path, place / position, negated=within, member=member)
            for position, inner in enumerate(value)
        ]
        # `$nor` is an and of opposites; a negation in front turns and into or, and or into and.
        return some(parts) if (key == "$or") != negated else every(parts)

    def _condition(self, key: str, value: Any, path: tuple[str, ...], place: Place, *, negated: bool) -> Node:
        self._count_operator(place)
        if key in ON_MEMBERS:
            inner = self.selector(value, (), place, negated=False, member=True)
            return Condition(path, key, inner, negated)
        if key == "$exists":
            return Condition(path, key, value != negated)
        if key == "$regex":
            self._count_steps(value, place)
        argument = _value(value, place)
        if negated and key in OPPOSITES:
            return Condition(path, OPPOSITES[key], argument)
        return Condition(path, key, argument, negated)

    def _count_operator(self, place: Place) -> None:
        self._operators += 1
        if self._operators > OPERATORS_MAX:
            raise TooLarge(
                f"The selector has more than {OPERATORS_MAX} operators, {place}",
                hint="Ask for values of one field with $in, which counts once.",
            )

    def _count_steps(self, pattern: str, place: Place) -> None:
        try:
            self._steps += regexes.check_regex(pattern)
        except regexes.UnfitRegex as unfit:
            raise BadRequest(
                f"$regex cannot use {shown(pattern)}: {unfit}, {place}",
                hint="Patterns are those of RE2, which has no look-around and no back-references, so that none can "
                "run for ever.",
            ) from None
        if self._steps > regexes.STEPS_MAX:
            raise TooLarge(
                f"$regex {shown(pattern)} takes the selector's patterns beyond {regexes.STEPS_MAX} steps, {place}",
                hint="Use shorter repetitions than {100}, fewer classes like \\pL, or $beginsWith.",
            )


def _operator(key: str, place: Place) -> Operator:
    operator = OPERATORS.get(key)
    if operator is None:
        why = NOT_HERE.get(key)
        raise BadRequest(
            f"{shown(key)[1:-1]} is {'not an operator' if why is None else 'not supported'}, {place}",
            hint=f"Instead: {why}."
            if why is not None
            else f"There are {', '.join(OPERATORS)}. A field whose name begins with $ is written \\$….",
        )
    return operator


def _unfit(key: str, operator: Operator, value: Any, place: Place) -> BadRequest:
    """The refusal of an argument: what was wanted, what came, where."""
    came = kind_of(value)
    if came in operator.wants or key in ("$type", "$size", "$mod"):
        came = shown(_encode(value).decode())[1:-1]
    return BadRequest(
        f"{key} wants {operator.wants}, not {came.replace('an array', 'a list')}, {place}",
        hint=f"Write it like this: {operator.example}.",
    )


def _read_field(key: str, above: tuple[str, ...], place: Place) -> tuple[str, ...]:
    try:
        path = fields.read_field(key)
    except fields.UnfitField as unfit:
        raise BadRequest(
            f"The field {shown(key)} cannot be looked up: {unfit}, {place}",
            hint="Join keys by single dots. Before a dot, a $ or a backslash of a key itself stands a backslash.",
        ) from None
    characters = sum(map(len, above)) + sum(map(len, path))
    if len(above) + len(path) > fields.LEVELS_MAX or characters > fields.CHARACTERS_MAX:
        raise TooLarge(
            f"The field {shown(key)} is too long: {fields.LEVELS_MAX} keys and {fields.CHARACTERS_MAX} characters "
            f"are allowed, {place}",
            hint="No document is nested that deep; look for a missing backslash before a dot.",
        )
    return path


def _check_size(value: dict[str, Any]) -> None:
    try:
        size = len(_encode(value))
    except (OverflowError, UnicodeError, TypeError, ValueError, RecursionError) as error:
        raise BadRequest(
            f"The selector cannot be written as JSON: {error}",
            hint="Use texts without lone surrogates, integers of 64 bits, and plain JSON types, not too deep.",
        ) from None
    if size > BYTES_MAX:
        raise TooLarge(
            f"The selector has {size} bytes; {BYTES_MAX} are allowed",
            hint="Choose by a field that the documents share rather than by a list of them.",
        )


def _value(value: Any, place: Place) -> Any:
    """A copy that nobody else holds, with numbers in one form (`1.0` is `1`) and with the keys of objects sorted."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    if kind is int and INTEGER_MIN <= value <= INTEGER_MAX:
        return value
    if kind is float and value - value == 0:  # neither infinite nor NaN
        return int(value) if abs(value) <= _INTEGERS_OF_DOUBLES and value.is_integer() else value
    if kind is list:
        return [
            inner if type(inner) is str else _value(inner, place / position) for position, inner in enumerate(value)
        ]
    if kind is dict and all(type(key) is str for key in value):
        return {key: _value(value[key], place / key) for key in sorted(value)}
    raise BadRequest(
        f"{shown(str(value))[1:-1]} is no JSON value, {place}",
        hint="Use finite numbers, integers of 64 bits, and plain JSON types.",
    )
