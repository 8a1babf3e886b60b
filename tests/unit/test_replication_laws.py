"""What holds for every filter: the patterns it asks the index with find all that it means."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from slow_selector import documents, selectors, values

from feeds.paths import document_paths, id_levels
from feeds.patterns import Pattern
from listeners.replication.filters import Filter

equalities = st.dictionaries(
    st.sampled_from(["a", "b", "a.b", "_id"]),
    values | st.builds(lambda listed: {"$in": listed}, st.lists(values, min_size=1, max_size=3)),
    min_size=1,
    max_size=2,
)


@settings(max_examples=600, deadline=None)
@given(selectors | equalities, documents)
@example({"a": 1}, {"_id": "x", "a": 1.0})
@example({"a": 1.0}, {"_id": "x", "a": 1})
@example({"a": -0.0}, {"_id": "x", "a": 0})
@example({"a": 2**63}, {"_id": "x", "a": float(2**63)})
@example({"a": float(2**63)}, {"_id": "x", "a": 2**63})
@example({"a": 2**53 + 1}, {"_id": "x", "a": float(2**53)})
@example({"a": 1e300}, {"_id": "x", "a": 1e300})
@example({"a": float(2**53)}, {"_id": "x", "a": 2**53})
@example({"a": "x" * 200}, {"_id": "x", "a": "x" * 200})
@example({"a": "b/c#+%"}, {"_id": "x", "a": "b/c#+%"})
@example({"a": {"$eq": {}}}, {"_id": "x", "a": {}})
@example({"a": {"$eq": []}}, {"_id": "x", "a": []})
@example({"a": {"$elemMatch": {"b": 1}}}, {"_id": "x", "a": [{"b": 1}]})
@example({"a": {"$lt": 5}}, {"_id": "x", "a": 1})
@example({"a": {"$beginsWith": "é"}}, {"_id": "x", "a": "éa"})
@example({"a": 1}, {"_id": "_design/x", "a": 1})
@example({"_id": "p/q"}, {"_id": "p/q"})
def test_whatever_a_selector_matches_stands_under_what_it_asks_for(
    selector: dict[str, Any], document: dict[str, Any]
) -> None:
    filter = Filter.of(selector=selector)
    if filter.selector is None or not filter.selector.matches(document):
        return
    patterns = [Pattern.parse(text) for text in filter.asked]
    paths = ["_id/" + id_levels(document["_id"])]
    if not document["_id"].startswith("_design/"):
        paths += [path for path, _ in document_paths(document)]
    assert not patterns or any(pattern.matches(path.split("/")) for pattern in patterns for path in paths)
