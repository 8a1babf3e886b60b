"""From conditions to one function of a document.

Pure. What is asked most, a condition on a key at the top of a document, is made as short as it can be.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from feeds.selector.conditions import Test, test_of
from feeds.selector.model import Condition, Constant, Every, Node
from feeds.selector.operators import ON_MEMBERS

_POSITION = re.compile("0|[1-9][0-9]{0,9}")
_MISSING: Any = object()  # an object on the way has no such key
_ASTRAY: Any = object()  # the way leads through what is no object, or beside an array


def compiled(node: Node, *, member: bool = False) -> Test:
    """The function that says whether a document matches; with `member` any value, as within `$elemMatch`."""
    if isinstance(node, Constant):
        holds = node.holds
        return lambda value: holds
    if isinstance(node, Condition):
        return _condition(node, member)
    parts = [compiled(part, member=member) for part in node.parts]
    return _every(parts) if isinstance(node, Every) else _some(parts)


def _every(parts: list[Test]) -> Test:
    if len(parts) == 2:
        first, second = parts
        return lambda value: first(value) and second(value)

    def matches(value: Any) -> bool:
        for part in parts:  # noqa: SIM110 - half again as fast as all() over a generator
            if not part(value):
                return False
        return True

    return matches


def _some(parts: list[Test]) -> Test:
    if len(parts) == 2:
        first, second = parts
        return lambda value: first(value) or second(value)

    def matches(value: Any) -> bool:
        for part in parts:  # noqa: SIM110 - as above
            if part(value):
                return True
        return False

    return matches


def _condition(condition: Condition, member: bool) -> Test:
    path, argument = condition.path, condition.argument
    if condition.operator in ON_MEMBERS:
        argument = compiled(argument, member=True)
    test = test_of(condition.operator, argument)
    if condition.negated:
        test = _opposite(test)
    if not path:
        return test
    absent = condition.operator == "$exists" and not argument
    if member or len(path) > 1:
        return _absence(path) if absent else _below(path, test)
    key = path[0]
    if condition.operator == "$exists":
        return (lambda document: key not in document) if absent else (lambda document: key in document)
    if condition.operator == "$eq" and type(argument) is str:
        return lambda document: bool(document.get(key) == argument)

    def matches(document: dict[str, Any]) -> bool:
        value = document.get(key, _MISSING)
        return value is not _MISSING and test(value)

    return matches


def _opposite(test: Test) -> Test:
    return lambda value: not test(value)


def _below(path: tuple[str, ...], test: Test) -> Test:
    follow = _way(path)

    def matches(value: Any) -> bool:
        found = follow(value)
        return found is not _MISSING and found is not _ASTRAY and test(found)

    return matches


def _absence(path: tuple[str, ...]) -> Test:
    follow = _way(path)
    return lambda value: follow(value) is _MISSING


def _way(path: tuple[str, ...]) -> Callable[[Any], Any]:
    """What is at the end of a path: keys of objects, positions in arrays."""
    steps = [(key, _position(key)) for key in path]

    def follow(value: Any) -> Any:
        for key, position in steps:
            if type(value) is dict:
                value = value.get(key, _MISSING)
                if value is _MISSING:
                    return _MISSING
            elif type(value) is list and position is not None and position < len(value):
                value = value[position]
            else:
                return _ASTRAY
        return value

    return follow


def _position(key: str) -> int | None:
    return int(key) if _POSITION.fullmatch(key) else None
