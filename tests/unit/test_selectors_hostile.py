"""Selectors that cannot be meant, or that are meant to do harm: refused by operator and place."""

from __future__ import annotations

from typing import Any

import pytest

from feeds.errors import BadRequest, SpileError, TooLarge
from feeds.selector import OPERATORS, Selector
from feeds.selector.parsing import BYTES_MAX, DEPTH_MAX, OPERATORS_MAX
from feeds.selector.regexes import STEPS_MAX, TEXT_BYTES_MAX

LINEAR = 200_000  # characters; what backtracks needs longer than the sun has for a hundred


def refusal(selector: Any, error: type[SpileError] = BadRequest) -> str:
    with pytest.raises(error) as refused:
        Selector.parse(selector)
    assert refused.value.hint
    return refused.value.reason


@pytest.mark.parametrize(
    ("selector", "reason"),
    [
        ({"region": {"$in": 5}}, "$in wants a list, not a number, at region.$in"),
        ({"region": {"$in": {}}}, "$in wants a list, not an object, at region.$in"),
        ({"a": {"b": {"$nin": "x"}}}, "$nin wants a list, not a string, at a.b.$nin"),
        ({"a": {"$all": None}}, "$all wants a list, not null, at a.$all"),
        ({"$and": {"a": 1}}, "$and wants a list of selectors, not an object, at $and"),
        ({"$or": [{"a": 1}, 5]}, "A selector is an object, not a number, at $or[1]"),
        ({"$not": [{"a": 1}]}, "$not wants a selector (an object), not a list, at $not"),
        ({"$and": [{"b": {"$exists": 1}}]}, "$exists wants true or false, not a number, at $and[0].b.$exists"),
        ({"a": {"$size": -1}}, "$size wants a number of elements (an integer from 0 on), not -1, at a.$size"),
        ({"a": {"$size": 1.5}}, "$size wants a number of elements (an integer from 0 on), not 1.5, at a.$size"),
        ({"a": {"$size": True}}, "$size wants a number of elements (an integer from 0 on), not true, at a.$size"),
        (
            {"a": {"$mod": [0, 1]}},
            "$mod wants a list of two integers, the divisor (not 0) and the remainder, not [0,1], at a.$mod",
        ),
        (
            {"a": {"$mod": [2.5, 1]}},
            "$mod wants a list of two integers, the divisor (not 0) and the remainder, not [2.5,1], at a.$mod",
        ),
        (
            {"a": {"$type": "integer"}},
            '$type wants the name of a type: null, boolean, number, string, array, object, not "integer", at a.$type',
        ),
        ({"a": {"$beginsWith": 5}}, "$beginsWith wants a string, not a number, at a.$beginsWith"),
        ({"a": {"$regex": {}}}, "$regex wants a regular expression (a string), not an object, at a.$regex"),
        ({"a": {"$elemMatch": "x"}}, "$elemMatch wants a selector (an object), not a string, at a.$elemMatch"),
        ({"a": {"$elemMatch": {"b": {"$in": 1}}}}, "$in wants a list, not a number, at a.$elemMatch.b.$in"),
        ({"$gt": 1}, "$gt wants a field to look at, at $gt"),
        ({"$nor": [{"$elemMatch": {"a": 1}}]}, "$elemMatch wants a field to look at, at $nor[0].$elemMatch"),
        ({"a": {"$foo": 1}}, "$foo is not an operator, at a"),
        ({"$text": "x"}, "$text is not supported, at the top"),
        ({"a": {"$where": "x"}}, "$where is not supported, at a"),
        ({"a..b": 1}, "The field 'a..b' cannot be looked up: a name between its dots is empty, at the top"),
        ({"a": {"": 1}}, "The field '' cannot be looked up: its name is empty, at a"),
        ({"a\\": 1}, "The field 'a\\\\' cannot be looked up: it ends in a single backslash, at the top"),
        ({"a": {"$eq": float("nan")}}, "nan is no JSON value, at a.$eq"),
        ({"a": {"$in": [1, [float("inf")]]}}, "inf is no JSON value, at a.$in[1][0]"),
        ({"a": {"$eq": {1: 2}}}, "{1: 2} is no JSON value, at a.$eq"),
        ({1: 2}, "The key '1' is not text, at the top"),
        ([], "A selector is an object, not an array"),
        (None, "A selector is an object, not null"),
        ("{}", "A selector is an object, not a string"),
    ],
    ids=str,
)
def test_a_refusal_names_the_operator_and_the_place(selector: Any, reason: str) -> None:
    assert refusal(selector) == reason


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, "\ud800", {"\udfff": 1}, {1, 2}, Ellipsis, b"a"], ids=repr)
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    for selector in ({"a": value}, {"a": {"$in": [value]}}):
        assert refusal(selector)


@pytest.mark.parametrize("name", sorted(OPERATORS))
@pytest.mark.parametrize("argument", [None, True, 1, 1.5, "(", [], [1], [[]], {}, {"a": {}}, {"$x": 1}], ids=repr)
def test_any_argument_is_taken_or_refused_and_never_fails_later(name: str, argument: Any) -> None:
    for selector in ({name: argument}, {"a": {name: argument}}, {"a": {"$elemMatch": {name: argument}}}):
        try:
            parsed = Selector.parse(selector)
        except BadRequest:
            continue
        values: list[Any] = [None, True, 1, 1.5, "(", [], [1], [[]], [{"a": 1}], {}, {"a": {}}]
        assert all(parsed.matches({"a": value}) in (True, False) for value in values)


# -- regular expressions


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(a*)*b", "(.*a){12}b", "^(([a-z])+.)+[A-Z]([a-z])+$"])
def test_patterns_that_make_others_backtrack_take_no_time(pattern: str) -> None:
    selector = Selector.parse({"a": {"$regex": pattern}})
    assert selector.matches({"a": "a" * LINEAR + "!"}) is False


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("(", "missing )"),
        ("(?=a)", "invalid perl operator: (?="),
        ("(?<!a)b", "invalid perl operator: (?<"),
        (r"(a)\1", r"invalid escape sequence: \1"),
        ("a{1001}", "invalid repetition size: {1001}"),
        ("((a{100}){100}){100}", "invalid repetition size"),
        ("a" * 1025, "it has 1025 characters; 1024 are allowed"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_refused_with_its_reason(pattern: str, told: str) -> None:
    reason = refusal({"$or": [{"b": 1}, {"a": {"$regex": pattern}}]})
    assert reason.startswith("$regex cannot use ")
    assert told in reason
    assert reason.endswith(", at $or[1].a.$regex")


def test_all_patterns_of_a_selector_are_limited_together() -> None:
    one = {"a": {"$regex": "[ab]*a[ab]{400}c"}}
    Selector.parse(one)
    assert f"beyond {STEPS_MAX} steps, at $and[4].a.$regex" in refusal({"$and": [one] * 5}, TooLarge)


def test_a_pattern_finds_text_beyond_ascii() -> None:
    assert Selector.parse({"a": {"$regex": "^.ö\\pL+n$"}}).matches({"a": "Köln"})
    assert Selector.parse({"a": {"$regex": "(?i)STRASSE|ÉTÉ"}}).matches({"a": "un été"})
    assert Selector.parse({"a": {"$regex": "^a\0b"}}).matches({"a": "a\0b"})


def test_a_text_beyond_the_limit_is_not_searched() -> None:
    selector = Selector.parse({"a": {"$regex": "x"}})
    assert selector.matches({"a": "x" * TEXT_BYTES_MAX})
    assert not selector.matches({"a": "x" * (TEXT_BYTES_MAX + 1)})


# -- limits


@pytest.mark.parametrize("key", ["a", "$not", "$and", "$elemMatch"])
def test_depth_is_limited(key: str) -> None:
    def nested(depth: int) -> Any:
        value: Any = {"a": 1}
        for _ in range(depth):
            value = {key: [value]} if key == "$and" else {key: value}
        return {"a": value}

    Selector.parse(nested(25)).matches({"a": {"a": 1}})
    assert f"nested deeper than {DEPTH_MAX} levels" in refusal(nested(DEPTH_MAX), TooLarge)
    assert refusal(nested(100_000))


def test_depth_of_values_is_limited() -> None:
    value: Any = 1
    for _ in range(DEPTH_MAX):
        value = [value]
    assert f"nested deeper than {DEPTH_MAX} levels" in refusal({"a": value}, TooLarge)


def test_the_number_of_operators_is_limited() -> None:
    Selector.parse({"$or": [{"a": number} for number in range(OPERATORS_MAX - 1)]})
    reason = refusal({"$or": [{"a": number} for number in range(OPERATORS_MAX)]}, TooLarge)
    assert reason == f"The selector has more than {OPERATORS_MAX} operators, at $or[{OPERATORS_MAX - 1}].a"


def test_the_size_is_limited() -> None:
    assert f"{BYTES_MAX} are allowed" in refusal({"a": {"$in": ["x" * 1000] * 300}}, TooLarge)


def test_the_length_of_a_field_is_limited() -> None:
    assert "100 keys and 1024 characters are allowed" in refusal({"a." * 100 + "a": 1}, TooLarge)
    assert "100 keys and 1024 characters are allowed" in refusal({"x" * 600: {"y" * 600: 1}}, TooLarge)


def test_a_large_list_of_values_is_looked_up_at_once() -> None:
    wanted = [[number] for number in range(20_000)]
    selector = Selector.parse({"a": {"$in": wanted}, "b": {"$all": [0, 1]}})
    assert selector.matches({"a": [[-1]] * 20_000 + [[7]], "b": list(range(20_000))})


def test_a_long_argument_is_quickly_told_from_many_short_values() -> None:
    argument = {str(number): number for number in range(8_000)}
    selector = Selector.parse({"a": {"$elemMatch": {"$gt": argument, "$lt": argument}}})
    assert not selector.matches({"a": [{"0": 0}] * 100_000})


def test_positions_of_many_digits_are_only_names() -> None:
    assert Selector.parse({"a." + "9" * 900: 1}).matches({"a": {"9" * 900: 1}})
    assert not Selector.parse({"a." + "9" * 900: 1}).matches({"a": [1]})
