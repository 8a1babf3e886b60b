"""Selectors by example, most of them those of CouchDB's documentation."""

from __future__ import annotations

import json
from typing import Any

import pytest

from feeds.selector import OPERATORS, Selector

RECALL = {
    "_id": "recall",
    "_rev": "2-abc",
    "title": "Total Recall",
    "year": 1990,
    "director": "Paul Verhoeven",
    "imdb": {"rating": 7.5, "votes": 1e5},
    "genre": ["Action", "Science Fiction"],
    "cameras": {"primary": "Arri", "secondary": "Nikon"},
    "scores": [80, 84],
    "tags": [],
    "sequel": None,
    "remade": True,
    "cast": [{"name": "Schwarzenegger", "lead": True}, {"name": "Ticotin"}],
    "file.name": "recall.mkv",
    "$price": 5,
    "back\\slash": 1,
}


def matches(selector: dict[str, Any]) -> bool:
    return Selector.parse(selector).matches(RECALL)


@pytest.mark.parametrize(
    "selector",
    [
        {},
        {"title": "Total Recall"},
        {"title": "Total Recall", "year": 1990},
        {"title": {"$eq": "Total Recall"}},
        {"$and": [{"title": "Total Recall"}, {"year": {"$in": [1984, 1990]}}]},
        {"year": {"$gte": 1990, "$lte": 1990}},
        {"year": {"$gt": 1989.5, "$lt": 1991}},
        {"year": 1990.0},
        {"imdb": {"rating": 7.5}},
        {"imdb.rating": 7.5},
        {"imdb.votes": 100000},
        {"imdb": {"rating": {"$gt": 7}, "votes": {"$type": "number"}}},
        {"imdb": {"$type": "object", "rating": 7.5}},
        {"year": 1990, "$or": [{"director": "George Lucas"}, {"director": "Paul Verhoeven"}]},
        {"year": {"$gte": 1900}, "$not": {"year": 1901}},
        {"year": {"$gte": 1900}, "$nor": [{"year": 1901}, {"year": 1905}]},
        {"director": {"$or": ["George Lucas", {"$regex": "^Paul"}]}},
        {"director": {"$not": {"$regex": "^George"}}},
        {"genre": {"$all": ["Action"]}},
        {"genre": {"$all": ["Science Fiction", "Action"]}},
        {"genre": {"$all": [["Action", "Science Fiction"]]}},
        {"genre": ["Action", "Science Fiction"]},
        {"genre": {"$elemMatch": {"$eq": "Action"}}},
        {"genre": {"$elemMatch": {"$regex": "^Sci", "$ne": "Action"}}},
        {"cast": {"$elemMatch": {"name": "Schwarzenegger", "lead": True}}},
        {"cast": {"$allMatch": {"name": {"$type": "string"}}}},
        {"scores": {"$allMatch": {"$gte": 80, "$lt": 85}}},
        {"cameras": {"$keyMapMatch": {"$eq": "secondary"}}},
        {"genre.0": "Action"},
        {"cast.0.name": "Schwarzenegger"},
        {"cast": {"1": {"name": "Ticotin"}}},
        {"genre": {"$in": ["Horror", "Action"]}},
        {"genre": {"$nin": ["Horror", "Comedy"]}},
        {"genre": {"$size": 2}},
        {"tags": {"$size": 0}},
        {"tags": []},
        {"year": {"$mod": [10, 0]}},
        {"title": {"$regex": "(?i)total"}},
        {"title": {"$regex": "Recall$"}},
        {"title": {"$beginsWith": "Total"}},
        {"sequel": None},
        {"sequel": {"$exists": True}},
        {"sequel": {"$type": "null"}},
        {"prequel": {"$exists": False}},
        {"imdb.stars": {"$exists": False}},
        {"prequel.year": {"$exists": False}},
        {"_id": "recall"},
        {"_id": {"$gt": None}},
        {"_rev": {"$beginsWith": "2-"}},
        {"_deleted": {"$exists": False}},
        {"file\\.name": "recall.mkv"},
        {"\\$price": 5},
        {"back\\\\slash": 1},
    ],
    ids=str,
)
def test_this_matches(selector: dict[str, Any]) -> None:
    assert matches(selector)


@pytest.mark.parametrize(
    "selector",
    [
        {"title": "total recall"},
        {"title": "Total Recall", "year": 1991},
        {"year": "1990"},
        {"remade": 1},
        {"remade": {"$in": [1]}},
        {"sequel": False},
        {"prequel": None},
        {"imdb": {"rating": 7.5, "stars": 5}},
        {"genre": "Action"},
        {"genre": ["Science Fiction", "Action"]},
        {"genre": {"$all": ["Action", "Horror"]}},
        {"title": {"$all": ["Total Recall"]}},
        {"genre": {"$all": []}},
        {"genre": {"$in": []}},
        {"genre": {"$in": [["Action", "Science Fiction"]]}},
        {"tags": {"$allMatch": {"$exists": True}}},
        {"title": {"$elemMatch": {"$exists": True}}},
        {"cameras": {"$keyMapMatch": {"$eq": "Arri"}}},
        {"title": {"$size": 12}},
        {"imdb.rating": {"$mod": [1, 0]}},
        {"year": {"$regex": "1990"}},
        {"year": {"$beginsWith": "1"}},
        {"genre.2": {"$exists": True}},
        {"genre.00": "Action"},
        {"genre.-1": {"$exists": True}},
        {"file.name": "recall.mkv"},
        {"sequel": {"$exists": False}},
    ],
    ids=str,
)
def test_this_does_not_match(selector: dict[str, Any]) -> None:
    assert not matches(selector)


@pytest.mark.parametrize(
    "condition",
    [
        {"$ne": 5},
        {"$nin": [5]},
        {"$lt": {}},
        {"$gte": None},
        {"$not": {"$eq": 5}},
        {"$not": {"$regex": "x"}},
        {"$nor": [{"$gt": 5}]},
        {"$exists": True},
    ],
    ids=str,
)
def test_no_condition_holds_of_a_field_that_is_missing(condition: dict[str, Any]) -> None:
    assert not matches({"prequel": condition})
    assert not matches({"cast": {"$allMatch": {"lead": condition}}})


def test_a_negation_asks_for_the_field_too() -> None:
    assert matches({"$not": {"year": 1901}})
    assert not matches({"$not": {"prequel": 1901}})
    assert matches({"$not": {"prequel": {"$exists": True}}})
    assert matches({"$not": {"prequel": 1901, "year": 1901}})


def test_a_field_is_missing_only_where_an_object_has_no_such_key() -> None:
    assert not matches({"title.short": {"$exists": False}})
    assert not matches({"genre.7": {"$exists": False}})
    assert not matches({"genre.first": {"$exists": False}})


@pytest.mark.parametrize(
    ("value", "next_value"),
    [
        (None, False),
        (False, True),
        (True, -(10**9)),
        (-1, -0.5),
        (1, 1.5),
        (10**9, ""),
        ("A", "a"),
        ("Z", "a"),
        ("a", "aa"),
        ("z", "é"),
        ("\uffff", "\U00010000"),
        ("é", []),
        ([1], [1, None]),
        ([1, 9], [2]),
        ([[9]], {}),
        ({}, {"a": None}),
        ({"a": 1}, {"a": 2}),
        ({"a": 2}, {"b": 1}),
        (2**63, 2**63 + 1),
    ],
)
def test_values_are_ordered_across_their_types(value: Any, next_value: Any) -> None:
    document = {"a": value}
    assert Selector.parse({"a": {"$lt": next_value}}).matches(document)
    assert Selector.parse({"a": {"$lte": next_value, "$ne": next_value}}).matches(document)
    assert not Selector.parse({"a": {"$gte": next_value}}).matches(document)
    assert Selector.parse({"a": {"$gt": value}}).matches({"a": next_value})


def test_the_order_of_keys_means_nothing() -> None:
    assert Selector.parse({"a": {"$eq": {"b": 1, "c": 2}}}).matches({"a": {"c": 2.0, "b": 1}})


def test_remainders_have_the_sign_of_the_value() -> None:
    assert Selector.parse({"a": {"$mod": [3, -1]}}).matches({"a": -7})
    assert not Selector.parse({"a": {"$mod": [3, 2]}}).matches({"a": -7})
    assert not Selector.parse({"a": {"$mod": [1, 0]}}).matches({"a": True})


@pytest.mark.parametrize("operator", ["$and", "$or", "$nor"])
def test_an_empty_list_of_selectors_narrows_nothing(operator: str) -> None:
    assert Selector.parse({operator: []}).is_everything
    assert Selector.parse({"$not": {operator: []}}).is_everything
    assert Selector.parse({operator: [], "year": 1990}) == Selector.parse({"year": 1990})


def test_an_empty_selector_matches_everything_and_its_opposite_nothing() -> None:
    assert Selector.parse({"$and": [{}, {"year": 1990}]}) == Selector.parse({"year": 1990})
    assert Selector.parse({"$or": [{}, {"year": 0}]}).is_everything
    assert not matches({"$not": {}})
    assert not matches({"year": 1990, "$nor": [{}]})
    assert Selector.parse({"tags": {}}).matches({"tags": {}})


def test_deleted_documents_can_be_told() -> None:
    selector = Selector.parse({"_deleted": {"$exists": False}})
    assert selector.matches({"_id": "a"})
    assert not selector.matches({"_id": "a", "_deleted": True})
    assert Selector.parse({"_deleted": True}).matches({"_id": "a", "_deleted": True})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": {"$eq": 1.0}}),
        ({"a": {"b": 1}}, {"a.b": 1}),
        ({"a": 1, "b": 2}, {"$and": [{"b": 2}, {"a": 1}]}),
        ({"a": {"$gt": 1, "$lt": 5}}, {"$and": [{"a": {"$lt": 5}}, {"a": {"$gt": 1}}]}),
        ({"$nor": [{"a": {"$gt": 1}}]}, {"a": {"$lte": 1}}),
        ({"$not": {"$or": [{"a": 1}, {"b": 2}]}}, {"a": {"$ne": 1}, "b": {"$ne": 2}}),
        ({"a": {"$in": ["x", "y"]}}, {"a": {"$in": ["y", "x"]}}),
        ({"$and": [{"a": 1}, {"a": 1}]}, {"a": 1}),
        ({"$not": {"a": {"$not": {"$size": 2}}}}, {"a": {"$size": 2}}),
    ],
    ids=str,
)
def test_what_means_the_same_has_one_canonical_form(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert Selector.parse(one).canonical == Selector.parse(other).canonical


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": True}),
        ({"a": 1}, {"a": "1"}),
        ({"a.b": 1}, {"a\\.b": 1}),
        ({"a": {"$eq": {"b": 1}}}, {"a": {"b": 1}}),
        ({"a": {"$all": [[1]]}}, {"a": {"$all": [[1], [1]]}}),
        ({"a": {"$in": [1]}}, {"a": {"$nin": [1]}}),
    ],
    ids=str,
)
def test_what_differs_in_meaning_differs_in_its_canonical_form(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert Selector.parse(one).canonical != Selector.parse(other).canonical


def test_the_canonical_form_is_plain_to_read() -> None:
    selector = Selector.parse({"year": {"$gt": 1990.0}, "$not": {"imdb": {"title": {"$regex": "^x"}}}})
    assert (
        selector.canonical
        == '{"$and":[{"imdb.title":{"$not":{"$regex":"^x"}}},{"year":{"$gt":1990}}]}'
        == str(selector)
    )


def test_the_selector_keeps_its_own_copy_of_what_it_was_given() -> None:
    wanted = ["Europe"]
    selector = Selector.parse({"region": {"$all": [wanted]}})
    wanted.append("Asia")
    assert selector.matches({"region": ["Europe"]})


@pytest.mark.parametrize("name", OPERATORS)
def test_the_example_of_every_operator_can_be_read(name: str) -> None:
    assert name in OPERATORS[name].example
    assert Selector.parse(json.loads(OPERATORS[name].example)).canonical
