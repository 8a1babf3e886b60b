"""Patterns over paths."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.errors import BadRequest
from feeds.patterns import BYTES_MAX, LEVELS_MAX, Pattern, parse_patterns

literals = st.sampled_from(["a", "b", "", "$a", "%2B", "a.c", "é"])
pattern_levels = st.builds(
    lambda levels, last: (*levels, *last),
    st.lists(literals | st.just("+"), max_size=5),
    st.sampled_from([("#",), ("+",), ("a",)]),
)
path_levels = st.lists(literals, min_size=1, max_size=6)


def hears(pattern: str, path: str) -> bool:
    return Pattern.parse(pattern).matches(path.split("/"))


def as_regex(pattern: str) -> str:
    """The slow model: a pattern as a regular expression over the path with a `/` before every level."""
    text = "".join(
        {"/+": "/[^/]*", "/#": "(/.*)?"}.get("/" + level, "/" + re.escape(level)) for level in pattern.split("/")
    )
    return text


@given(pattern_levels, path_levels)
def test_matching_agrees_with_a_regular_expression(levels: tuple[str, ...], path: list[str]) -> None:
    expected = re.fullmatch(as_regex("/".join(levels)), "/" + "/".join(path), re.DOTALL) is not None
    assert Pattern(levels).matches(path) == expected


@given(pattern_levels)
def test_a_pattern_reads_back_from_its_text(levels: tuple[str, ...]) -> None:
    assert Pattern.parse(str(Pattern(levels))) == Pattern(levels)


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("a/b", ("a", "b")),
        ("/a/b", ("a", "b")),
        ("//a", ("", "a")),
        ("a/", ("a", "")),
        ("*/b", ("+", "b")),
        ("a/*/b", ("a", "+", "b")),
        ("a/*", ("a", "#")),
        ("/*", ("#",)),
        ("*", ("#",)),
        ("#", ("#",)),
        ("/#", ("#",)),
        ("*/*", ("+", "#")),
        ("a/+", ("a", "+")),
        ("a%2Fb/%zz", ("a%2Fb", "%zz")),
    ],
)
def test_a_pattern_is_read_as_a_topic_filter(text: str, levels: tuple[str, ...]) -> None:
    assert Pattern.parse(text).levels == levels


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("a/#", "a"),
        ("a/#", "a/b/c"),
        ("a/+", "a/b"),
        ("+/b", "a/b"),
        ("+", ""),
        ("#", "a"),
        ("#", "$a/b"),
        ("+/b", "$a/b"),
        ("locations/+/country/France", "locations/0/country/France"),
    ],
)
def test_what_matches(pattern: str, path: str) -> None:
    assert hears(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("a/#", "ab"),
        ("a/#", "b"),
        ("a/+", "a"),
        ("a/+", "a/b/c"),
        ("+", "a/b"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("+/+/#", "a"),
        ("A", "a"),
        ("a%2b", "a%2B"),
    ],
)
def test_what_does_not_match(pattern: str, path: str) -> None:
    assert not hears(pattern, path)


@pytest.mark.parametrize(
    ("text", "why", "mend"),
    [
        ("", "is empty", "`/*`"),
        ("/", "is empty", "`/*`"),
        ("a/#/b", "after `#`", "`+`"),
        ("#/a", "after `#`", "`+`"),
        ("a+", "`+` inside", "%2B"),
        ("a/+b/c", "`+` inside", "%2B"),
        ("#a", "`#` inside", "%23"),
        ("a/b#", "`#` inside", "%23"),
        ("a*", "`*` inside", "%2A"),
        ("++", "`+` inside", "%2B"),
        ("a/\x00", "U+0000", "Percent-encode"),
        ("a\n", "U+000A", "Percent-encode"),
        ("\x9f", "U+009F", "Percent-encode"),
        ("\uffff", "U+FFFF", "Percent-encode"),
        ("\U0001fffe", "U+1FFFE", "Percent-encode"),
        ("a/\ud800", "U+D800", "Percent-encode"),
        ("/".join("a" * (LEVELS_MAX + 1)), "65 levels", "`#`"),
        ("é" * (BYTES_MAX // 2) + "a", "1025 bytes", "`#`"),
    ],
)
def test_a_pattern_that_cannot_be_is_refused_with_its_mend(text: str, why: str, mend: str) -> None:
    with pytest.raises(BadRequest) as refused:
        Pattern.parse(text)
    assert repr(text)[:80] in refused.value.reason
    assert why in refused.value.reason
    assert mend in refused.value.hint


@pytest.mark.parametrize("value", [None, 5, b"a", ["a"]])
def test_what_is_not_text_is_no_pattern(value: object) -> None:
    with pytest.raises(BadRequest, match="is not text"):
        Pattern.parse(value)


def test_the_largest_patterns_are_accepted() -> None:
    assert len(Pattern.parse("/" + "/".join("a" * LEVELS_MAX)).levels) == LEVELS_MAX
    assert Pattern.parse("a" * BYTES_MAX).levels == ("a" * BYTES_MAX,)


def test_only_the_last_number_sign_alone_hears_everything() -> None:
    assert Pattern.parse("/*").hears_everything
    assert not Pattern.parse("+/#").hears_everything
    assert not Pattern.parse("a/#").hears_everything


def test_a_list_of_patterns_keeps_its_order_and_each_one_once() -> None:
    patterns = parse_patterns(["b/*", "a", "/b/#", "/a", "/*"])
    assert [str(pattern) for pattern in patterns] == ["b/#", "a", "#"]
    assert parse_patterns([]) == ()


@pytest.mark.parametrize("value", ["a/b", b"a", None, 5])
def test_one_text_is_not_taken_for_a_list_of_patterns(value: object) -> None:
    with pytest.raises(BadRequest, match="not a list"):
        parse_patterns(value)  # type: ignore[arg-type]
