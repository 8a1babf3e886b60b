"""The order of JSON values: null < false < true < numbers < strings < arrays < objects.

Pure. It is CouchDB's order, save that strings compare by code point (the order of their UTF-8 bytes), not by a
language's rules, that numbers compare exactly, and that the order of an object's keys means nothing.
`1` and `1.0` are equal; `1` and `true` are not.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

RANKS: dict[type, int] = {type(None): 0, bool: 1, int: 2, float: 2, str: 3, list: 4, dict: 5}
NAMES = {"null": 0, "boolean": 1, "number": 2, "string": 3, "array": 4, "object": 5}  # as `$type` writes them

_STRING = RANKS[str]
_ARRAY = RANKS[list]


def compare(left: Any, right: Any) -> int:
    """Below 0 when `left` comes first, above 0 when `right` does, 0 when they are equal.

    The keys of objects in `right` are sorted already, as parsing leaves them, so that a short value is quickly told
    from a long argument.
    """
    rank = RANKS[type(left)]
    other = RANKS[type(right)]
    if rank != other:
        return -1 if rank < other else 1
    if rank <= _STRING:
        return 0 if left is None else (left > right) - (left < right)
    if rank == _ARRAY:
        for inner, beside in zip(left, right, strict=False):
            if order := compare(inner, beside):
                return order
    else:
        for key, beside in zip(sorted(left), right, strict=False):
            if key != beside:
                return -1 if key < beside else 1
            if order := compare(left[key], right[key]):
                return order
    return (len(left) > len(right)) - (len(left) < len(right))


def equal(left: Any, right: Any) -> bool:
    """Whether two values are the same by this order; for `right` the same holds as in `compare`."""
    return bool(left == right) and compare(left, right) == 0


def hashed(value: Any) -> Hashable:
    """Something hashable that is equal for equal values, and only for those."""
    kind = type(value)
    if kind is str or kind is int or kind is float or value is None:
        return value  # type: ignore[no-any-return]
    if kind is bool:
        return (bool, value)
    if kind is list:
        return (list, *map(hashed, value))
    return (dict, frozenset((key, hashed(inner)) for key, inner in value.items()))
