"""The paths of a document, and how segments are encoded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.paths import (
    LEVELS_MAX,
    PATH_BYTES_MAX,
    decode_segment,
    document_leaves,
    document_paths,
    encode_segment,
    fits,
    id_levels,
    key_path,
    leaf_path,
    value_segment,
)
from feeds.patterns import Pattern
from feeds.storage.state import index_paths, index_rows

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
hard = st.one_of(
    texts, st.sampled_from(["", "/", "+", "#", "*", "%", "%2F", "\x00", "\x7f", "\x85", "\ufffe", "\U0001ffff"])
)
scalars = st.one_of(st.none(), st.booleans(), hard, st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False))
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(hard, inner, max_size=3))
objects = st.dictionaries(hard.filter(lambda key: key[:1] != "_"), values, max_size=4)


def test_the_example_of_the_design() -> None:
    data = {"locations": [{"country": "France", "city": "Creil"}], "headquarter": "Paris"}
    assert dict(document_paths(data)) == {
        "locations/0/country/France": "France",
        "locations/0/city/Creil": "Creil",
        "headquarter/Paris": "Paris",
    }


def test_values_stand_as_canonical_json_and_empty_ones_are_leaves() -> None:
    data = {
        "a": None,
        "b": True,
        "c": 1,
        "d": 1.0,
        "e": {},
        "f": [],
        "g": [[], [1]],
        "h": "",
        "_id": "x",
        "i": {"_id": 1},
    }
    assert [path for path, _ in document_paths(data)] == [
        *("a/null", "b/true", "c/1", "d/1.0", "e/{}", "f/[]", "g/0/[]", "g/1/0/1", "h/", "i/_id/1")
    ]


@pytest.mark.parametrize(
    ("text", "segment"),
    [
        ("a b", "a b"),
        ("a/b", "a%2Fb"),
        ("100%", "100%25"),
        ("+#*", "%2B%23%2A"),
        ("\x00\x1f\x7f\x9f", "%00%1F%7F%C2%9F"),
        ("\ufffe\ufdd0\U0010ffff", "%EF%BF%BE%EF%B7%90%F4%8F%BF%BF"),
        ("é\U0001f37a", "é\U0001f37a"),
        ("", ""),
    ],
)
def test_segments_are_encoded(text: str, segment: str) -> None:
    assert encode_segment(text) == segment
    assert decode_segment(segment) == text


@settings(max_examples=100)
@given(hard)
def test_every_text_has_one_segment_and_comes_back_from_it(text: str) -> None:
    segment = encode_segment(text)
    assert decode_segment(segment) == text
    assert not set("/+#*\x00\x7f") & set(segment)


@pytest.mark.parametrize("segment", ["%", "%2", "%2f", "%41", "a/b", "+", "%FF", "%C3", "\x00", "%ZZ"])
def test_what_no_text_is_encoded_as_means_nothing(segment: str) -> None:
    assert decode_segment(segment) is None


@pytest.mark.parametrize(
    ("text", "cut"),
    [("x" * 100, "x" * 100), ("x" * 101, "x" * 100), ("é" * 51, "é" * 50), ("x" + "é" * 50, "x" + "é" * 49)],
)
def test_long_texts_are_cut_at_a_character(text: str, cut: str) -> None:
    assert value_segment(text) == cut
    assert document_paths({"a": text}) == [("a/" + cut, text)]


@pytest.mark.parametrize(
    ("id", "levels"), [("a", "a"), ("a/b", "a/b"), ("a+/#", "a%2B/%23"), ("//", "//"), ("%", "%25")]
)
def test_ids_make_levels(id: str, levels: str) -> None:
    assert id_levels(id) == levels


@settings(max_examples=100)
@given(objects)
def test_a_path_is_its_keys_positions_and_value(data: dict[str, Any]) -> None:
    seen = set()
    for leaf in document_leaves(data):
        path = leaf_path(leaf)
        assert path == f"{key_path(leaf)}/{value_segment(leaf[2])}"
        assert path not in seen
        seen.add(path)
        at: Any = data
        for segment in key_path(leaf).split("/"):
            at = at[int(segment)] if isinstance(at, list) else at[decode_segment(segment)]
        assert at is leaf[2] or at == leaf[2]


@settings(max_examples=100)
@given(objects)
def test_a_path_as_a_pattern_matches_itself(data: dict[str, Any]) -> None:
    for path, _ in document_paths(data):
        levels = path.split("/")
        if not path.startswith("/") and path:
            assert Pattern.parse(path).matches(levels)
        assert Pattern(("#",)).matches(levels)


def nest(levels: int, key: str, value: Any = 1) -> dict[str, Any]:
    """A document whose one path has so many levels, the value included."""
    for _ in range(levels - 1):
        value = {key: value}
    found: dict[str, Any] = value
    return found


@pytest.mark.parametrize("key", ["a", "", "k" * 8])
def test_paths_have_64_levels_at_most(key: str) -> None:
    assert len(document_paths(nest(LEVELS_MAX, key))) == 1
    assert document_paths(nest(LEVELS_MAX + 1, key)) == []


def test_paths_have_1024_bytes_at_most() -> None:
    assert len(document_paths({"a" * (PATH_BYTES_MAX - 2): 1})) == 1
    assert document_paths({"a" * (PATH_BYTES_MAX - 1): 1}) == []
    assert document_paths({"é" * (PATH_BYTES_MAX // 2): 1}) == []
    assert document_paths({"\x00" * 350: 1}) == []


deep = st.builds(
    lambda levels, key, listed, value: nest(levels, key, [value] if listed else value),
    *(st.integers(2, 70), st.sampled_from(["", "a", "ab", "\x00", "é" * 9]), st.booleans(), hard),
)


@settings(max_examples=100)
@given(st.one_of(objects, deep))
def test_what_is_indexed_at_first_is_what_an_update_takes_away(data: dict[str, Any]) -> None:
    numbers: dict[str, int] = {}
    rows, skipped = index_rows("x", data, {}, lambda shape: numbers.setdefault(shape, len(numbers)), 1, 1)
    found, left_out = index_paths("x", data)
    assert skipped == left_out == sum(not fits(leaf) for leaf in document_leaves(data))
    assert [row[:4] for row in rows] == [(numbers[shape], value, 1, places) for shape, value, places in found]
