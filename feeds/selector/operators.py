"""The operators there are, and what each wants as its argument.

Pure. What they mean is in `conditions` (one value at a time) and in `parsing` (`$and`, `$or`, `$nor`, `$not`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from feeds.selector.collation import NAMES


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator: what it wants, in words, as a check, and by an example."""

    wants: str
    admits: Callable[[Any], bool]
    example: str


def _is_list(value: Any) -> bool:
    return type(value) is list


def _is_object(value: Any) -> bool:
    return type(value) is dict


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_boolean(value: Any) -> bool:
    return type(value) is bool


def _is_type_name(value: Any) -> bool:
    return type(value) is str and value in NAMES


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_division(value: Any) -> bool:
    return type(value) is list and [type(part) for part in value] == [int, int] and value[0] != 0


def _is_anything(value: Any) -> bool:
    return True


_ANY_VALUE = "any value"
_SELECTORS = "a list of selectors"
_SELECTOR = "a selector (an object)"

JOINS = {
    "$and": Operator(_SELECTORS, _is_list, '{"$and": [{"region": "Europe"}, {"year": 1977}]}'),
    "$or": Operator(_SELECTORS, _is_list, '{"$or": [{"region": "Europe"}, {"region": "Asia"}]}'),
    "$nor": Operator(_SELECTORS, _is_list, '{"$nor": [{"year": 1901}, {"year": 1905}]}'),
    "$not": Operator(_SELECTOR, _is_object, '{"$not": {"year": 1901}}'),
}
CONDITIONS = {
    "$lt": Operator(_ANY_VALUE, _is_anything, '{"year": {"$lt": 1903}}'),
    "$lte": Operator(_ANY_VALUE, _is_anything, '{"year": {"$lte": 1903}}'),
    "$eq": Operator(_ANY_VALUE, _is_anything, '{"year": {"$eq": 2001}}'),
    "$ne": Operator(_ANY_VALUE, _is_anything, '{"status": {"$ne": "archived"}}'),
    "$gte": Operator(_ANY_VALUE, _is_anything, '{"year": {"$gte": 1900}}'),
    "$gt": Operator(_ANY_VALUE, _is_anything, '{"year": {"$gt": 2010}}'),
    "$exists": Operator("true or false", _is_boolean, '{"twitter": {"$exists": false}}'),
    "$type": Operator("the name of a type: " + ", ".join(NAMES), _is_type_name, '{"year": {"$type": "number"}}'),
    "$in": Operator("a list", _is_list, '{"region": {"$in": ["Europe", "Asia"]}}'),
    "$nin": Operator("a list", _is_list, '{"region": {"$nin": ["Europe", "Asia"]}}'),
    "$size": Operator("a number of elements (an integer from 0 on)", _is_size, '{"rivers": {"$size": 2}}'),
    "$mod": Operator(
        "a list of two integers, the divisor (not 0) and the remainder", _is_division, '{"year": {"$mod": [4, 0]}}'
    ),
    "$regex": Operator("a regular expression (a string)", _is_text, '{"name": {"$regex": "(?i)^new "}}'),
    "$beginsWith": Operator("a string", _is_text, '{"name": {"$beginsWith": "New "}}'),
    "$all": Operator("a list", _is_list, '{"genre": {"$all": ["Comedy", "Short"]}}'),
    "$elemMatch": Operator(_SELECTOR, _is_object, '{"locations": {"$elemMatch": {"country": "France"}}}'),
    "$allMatch": Operator(_SELECTOR, _is_object, '{"scores": {"$allMatch": {"$gte": 80}}}'),
    "$keyMapMatch": Operator(_SELECTOR, _is_object, '{"cameras": {"$keyMapMatch": {"$eq": "secondary"}}}'),
}
OPERATORS = {**JOINS, **CONDITIONS}

ON_MEMBERS = frozenset({"$elemMatch", "$allMatch", "$keyMapMatch"})  # their argument is a selector for what is within
OPPOSITES = {
    "$lt": "$gte",
    "$gte": "$lt",
    "$lte": "$gt",
    "$gt": "$lte",
    "$eq": "$ne",
    "$ne": "$eq",
    "$in": "$nin",
    "$nin": "$in",
}
NOT_HERE = {
    "$text": "there is no index of words; use $regex or $beginsWith",
    "$where": "code is not run; use the other operators",
    "$geoWithin": "there is no index of places; bound latitude and longitude with $gte and $lte",
    "$geoIntersects": "there is no index of places; bound latitude and longitude with $gte and $lte",
    "$near": "there is no index of places; bound latitude and longitude with $gte and $lte",
    "$nearSphere": "there is no index of places; bound latitude and longitude with $gte and $lte",
}
