"""Many filters against one topic."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.errors import BadRequest
from feeds.matcher import Matcher
from feeds.patterns import Pattern

ALPHABET = ["a", "b", "$s"]
TOPICS = [levels for depth in range(1, 5) for levels in product([*ALPHABET, "z"], repeat=depth)]

Filter = tuple[str, ...]

filters = st.builds(
    lambda levels, last: (*levels, *last),
    st.lists(st.sampled_from([*ALPHABET, "+"]), max_size=2),
    st.sampled_from([("#",), ("+",), ("a",)]),
)
subscriptions = st.lists(st.tuples(filters, st.integers(0, 2)), max_size=8)


def hears(levels: Filter, topic: Filter, dollar: bool) -> bool:
    """The slow model: one filter, one topic."""
    if dollar and topic[0].startswith("$") and levels[0] in ("+", "#"):
        return False
    return Pattern(levels).matches(topic)


@settings(max_examples=40, deadline=None)
@given(subscriptions, st.lists(st.integers(0, 7), max_size=6), st.booleans())
def test_whatever_was_added_and_removed_matching_agrees_with_one_filter_at_a_time(
    added: list[tuple[Filter, int]], removed: list[int], dollar: bool
) -> None:
    matcher: Matcher[int] = Matcher(dollar=dollar)
    model: set[tuple[Filter, int]] = set()
    for pair in added:
        assert matcher.add(*pair) == (pair not in model)
        model.add(pair)
    for pair in (added[at] for at in removed if at < len(added)):
        assert matcher.remove(*pair) == (pair in model)
        model.discard(pair)

    assert len(matcher) == len(model)
    heard = {topic: {who for levels, who in model if hears(levels, topic, dollar)} for topic in TOPICS}
    assert {topic: matcher.match(topic) for topic in TOPICS} == heard
    for prefix in [(), *(topic for topic in TOPICS if len(topic) < 4)]:
        reached = any(heard[topic] for topic in TOPICS if topic[: len(prefix)] == prefix)
        assert matcher.could_match(prefix) == reached


@given(subscriptions)
def test_removing_everything_leaves_nothing_behind(added: list[tuple[Filter, int]]) -> None:
    matcher: Matcher[int] = Matcher()
    for pair in added:
        matcher.add(*pair)
    for pair in set(added):
        assert matcher.remove(*pair)
    assert len(matcher) == 0
    assert not matcher.could_match(())
    assert matcher._root == {}


def test_a_filter_may_have_many_subscribers_and_each_leaves_by_itself() -> None:
    matcher: Matcher[int] = Matcher()
    everyone = set(range(50))
    for who in everyone:
        assert matcher.add(["a", "+"], who)
        assert not matcher.add(["a", "+"], who)
    for who in sorted(everyone):
        assert matcher.match(["a", "b"]) == everyone
        assert matcher.remove(["a", "+"], who)
        assert not matcher.remove(["a", "+"], who)
        everyone.discard(who)
    assert matcher.match(["a", "b"]) == set()


def test_removing_what_was_never_there_changes_nothing() -> None:
    matcher: Matcher[str] = Matcher()
    matcher.add(["a", "b"], "ann")
    others: list[tuple[list[str], str]] = [
        (["a", "b"], "bob"),
        (["a"], "ann"),
        (["a", "b", "c"], "ann"),
        (["a", "b", "#"], "ann"),
        (["+", "b"], "ann"),
        ([], "ann"),
    ]
    assert not any(matcher.remove(levels, who) for levels, who in others)
    assert len(matcher) == 1
    assert matcher.match(["a", "b"]) == {"ann"}


def test_the_answer_is_the_callers_to_change() -> None:
    matcher: Matcher[str] = Matcher()
    matcher.add(["a"], "ann")
    matcher.match(["a"]).clear()
    assert matcher.match(["a"]) == {"ann"}


@pytest.mark.parametrize("levels", [[], ["#", "a"], ["a", "#", "#"]])
def test_what_is_no_filter_is_refused_and_not_kept(levels: list[str]) -> None:
    matcher: Matcher[str] = Matcher()
    with pytest.raises(BadRequest):
        matcher.add(levels, "ann")
    assert len(matcher) == 0
    assert not matcher.could_match(())


def test_wildcard_signs_in_a_topic_are_only_characters() -> None:
    matcher: Matcher[str] = Matcher()
    matcher.add(["a", "+"], "one")
    matcher.add(["a", "#"], "rest")
    assert matcher.match(["a", "#"]) == {"one", "rest"}
    assert matcher.match(["+", "b"]) == set()
