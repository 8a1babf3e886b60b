"""What holds for every selector: it agrees with a slow evaluator, and its canonical form means the same."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from slow_selector import documents, order, selectors, slowly_matches, values

from feeds.errors import BadRequest, TooLarge
from feeds.selector import Selector
from feeds.selector.collation import compare, equal, hashed

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["a", "a.b", "$and", "$or", "$not", "$in", "$gt", "$mod", "$regex", "$elemMatch", "$x", "."]
            )
            | st.text(max_size=3),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None)
@given(selectors, documents)
@example({"$not": {"a": {"$gt": 1}}}, {"_id": "x"})
@example({"a": {"$elemMatch": {"$not": {"b": 1}}}}, {"_id": "x", "a": [{}]})
@example({"a.b": {"$exists": False}}, {"_id": "x", "a": 5})
@example({"a": {"$in": [True]}}, {"_id": "x", "a": 1})
@example({"a": {"$all": [[1, "a"]]}}, {"_id": "x", "a": [1, "a"]})
def test_matching_agrees_with_the_slow_evaluator(selector: dict[str, Any], document: dict[str, Any]) -> None:
    assert Selector.parse(selector).matches(document) == slowly_matches(selector, document)


@settings(max_examples=200, deadline=None)
@given(selectors, documents)
@example({"a": 1, "$or": [{"b": 1, "c": 1}, {"c": 1, "b": 1}]}, {"_id": "x"})
def test_the_canonical_form_is_a_selector_that_means_the_same(
    selector: dict[str, Any], document: dict[str, Any]
) -> None:
    parsed = Selector.parse(selector)
    again = Selector.parse(msgspec.json.decode(parsed.canonical))
    assert again == parsed
    assert again.canonical == parsed.canonical
    assert again.matches(document) == parsed.matches(document)


@settings(max_examples=100, deadline=None)
@given(selectors, documents)
def test_neither_the_selector_nor_the_document_is_changed(selector: dict[str, Any], document: dict[str, Any]) -> None:
    before = copy.deepcopy((selector, document))
    Selector.parse(selector).matches(document)
    assert (selector, document) == before


@settings(max_examples=300, deadline=None)
@given(anything, documents)
def test_whatever_is_sent_is_refused_by_name_or_answers_for_every_document(
    value: Any, document: dict[str, Any]
) -> None:
    try:
        selector = Selector.parse(value)
    except (BadRequest, TooLarge):
        return
    assert selector.matches(document) in (True, False)
    selector.bounds()


def sorted_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: sorted_keys(value[key]) for key in sorted(value)}
    return [sorted_keys(inner) for inner in value] if isinstance(value, list) else value


@settings(deadline=None)
@given(values, values.map(sorted_keys))
def test_values_are_ordered_as_the_collation_says(left: Any, right: Any) -> None:
    ours = compare(left, right)
    assert (ours < 0, ours > 0) == (order(left) < order(right), order(left) > order(right))
    assert equal(left, right) == (order(left) == order(right)) == (hashed(left) == hashed(right))
