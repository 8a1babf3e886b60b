"""The order of indexed values is the order of JSON values."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feeds.storage.find import _order_of
from feeds.values import TEXT_BYTES_MAX, after_prefix, cut_text, encode_number, encode_value, text_prefix

numbers = st.one_of(
    *(st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False), st.integers(-5, 5)),
    st.sampled_from([2**53, 2**53 + 1, float(2**53), 2**63, float(2**63), 2**64 - 1, -(2**63), -0.0, 0.0, 5e-324]),
    st.integers(2**53 - 3, 2**53 + 3).map(lambda number: number * 2**10),
)
short = st.text(st.characters(exclude_categories=["Cs"]), max_size=24)
scalars = st.one_of(st.none(), st.booleans(), numbers, short, st.just({}), st.just([]))


@settings(max_examples=300)
@given(scalars, scalars)
@example(2**53, float(2**53))
@example(-(2**53) - 1, -float(2**53))
@example("a", "a\x00")
def test_bytes_sort_as_values_do(a: Any, b: Any) -> None:
    left, right = encode_value(a), encode_value(b)
    if _order_of(a) < _order_of(b):
        assert left < right
    elif _order_of(a) == _order_of(b):
        assert left == right
    else:
        assert left > right


def test_kinds_come_in_order() -> None:
    ordered: list[Any] = [None, False, True, -1e300, -1, 0, 1, 1e300, "", "a", {}, []]
    turned = ordered[::-1]
    assert sorted(turned, key=encode_value) == ordered


@settings(max_examples=200)
@given(numbers, numbers)
def test_no_two_numbers_fall_together_unless_they_are_equal(a: float, b: float) -> None:
    assert (encode_number(a) == encode_number(b)) == (a == b)


@pytest.mark.parametrize("edge", [2**53, 2**54, 2**60, 2**63, -(2**53), -(2**62), -(2**63) + 5000])
def test_integers_around_the_edges_of_doubles_keep_their_order(edge: int) -> None:
    around = [edge + step for step in range(-2050, 2051, 41)]
    mixed = sorted(
        {*around, *(float(number) for number in around)}, key=lambda number: (number, isinstance(number, int))
    )
    encoded = [encode_number(number) for number in mixed]
    assert encoded == sorted(encoded)
    assert len({encode_number(number) for number in around}) == len(around)


def test_minus_zero_is_zero() -> None:
    assert encode_number(-0.0) == encode_number(0) == encode_number(0.0)
    assert math.copysign(1, -0.0) == -1


@settings(max_examples=200)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=80),
    st.text(st.sampled_from("aé\U0001f37a"), max_size=70),
)
def test_a_cut_text_is_the_longest_beginning_that_fits(a: str, b: str) -> None:
    for text in (a, b, a + b):
        cut = cut_text(text)
        assert text.startswith(cut)
        assert len(cut.encode()) <= TEXT_BYTES_MAX
        if cut != text:
            assert len(text[: len(cut) + 1].encode()) > TEXT_BYTES_MAX
        assert encode_value(text) == b"\x40" + cut.encode()


@settings(max_examples=200)
@given(short, short)
def test_a_prefix_bounds_the_texts_that_begin_with_it(prefix: str, text: str) -> None:
    low, high = text_prefix(prefix), after_prefix(text_prefix(prefix))
    assert (low <= encode_value(text) < high) == text.startswith(prefix)
    assert low <= encode_value(prefix + text) < high
    assert not low <= encode_value(1) < high
