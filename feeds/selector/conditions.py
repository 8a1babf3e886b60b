"""What each operator means: for an argument, a test of one value.

Pure. A test is given values that are there; a field that is missing is the affair of `compiling`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, TypeAlias

from feeds.selector.collation import NAMES, RANKS, compare, equal, hashed
from feeds.selector.regexes import searcher

Test: TypeAlias = Callable[[Any], bool]

_SIMPLE = frozenset(NAMES[name] for name in ("boolean", "number", "string"))  # what Python compares as JSON does


def test_of(name: str, argument: Any) -> Test:
    """The test that an operator makes with an argument; for `$elemMatch` and its kin the argument is a test."""
    return _MAKERS[name](argument)


def _equals(argument: Any) -> Test:
    kind = type(argument)
    if kind is str:
        return lambda value: bool(value == argument)
    if argument is None or kind is bool:
        return lambda value: value is argument
    if kind is int or kind is float:
        return lambda value: value == argument and type(value) is not bool
    return lambda value: equal(value, argument)


def _differs(argument: Any) -> Test:
    same = _equals(argument)
    return lambda value: not same(value)


def _ordered(relation: Callable[[Any, Any], bool]) -> Callable[[Any], Test]:
    """For `<` and its kin. Values of other types than the argument's are told apart by their type alone."""
    upwards = relation(1, 0)

    def make(argument: Any) -> Test:
        rank = RANKS[type(argument)]
        own = frozenset(kind for kind, other in RANKS.items() if other == rank)
        beyond = frozenset(kind for kind, other in RANKS.items() if (other > rank if upwards else other < rank))
        if rank in _SIMPLE:
            return lambda value: relation(value, argument) if type(value) in own else type(value) in beyond
        return lambda value: relation(compare(value, argument), 0) if type(value) in own else type(value) in beyond

    return make


def _among(argument: list[Any]) -> Test:
    members = frozenset(map(hashed, argument))

    def found(value: Any) -> bool:
        if type(value) is list:  # CouchDB's rule: one of its elements has to be listed
            return any(hashed(inner) in members for inner in value)
        return hashed(value) in members

    return found


def _among_none(argument: list[Any]) -> Test:
    found = _among(argument)
    return lambda value: not found(value)


def _has_all(argument: list[Any]) -> Test:
    wanted = frozenset(map(hashed, argument))
    whole = argument[0] if len(argument) == 1 and type(argument[0]) is list else None

    def has(value: Any) -> bool:
        if type(value) is not list:
            return False
        return bool(wanted) and (wanted <= set(map(hashed, value)) or (whole is not None and equal(value, whole)))

    return has


def _exists(argument: bool) -> Test:
    return lambda value: argument


def _is_of_type(argument: str) -> Test:
    kinds = frozenset(kind for kind, rank in RANKS.items() if rank == NAMES[argument])
    return lambda value: type(value) in kinds


def _has_size(argument: int) -> Test:
    return lambda value: type(value) is list and len(value) == argument


def _leaves_remainder(argument: list[int]) -> Test:
    divisor, remainder = abs(argument[0]), argument[1]

    def leaves(value: Any) -> bool:
        if type(value) is not int:
            return False
        left = abs(value) % divisor  # the sign is that of the value, as in most languages, unlike Python
        return (left if value >= 0 else -left) == remainder

    return leaves


def _begins_with(argument: str) -> Test:
    return lambda value: type(value) is str and value.startswith(argument)


def _any_element(matches: Test) -> Test:
    return lambda value: type(value) is list and any(map(matches, value))


def _all_elements(matches: Test) -> Test:
    return lambda value: type(value) is list and bool(value) and all(map(matches, value))


def _any_key(matches: Test) -> Test:
    return lambda value: type(value) is dict and any(map(matches, value))


_MAKERS: dict[str, Callable[[Any], Test]] = {
    "$lt": _ordered(operator.lt),
    "$lte": _ordered(operator.le),
    "$eq": _equals,
    "$ne": _differs,
    "$gte": _ordered(operator.ge),
    "$gt": _ordered(operator.gt),
    "$exists": _exists,
    "$type": _is_of_type,
    "$in": _among,
    "$nin": _among_none,
    "$size": _has_size,
    "$mod": _leaves_remainder,
    "$regex": searcher,
    "$beginsWith": _begins_with,
    "$all": _has_all,
    "$elemMatch": _any_element,
    "$allMatch": _all_elements,
    "$keyMapMatch": _any_key,
}
