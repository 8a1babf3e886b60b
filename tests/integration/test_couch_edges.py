"""What is seldom asked through CouchDB's protocol, and legal: null keys, odd names, pages over what changes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from .couch_db import DB, db
from .http_tools import Served, served


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as running:
        running.store.create("db")
        yield running


def listed(answer: Any) -> list[str]:
    return [row["id"] for row in answer.json()["rows"]]


# Lists


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"key": "null"}, []),
        ({"startkey": "null"}, ["a", "b"]),
        ({"endkey": "null"}, []),
        ({"startkey": "null", "descending": "true"}, []),
        ({"endkey": "null", "descending": "true"}, ["b", "a"]),
    ],
)
async def test_null_is_a_key_that_no_document_has(web: Served, options: dict[str, str], found: list[str]) -> None:
    db(web).bulk([{"_id": "a"}, {"_id": "b"}])
    assert listed(await web.client.get(f"{DB}/_all_docs", params=options)) == found
    asked = {name: json.loads(value) for name, value in options.items()}
    assert listed(await web.client.post(f"{DB}/_all_docs", json=asked)) == found
    db(web).local_put("a", {})
    local = listed(await web.client.get(f"{DB}/_local_docs", params=options))
    assert local == [f"_local/{id}" for id in found if id == "a"]


async def test_design_documents_are_counted_by_themselves(web: Served) -> None:
    db(web).bulk([{"_id": "a"}, {"_id": "_design/x"}, {"_id": "_design/y"}])
    told = (await web.client.get(f"{DB}/_design_docs", params={"limit": "1"})).json()
    assert (told["total_rows"], len(told["rows"])) == (2, 1)
    chosen = (await web.client.post(f"{DB}/_design_docs", json={"keys": ["_design/y"]})).json()
    assert chosen["total_rows"] == 2


# Single documents


@pytest.mark.parametrize("beside", ["conflicts", "deleted_conflicts", "meta", "local_seq", "revs_info"])
async def test_what_stands_beside_a_document_changes_while_its_revision_stays(web: Served, beside: str) -> None:
    root = {"_id": "doc", "_rev": "2-b", "_revisions": {"start": 2, "ids": ["b", "a"]}}
    other = {"_id": "doc", "_rev": "2-a", "_revisions": {"start": 2, "ids": ["a", "a"]}}
    db(web).bulk([root], new_edits=False)
    db(web).bulk([other], new_edits=False)
    answer = await web.client.get(f"{DB}/doc", params={beside: "true"}, headers={"If-None-Match": '"2-b"'})
    assert answer.status_code == 200
    assert answer.json()["_rev"] == "2-b"
    assert "etag" not in answer.headers


@pytest.mark.parametrize(
    ("destination", "id"),
    [("%C3%BC", "ü"), ("ü".encode(), "ü"), ("a%2Fb?x=1", "a/b"), ("/a+b", "a+b"), ("_design%2Fq", "_design/q")],
)
async def test_a_document_is_copied_to_the_id_that_is_named(web: Served, destination: Any, id: str) -> None:
    db(web).bulk([{"_id": "doc", "n": 1}])
    copied = await web.client.request("COPY", f"{DB}/doc", headers={"Destination": destination})
    assert (copied.status_code, copied.json()["id"]) == (201, id)
    assert db(web).get(id).data["n"] == 1


@pytest.mark.parametrize(
    ("destination", "error"),
    [("%ff", "bad_request"), ("%zz", "bad_request"), ("_other", "illegal_docid"), ("_design/", "illegal_docid")],
)
async def test_what_no_document_is_called_is_no_destination(web: Served, destination: str, error: str) -> None:
    db(web).bulk([{"_id": "doc"}])
    refused = await web.client.request("COPY", f"{DB}/doc", headers={"Destination": destination})
    assert (refused.status_code, refused.json()["error"]) == (400, error)
    assert db(web).info().doc_count == 1


@pytest.mark.parametrize(
    ("doc", "reason"),
    [
        ({"_rev": None}, "Invalid rev format"),
        ({"_deleted": None}, "_deleted must be true or false"),
        ({"_id": "_design/"}, "Only reserved document ids may start with underscore."),
    ],
)
async def test_what_no_document_says_is_refused_with_the_whole_request(
    web: Served, doc: dict[str, Any], reason: str
) -> None:
    several = [{"_id": "good"}, {"_id": "bad", **doc}]
    for answer in (
        await web.client.post(DB, json=doc),
        await web.client.post(f"{DB}/_bulk_docs", json={"docs": several}),
    ):
        assert (answer.status_code, answer.json()["reason"]) == (400, reason)
    assert db(web).info().doc_count == 0


async def test_a_history_that_is_null_is_refused_with_the_whole_request(web: Served) -> None:
    docs = [{"_id": "good", "_rev": "1-a"}, {"_id": "bad", "_rev": "1-a", "_revisions": None}]
    refused = await web.client.post(f"{DB}/_bulk_docs", json={"new_edits": False, "docs": docs})
    assert (refused.status_code, refused.json()["error"]) == (400, "doc_validation")
    assert db(web).info().doc_count == 0


@pytest.mark.parametrize("doc", [{"_deleted": True, "_rev": 5}, {"_deleted": "yes"}, {"_deleted": True, "_rev": {}}])
async def test_a_local_document_is_removed_by_what_is_a_deletion(web: Served, doc: dict[str, Any]) -> None:
    db(web).local_put("here", {"n": 1})
    batch = {"docs": [{"_id": "_local/here", **doc}]}
    for answer in (
        await web.client.put(f"{DB}/_local/here", json=doc),
        await web.client.post(DB, json={"_id": "_local/here", **doc}),
    ):
        assert answer.status_code == 400
    (row,) = (await web.client.post(f"{DB}/_bulk_docs", json=batch)).json()
    assert row["error"] == "bad_request"
    assert db(web).local_get("here").data["n"] == 1


# Changes


async def test_a_long_poll_that_found_nothing_has_looked_at_all_of_it(web: Served) -> None:
    db(web).bulk([{"_id": f"d{number}"} for number in range(3_000)])
    params = {"feed": "longpoll", "filter": "_selector", "timeout": "0"}
    told = (await web.client.post(f"{DB}/_changes", params=params, json={"selector": {"n": 1}})).json()
    assert told == {"results": [], "last_seq": db(web).position(3_000), "pending": 0}


# Finding


async def test_sorted_pages_go_on_behind_the_last_document_whatever_became_of_it(web: Served) -> None:
    db(web).bulk([{"_id": f"d{number}", "n": number // 2, "at": [number % 3]} for number in range(12)])
    for sort in (["n"], [{"n": "desc"}], [{"at": "desc"}, {"n": "asc"}]):
        body: dict[str, Any] = {"selector": {}, "sort": sort, "limit": 30}
        whole = [doc["_id"] for doc in (await web.client.post(f"{DB}/_find", json=body)).json()["docs"]]
        told: list[str] = []
        page: dict[str, Any] = {"docs": [{}], "bookmark": None}
        while page["docs"]:
            asked = {**body, "limit": 5, "bookmark": page["bookmark"]}
            page = (await web.client.post(f"{DB}/_find", json=asked)).json()
            told += [doc["_id"] for doc in page["docs"]]
            db(web).bulk([{**doc, "_deleted": True} for doc in page["docs"]])
        assert told == whole
        db(web).bulk([{"_id": f"d{number}", "n": number // 2, "at": [number % 3]} for number in range(12)])


@pytest.mark.parametrize(("first", "then"), [({}, {"sort": ["n"]}), ({"sort": ["n"]}, {})])
async def test_a_bookmark_is_of_the_question_that_it_came_with(
    web: Served, first: dict[str, Any], then: dict[str, Any]
) -> None:
    db(web).bulk([{"n": number} for number in range(3)])
    page = (await web.client.post(f"{DB}/_find", json={"selector": {}, "limit": 1, **first})).json()
    asked = {"selector": {}, "bookmark": page["bookmark"], **then}
    refused = await web.client.post(f"{DB}/_find", json=asked)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_bookmark")


async def test_a_definition_is_forgotten_whatever_its_name_holds(web: Served) -> None:
    for name, design in (("by/n", "d"), ("json/x", "d/e"), ("plain", "f")):
        asked = {"index": {"fields": ["n"]}, "name": name, "ddoc": design}
        assert (await web.client.post(f"{DB}/_index", json=asked)).status_code == 200
    for place in ("_design/d/json/by%2Fn", "d%2Fe/json/json%2Fx", "_design%2Ff/json/plain"):
        gone = await web.client.delete(f"{DB}/_index/{place}")
        assert (gone.status_code, gone.json()) == (200, {"ok": True}), place
    assert (await web.client.get(f"{DB}/_index")).json()["total_rows"] == 1


async def test_a_definition_needs_a_design_document_that_can_be_called_so(web: Served) -> None:
    asked = {"index": {"fields": ["n"]}, "ddoc": "_design/"}
    refused = await web.client.post(f"{DB}/_index", json=asked)
    assert (refused.status_code, refused.json()["error"]) == (400, "illegal_docid")
