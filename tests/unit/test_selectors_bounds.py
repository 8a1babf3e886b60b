"""What a selector says about the path index: readings that find every match."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from slow_selector import documents, selectors

from feeds import Store
from feeds.paths import document_leaves, key_path
from feeds.patterns import Pattern
from feeds.selector import Bound, Reading, Selector
from feeds.storage.find import Query, matches_path


def bounds(selector: dict[str, Any]) -> list[tuple[str, str]]:
    return [(bound.kind, bound.path) for bound in Selector.parse(selector).bounds()]


def only(selector: dict[str, Any]) -> Bound:
    (bound,) = Selector.parse(selector).bounds()
    return bound


def reads(reading: Reading, document: dict[str, Any]) -> bool:
    """Whether a search of the index finds the document: each leaf against pattern and values."""
    query = Query(Pattern.parse(reading.pattern), low=reading.low, high=reading.high, prefix=reading.prefix)
    query.check()
    if query.pattern.levels == ("_id",):
        return query.admits(document["_id"])
    levels = query.pattern.levels
    for leaf in document_leaves(document):
        place = key_path(leaf).split("/")
        whole = levels[-1] != "#"
        named = matches_path(levels if whole else levels[:-1], place if whole else place[: len(levels) - 1])
        if named and query.admits(leaf[2]):
            return True
    return False


@settings(max_examples=400, deadline=None)
@given(selectors, documents)
@example({"$and": [{"a": {"$elemMatch": {"$gt": 5}}}, {"a": {"$elemMatch": {"$lt": 3}}}]}, {"_id": "a", "a": [1, 9]})
@example({"a": {"$in": [1]}}, {"_id": "a", "a": [2, 1]})
@example({"a": {"$gt": 5}}, {"_id": "a", "a": {"b": "c"}})
@example({"a": {"$gt": 5}}, {"_id": "a", "a": []})
@example({"a": {"$size": 2}}, {"_id": "a", "a": [[], {}]})
def test_a_match_is_in_a_reading_of_every_bound(selector: dict[str, Any], document: dict[str, Any]) -> None:
    parsed = Selector.parse(selector)
    if parsed.matches(document):
        for bound in parsed.bounds():
            assert any(reads(reading, document) for reading in bound.readings), bound


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({}, []),
        ({"region": "Europe"}, [("equal", "region")]),
        ({"region": "Europe", "year": {"$gt": 1990}}, [("equal", "region"), ("range", "year")]),
        ({"year": {"$gt": 1990}, "name": {"$beginsWith": "A"}}, [("prefix", "name"), ("range", "year")]),
        ({"imdb": {"rating": 8}}, [("equal", "imdb/rating")]),
        ({"imdb": {"$eq": {"rating": 8, "by": "x"}}}, [("equal", "imdb/by"), ("equal", "imdb/rating")]),
        ({"tags": {"$eq": []}}, [("equal", "tags")]),
        ({"region": {"$in": ["Europe", "Asia"]}}, [("equal", "region")]),
        ({"genre": {"$all": ["Comedy", "Short"]}}, [("equal", "genre/+"), ("equal", "genre/+"), ("exists", "genre")]),
        (
            {"locations": {"$elemMatch": {"country": "France", "city": {"$gt": "C"}}}},
            [("equal", "locations/+/country"), ("range", "locations/+/city"), ("exists", "locations")],
        ),
        ({"scores": {"$allMatch": {"$gte": 80, "$lt": 85}}}, [("range", "scores/+"), ("exists", "scores")]),
        ({"genre.0": "Comedy"}, [("equal", "genre/0")]),
        ({"name": {"$regex": "^New [A-Z]"}}, [("prefix", "name")]),
        ({"name": {"$regex": "York"}}, [("range", "name")]),
        ({"name": {"$type": "string"}}, [("range", "name")]),
        ({"year": {"$type": "number"}}, [("range", "year")]),
        ({"year": {"$mod": [4, 0]}}, [("range", "year")]),
        ({"year": {"$exists": True}}, [("exists", "year")]),
        ({"year": {"$ne": 1990}}, [("exists", "year")]),
        ({"rivers": {"$size": 3}}, [("exists", "rivers/2")]),
        ({"cameras": {"$keyMapMatch": {"$eq": "x"}}}, [("exists", "cameras")]),
        ({"_id": {"$gte": "a", "$lt": "b"}}, [("range", "_id")]),
        ({"_id": {"$beginsWith": "fr/"}}, [("prefix", "_id")]),
        ({"_id": {"$in": ["a", "b"]}}, [("equal", "_id")]),
        ({"a\\.b/c": "x"}, [("equal", "a.b%2Fc")]),
        ({"+.*.#": "x"}, [("equal", "%2B/%2A/%23")]),
    ],
    ids=str,
)
def test_conditions_that_have_to_hold_are_bounds(selector: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert bounds(selector) == expected


@pytest.mark.parametrize(
    "selector",
    [
        {"year": {"$exists": False}},
        {"$or": [{"a": 1}, {"b": 2}]},
        {"$nor": [{"a": 1, "b": 2}]},
        {"_rev": {"$beginsWith": "2-"}},
        {"_deleted": True},
        {"_attachments": {"$exists": True}},
        {"_id": {"$exists": True}},
        {".".join("a" * 62): 1},
        {"x" * 720: 1},
    ],
    ids=str,
)
def test_where_the_index_knows_nothing_there_is_no_bound(selector: dict[str, Any]) -> None:
    assert bounds(selector) == []


def test_ranges_on_one_path_are_one() -> None:
    bound = only({"year": {"$gte": 1960, "$lt": 2000}, "$not": {"year": {"$gt": 1990}}})
    assert bound.readings == (Reading("year", 1960, 1990),)
    assert not bound.needs_every_path


def test_a_range_without_an_end_reads_what_lists_and_objects_hold_too() -> None:
    bound = only({"year": {"$gt": 1990}})
    assert bound.readings == (Reading("year", 1990, []), Reading("year/+/#", None, []))
    assert bound.needs_every_path
    assert only({"year": {"$lt": 1990}}).readings == (Reading("year", None, 1990),)


def test_a_regular_expression_bounds_only_where_its_beginning_is_plain() -> None:
    def prefix(pattern: str) -> str | None:
        return only({"a": {"$regex": pattern}}).readings[0].prefix

    assert prefix("^abc") == "abc"
    assert prefix("^abc?") == "ab"
    assert prefix("^ab*") == "a"
    assert prefix("^ab{0,2}") == "a"
    assert prefix("^ab+") == "ab"
    assert prefix("^ab.c") == "ab"
    assert prefix("^ab|c") == ""
    assert prefix("(?i)^ab") == ""
    assert prefix("^(ab)?c") == ""
    assert prefix("ab") == ""


# -- on a store

PLACES: list[dict[str, Any]] = [
    {"_id": "fr/paris", "name": "Paris", "region": "Europe", "population": 2.1e6, "rivers": ["Seine"]},
    {"_id": "fr/lyon", "name": "Lyon", "region": "Europe", "population": 520_000, "rivers": ["Rhône", "Saône"]},
    {"_id": "de/cologne", "name": "Köln", "region": "Europe", "population": [1_000_000], "rivers": ["Rhine"]},
    {"_id": "th/bangkok", "name": "Bangkok", "region": "Asia", "population": {"city": 8_300_000}, "capital": True},
    {"_id": "no/where", "name": "", "region": None, "rivers": [], "population": "unknown"},
    {"_id": "long", "name": "x" * 99 + "é" + "y" * 50, "region": ["Europe", "Asia"], "rivers": {}},
    {"_id": "odd", "a.b": {"c/d": 1, "+": [[{"x": 1.0}]]}, "region": "europe"},
]


@pytest.fixture(scope="module")
def barrel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with Store.open(tmp_path_factory.mktemp("store")) as store:
        barrel = store.create("places")
        for place in PLACES:
            barrel.put(place)
        yield barrel


def found(barrel: Any, reading: Reading) -> set[str]:
    page = barrel.find(reading.pattern, from_=reading.low, to=reading.high, prefix=reading.prefix, limit=1000)
    return {hit.id for hit in page.results}


@pytest.mark.parametrize(
    "selector",
    [
        {"region": "Europe"},
        {"region": {"$in": ["Asia", None]}},
        {"population": {"$gt": 1_000_000}},
        {"population": {"$lt": 1_000_000}},
        {"population": {"$gte": 520_000, "$lte": 2_100_000}},
        {"population": {"$exists": True}},
        {"population.city": {"$gt": 1}},
        {"rivers": {"$elemMatch": {"$regex": "^Rh"}}},
        {"rivers": {"$size": 2}},
        {"rivers": []},
        {"rivers": {"$type": "array"}},
        {"rivers": {"$type": "object"}},
        {"region": {"$all": ["Asia", "Europe"]}},
        {"name": {"$beginsWith": "x" * 99 + "é" + "y"}},
        {"name": {"$gt": "x" * 99 + "éx"}},
        {"name": {"$regex": "^L"}},
        {"capital": True},
        {"a\\.b": {"c/d": 1}},
        {"a\\.b.+.0.0.x": 1},
        {"a\\.b.+": {"$elemMatch": {"$elemMatch": {"x": {"$lte": 1}}}}},
        {"_id": {"$beginsWith": "fr/"}},
        {"_id": {"$gt": "fr/lyon"}},
        {"_id": {"$lt": "fr/lyon"}},
        {"_id": {"$in": ["odd", "long"]}},
    ],
    ids=str,
)
def test_each_bound_finds_all_matches_in_a_store(barrel: Any, selector: dict[str, Any]) -> None:
    parsed = Selector.parse(selector)
    wanted = {place["_id"] for place in PLACES if parsed.matches(place)}
    assert wanted
    assert parsed.bounds()
    for bound in parsed.bounds():
        assert wanted <= set().union(*(found(barrel, reading) for reading in bound.readings)), bound


def test_what_is_equal_is_all_that_is_read(barrel: Any) -> None:
    (bound,) = Selector.parse({"region": "Europe"}).bounds()
    assert found(barrel, bound.readings[0]) == {"fr/paris", "fr/lyon", "de/cologne"}
