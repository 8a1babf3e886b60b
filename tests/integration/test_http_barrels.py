"""Barrels, batches, local documents and finding over HTTP."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from .http_tools import Served, fill, served


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as running:
        running.store.create("geo")
        yield running


async def test_a_barrel_is_made_told_set_up_and_dropped(web: Served) -> None:
    made = await web.client.post("/barrels/new", json={"retain": True})
    assert made.status_code == 201
    assert made.json()["settings"]["retain"] is True
    assert (await web.client.post("/barrels/new")).json()["error"] == "exists"

    changed = await web.client.patch("/barrels/new", json={"ttl": 60})
    settings = changed.json()["settings"]
    assert (changed.status_code, settings["ttl"], settings["retain"]) == (200, 60, True)

    names = [barrel["name"] for barrel in (await web.client.get("/barrels")).json()["barrels"]]
    assert names == ["geo", "new"]
    assert (await web.client.delete("/barrels/new")).json() == {"dropped": "new"}
    for method in ("GET", "DELETE", "PATCH"):
        gone = await web.client.request(method, "/barrels/new")
        assert (gone.status_code, gone.json()["error"]) == (404, "not_found")
    assert (await web.client.get("/barrels/new/docs/a")).status_code == 404
    assert (await web.client.put("/barrels/new/docs/a", json={})).status_code == 404


async def test_a_barrel_tells_its_counts(web: Served) -> None:
    fill(web.store.barrel("geo"), 3)
    rev = (await web.client.get("/barrels/geo/docs/d0")).json()["_rev"]
    await web.client.delete("/barrels/geo/docs/d0", params={"rev": rev})
    info = (await web.client.get("/barrels/geo")).json()
    assert (info["doc_count"], info["deleted_count"], info["seq"]) == (2, 1, 4)
    assert info["epoch"]


@pytest.mark.parametrize(
    ("name", "body", "named"),
    [
        ("Upper", b"", "Upper"),
        ("1x", b"", "1x"),
        ("x" * 129, b"", "name"),
        ("new", b'{"retain":"yes"}', "retain"),
        ("new", b'{"colour":1}', "colour"),
        ("new", b'{"path_qos":2}', "path_qos"),
        ("new", b'{"publish":["a+"]}', "a+"),
        ("new", b"[]", "object"),
        ("new", b"{", "JSON"),
    ],
)
async def test_a_barrel_that_cannot_be_is_refused(web: Served, name: str, body: bytes, named: str) -> None:
    answer = await web.client.post(f"/barrels/{name}", content=body)
    assert answer.status_code == 400
    assert named in answer.json()["reason"]
    assert [barrel.name for barrel in web.store.barrels()] == ["geo"]


async def test_a_bulk_write_answers_every_document_in_order(web: Served) -> None:
    docs = [{"_id": "a", "n": 1}, {"_id": "_bad"}, {"n": 2}, {"_id": "a", "n": 3}, 5]
    answer = await web.client.post("/barrels/geo/docs/_bulk", json={"docs": docs})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [result.get("error") for result in results] == [None, "bad_request", None, "conflict", "bad_request"]
    assert (results[0]["id"], results[1]["id"], results[3]["id"]) == ("a", "_bad", "a")
    assert results[0]["rev"].startswith("1-")


async def test_a_bulk_update_extends_also_what_it_wrote_itself(web: Served) -> None:
    docs = [{"_id": "a", "n": number} for number in range(3)]
    answer = await web.client.post("/barrels/geo/docs/_bulk", json={"docs": docs, "update": True})
    assert [result["rev"][0] for result in answer.json()["results"]] == ["1", "2", "3"]


async def test_a_replicated_write_keeps_its_revision(web: Served) -> None:
    docs = [{"_id": "a", "_rev": "3-c", "_revisions": {"start": 3, "ids": ["c", "b", "a"]}, "n": 1}]
    answer = await web.client.post("/barrels/geo/docs/_bulk", json={"docs": docs, "new_edits": False})
    assert answer.json()["results"][0]["rev"] == "3-c"
    diff = await web.client.post("/barrels/geo/docs/_revs_diff", json={"a": ["3-c", "4-d"], "b": ["1-x"]})
    assert diff.json() == {
        "a": {"missing": ["4-d"], "possible_ancestors": ["3-c"]},
        "b": {"missing": ["1-x"]},
    }


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"docs":{}}', b'{"docs":[],"new_edits":1}', b'{"docs":[],"x":1}']
)
async def test_a_bulk_request_that_means_nothing_is_refused(web: Served, body: bytes) -> None:
    answer = await web.client.post("/barrels/geo/docs/_bulk", content=body)
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"docs":' + b"[" * 100_000, b'{"docs":[{"id":"\xff"}', b"", b"5"])
@pytest.mark.parametrize("name", ["_bulk", "_get", "_revs_diff", "_purge"])
async def test_what_cannot_be_read_is_refused_everywhere(web: Served, name: str, body: bytes) -> None:
    answer = await web.client.post(f"/barrels/geo/docs/{name}", content=body)
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")


async def test_a_bulk_write_with_a_key_is_done_once(web: Served) -> None:
    request: dict[str, Any] = {"json": {"docs": [{"n": 1}, {"n": 2}]}, "headers": {"Idempotency-Key": "b"}}
    first = await web.client.post("/barrels/geo/docs/_bulk", **request)
    again = await web.client.post("/barrels/geo/docs/_bulk", **request)
    assert [row["id"] for row in first.json()["results"]] == [row["id"] for row in again.json()["results"]]
    assert web.store.barrel("geo").info().doc_count == 2


async def test_many_documents_are_read_in_the_order_asked_for(web: Served) -> None:
    fill(web.store.barrel("geo"), 250)
    asked: list[dict[str, object]] = [{"id": f"d{number}"} for number in range(249, -1, -1)]
    asked[3] = {"id": "none", "rev": "1-a"}
    asked[5]["revs"] = True
    answer = await web.client.post("/barrels/geo/docs/_get", json={"docs": asked})
    results = answer.json()["results"]
    assert [result["doc"]["_id"] for result in results[:3]] == ["d249", "d248", "d247"]
    assert (results[3]["id"], results[3]["rev"], results[3]["error"]) == ("none", "1-a", "not_found")
    assert "_revisions" in results[5]["doc"]
    assert "_revisions" not in results[4]["doc"]
    assert len(results) == 250


async def test_what_is_purged_was_never_there(web: Served) -> None:
    fill(web.store.barrel("geo"), 2)
    answer = await web.client.post("/barrels/geo/docs/_purge", json={"d0": [], "none": []})
    assert [result["id"] for result in answer.json()["results"]] == ["d0", "none"]
    assert "error" not in answer.json()["results"][0]
    assert (await web.client.get("/barrels/geo/docs/d0")).json()["missing"] is True


async def test_local_documents_stay_out_of_the_log(web: Served) -> None:
    place = "/barrels/geo/local/check/point"
    assert (await web.client.get(place)).status_code == 404
    made = await web.client.put(place, json={"seq": 5})
    assert (made.status_code, made.json()["rev"]) == (201, "0-1")
    next_one = await web.client.put(place, json={"_rev": "0-1", "seq": 6})
    assert (next_one.status_code, next_one.json()["rev"]) == (200, "0-2")
    assert (await web.client.put(place, json={"_rev": "0-1", "seq": 7})).status_code == 409
    read = await web.client.get(place)
    assert read.json() == {"_id": "_local/check/point", "_rev": "0-2", "seq": 6}
    assert (await web.client.get("/barrels/geo")).json()["seq"] == 0
    assert (await web.client.delete(place, params={"rev": "0-2"})).status_code == 200
    assert (await web.client.delete(place)).status_code == 404


async def test_documents_are_found_by_path_and_value(web: Served) -> None:
    fill(web.store.barrel("geo"), 9)
    place = "/barrels/geo/paths"
    north = (await web.client.get(f"{place}/region", params={"from": "north", "to": "north"})).json()
    assert sorted(found["id"] for found in north["results"]) == ["d0", "d3", "d6"]
    assert north["results"][0]["value"] == "north"
    numbers = await web.client.get(f"{place}/number", params={"from": "3", "to": "5", "docs": "true"})
    assert [found["doc"]["number"] for found in numbers.json()["results"]] == [3, 4, 5]
    prefixed = await web.client.get(f"{place}/region", params={"prefix": "so", "order": "value"})
    assert len(prefixed.json()["results"]) == 3


async def test_finding_goes_on_page_by_page(web: Served) -> None:
    fill(web.store.barrel("geo"), 25)
    seen: list[int] = []
    after: dict[str, str] = {}
    while True:
        page = (await web.client.get("/barrels/geo/paths/number", params={"limit": "10", **after})).json()
        seen += [found["value"] for found in page["results"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert seen == list(range(25))


async def test_a_key_with_a_slash_is_found_encoded(web: Served) -> None:
    web.store.barrel("geo").put({"a/b": {"é +": 1}}, id="x")
    status, body = await web.plain("GET", "/barrels/geo/paths/a%2Fb/%C3%A9%20%2B")
    assert (status, b'"id":"x"' in body) == (200, True)
    status, body = await web.plain("GET", "/barrels/geo/paths/a%2Fb/*")
    assert b'"id":"x"' in body


@pytest.mark.parametrize(
    ("path", "ids"),
    [
        ("_id/fr/paris", ["fr/paris"]),
        ("_id/fr%2Fparis", ["fr/paris"]),
        ("_id/fr/*", ["fr", "fr/lyon", "fr/paris"]),
        ("_id/fr/%23", ["fr", "fr/lyon", "fr/paris"]),
        ("_id/+", ["50%", "a+b", "fr"]),
        ("_id/50%25", ["50%"]),
        ("_id/a%2Bb", ["a+b"]),
        ("_id?prefix=fr/", ["fr/lyon", "fr/paris"]),
        ("_id/*?from=a&to=fr&descending=true", ["fr", "a+b"]),
        ("_id/none", []),
    ],
)
async def test_documents_are_found_by_id(web: Served, path: str, ids: list[str]) -> None:
    web.store.barrel("geo").bulk([{"_id": id} for id in ("fr/paris", "fr/lyon", "fr", "50%", "a+b")])
    status, body = await web.plain("GET", f"/barrels/geo/paths/{path}")
    found = json.loads(body)["results"]
    assert (status, [hit["id"] for hit in found]) == (200, ids)
    assert all(hit["value"] == hit["id"] for hit in found)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "order=size", "after=x", "from=[1]", "prefix=a&from=1", "x=1"]
)
async def test_a_question_that_means_nothing_is_refused(web: Served, query: str) -> None:
    answer = await web.client.get(f"/barrels/geo/paths/region?{query}")
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")
