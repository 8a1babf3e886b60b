"""`_find`, `_explain` and `_index` through CouchDB's protocol."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from feeds.selector import Selector

from .couch_db import DB, db
from .http_tools import Served, served


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as running:
        running.store.create("db")
        yield running


def fill(web: Served) -> list[dict[str, Any]]:
    """Documents of some shapes, with deleted and design documents among them."""
    chance = random.Random(7)
    docs: list[dict[str, Any]] = [
        {
            "_id": f"d{number:03}",
            "n": number,
            "room": chance.choice(["kitchen", "hall", None, 5]),
            "at": {"floor": number % 4, "tags": [chance.choice("abc") for _ in range(number % 3)]},
        }
        for number in range(300)
    ]
    docs[7].pop("room")
    db(web).bulk([*docs, {"_id": "_design/x", "n": 1}, {"_id": "gone", "n": 1}])
    db(web).delete("gone", rev=db(web).get("gone").rev)
    return docs


async def find(web: Served, **body: Any) -> Any:
    answer = await web.client.post(f"{DB}/_find", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(found: Any) -> list[str]:
    return [doc["_id"] for doc in found["docs"]]


@pytest.mark.parametrize(
    "selector",
    [
        {},
        {"room": "kitchen"},
        {"n": {"$gte": 20, "$lt": 40}},
        {"n": 7.0},
        {"room": {"$exists": False}},
        {"room": None},
        {"at.floor": 2, "room": {"$in": ["hall", 5]}},
        {"at": {"tags": {"$elemMatch": {"$eq": "b"}}}},
        {"at.tags": {"$all": ["a", "b"]}},
        {"$or": [{"n": 3}, {"room": 5}]},
        {"$not": {"room": "hall"}},
        {"_id": "d011"},
        {"_id": {"$gt": "d290"}},
        {"_id": {"$in": ["d001", "d005", "none"]}},
        {"_id": {"$regex": "^d1[0-9]7$"}},
        {"room": {"$type": "number"}},
        {"n": {"$mod": [50, 1]}},
        {"n": {"$gt": 1000}},
    ],
    ids=str,
)
async def test_what_a_selector_means_is_found_whatever_narrows_it(web: Served, selector: dict[str, Any]) -> None:
    docs = fill(web)
    meant = Selector.parse(selector)
    wanted = [doc["_id"] for doc in docs if meant.matches(doc)]
    assert ids(await find(web, selector=selector, limit=1000)) == wanted


async def test_pages_go_on_where_the_bookmark_says(web: Served) -> None:
    fill(web)
    wanted = ids(await find(web, selector={"at.floor": 1}, limit=1000))
    found: list[str] = []
    bookmark = None
    while page := await find(web, selector={"at.floor": 1}, limit=10, bookmark=bookmark):
        if not page["docs"]:
            break
        found += ids(page)
        bookmark = page["bookmark"]
    assert found == wanted
    assert len(ids(await find(web, selector={}))) == 25
    assert ids(await find(web, selector={"at.floor": 1}, skip=3, limit=2)) == wanted[3:5]
    assert ids(await find(web, selector={}, limit=0)) == []


async def test_found_documents_come_in_the_order_asked_for(web: Served) -> None:
    fill(web)
    down = await find(web, selector={"n": {"$lt": 10}}, sort=[{"n": "desc"}])
    assert [doc["n"] for doc in down["docs"]] == list(range(9, -1, -1))
    two = await find(web, selector={"n": {"$lt": 8}}, sort=["at.floor", {"n": "desc"}])
    assert [doc["n"] for doc in two["docs"]] == [4, 0, 5, 1, 6, 2, 7, 3]
    rooms = await find(web, selector={"n": {"$lt": 30}}, sort=["room"], fields=["room", "n"])
    ranks = [(doc["room"] is not None, isinstance(doc["room"], str)) for doc in rooms["docs"]]
    assert ranks == sorted(ranks) and all(doc["n"] != 7 for doc in rooms["docs"])
    first = await find(web, selector={}, sort=["n"], limit=3)
    second = await find(web, selector={}, sort=["n"], limit=3, bookmark=first["bookmark"])
    assert [doc["n"] for doc in (*first["docs"], *second["docs"])] == list(range(6))


async def test_only_the_fields_asked_for_come(web: Served) -> None:
    fill(web)
    (doc,) = (await find(web, selector={"_id": "d004"}, fields=["_id", "at.floor", "none", "at.none"]))["docs"]
    assert doc == {"_id": "d004", "at": {"floor": 0}}


async def test_attachments_and_conflicts_are_told_as_in_couchdb(web: Served) -> None:
    db(web).bulk([{"_id": "a", "_rev": "1-a", "n": 1}, {"_id": "a", "_rev": "1-b", "n": 1}], new_edits=False)
    db(web).attach("f", "x.txt", b"hi")
    (a,) = (await find(web, selector={"n": 1}, conflicts=True))["docs"]
    assert a == {"_id": "a", "_rev": "1-b", "n": 1, "_conflicts": ["1-a"]}
    (f,) = (await find(web, selector={"_id": "f"}))["docs"]
    assert f["_attachments"]["x.txt"]["digest"].startswith("md5-")


async def test_how_documents_are_found_is_told(web: Served) -> None:
    fill(web)
    told = (await web.client.post(f"{DB}/_explain", json={"selector": {"n": 5}})).json()
    assert (told["dbname"], told["index"]["type"], told["index"]["def"]) == ("db", "json", {"fields": [{"n": "asc"}]})
    every = (await web.client.post(f"{DB}/_explain", json={"selector": {}})).json()
    assert every["index"]["type"] == "special"
    assert "warning" in await find(web, selector={"$or": [{"n": 3}, {"room": 5}]})
    narrowed = await find(web, selector={"n": 5}, execution_stats=True)
    assert "warning" not in narrowed
    assert narrowed["execution_stats"]["total_docs_examined"] == 1


async def test_no_more_is_held_to_be_sorted_than_a_bound(web: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(web)
    monkeypatch.setattr("broker.couch.find._SORTED_BYTES_MAX", 10_000)
    few = await find(web, selector={"n": {"$lt": 20}}, sort=["n"])
    assert len(few["docs"]) == 20
    refused = await web.client.post(f"{DB}/_find", json={"selector": {}, "sort": ["n"]})
    assert (refused.status_code, refused.json()["error"]) == (400, "no_usable_index")
    assert len((await find(web, selector={}, limit=300))["docs"]) == 300


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"selector": 7},
        {"selector": {"a": {"$no": 1}}},
        {"selector": {}, "limit": -1},
        {"selector": {}, "skip": "x"},
        {"selector": {}, "fields": "x"},
        {"selector": {}, "fields": [7]},
        {"selector": {}, "fields": ["a..b"]},
        {"selector": {}, "sort": "x"},
        {"selector": {}, "sort": [{"a": "up"}]},
        {"selector": {}, "bookmark": "%"},
        {"selector": {}, "bookmark": 7},
        {"selector": {}, "bookmark": "bm9uc2Vuc2U="},
        [],
    ],
    ids=str,
)
async def test_what_cannot_be_found_is_refused(web: Served, body: Any) -> None:
    for place in ("_find", "_explain"):
        answer = await web.client.post(f"{DB}/{place}", json=body)
        assert answer.status_code == 400, answer.text
        assert answer.json().keys() == {"error", "reason"}


# Indexes


async def test_definitions_of_indexes_are_kept_listed_and_forgotten(web: Served) -> None:
    body = {"index": {"fields": ["room", {"n": "asc"}]}, "name": "by-room", "ddoc": "rooms"}
    made = await web.client.post(f"{DB}/_index", json=body)
    assert made.json() == {"result": "created", "id": "_design/rooms", "name": "by-room"}
    assert (await web.client.post(f"{DB}/_index", json=body)).json()["result"] == "exists"
    unnamed = (await web.client.post(f"{DB}/_index", json={"index": {"fields": ["n"]}})).json()
    listed = (await web.client.get(f"{DB}/_index")).json()
    assert listed["total_rows"] == 3
    assert listed["indexes"][0]["name"] == "_all_docs"
    by_name = {each["name"]: each for each in listed["indexes"]}
    assert by_name["by-room"]["def"] == {"fields": [{"room": "asc"}, {"n": "asc"}]}
    assert by_name[unnamed["name"]]["ddoc"] == unnamed["id"]
    for place in ("rooms/json/by-room", f"{unnamed['id']}/json/{unnamed['name']}"):
        assert (await web.client.delete(f"{DB}/_index/{place}")).json() == {"ok": True}
        assert (await web.client.delete(f"{DB}/_index/{place}")).status_code == 404
    assert (await web.client.get(f"{DB}/_index")).json()["total_rows"] == 1


@pytest.mark.parametrize("views", [[1], "x", 7], ids=str)
async def test_a_design_document_with_views_that_are_none_takes_no_definition(web: Served, views: Any) -> None:
    db(web).put({"_id": "_design/odd", "views": views})
    body = {"index": {"fields": ["n"]}, "name": "n", "ddoc": "odd"}
    assert (await web.client.post(f"{DB}/_index", json=body)).status_code == 400
    assert (await web.client.delete(f"{DB}/_index/odd/json/n")).status_code == 400
    assert db(web).get("_design/odd").data["views"] == views


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"index": {}},
        {"index": {"fields": []}},
        {"index": {"fields": [7]}},
        {"index": {"fields": ["a"]}, "name": 7},
    ],
    ids=str,
)
async def test_what_is_no_definition_is_refused(web: Served, body: dict[str, Any]) -> None:
    assert (await web.client.post(f"{DB}/_index", json=body)).status_code == 400
    assert db(web).head() == 0
