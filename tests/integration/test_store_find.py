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
from store_tools import careless, refusal

from feeds import Barrel, Found, Store
from feeds.errors import BadRequest
from feeds.paths import document_leaves, encode_segment, id_levels, key_path, value_segment
from feeds.patterns import Pattern
from feeds.storage import hits, ids, selection
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
def store(module_database_url: str) -> Iterator[Store]:
    with Store.open(module_database_url) as opened:
        careless(opened)
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


KEYED = [
    *("devices/+/on", "devices/+/on/true", "devices/+/n", "devices/+/+", "devices/#", "#", "devices/k3/on", "+/+/n"),
    *("devices/1/on", "devices/1/+", "devices/+/l/0", "devices/+/l/+/a", "devices/+/n/1", "devices/k3", "devices"),
]
keyed_documents = st.fixed_dictionaries(
    {
        "devices": st.one_of(
            st.dictionaries(
                st.sampled_from(["1", "2", *(f"k{n}" for n in range(9))]),
                st.fixed_dictionaries({}, optional={"on": st.booleans(), "n": values, "l": st.just(["a", {"a": 1}])}),
                max_size=9,
            ),
            st.lists(st.fixed_dictionaries({"on": st.booleans()}), max_size=3),
        )
    }
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    corpus=st.lists(keyed_documents, min_size=1, max_size=6),
    path=st.sampled_from(KEYED),
    order=st.sampled_from(["key", "value"]),
    bound=bounds,
    sizes=st.sampled_from([(1, 2, 1), (2, 3, 2), (3, 100, 50)]),
)
def test_keys_that_are_data_make_many_shapes_that_are_looked_up_together(
    store: Store, corpus: list[dict[str, Any]], path: str, order: Any, bound: dict[str, Any], sizes: tuple[int, ...]
) -> None:
    barrel = store.create(f"f{next(names)}")
    docs = {f"d{number}": data for number, data in enumerate(corpus)}
    barrel.bulk([{"_id": id, **data} for id, data in docs.items()])
    right = wanted(docs, path, order, bound)
    with pytest.MonkeyPatch.context() as patch:
        for module, name, size in (
            *((hits, "_FEW", sizes[0]), (hits, "_MANY", sizes[1]), (hits, "_TOGETHER_MAX", sizes[2])),
            *((selection, "_PAGE", sizes[0]), (selection, "_PAGE_MAX", sizes[1]), (hits, "_CHUNK_FIRST", sizes[0])),
        ):
            patch.setattr(module, name, size)
        for limit, descending in ((1, False), (2, True), (1000, False), (1000, True)):
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
        {"after": "WyJrIiwwLCIiLCJuIiw5MjIzMzcyMDM2ODU0Nzc1ODA4LCIiXQ"},  # behind document number 2 ** 63
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


# -- long texts


def test_texts_that_begin_alike_come_in_one_order_on_every_page(geo: Barrel) -> None:
    """Beyond what the index keeps of a text the order is that of the documents, the same on every page."""
    alike = [f"{'x' * 97}{end}" for end in ("zz", "é", "aaaa", "", "b" * 9, "aaab")]
    geo.bulk([{"_id": f"d{number}", "t": text} for number, text in enumerate([*alike, "x" * 96 + "z", "x" * 96])])
    whole = told(geo.find("t", order="value").results)
    order = [id for id, _, _ in whole]
    assert (order[0], order[-1], len(order)) == ("d7", "d6", 8)
    for limit in (1, 2, 5):
        assert pages(geo, limit, "t", order="value") == whole
        assert pages(geo, limit, "t", order="value", descending=True) == whole[::-1]


def test_texts_that_begin_alike_are_bounded_in_full(geo: Barrel) -> None:
    alike = ["x" * 97 + end for end in ("b", "a" * 9, "c", "", "a")]
    geo.bulk([{"_id": f"d{number}", "t": text} for number, text in enumerate(alike)])

    def between(**bound: Any) -> list[str]:
        return sorted(id for id, _, _ in pages(geo, 1, "t", order="value", **bound))

    assert between(from_="x" * 97 + "a" * 2) == ["d0", "d1", "d2"]
    assert between(to="x" * 97 + "a") == ["d3", "d4"]
    assert between(from_="x" * 97 + "a", to="x" * 97 + "b") == ["d0", "d1", "d4"]
    assert between(prefix="x" * 97 + "a") == ["d1", "d4"]


# -- ids

IDS = [
    *("fr/paris", "fr/lyon", "fr", "fr/paris/1", "fr!", "fr-x", "de/köln", "DE", "a b", "50%", "x+y", "_design/app"),
    *("fr/", "fr//x", "1", "z\U0010ffff", "é"),
]


@pytest.fixture(scope="module")
def named(store: Store) -> Barrel:
    """A document for each id, two that were deleted, and one that has expired."""
    barrel = store.create("named", {"ttl_field": "until"})
    barrel.bulk([{"_id": id, "n": number} for number, id in enumerate([*IDS, "fr/gone", "zz"])])
    for id in ("fr/gone", "zz"):
        barrel.delete(id, rev=barrel.get(id).rev)
    barrel.put({"until": "2001-01-01T00:00:00Z"}, id="fr/expired")
    return barrel


def by_id(path: str, **bound: Any) -> list[str]:
    """The slow answer: whose path `_id/…` matches, and whose id is within the bounds."""
    levels = Pattern.parse(path).levels
    pattern = Pattern(levels if len(levels) > 1 else ("_id", "#"))
    return [
        id
        for id in sorted(IDS, key=str.encode)
        if pattern.matches(("_id", *id_levels(id).split("/"))) and fits(id, **bound)
    ]


ID_PATHS = [
    *("_id/#", "_id", "_id/+", "_id/fr/#", "_id/fr/+", "_id/fr/paris", "_id/fr", "_id/+/paris", "_id/fr/+/1"),
    *(
        "_id/50%25",
        "_id/x%2By",
        "_id/none",
        "_id/fr/gone",
        "_id/zz",
        "_id/_design/+",
        "_id/%zz",
        "_id/fr/",
        "_id/+/#",
    ),
]


@pytest.mark.parametrize("path", ID_PATHS)
@pytest.mark.parametrize(
    "bound",
    [
        *({}, {"prefix": "fr"}, {"prefix": ""}, {"from_": "f"}, {"to": "fr"}, {"from_": "a", "to": "fr/paris"}),
        *({"from_": 1}, {"to": 1}, {"from_": 1, "to": "fr"}, {"from_": "fr", "to": {}}, {"from_": {}, "to": []}),
    ],
)
def test_documents_are_found_by_their_ids_in_order(named: Barrel, path: str, bound: dict[str, Any]) -> None:
    right = [(id, "_id/" + id_levels(id), id) for id in by_id(path, **bound)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ids, "_PAGE", 2)
        for order in ("key", "value"):
            for limit in (1, 3, 1000):
                assert pages(named, limit, path, order=order, **bound) == right
                assert pages(named, limit, path, order=order, descending=True, **bound) == right[::-1]


def test_documents_found_by_their_ids_come_along_when_asked(named: Barrel) -> None:
    page = named.find("_id/fr/#", docs=True)
    assert [msgspec.json.decode(hit.doc)["_id"] for hit in page.results] == [hit.id for hit in page.results]  # type: ignore[arg-type]
    assert len(page.results) > 3
    assert page.next is None


def test_wildcards_in_the_first_level_mean_what_stands_in_documents(geo: Barrel) -> None:
    geo.put({"n": 1}, id="x")
    for path in ("#", "+", "+/#"):
        assert told(geo.find(path).results) == [("x", "n", 1)]
    assert geo.find("+/x").results == []


def test_a_page_of_ids_is_not_continued_in_another_order(named: Barrel) -> None:
    after = named.find("_id/#", limit=1).next
    assert isinstance(refusal(lambda: named.find("_id/#", limit=1, after=after, descending=True)), BadRequest)
