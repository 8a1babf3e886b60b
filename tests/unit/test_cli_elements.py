"""Cutting bytes into JSON texts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.cli.elements import Piece, elements, elements_of_member, lines
from broker.cli.inputs import BadInput

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(['"', "\\", "]}", '{"a":[', "é\n"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
cuts = st.lists(st.integers(0, 400), max_size=8)
indents = st.sampled_from([None, 0, 2])


def cut(data: bytes, places: list[int]) -> Iterator[bytes]:
    """The data in chunks that end at these places."""
    edges = [0, *sorted(places), len(data)]
    for start, end in pairwise(edges):
        yield data[start:end]


def values_of(pieces: Iterator[Piece]) -> list[object]:
    return [json.loads(piece.raw) for piece in pieces]


@given(st.lists(json_values, max_size=6), indents, st.booleans(), cuts)
def test_an_array_is_cut_into_its_elements_however_it_arrives(
    values: list[object], indent: int | None, as_ascii: bool, places: list[int]
) -> None:
    data = json.dumps(values, indent=indent, ensure_ascii=as_ascii).encode()
    assert values_of(elements(cut(data, places))) == values


@given(st.lists(json_values, max_size=6), indents, cuts)
def test_texts_that_follow_one_another_are_told_apart(
    values: list[object], indent: int | None, places: list[int]
) -> None:
    values = [{"value": value} for value in values]
    data = "\n".join(json.dumps(value, indent=indent) for value in values).encode()
    assert values_of(elements(cut(data, places))) == values


@given(st.lists(json_values, max_size=6), cuts)
def test_every_line_is_given_with_its_number(values: list[object], places: list[int]) -> None:
    data = "\n\n".join(json.dumps(value) for value in values).encode()
    pieces = list(lines(cut(data, places)))
    assert [json.loads(piece.raw) for piece in pieces] == values
    assert [piece.line for piece in pieces] == [1 + 2 * place for place in range(len(values))]


def test_an_element_is_given_the_line_it_begins_on() -> None:
    data = b'[\n  {"a":\n 1},\n\n  {"a": 2}\n]\n'
    assert list(elements([data])) == [Piece(2, b'{"a":\n 1}'), Piece(5, b'{"a": 2}')]


@pytest.mark.parametrize("data", [b"", b"  \n ", b"[]", b" [ \n ] ", b"\xef\xbb\xbf[]"])
def test_nothing_holds_no_elements(data: bytes) -> None:
    assert list(elements([data])) == []


@pytest.mark.parametrize(
    ("data", "line", "told"),
    [
        (b'[{"a":1}', 1, "the end of the input"),
        (b'[{"a":1},', 1, "the end of the input"),
        (b'[{"a":1},\n]', 2, "expected here"),
        (b'[{"a":1}\n{"a":2}]', 2, "comes , or ]"),
        (b'[\n{"a":"no end', 2, "does not end"),
        (b'["no end', 1, "does not end"),
        (b"[,]", 1, "expected here"),
        (b"[1]\n\nmore", 3, "follows the end"),
    ],
)
def test_a_broken_array_names_the_line_and_cannot_be_skipped(data: bytes, line: int, told: str) -> None:
    with pytest.raises(BadInput, match=told) as caught:
        list(elements([data]))
    assert (caught.value.line, caught.value.skippable) == (line, False)


def test_elements_before_the_broken_place_are_given() -> None:
    pieces = elements([b'[{"a":1}, {"a":2} {"a":3}]'])
    assert [next(pieces).raw, next(pieces).raw] == [b'{"a":1}', b'{"a":2}']
    with pytest.raises(BadInput):
        next(pieces)


def test_an_element_without_end_is_given_up_at_the_limit() -> None:
    def endless() -> Iterator[bytes]:
        yield b'[{"a":"'
        while True:
            yield b"x" * 100

    with pytest.raises(BadInput, match="longer than 1,000 bytes"):
        list(elements(endless(), bytes_max=1000))
    with pytest.raises(BadInput, match="longer than 1,000 bytes"):
        list(lines(endless(), bytes_max=1000))


def test_a_long_element_in_small_chunks_is_not_read_again_and_again() -> None:
    text = b'{"a":"%b"}' % (b"x" * 3_000_000)
    chunks = [text[start : start + 1000] for start in range(0, len(text), 1000)]
    assert [piece.raw for piece in elements(chunks)] == [text]


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    assert list(lines([b"\xef", b"\xbb\xbf{}", b"\n{}"])) == [Piece(1, b"{}"), Piece(2, b"{}")]


@given(st.lists(json_values, max_size=4), indents, cuts)
def test_the_elements_of_a_first_member_are_given_and_the_rest_is_left(
    values: list[object], indent: int | None, places: list[int]
) -> None:
    data = json.dumps({"results": values, "last_seq": "7-e", "pending": 0}, indent=indent).encode()
    assert values_of(elements_of_member(cut(data, places), "results")) == values


@pytest.mark.parametrize("data", [b"", b"[]", b'{"error": "x"}', b'{"results": 1}', b'{"results": [1', b"<html>"])
def test_an_object_without_that_member_is_refused(data: bytes) -> None:
    with pytest.raises(BadInput):
        list(elements_of_member([data], "results"))
