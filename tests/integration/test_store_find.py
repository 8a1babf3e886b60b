"""Finding documents: every order, bound and page agrees with a look at every document."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from store_tools import refusal

from feeds import Barrel, Found, Store
from feeds.errors import BadRequest
from feeds.paths import document_leaves, encode_segment, key_path, value_segment
from feeds.patterns import Pattern
from feeds.values import encode_value

VALUES: list[Any] = [
    *(None, True, False, 0, 1, 1.0, -0.0, -5, 2.5, 2**53 + 1, 2**53, float(2**53), -(2**63), 2**64 - 1, 1e300),
    *("", "1", "a", "ab", "b/c", "é", "x" * 99, "x" * 100, "x" * 101, "x" * 102, "x" * 99 + "a", "x" * 99 + "é"),
    *({}, [], "{}", "null"),
]
PATHS = [
    *("n", "n/1", "n/+", "n/#", "#", "+", "l/+", "l/0", "l/#", "o/a", "o/+", "+/a", "n/x", "n/{}", "l/1/a", "none"),
    *("n/" + "x" * 100, "n/" + "x" * 99, "n/b%2Fc", "n/1.0", "o/#", "+/+", "n/" + "x" * 99 + "é"),
]
UNSET: Any = msgspec.UNSET

values = st.sampled_from(VALUES)
documents = st.fixed_dictionaries(
    {"n": values},
    optional={
        "l": st.lists(st.one_of(values, st.fixed_dictionaries({"a": values})), max_size=3),
        "o": st.dictionaries(st.sampled_from(["a", "b"]), values, min_size=1),
        "m": values,
    },
)
corpora = st.lists(st.tuples(st.sampled_from("abcdef"), documents), min_size=1, max_size=10)
bounds = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"from_": values}),
    st.fixed_dictionaries({"to": values}),
    st.fixed_dictionaries({"from_": values, "to": values}),
    st.fixed_dictionaries({"prefix": st.sampled_from(["", "x", "x" * 100, "x" * 101, "a", "é"])}),
)
names = itertools.count()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.open(tmp_path_factory.mktemp("find")) as opened:
        opened.writer._connection.exec_driver_sql("PRAGMA synchronous = OFF").close()
        yield opened


def rank(value: Any) -> tuple[int, Any]:
    """Where a value stands among all JSON values."""
    kinds = [type(None), bool, (int, float), str, dict, list]
    kind = next(at for at, kind in enumerate(kinds) if isinstance(value, kind))  # type: ignore[arg-type]
    return (kind, value if kind in (1, 2, 3) else 0)


def fits(value: Any, from_: Any = UNSET, to: Any = UNSET, prefix: str | None = None) -> bool:
    """Whether a value is within bounds; with one bound only values of its kind are."""
    if prefix is not None:
        return isinstance(value, str) and value.startswith(prefix)
    if from_ is not UNSET and (rank(value) < rank(from_) or (to is UNSET and rank(value)[0] != rank(from_)[0])):
        return False
    return to is UNSET or (rank(value) <= rank(to) and (from_ is not UNSET or rank(value)[0] == rank(to)[0]))


def stands(path: str, levels: tuple[str, ...], value: Any, bounded: bool) -> bool:
    """Whether a leaf is meant: by its key path, or without bounds by its whole path."""
    place = path.split("/")
    if levels[-1] == "#":
        wanted = levels[:-1]
        if bounded:
            return len(place) >= len(wanted) and Pattern(levels).matches(place)
        return Pattern(levels).matches((*place, whole_segment(value)))
    if len(place) == len(levels) and all(level in ("+", at) for level, at in zip(levels, place, strict=True)):
        return True
    return not bounded and Pattern(levels).matches((*place, whole_segment(value)))


def whole_segment(value: Any) -> str:
    """The value as last segment, a text in full: who looks one up means that one."""
    return encode_segment(value) if isinstance(value, str) else value_segment(value)


def wanted(
    docs: dict[str, dict[str, Any]], path: str, order: str, bound: dict[str, Any]
) -> list[tuple[str, str, Any]]:
    """The slow answer: every leaf of every document, in the order of their first writing."""
    levels = Pattern.parse(path).levels
    hits = []
    for born, (id, data) in enumerate(docs.items()):
        for leaf in document_leaves(data):
            shape, places, value = leaf
            if stands(key_path(leaf), levels, value, bool(bound)) and fits(value, **bound):
                index = (shape, encode_value(value)) if order == "key" else (encode_value(value), shape)
                hits.append(((*index, born, places), (id, key_path(leaf), value)))
    hits.sort(key=lambda hit: hit[0])
    return [told for _, told in hits]


def told(results: list[Found]) -> list[tuple[str, str, Any]]:
    return [(hit.id, hit.path, hit.value) for hit in results]


def pages(barrel: Barrel, limit: int, path: str, **query: Any) -> list[tuple[str, str, Any]]:
    """All hits, page by page."""
    found: list[tuple[str, str, Any]] = []
    after = None
    while True:
        page = barrel.find(path, limit=limit, after=after, **query)
        found += told(page.results)
        if page.next is None:
            return found
        after = page.next


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(corpus=corpora, path=st.sampled_from(PATHS), order=st.sampled_from(["key", "value"]), bound=bounds)
def test_a_search_agrees_with_a_look_at_every_document(
    store: Store, corpus: list[tuple[str, dict[str, Any]]], path: str, order: Any, bound: dict[str, Any]
) -> None:
    barrel = store.create(f"f{next(names)}")
    docs: dict[str, dict[str, Any]] = {}
    for id, data in corpus:
        barrel.put(data, id=id, update=True)
        docs[id] = data
    for asked in {path, *(PATHS if not bound else ["n", "l/+", "#"])}:
        right = wanted(docs, asked, order, bound)
        assert typed(pages(barrel, 1000, asked, order=order, **bound)) == typed(right), asked
        assert typed(pages(barrel, 1000, asked, order=order, descending=True, **bound)) == typed(right[::-1]), asked
    for limit, descending in ((1, False), (2, True), (3, False)):
        right = wanted(docs, path, order, bound)
        got = pages(barrel, limit, path, order=order, descending=descending, **bound)
        assert typed(got) == typed(right[::-1] if descending else right)


def typed(hits: list[tuple[str, str, Any]]) -> list[tuple[str, str, str]]:
    """Hits that tell 1 from 1.0 and True."""
    return [(id, path, repr(value)) for id, path, value in hits]


@pytest.fixture
def geo(store: Store) -> Barrel:
    return store.create(f"f{next(names)}")


def test_values_come_in_the_order_of_json_values(geo: Barrel) -> None:
    ordered: list[Any] = [
        None,
        False,
        True,
        -(2**63),
        -5,
        0,
        0.5,
        1,
        2**53,
        2**53 + 1,
        2**64 - 1,
        1e300,
        "",
        "A",
        "a",
    ]
    for number, value in enumerate(reversed([*ordered, "é", {}, []])):
        geo.put({"v": value}, id=f"d{number}")
    assert [hit.value for hit in geo.find("v", order="value").results] == [*ordered, "é", {}, []]


def test_documents_come_with_the_hits_when_asked(geo: Barrel) -> None:
    written = geo.put({"region": "Europe"}, id="x")
    (hit,) = geo.find("region/Europe", docs=True).results
    assert msgspec.json.decode(hit.doc) == {"_id": "x", "_rev": written.rev, "region": "Europe"}  # type: ignore[arg-type]


def test_what_changed_is_found_anew_at_once(geo: Barrel) -> None:
    geo.put({"n": 1}, id="x")
    geo.put({"n": 2}, id="x", update=True)
    assert told(geo.find("n").results) == [("x", "n", 2)]
    geo.delete("x", rev=geo.get("x").rev)
    assert geo.find("n").results == []


@pytest.mark.parametrize(
    "query",
    [
        {"limit": 0},
        {"limit": 10_001},
        {"order": "size"},
        {"prefix": "a", "from_": 1},
        {"after": "nonsense"},
        {"after": "WyJrIiwwXQ"},
    ],
)
def test_queries_that_cannot_be_meant_are_refused(geo: Barrel, query: dict[str, Any]) -> None:
    assert isinstance(refusal(lambda: geo.find("n", **query)), BadRequest)


def test_a_page_is_not_continued_in_another_order(geo: Barrel) -> None:
    geo.bulk([{"n": number} for number in range(3)])
    after = geo.find("n", limit=1).next
    assert isinstance(refusal(lambda: geo.find("n", limit=1, after=after, order="value")), BadRequest)
    assert isinstance(refusal(lambda: geo.find("n", limit=1, after=after, descending=True)), BadRequest)


def test_keys_are_found_as_they_are_encoded(geo: Barrel) -> None:
    geo.put({"a/b": {"+": 1, "#": 2, "": 3, "é%": 4}}, id="x")
    assert told(geo.find("a%2Fb/%2B").results) == [("x", "a%2Fb/%2B", 1)]
    assert told(geo.find("a%2Fb/%23").results) == [("x", "a%2Fb/%23", 2)]
    assert told(geo.find("a%2Fb/").results) == [("x", "a%2Fb/", 3)]
    assert told(geo.find("a%2Fb/é%25").results) == [("x", "a%2Fb/é%25", 4)]


def test_paths_beyond_the_limits_are_counted_and_not_found(geo: Barrel) -> None:
    deep: Any = 1
    for _ in range(70):
        deep = {"": deep}
    geo.put({"deep": deep, "n": 1, "k" * 1100: 2}, id="x")
    assert geo.info().skipped_paths == 2
    assert [hit.path for hit in geo.find("#").results] == ["n"]
    geo.put({"deep": deep, "n": 2}, id="x", update=True)
    geo.delete("x", rev=geo.get("x").rev)
    assert geo.find("#").results == []


def test_long_texts_are_found_exactly_and_nulls_have_a_value(store: Store) -> None:
    odd = store.create("odd")
    odd.bulk([{"_id": "a", "L": "x" * 150}, {"_id": "b", "L": "x" * 151}, {"_id": "n", "v": None}])
    assert [hit.id for hit in odd.find("L/" + "x" * 150).results] == ["a"]
    assert odd.find("L/" + "x" * 100).results == []
    assert msgspec.json.encode(odd.find("v/null").results) == b'[{"id":"n","path":"v","value":null}]'
