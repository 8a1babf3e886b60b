"""What replicators were recorded to ask, step by step in raw requests, as far as no other test asks it so."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from broker.access import TokenAccess
from broker.http import HttpLimits

from .couch_db import DB, db
from .couch_tools import JSON, md5, parts_of, related
from .http_tools import Served, eventually, served

REV = re.compile(r"1-[0-9a-f]{32}")
MULTIPART = {"Accept": "multipart/mixed"}


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as running:
        running.store.create("db")
        yield running


# CouchDB's replicator


async def test_step_1_a_database_tells_its_beginning_as_long_as_it_lives(tmp_path: Path) -> None:
    async with served(tmp_path / "store") as web:
        web.store.create("db")
        first = (await web.client.get(f"{DB}/")).json()
        assert {"db_name", "update_seq", "instance_start_time"} <= first.keys()
        assert re.fullmatch("[0-9]+", first["instance_start_time"])
        welcome = (await web.client.get("/couch/")).json()
    async with served(tmp_path / "store") as web:
        assert (await web.client.get(f"{DB}/")).json() == first
        assert (await web.client.get("/couch/")).json() == welcome
        await web.client.delete(f"{DB}/")
        assert (await web.client.put(f"{DB}/")).status_code == 201
        assert (await web.client.get(f"{DB}/")).json()["instance_start_time"] != first["instance_start_time"]


async def test_step_1_credentials_are_a_session_or_go_with_each_request(tmp_path: Path) -> None:
    access = TokenAccess("secret")
    async with served(tmp_path, access=access, sign_in=access.sign_in) as web:
        web.store.create("db")
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        signed = await web.client.post("/couch/_session", content=b"name=ann&password=secret", headers=form)
        assert signed.status_code == 200 and signed.headers["set-cookie"].startswith("AuthSession=")
        body, kind = related({"_id": "doc", "_rev": "1-a"})
        web.client.cookies.clear()
        for method, place in (("GET", ""), ("POST", "/_bulk_docs"), ("PUT", "/doc?new_edits=false")):
            refused = await web.client.request(method, DB + place, content=body, headers={"Content-Type": kind})
            assert (refused.status_code, refused.json()["error"]) == (401, "unauthorized")
            assert refused.headers["www-authenticate"].startswith("Basic")


async def test_step_3_changes_are_followed_for_ids_and_for_a_selector(web: Served) -> None:
    db(web).bulk([{"_id": f"d{n}", "n": n} for n in range(5)])
    for name, body in (("_doc_ids", {"doc_ids": ["d3"]}), ("_selector", {"selector": {"n": 3}})):
        params = {"feed": "continuous", "style": "all_docs", "since": "0", "timeout": "1000", "filter": name}
        answer = await web.client.post(f"{DB}/_changes", params=params, json=body)
        row, last = map(json.loads, answer.text.splitlines())
        assert (row["id"], row["changes"]) == ("d3", [{"rev": db(web).get("d3").rev}])
        assert last == {"last_seq": db(web).position(5), "pending": 0}


async def test_step_3_a_seq_comes_back_as_it_was_given_or_as_json(web: Served) -> None:
    db(web).bulk([{"_id": f"d{n}"} for n in range(5)])
    rows = (await web.client.get(f"{DB}/_changes", params={"style": "all_docs", "since": "0"})).json()["results"]
    for since in (rows[2]["seq"], json.dumps(rows[2]["seq"]), "3"):
        for limit, count in (("0", 0), ("9", 2)):
            told = (await web.client.get(f"{DB}/_changes", params={"since": since, "limit": limit})).json()
            assert (len(told["results"]), told["pending"]) == (count, 2 - count)
    sets = json.dumps([7, "another server's"])
    assert len((await web.client.get(f"{DB}/_changes", params={"since": sets})).json()["results"]) == 5


async def test_step_5_a_batch_is_read_as_the_replicator_asks_for_it(web: Served) -> None:
    db(web).attach("a", "x.txt", b"hello", content_type="text/plain")
    docs = [{"id": "a", "rev": db(web).get("a").rev, "atts_since": ["1-none"]}, {"id": "z", "rev": "1-x"}]
    body = {"revs": True, "latest": True, "attachments": False, "docs": docs}
    params = {"latest": "true", "revs": "true", "attachments": "false"}
    answer = await web.client.post(
        f"{DB}/_bulk_get", params=params, json=body, headers={"Accept": "application/json"}
    )
    assert (answer.status_code, list(answer.json())) == (200, ["results"])
    a, z = answer.json()["results"]
    assert a["docs"][0]["ok"]["_attachments"]["x.txt"]["stub"] is True
    assert a["docs"][0]["ok"]["_revisions"]["start"] == 1
    assert z["docs"][0]["error"] == {"id": "z", "rev": "1-x", "error": "not_found", "reason": "missing"}


async def test_step_6_a_url_may_name_as_many_revisions_as_fit_into_7000_bytes(web: Served) -> None:
    rev = db(web).put({"_id": "a/b c", "n": 1}).rev
    asked = [rev, *(f"9-{n:032x}" for n in range(150))]
    query = f"revs=true&open_revs={quote(json.dumps(asked, separators=(',', ':')))}&latest=true"
    assert len(query) > 6_000
    answer = await web.client.get(f"{DB}/{quote('a/b c', safe='')}?{query}", headers=MULTIPART)
    parts = parts_of(answer.content, answer.headers["content-type"])
    assert re.fullmatch(r'multipart/mixed; boundary="[^"]+"', answer.headers["content-type"])
    assert json.loads(parts[0][1])["n"] == 1
    assert {head["content-type"] for head, _ in parts[1:]} == {'application/json; error="true"'}
    assert [json.loads(data)["missing"] for _, data in parts[1:]] == asked[1:]


async def test_step_6_contents_follow_in_the_order_of_the_document_and_what_is_held_stands_as_stub(
    web: Served,
) -> None:
    first = db(web).attach("doc", "z", b"first", content_type="text/plain").rev
    given = {"a": {"data": b64encode(b"second").decode(), "content_type": "image/png"}, "z": {"stub": True}}
    second = db(web).put({"_id": "doc", "_rev": first, "_attachments": given}).rev
    params = {"revs": "true", "open_revs": json.dumps([second]), "latest": "true", "atts_since": json.dumps([first])}
    answer = await web.client.get(f"{DB}/doc", params=params, headers=MULTIPART)
    ((head, inner),) = parts_of(answer.content, answer.headers["content-type"])
    assert re.fullmatch(r'multipart/related; boundary="[^"]+"', head["content-type"])
    (doc_head, doc), (part, content) = parts_of(inner, head["content-type"])
    stubs = json.loads(doc)["_attachments"]
    assert doc_head == {"content-type": "application/json"}
    assert stubs["z"] == {
        **{"content_type": "text/plain", "revpos": 1, "digest": md5(b"first"), "length": 5},
        "stub": True,
    }
    assert (stubs["a"]["follows"], stubs["a"]["revpos"], "stub" in stubs["a"]) == (True, 2, False)
    assert (part["content-disposition"], part["content-length"]) == ('attachment; filename="a"', "6")
    assert (part["content-type"], content) == ("image/png", b"second")


async def test_step_7_a_batch_that_is_too_large_is_413_and_its_halves_are_taken(tmp_path: Path) -> None:
    async with served(tmp_path, limits=HttpLimits(bulk_bytes_max=10_000)) as web:
        web.store.create("db")
        docs = [{"_id": str(n), "_rev": "1-a", "x": "x" * 3_000} for n in range(4)]
        for part, status in ((docs, 413), (docs[:2], 201), (docs[2:], 201)):
            answer = await web.client.post(f"{DB}/_bulk_docs", json={"new_edits": False, "docs": part})
            assert answer.status_code == status
            assert answer.json() == [] if status == 201 else answer.json()["error"] == "too_large"
        assert db(web).head() == 4


async def test_step_8_a_document_with_contents_is_refused_as_any_other(web: Served) -> None:
    content = ("a", b"abc", False)
    follows = {"content_type": "text/plain", "follows": True, "length": 3, "revpos": 1, "digest": md5(b"abc")}
    doc = {"_id": "doc", "_rev": "1-a", "_attachments": {"a": follows}}

    async def put(doc: dict[str, Any], *contents: tuple[str, bytes, bool], **params: str) -> Any:
        body, kind = related(doc, *contents)
        return await web.client.put(f"{DB}/doc", params=params, content=body, headers={"Content-Type": kind})

    assert (await put(doc, new_edits="false")).status_code == 412  # what it says follows does not
    short = {**doc, "_attachments": {"a": {**follows, "length": 4}}}
    assert (await put(short, content, new_edits="false")).status_code == 400
    assert (await put({**doc, "_id": "other"}, content, new_edits="false")).status_code == 400
    assert db(web).head() == 0
    for _ in range(2):  # the same again is no harm
        made = await put(doc, content, new_edits="false")
        assert (made.status_code, made.json()) == (201, {"ok": True, "id": "doc", "rev": "1-a"})
    assert (await put({**doc, "_rev": "9-z"}, content)).json()["error"] == "conflict"
    assert (await put({"_id": "doc", "_rev": "1-a"})).status_code == 201


async def test_steps_9_and_10_a_checkpoint_is_written_over_and_over(web: Served) -> None:
    place = f"{DB}/_local/0123456789abcdef0123456789abcdef"
    committed = await web.client.post(f"{DB}/_ensure_full_commit", content=b"", headers=JSON)
    assert committed.status_code == 201
    assert committed.json()["instance_start_time"] == (await web.client.get(f"{DB}/")).json()["instance_start_time"]
    record: dict[str, Any] = {
        "session_id": "s",
        "source_last_seq": [1, "x"],
        "replication_id_version": 4,
        "history": [],
    }
    for rev in ("0-1", "0-2", "0-3"):
        put = await web.client.put(place, json=record)
        assert (put.status_code, put.json()["rev"]) == (201, rev)
        record = (await web.client.get(place)).json()
        assert (record["_rev"], record["source_last_seq"]) == (rev, [1, "x"])


# PouchDB's replicator


async def test_pouchdb_pulls_and_pushes_in_its_own_order(web: Served) -> None:
    assert (await web.client.get("/couch/")).json()["uuid"]
    assert (await web.client.get("/couch/new/")).status_code == 404
    assert (await web.client.put("/couch/new/")).status_code == 201
    assert (await web.client.get("/couch/new/")).json()["update_seq"]
    place = "/couch/new/_local/" + quote(".kxF_9sTjV6dQeYh0k3m1A==", safe="._")
    assert (await web.client.get(place)).json() == {"error": "not_found", "reason": "missing"}

    content = {"content_type": "text/plain", "data": b64encode(b"hi").decode(), "revpos": 1, "digest": md5(b"hi")}
    pushed = [
        {"_id": "a", "_rev": "1-aa", "_revisions": {"start": 1, "ids": ["aa"]}, "n": 1},
        {"_id": "b", "_rev": "1-bb", "_revisions": {"start": 1, "ids": ["bb"]}, "_attachments": {"x": content}},
    ]
    missing = {"a": ["1-aa"], "b": ["1-bb"]}
    diff = (await web.client.post("/couch/new/_revs_diff", json=missing)).json()
    assert diff == {id: {"missing": revs} for id, revs in missing.items()}
    done = await web.client.post("/couch/new/_bulk_docs", json={"docs": pushed, "new_edits": False})
    assert (done.status_code, done.json()) == (201, [])
    assert (await web.client.post("/couch/new/_revs_diff", json=missing)).json() == {}

    params = {"style": "all_docs", "since": "0", "limit": "100"}
    told = (await web.client.get("/couch/new/_changes", params=params)).json()
    assert [row["changes"] for row in told["results"]] == [[{"rev": "1-aa"}], [{"rev": "1-bb"}]]
    docs = [{"id": id, "rev": rev} for id, (rev,) in missing.items()]
    got = await web.client.post(
        "/couch/new/_bulk_get", params={"revs": "true", "latest": "true"}, json={"docs": docs}
    )
    a, b = (row["docs"][0]["ok"] for row in got.json()["results"])
    assert a == pushed[0]
    assert b["_attachments"]["x"] == {
        **{"content_type": "text/plain", "revpos": 1, "digest": md5(b"hi"), "length": 2},
        "stub": True,
    }
    assert (await web.client.get("/couch/new/b/x", params={"rev": "1-bb"})).content == b"hi"
    checkpoint = {
        "_id": "_local/x",
        "session_id": "S",
        "history": [{"last_seq": told["last_seq"], "session_id": "S"}],
    }
    checkpoint |= {"replicator": "pouchdb", "version": 1, "last_seq": told["last_seq"]}
    checkpoint["_id"] = "_local/.kxF_9sTjV6dQeYh0k3m1A=="
    assert (await web.client.put(place, json=checkpoint)).status_code == 201
    assert (await web.client.get(place)).json() == {**checkpoint, "_rev": "0-1"}
    params = {**params, "since": told["last_seq"], "feed": "longpoll", "heartbeat": "10000", "timeout": "50"}
    rest = (await web.client.get("/couch/new/_changes", params=params)).json()
    assert (rest["results"], rest["last_seq"]) == ([], told["last_seq"])


async def test_pouchdb_cancels_by_closing_the_connection(web: Served) -> None:
    live = web.app.admission.live
    for feed in ("longpoll", "continuous"):
        _, writer = await web.connect()
        path = f"{DB}/_changes?feed={feed}&since=now&heartbeat=10000"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
        await eventually(lambda: live.used == 1)
        writer.close()
        await eventually(lambda: live.used == 0)


# Rules that the suites pin


async def test_equal_edits_on_two_replicas_get_equal_revisions(web: Served) -> None:
    web.store.create("other")
    doc = {"b": [1, {"x": None}], "a": "ä", "_attachments": {"f": {"data": "aGk=", "content_type": "text/plain"}}}
    turned = dict(reversed(doc.items()))
    revs = [
        (await web.client.put(f"/couch/{name}/doc", json=each)).json()["rev"]
        for name, each in (("db", doc), ("other", turned))
    ]
    assert revs[0] == revs[1] and REV.fullmatch(revs[0])
    other = (await web.client.put(f"{DB}/doc2", json={**doc, "a": "b"})).json()["rev"]
    assert other != revs[0]


async def test_a_replicated_revision_may_be_named_by_its_history_alone(web: Served) -> None:
    doc = {"_id": "doc", "_revisions": {"start": 2, "ids": ["bb", "aa"]}, "nested": {"_rev": "9-x"}}
    answer = await web.client.post(f"{DB}/_bulk_docs", json={"new_edits": False, "docs": [doc]})
    assert (answer.status_code, answer.json()) == (201, [])
    read = (await web.client.get(f"{DB}/doc", params={"revs": "true", "revs_info": "true"})).json()
    assert (read["_rev"], read["_revisions"]) == ("2-bb", doc["_revisions"])
    assert [each["status"] for each in read["_revs_info"]] == ["available", "missing"]
    for wrong in ({"start": 2, "ids": []}, {"start": "x", "ids": ["a"]}, {}, 7):
        docs = [{"_id": "doc", "_revisions": wrong}]
        assert (await web.client.post(f"{DB}/_bulk_docs", json={"new_edits": False, "docs": docs})).status_code == 400


async def test_branches_meet_in_their_shared_ancestors_and_are_cut_to_the_limit(web: Served) -> None:
    await web.client.put(f"{DB}/_revs_limit", content="5")
    ids = [f"{n:02x}" for n in range(10, 0, -1)]
    docs = [
        {"_id": "doc", "_rev": "10-0a", "_revisions": {"start": 10, "ids": ids}},
        {"_id": "doc", "_rev": "8-zz", "_revisions": {"start": 8, "ids": ["zz", *ids[3:]]}},
    ]
    for _ in range(2):
        answer = await web.client.post(f"{DB}/_bulk_docs", json={"new_edits": False, "docs": docs})
        assert answer.json() == []
    read = (await web.client.get(f"{DB}/doc", params={"revs": "true", "conflicts": "true"})).json()
    # Five of each branch: what the shorter one has of them is known of both.
    assert (read["_revisions"], read["_conflicts"]) == ({"start": 10, "ids": ids[:7]}, ["8-zz"])


async def test_a_stub_keeps_what_the_parent_has_and_what_is_not_named_goes(web: Served) -> None:
    made = await web.client.put(f"{DB}/doc", json={"_attachments": {n: {"data": "aGk="} for n in ("kept", "gone")}})
    read = (await web.client.get(f"{DB}/doc")).json()
    kept = read["_attachments"]["kept"]
    assert (kept["content_type"], kept["revpos"]) == ("application/octet-stream", 1)
    await web.client.put(f"{DB}/doc", json={"_rev": made.json()["rev"], "_attachments": {"kept": kept}})
    assert (await web.client.get(f"{DB}/doc")).json()["_attachments"] == {"kept": kept}
    plain = await web.client.put(f"{DB}/other/x", content=b"hi")
    assert (plain.status_code, (await web.client.get(f"{DB}/other/x")).headers["content-type"]) == (
        201,
        "application/octet-stream",
    )


async def test_every_refusal_is_json_of_an_error_and_a_reason(web: Served) -> None:
    db(web).put({"_id": "doc"})
    asked: list[tuple[str, str, Any, int]] = [
        ("GET", "/couch/none", None, 404),
        ("PUT", "/couch/Bad", None, 400),
        ("PUT", DB, None, 412),
        ("GET", f"{DB}/none", None, 404),
        ("GET", f"{DB}/_local/none", None, 404),
        ("PUT", f"{DB}/doc", {}, 409),
        ("PUT", f"{DB}/_odd", {}, 400),
        ("GET", f"{DB}/doc?rev=x", None, 400),
        ("GET", f"{DB}/doc?open_revs=7", None, 400),
        ("GET", f"{DB}/doc/none", None, 404),
        ("POST", f"{DB}/_bulk_docs", {}, 400),
        ("POST", f"{DB}/_revs_diff", [], 400),
        ("POST", f"{DB}/_all_docs", {"keys": 7}, 400),
        ("GET", f"{DB}/_changes?feed=odd", None, 400),
        ("GET", f"{DB}/_design/x/_view/y", None, 404),
    ]
    for method, path, body, status in asked:
        answer = await web.client.request(method, path, json=body)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json"), path
        assert answer.json().keys() == {"error", "reason"}
        assert all(isinstance(text, str) and text for text in answer.json().values())
