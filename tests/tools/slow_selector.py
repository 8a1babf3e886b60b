"""Selectors evaluated the slow and plain way, and strategies that make documents and selectors which meet."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

MISSING, ASTRAY = object(), object()
KINDS = ["null", "boolean", "number", "string", "array", "object"]
MEMBERS = ("$elemMatch", "$allMatch", "$keyMapMatch")


def order(value: Any) -> tuple[Any, ...]:
    """A key that sorts as the collation says."""
    if value is None:
        return (0,)
    if isinstance(value, bool):
        return (1, value)
    if isinstance(value, (int, float)):
        return (2, value)
    if isinstance(value, str):
        return (3, value.encode())
    if isinstance(value, list):
        return (4, [order(inner) for inner in value])
    return (5, sorted((key.encode(), order(inner)) for key, inner in value.items()))


def slowly_matches(selector: Any, value: Any, path: tuple[str, ...] = (), positive: bool = True) -> bool:
    """Whether a selector matches, or with `positive` off its opposite: read from the top, each time anew.

    A value without a name around it is one within `$elemMatch`; whole documents are objects.
    """
    if not isinstance(selector, dict):
        return condition("$eq", selector, value, path, positive)
    if not selector:
        whole = not path and isinstance(value, dict) and "_id" in value
        return positive if whole else condition("$eq", {}, value, path, positive)
    answers = []
    for key, inner in selector.items():
        if key == "$not":
            answers.append(slowly_matches(inner, value, path, not positive))
        elif key in ("$and", "$or", "$nor"):
            within = positive != (key == "$nor")
            each = [slowly_matches(one, value, path, within) for one in inner]
            answers.append(not each or (any(each) if (key == "$or") == positive else all(each)))
        elif key.startswith("$"):
            answers.append(condition(key, inner, value, path, positive))
        else:
            answers.append(slowly_matches(inner, value, (*path, *key.split(".")), positive))
    return all(answers) if positive else any(answers)


def condition(operator: str, argument: Any, value: Any, path: tuple[str, ...], positive: bool) -> bool:
    found = lookup(value, path)
    if operator == "$exists":
        wanted = argument == positive
        return found is not MISSING and found is not ASTRAY if wanted else found is MISSING
    if found is MISSING or found is ASTRAY:
        return False
    return fulfils(operator, argument, found) == positive


def lookup(value: Any, path: tuple[str, ...]) -> Any:
    if not path:
        return value
    if isinstance(value, dict):
        return lookup(value[path[0]], path[1:]) if path[0] in value else MISSING
    if isinstance(value, list) and path[0] in [str(position) for position in range(len(value))]:
        return lookup(value[int(path[0])], path[1:])
    return ASTRAY


def fulfils(operator: str, argument: Any, value: Any) -> bool:
    listed = isinstance(value, list)
    match operator:
        case "$lt":
            return order(value) < order(argument)
        case "$lte":
            return order(value) <= order(argument)
        case "$eq":
            return order(value) == order(argument)
        case "$ne":
            return order(value) != order(argument)
        case "$gte":
            return order(value) >= order(argument)
        case "$gt":
            return order(value) > order(argument)
        case "$type":
            return bool(KINDS[order(value)[0]] == argument)
        case "$in" | "$nin":
            values = value if listed else [value]
            found = any(order(one) == order(other) for one in values for other in argument)
            return found == (operator == "$in")
        case "$size":
            return listed and len(value) == argument
        case "$mod":
            divisor, remainder = argument
            whole = isinstance(value, int) and not isinstance(value, bool)
            return whole and value - int(Fraction(value, divisor)) * divisor == remainder
        case "$regex":
            return isinstance(value, str) and re.search(argument, value) is not None
        case "$beginsWith":
            return isinstance(value, str) and value[: len(argument)] == argument
        case "$all":
            if not listed or not argument:
                return False
            whole = len(argument) == 1 and isinstance(argument[0], list) and order(argument[0]) == order(value)
            return whole or all(any(order(one) == order(other) for one in value) for other in argument)
        case "$elemMatch":
            return listed and any(slowly_matches(argument, one) for one in value)
        case "$allMatch":
            return listed and value != [] and all(slowly_matches(argument, one) for one in value)
        case "$keyMapMatch":
            return isinstance(value, dict) and any(slowly_matches(argument, key) for key in value)
    raise AssertionError(operator)


# -- strategies: few names and few values, so that selectors and documents meet

names = st.sampled_from(["a", "b", "c"])
scalars = st.sampled_from([None, False, True, 0, 1, 1.0, -3, 7, 2.5, 2**53 + 1, "", "a", "ab", "b", "é", "1"])
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
documents = st.builds(
    lambda data, name: {"_id": name, **data},
    st.dictionaries(names, values, max_size=3),
    st.sampled_from(["a", "b", "x/1"]),
)
paths = st.lists(names | st.sampled_from(["0", "1"]), min_size=1, max_size=3).map(
    lambda levels: ".".join([levels[0] if levels[0].isalpha() else "a", *levels[1:]])
)
fields = paths | st.just("_id")
regexes = st.sampled_from(["a", "^a", "b$", "^(a|b)", "^ab?", "^ab", "[^a]", "é", ""])


def _operators(selectors: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    def one(name: str, arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
        return arguments.map(lambda argument: {name: argument})

    return st.one_of(
        *(one(name, values) for name in ("$lt", "$lte", "$eq", "$ne", "$gte", "$gt")),
        one("$exists", st.booleans()),
        one("$type", st.sampled_from(KINDS)),
        *(one(name, st.lists(values, max_size=3)) for name in ("$in", "$nin", "$all")),
        one("$size", st.integers(0, 3)),
        one("$mod", st.tuples(st.sampled_from([-3, 1, 2, 3]), st.integers(-2, 2)).map(list)),
        one("$regex", regexes),
        one("$beginsWith", st.sampled_from(["", "a", "ab", "é"])),
        *(one(name, selectors | _within(selectors)) for name in MEMBERS),
    )


def _within(selectors: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Conditions that need no field, joined or alone."""
    plain = st.sampled_from(
        [{"$eq": 1}, {"$gt": "a"}, {"$lt": 7, "$ne": 0}, {"$in": ["a", 1]}, {"a": {"$exists": False}}]
    )
    return plain | st.lists(plain, max_size=2).map(lambda both: {"$or": both}) | plain.map(lambda one: {"$not": one})


def _extended(selectors: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    conditions = _operators(selectors)
    several = st.lists(conditions, min_size=1, max_size=2).map(
        lambda all_: {k: v for one in all_ for k, v in one.items()}
    )
    on_field = st.one_of(
        values,
        several,
        conditions.map(lambda one: {"$not": one}),
        st.lists(values | conditions, max_size=3).map(lambda them: {"$or": them}),
        st.lists(conditions, max_size=2).map(lambda them: {"$nor": them}),
    )
    return st.one_of(
        st.dictionaries(fields, on_field, max_size=2),
        st.lists(selectors, max_size=3).map(lambda them: {"$and": them}),
        st.lists(selectors, max_size=3).map(lambda them: {"$or": them}),
        st.lists(selectors, max_size=2).map(lambda them: {"$nor": them}),
        selectors.map(lambda one: {"$not": one}),
        st.tuples(st.dictionaries(fields, on_field, max_size=1), selectors).map(lambda two: {**two[0], **two[1]}),
    )


selectors: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(fields, values, max_size=2), _extended, max_leaves=5
)
