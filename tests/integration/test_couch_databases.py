"""Databases, lists of documents, local documents: through CouchDB's protocol."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from broker.couch.listing import Range, _by_keys, _in_order
from broker.couch.query import Query
from feeds.storage.ids import LAST

from .couch_db import DB, db
from .http_tools import Served, served


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as running:
        running.store.create("db")
        yield running


async def rows(web: Served, path: str = "_all_docs", **params: Any) -> list[str]:
    """The ids that a list gives."""
    shown = {name: value if name in ("limit", "skip") else json.dumps(value) for name, value in params.items()}
    answer = await web.client.get(f"{DB}/{path}", params=shown)
    assert answer.status_code == 200, answer.text
    return [row["id"] for row in answer.json()["rows"]]


# The server


async def test_the_server_says_who_it_is_for_as_long_as_it_is_the_same_store(web: Served) -> None:
    told = (await web.client.get("/couch/")).json()
    assert told["couchdb"] == "Welcome"
    assert told["vendor"]["name"] == "Spile"
    assert len(told["uuid"]) == 32
    assert (await web.client.get("/couch")).json() == told


async def test_what_is_made_is_found_where_the_answer_says(web: Served) -> None:
    for name in ("new", "a%2Fb%2Bc"):
        made = await web.client.put(f"/couch/{name}/")
        assert (made.status_code, made.headers["location"]) == (201, f"/couch/{name}")
        assert (await web.client.get(made.headers["location"])).status_code == 200


async def test_databases_are_listed_and_told_about(web: Served) -> None:
    web.store.create("a/b+c")
    assert (await web.client.get("/couch/_all_dbs")).json() == ["a/b+c", "db"]
    assert (await web.client.get("/couch/_all_dbs", params={"startkey": '"b"'})).json() == ["db"]
    assert (await web.client.get("/couch/_all_dbs", params={"limit": 1, "descending": "true"})).json() == ["db"]
    told = await web.client.post("/couch/_dbs_info", json={"keys": ["db", "none"]})
    assert [each.get("error", each.get("info", {}).get("db_name")) for each in told.json()] == ["db", "not_found"]
    assert (await web.client.post("/couch/_dbs_info", json={})).status_code == 400


async def test_small_things_of_the_server(web: Served) -> None:
    ids = (await web.client.get("/couch/_uuids", params={"count": 3})).json()["uuids"]
    assert len(set(ids)) == 3
    assert (await web.client.get("/couch/_uuids", params={"count": 5000})).status_code == 400
    assert (await web.client.get("/couch/_up")).json()["status"] == "ok"
    assert (await web.client.get("/couch/_active_tasks")).json() == []
    nowhere = await web.client.get("/couch/_nothing/of/the/kind")
    assert (nowhere.status_code, nowhere.json().keys()) == (404, {"error", "reason"})


# Databases


async def test_a_database_is_made_told_about_and_dropped(web: Served) -> None:
    assert ((await web.client.put("/couch/new")).status_code, "new") == (201, web.store.barrel("new").name)
    again = await web.client.put("/couch/new/")
    assert (again.status_code, again.json()["error"]) == (412, "file_exists")
    told = (await web.client.get("/couch/new/")).json()
    assert told["db_name"] == "new"
    assert {"update_seq", "instance_start_time", "purge_seq", "sizes", "compact_running"} <= told.keys()
    assert (await web.client.head("/couch/new")).status_code == 200
    assert (await web.client.delete("/couch/new")).json() == {"ok": True}
    gone = await web.client.get("/couch/new")
    assert (gone.status_code, gone.json()) == (404, {"error": "not_found", "reason": "Database does not exist."})
    assert (await web.client.head("/couch/new")).status_code == 404
    assert (await web.client.delete("/couch/new")).status_code == 404


async def test_counts_are_of_what_lives_and_of_what_was_deleted(web: Served) -> None:
    db(web).bulk([{"_id": "a"}, {"_id": "b"}])
    db(web).delete("a", rev=db(web).get("a").rev)
    told = (await web.client.get(DB)).json()
    assert (told["doc_count"], told["doc_del_count"]) == (1, 1)
    assert told["update_seq"] == db(web).position(3)


@pytest.mark.parametrize("name", ["Upper", "1digit", "_under", "a%20b", "a%00", "%E2%82%AC"])
async def test_a_name_that_no_database_may_have_is_refused(web: Served, name: str) -> None:
    answer = await web.client.put(f"/couch/{name}")
    assert (answer.status_code, answer.json()["error"]) == (400, "illegal_database_name")


async def test_a_name_with_a_slash_is_one_segment(web: Served) -> None:
    assert (await web.client.put("/couch/a%2Fb")).status_code == 201
    assert (await web.client.put("/couch/a%2Fb/doc", json={})).status_code == 201
    assert web.store.barrel("a/b").get("doc").id == "doc"


async def test_a_deletion_with_a_revision_is_of_no_database(web: Served) -> None:
    assert (await web.client.delete(DB, params={"rev": "1-x"})).status_code == 400
    assert db(web).head() == 0


async def test_what_is_committed_is_on_the_disk_already(web: Served) -> None:
    answer = await web.client.post(f"{DB}/_ensure_full_commit", headers={"Content-Type": "application/json"})
    started = (await web.client.get(DB)).json()["instance_start_time"]
    assert (answer.status_code, answer.json()) == (201, {"ok": True, "instance_start_time": started})


async def test_a_database_is_compacted(web: Served) -> None:
    first = db(web).put({"_id": "a", "n": 1}).rev
    db(web).put({"_id": "a", "_rev": first, "n": 2})
    answer = await web.client.post(f"{DB}/_compact", headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()) == (202, {"ok": True})
    assert (await web.client.get(f"{DB}/a", params={"rev": first})).status_code == 404


async def test_the_limit_on_revisions_is_told_and_set(web: Served) -> None:
    assert (await web.client.get(f"{DB}/_revs_limit")).json() == 1000
    assert (await web.client.put(f"{DB}/_revs_limit", content="20")).json() == {"ok": True}
    assert (await web.client.get(f"{DB}/_revs_limit")).json() == 20
    for wrong in ("0", "true", "[]", "x"):
        assert (await web.client.put(f"{DB}/_revs_limit", content=wrong)).status_code == 400


async def test_leaves_are_purged(web: Served) -> None:
    rev = db(web).put({"_id": "a"}).rev
    answer = await web.client.post(f"{DB}/_purge", json={"a": [rev, "9-z"], "never": ["1-x"]})
    assert (answer.status_code, answer.json()) == (201, {"purge_seq": None, "purged": {"a": [rev], "never": []}})
    assert (await web.client.get(f"{DB}/a")).json()["reason"] == "missing"
    for wrong in ({"a": "1-x"}, {"a": [7]}, []):
        assert (await web.client.post(f"{DB}/_purge", json=wrong)).status_code == 400


async def test_a_security_object_that_would_not_be_kept_to_is_refused(web: Served) -> None:
    nobody = {"admins": {"names": [], "roles": []}, "members": {"names": [], "roles": []}}
    assert (await web.client.get(f"{DB}/_security")).json() == nobody
    assert (await web.client.put(f"{DB}/_security", json=nobody)).json() == {"ok": True}
    closed = {**nobody, "members": {"names": ["ann"], "roles": []}}
    assert (await web.client.put(f"{DB}/_security", json=closed)).status_code == 403
    for odd in (7, "x", [[]], [{}], {"a": 1}):
        wrong = {"members": {"roles": odd}}
        assert (await web.client.put(f"{DB}/_security", json=wrong)).status_code == 400, odd


# Lists


async def test_every_living_document_is_listed_by_the_bytes_of_its_id(web: Served) -> None:
    ids = ["a", "B", "ä", "_design/d", "z/1", "10", "9", "😀", "\uffee"]
    db(web).bulk([{"_id": id} for id in [*ids, "gone"]])
    db(web).delete("gone", rev=db(web).get("gone").rev)
    answer = (await web.client.get(f"{DB}/_all_docs", params={"update_seq": "true"})).json()
    assert [row["id"] for row in answer["rows"]] == sorted(ids, key=str.encode)
    assert (answer["total_rows"], answer["offset"], answer["update_seq"]) == (9, 0, db(web).position(11))
    assert all(row["key"] == row["id"] and row["value"].keys() == {"rev"} for row in answer["rows"])


async def test_a_list_begins_and_ends_where_it_is_told_to(web: Served) -> None:
    db(web).bulk([{"_id": id} for id in "abcdef"])
    assert await rows(web, startkey="b", endkey="d") == ["b", "c", "d"]
    assert await rows(web, start_key="b", end_key="d", inclusive_end=False) == ["b", "c"]
    assert await rows(web, startkey="d", endkey="b", descending=True) == ["d", "c", "b"]
    assert await rows(web, startkey="d", endkey="b", descending=True, inclusive_end=False) == ["d", "c"]
    assert await rows(web, descending=True, limit=2, skip=1) == ["e", "d"]
    assert await rows(web, key="c") == ["c"]
    assert await rows(web, key="cc") == []
    assert await rows(web, startkey="x") == []
    assert await rows(web, startkey="d", endkey="b") == []
    assert await rows(web, limit=0) == []
    offset = (await web.client.get(f"{DB}/_all_docs", params={"startkey": '"c"', "skip": 1})).json()["offset"]
    assert offset == 3


async def test_long_lists_come_whole(web: Served) -> None:
    ids = [f"{n:05}" for n in range(1_300)]
    db(web).bulk([{"_id": id} for id in ids])
    assert (await rows(web)) == ids
    assert (await rows(web, descending=True, include_docs=True)) == ids[::-1]
    assert (await rows(web, skip=600, limit=550)) == ids[600:1150]


@pytest.mark.parametrize(
    ("options", "pieces"), [(b"", 1), (b"include_docs=true", 3), (b"include_docs=true&attachments=true", 62)]
)
async def test_fewer_are_read_at_a_time_where_each_may_be_large(web: Served, options: bytes, pieces: int) -> None:
    db(web).bulk([{"_id": f"{n:05}"} for n in range(245)])
    asked = Range.of(Query(options), ("", LAST))
    assert len([piece for piece in _in_order(db(web), asked) if b'"id"' in piece]) == pieces
    keys = [f"{n:05}" for n in range(245)]
    assert len([piece for piece in _by_keys(db(web), keys, asked) if b'"id"' in piece]) == pieces


async def test_documents_are_asked_for_by_keys_and_come_in_that_order(web: Served) -> None:
    revs = {each.id: each.rev for each in map(db(web).put, [{"_id": "a", "n": 1}, {"_id": "b"}, {"_id": "gone"}])}
    tombstone = db(web).delete("gone", rev=revs["gone"]).rev
    keys = ["b", "none", "gone", "a", "b"]
    answer = await web.client.post(f"{DB}/_all_docs", json={"keys": keys}, params={"include_docs": "true"})
    b, none, gone, a, again = answer.json()["rows"]
    assert (b["id"], again["id"], a["doc"]["n"]) == ("b", "b", 1)
    assert none == {"key": "none", "error": "not_found"}
    assert gone == {"id": "gone", "key": "gone", "value": {"rev": tombstone, "deleted": True}, "doc": None}
    assert answer.json()["total_rows"] == 2
    by_query = await web.client.get(f"{DB}/_all_docs", params={"keys": '["a", "none"]'})
    assert [row.get("id") for row in by_query.json()["rows"]] == ["a", None]
    assert (await web.client.post(f"{DB}/_all_docs", json={"keys": "a"})).status_code == 400
    assert (await web.client.post(f"{DB}/_all_docs", json={"keys": [], "startkey": "a"})).status_code == 400
    assert (await web.client.post(f"{DB}/_all_docs", json={"keys": []})).json()["rows"] == []


async def test_listed_documents_tell_their_conflicts(web: Served) -> None:
    docs = [{"_id": "a", "_rev": "1-a"}, {"_id": "a", "_rev": "1-b"}]
    await web.client.post(f"{DB}/_bulk_docs", json={"docs": docs, "new_edits": False})
    params = {"include_docs": "true", "conflicts": "true"}
    (row,) = (await web.client.get(f"{DB}/_all_docs", params=params)).json()["rows"]
    assert row["doc"] == {"_id": "a", "_rev": "1-b", "_conflicts": ["1-a"]}


@pytest.mark.parametrize("wrong", ["descending=x", "limit=-1", "limit=x", "startkey=x", "skip=-1", "include_docs=1"])
async def test_an_option_that_is_none_is_refused(web: Served, wrong: str) -> None:
    answer = await web.client.get(f"{DB}/_all_docs?{wrong}")
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"] in ("query_parse_error", "bad_request")


async def test_design_and_local_documents_have_lists_of_their_own(web: Served) -> None:
    db(web).bulk([{"_id": "a"}, {"_id": "_design/x"}, {"_id": "_design/y"}])
    db(web).local_put("one", {"n": 1})
    db(web).local_put("two", {"n": 2})
    assert await rows(web, "_design_docs") == ["_design/x", "_design/y"]
    assert await rows(web, "_design_docs", startkey="_design/y") == ["_design/y"]
    assert await rows(web, "_local_docs") == ["_local/one", "_local/two"]
    assert await rows(web, "_local_docs", descending=True, limit=1) == ["_local/two"]
    answer = await web.client.post(f"{DB}/_local_docs", json={"keys": ["_local/one", "x"], "include_docs": True})
    one, none = answer.json()["rows"]
    assert (one["doc"]["n"], none) == (1, {"key": "x", "error": "not_found"})


# Local documents


@pytest.mark.parametrize("id", ["_WilWcrh6IhnTAYJrMi_9A==", ".x", "-x", "~x"])
async def test_a_checkpoint_may_begin_with_any_character_of_its_alphabet(web: Served, id: str) -> None:
    place = f"{DB}/_local/{quote(id, safe='')}"
    assert (await web.client.get(place)).status_code == 404
    assert (await web.client.put(place, json={"_id": f"_local/{id}", "n": 1})).status_code == 201
    assert (await web.client.get(place)).json() == {"_id": f"_local/{id}", "_rev": "0-1", "n": 1}
    answer = await web.client.post(f"{DB}/_bulk_docs", json={"docs": [{"_id": f"_local/{id}", "_rev": "0-1"}]})
    assert answer.json()[0]["rev"] == "0-2"
    assert await rows(web, "_local_docs") == [f"_local/{id}"]


async def test_a_local_document_is_written_read_and_removed(web: Served) -> None:
    place = f"{DB}/_local/check.point"
    assert (await web.client.get(place)).json() == {"error": "not_found", "reason": "missing"}
    made = await web.client.put(place, json={"_id": "_local/check.point", "n": 1})
    assert (made.status_code, made.json()) == (201, {"ok": True, "id": "_local/check.point", "rev": "0-1"})
    second = await web.client.put(place, json={"_rev": "0-1", "n": 2})
    assert second.json()["rev"] == "0-2"
    assert (await web.client.get(place)).json() == {"_id": "_local/check.point", "_rev": "0-2", "n": 2}
    assert (await web.client.get(f"{DB}/_local%2Fcheck.point")).json()["n"] == 2
    assert (await web.client.put(place, json={"_rev": "0-1", "n": 3})).status_code == 409
    assert (await web.client.get(f"{DB}/_changes")).json()["results"] == []
    assert (await web.client.delete(place, params={"rev": "0-2"})).status_code == 200
    assert (await web.client.get(place)).status_code == 404
    assert (await web.client.delete(place)).status_code == 404
    for wrong in ("[]", "{", '{"_foo": 1}', '{"_attachments": "x"}'):
        assert (await web.client.put(place, content=wrong)).status_code == 400


async def test_local_documents_in_a_batch_are_kept_as_such(web: Served) -> None:
    docs = [{"_id": "_local/x", "n": 1}, {"_id": "a"}]
    answer = await web.client.post(f"{DB}/_bulk_docs", json={"docs": docs})
    assert [each["id"] for each in answer.json()] == ["_local/x", "a"]
    assert db(web).local_get("x").data["n"] == 1


async def test_a_request_that_is_refused_as_a_whole_keeps_no_local_document(web: Served) -> None:
    for wrong in ({"_id": "_x"}, {"_id": "y", "_foo": 1}):
        docs = [{"_id": "_local/x", "n": 1}, wrong]
        answer = await web.client.post(f"{DB}/_bulk_docs", json={"docs": docs})
        assert answer.status_code == 400
        assert (await web.client.get(f"{DB}/_local/x")).status_code == 404


async def test_a_local_document_may_be_posted(web: Served) -> None:
    made = await web.client.post(DB, json={"_id": "_local/x", "n": 1})
    assert (made.status_code, made.json()) == (201, {"ok": True, "id": "_local/x", "rev": "0-1"})
    again = await web.client.post(DB, json={"_id": "_local/x", "_rev": "0-1", "n": 2})
    assert (again.json()["rev"], db(web).local_get("x").data["n"], db(web).head()) == ("0-2", 2, 0)
    assert (await web.client.post(DB, json={"_id": "_local/"})).status_code == 400
