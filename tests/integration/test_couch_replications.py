"""Replications as CouchDB's users ask for them: `_replicate`, documents of `_replicator`, and what is at work."""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from http_tools import eventually
from ports import free_port
from task_tools import SECONDS, Side, Two, is_in, side, two_services

from broker.couch.table import TABLE

DOC = "/couch/_replicator/rep"


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    async with two_services(tmp_path) as both:
        yield both


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Side]:
    async with side(tmp_path) as alone:
        alone.store.create("geo").bulk([{"_id": f"d{number}", "n": number} for number in range(10)])
        yield alone


async def becomes(one: Side, path: str, holds: Callable[[Any], bool]) -> Any:
    """What is answered once this holds of it."""
    found: list[Any] = []

    async def look() -> bool:
        found[:] = [(await one.http.get(path)).json()]
        return holds(found[0])

    try:
        await eventually(look, SECONDS)
    except TimeoutError:
        raise AssertionError(f"{path} did not come to be so: {found}") from None
    return found[0]


def ended_as(state: str) -> Callable[[Any], bool]:
    return lambda doc: doc.get("_replication_state") == state


def stands(state: str) -> Callable[[Any], bool]:
    return lambda row: row.get("state") == state


# -- _replicate


async def test_a_replication_is_waited_for_and_tells_what_it_did(two: Two) -> None:
    body = {"source": "geo", "target": {"url": two.other.place() + "/"}}
    done = await two.one.ask(200, "POST", "/couch/_replicate", json=body)
    (record,) = done["history"]
    assert two.other.barrel().info().doc_count == 100
    assert (done["ok"], done["replication_id_version"], "no_changes" in done) == (True, 4, False)
    assert done["source_last_seq"] == record["recorded_seq"] == record["end_last_seq"]
    assert done["source_last_seq"] == two.one.barrel().position(100)
    assert done["session_id"] == record["session_id"] != ""
    assert (record["start_last_seq"], record["docs_read"], record["docs_written"]) == (0, 100, 100)
    assert (record["missing_checked"], record["missing_found"], record["doc_write_failures"]) == (100, 100, 0)
    assert record["start_time"].endswith(" GMT") and record["end_time"].endswith(" GMT")
    again = await two.one.ask(200, "POST", "/couch/_replicate", json=body)
    assert (again["no_changes"], again["history"][0]["start_last_seq"]) == (True, done["source_last_seq"])
    assert again["session_id"] != done["session_id"]
    assert (await two.one.ask(200, "GET", "/replications"))["replications"] == []


async def test_a_part_of_a_database_goes_into_another_one_that_is_made(one: Side) -> None:
    body = {"source": "geo", "target": "part", "create_target": True}
    await one.ask(200, "POST", "/couch/_replicate", json={**body, "doc_ids": ["d1", "d7", "never"]})
    assert [row.id for row in one.barrel("part").changes().results] == ["d1", "d7"]
    await one.ask(200, "POST", "/couch/_replicate", json={**body, "selector": {"n": {"$gte": 8}}})
    assert sorted(row.id for row in one.barrel("part").changes().results) == ["d1", "d7", "d8", "d9"]


async def test_a_database_here_may_be_named_by_its_address_too(one: Side) -> None:
    for source, target in (
        (f"{one.url}/couch/geo", "pulled"),
        ("geo", f"{one.url}/couch/pushed/"),
        ("geo", f"{one.url}/native"),
    ):
        body = {"source": source, "target": target, "create_target": True}
        assert (await one.ask(200, "POST", "/couch/_replicate", json=body))["history"][0]["docs_written"] == 10
    assert [one.barrel(name).info().doc_count for name in ("pulled", "pushed", "native")] == [10, 10, 10]


async def test_what_goes_on_is_a_task_that_is_at_work_until_it_is_cancelled(one: Side) -> None:
    one.store.create("copy")
    body = {"source": "geo", "target": "copy", "continuous": True}
    begun = await one.ask(202, "POST", "/couch/_replicate", json=body)
    id = begun["_local_id"]
    assert await one.ask(202, "POST", "/couch/_replicate", json=body) == begun
    end = one.barrel().position(10)

    def is_through(rows: Any) -> bool:
        return [(row["checkpointed_source_seq"], row["changes_pending"]) for row in rows] == [(end, 0)]

    (active,) = await becomes(one, "/couch/_active_tasks", is_through)
    assert (active["type"], active["replication_id"], active["doc_id"]) == ("replication", id, None)
    assert (active["source"], active["target"], active["continuous"]) == ("geo", "copy", True)
    assert (active["docs_read"], active["docs_written"], active["doc_write_failures"]) == (10, 10, 0)
    assert active["user"] == "anonymous"
    assert active["started_on"] <= active["updated_on"] and isinstance(active["pid"], str)
    jobs = await one.ask(200, "GET", "/couch/_scheduler/jobs")
    assert (jobs["total_rows"], jobs["offset"], [job["id"] for job in jobs["jobs"]]) == (1, 0, [id])
    assert [each["type"] for each in jobs["jobs"][0]["history"]] == ["started", "added"]
    assert (await one.ask(200, "GET", f"/couch/_scheduler/jobs/{id}"))["info"]["docs_written"] == 10
    assert (await one.ask(200, "GET", "/couch/_scheduler/jobs?skip=1"))["jobs"] == []
    assert (await one.ask(200, "GET", "/couch/_scheduler/jobs?limit=0"))["jobs"] == []

    cancelled = await one.ask(200, "POST", "/couch/_replicate", json={**body, "cancel": True})
    assert cancelled == {"ok": True, "_local_id": id}
    gone = await one.ask(404, "POST", "/couch/_replicate", json={"replication_id": id, "cancel": True})
    assert gone["error"] == "not_found"
    assert await one.ask(200, "GET", "/couch/_active_tasks") == []
    await one.ask(404, "GET", f"/couch/_scheduler/jobs/{id}")


async def test_both_directions_of_a_task_are_at_work(one: Side) -> None:
    one.store.create("copy")
    id = (await one.begin("geo", "copy", continuous=True, both=True))["id"]
    await one.until(id, is_in("idle"))
    rows = await one.ask(200, "GET", "/couch/_active_tasks")
    assert {(row["source"], row["target"]) for row in rows} == {("geo", "copy"), ("copy", "geo")}


async def test_what_cannot_be_opened_is_named(two: Two, tmp_path: Path) -> None:
    for body in ({"source": "geo", "target": two.other.place("sea")}, {"source": "none", "target": "geo"}):
        refused = await two.one.ask(404, "POST", "/couch/_replicate", json=body)
        assert refused["error"] == "db_not_found"
    async with side(tmp_path / "third", token="secret") as third:
        third.store.create("geo")
        url = third.place()
        basic = b64encode(b"any:secret").decode()
        bad: list[Any] = [url, {"url": url, "auth": {"basic": {"username": "any", "password": "wrong"}}}]
        good: list[Any] = [
            third.place(login="any:secret@"),
            third.place(login=":secret@"),
            {"url": url, "auth": {"basic": {"username": "any", "password": "secret"}}},
            {"url": url, "headers": {"Authorization": f"Basic {basic}"}},
            {"url": url, "headers": {"authorization": "Bearer secret"}},
        ]
        for target in bad:
            refused = await two.one.ask(401, "POST", "/couch/_replicate", json={"source": "geo", "target": target})
            assert refused["error"] == "unauthorized"
        for target in good:
            await two.one.ask(200, "POST", "/couch/_replicate", json={"source": "geo", "target": target})
        assert third.barrel().info().doc_count == 100


async def test_a_replication_that_nobody_waits_for_any_more_ends_and_so_does_one_that_is_cancelled(one: Side) -> None:
    body = {"source": "geo", "target": f"http://127.0.0.1:{free_port()}/geo"}

    async def runs(holds: bool) -> Any:
        return await becomes(one, "/replications", lambda told: bool(told["replications"]) is holds)

    async with httpx.AsyncClient(base_url=one.url, timeout=60) as impatient:
        waiting = asyncio.create_task(impatient.post("/couch/_replicate", json=body))
        await runs(True)
        waiting.cancel()
        await runs(False)
    waits = asyncio.create_task(one.http.post("/couch/_replicate", json=body))
    await runs(True)
    await one.ask(200, "POST", "/couch/_replicate", json={**body, "cancel": True})
    answer = await waits
    assert (answer.status_code, answer.json()["error"]) == (409, "cancelled")


# -- documents of _replicator


async def test_a_document_has_its_replication_run_and_tells_how_it_ended(one: Side) -> None:
    made = await one.ask(
        201, "PUT", DOC, json={"source": "geo", "target": "copy", "create_target": True, "note": "mine"}
    )
    assert made.keys() == {"ok", "id", "rev"} and made["rev"].startswith("1-")
    doc = await becomes(one, DOC, ended_as("completed"))
    assert doc["_rev"].startswith("2-") and doc["note"] == "mine"
    assert (doc["source"], doc["target"]) == ("geo", "copy")
    assert doc["_replication_stats"]["docs_written"] == 10 and len(doc["_replication_state_time"]) == 20
    (task,) = (await one.ask(200, "GET", "/replications"))["replications"]
    assert (task["id"], task["document"], task["state"]) == (doc["_replication_id"], "rep", "done")
    row = await one.ask(200, "GET", "/couch/_scheduler/docs/_replicator/rep")
    assert (row["state"], row["info"]["docs_written"], row["id"]) == ("completed", 10, task["id"])
    assert (await one.ask(200, "GET", "/couch/_scheduler/jobs"))["jobs"] == []

    one.barrel().put({"_id": "later"})
    edited = {**doc, "note": "again"}  # with what the service had added
    assert (await one.ask(201, "PUT", DOC, json=edited))["rev"].startswith("3-")
    doc = await becomes(one, DOC, ended_as("completed"))
    assert (doc["note"], doc["_replication_stats"]["docs_written"]) == ("again", 1)


async def test_a_continuous_one_runs_until_its_document_is_deleted_and_goes_elsewhere_when_it_is_edited(
    one: Side,
) -> None:
    one.store.create("copy")
    body = {"source": {"url": one.place()}, "target": "copy", "continuous": True}
    made = await one.ask(201, "PUT", DOC, json=body)
    await eventually(lambda: one.barrel("copy").info().doc_count == 10, SECONDS)
    await becomes(one, "/couch/_scheduler/docs/_replicator/rep", stands("running"))
    assert "_replication_state" not in await one.ask(200, "GET", DOC)
    (active,) = await becomes(one, "/couch/_active_tasks", lambda rows: len(rows) == 1)
    assert (active["doc_id"], active["database"], active["source"]) == ("rep", "_replicator", one.place())
    await one.ask(409, "PUT", DOC, json=body)
    edited = await one.ask(
        201, "PUT", DOC, json={**body, "_rev": made["rev"], "target": "sea", "create_target": True}
    )
    await becomes(one, "/couch/sea", lambda info: info.get("doc_count") == 10)
    assert len((await one.ask(200, "GET", "/replications"))["replications"]) == 1
    await one.ask(409, "DELETE", DOC)
    await one.ask(200, "DELETE", f"{DOC}?rev={edited['rev']}")
    assert (await one.ask(404, "GET", DOC))["reason"] == "deleted"
    assert (await one.ask(200, "GET", "/replications"))["replications"] == []
    await becomes(one, "/couch/_active_tasks", lambda rows: rows == [])


async def test_a_second_document_for_the_same_fails_with_couchdbs_reason(one: Side) -> None:
    one.store.create("copy")
    body = {"source": "geo", "target": "copy", "continuous": True}
    first = await one.ask(201, "PUT", DOC, json=body)
    second = await one.ask(201, "POST", "/couch/_replicator", json={**body, "_id": "rep2"})
    doc = await one.ask(200, "GET", "/couch/_replicator/rep2")
    assert (doc["_rev"], doc["_replication_state"]) == (second["rev"], "failed")
    assert "already started, triggered by document `rep` from db `_replicator`" in doc["_replication_state_reason"]
    found = await one.ask(200, "GET", "/couch/_scheduler/docs?states=failed")
    assert [(row["doc_id"], row["info"]["error"]) for row in found["docs"]] == [
        ("rep2", doc["_replication_state_reason"])
    ]
    await one.ask(200, "DELETE", f"{DOC}?rev={first['rev']}")
    await one.ask(201, "PUT", "/couch/_replicator/rep2", json=doc)
    await becomes(one, "/couch/_scheduler/docs/_replicator/rep2", stands("running"))


async def test_a_missing_target_is_waited_for_although_it_is_to_run_once(
    one: Side,
) -> None:
    await one.ask(201, "PUT", DOC, json={"source": "geo", "target": "sea"})
    row = await becomes(one, "/couch/_scheduler/docs/_replicator/rep", stands("crashing"))
    assert row["error_count"] >= 1
    assert "'sea'" in row["info"]["error"]

    def has_crashed(told: Any) -> bool:
        return [each["type"] for each in told["jobs"][0]["history"]] == ["crashed", "started", "added"]

    (job,) = (await becomes(one, "/couch/_scheduler/jobs", has_crashed))["jobs"]
    assert (job["doc_id"], job["history"][0]["reason"]) == ("rep", row["info"]["error"])
    one.store.create("sea")
    await becomes(one, DOC, ended_as("completed"))
    assert one.barrel("sea").info().doc_count == 10


async def test_what_can_never_be_right_fails_for_good(one: Side) -> None:
    await one.ask(201, "PUT", DOC, json={"source": "geo", "target": one.place(), "continuous": True})
    doc = await becomes(one, DOC, ended_as("failed"))
    assert "same barrel" in doc["_replication_state_reason"]


async def test_documents_are_read_listed_followed_and_written_together(one: Side) -> None:
    def of(target: str) -> dict[str, Any]:
        return {"source": "geo", "target": target, "create_target": True, "continuous": True}

    docs: list[Any] = [{"_id": name, **of(name)} for name in ("a", "b")]
    rows = await one.ask(
        201, "POST", "/couch/_replicator/_bulk_docs", json={"docs": [*docs, {"_id": "bad"}, docs[0]]}
    )
    assert [row.get("error") for row in rows] == [None, None, "forbidden", "conflict"]
    revs = {row["id"]: row["rev"] for row in rows[:2]}
    info = await one.ask(200, "GET", "/couch/_replicator")
    assert (info["db_name"], info["doc_count"], info["doc_del_count"], info["update_seq"]) == (
        "_replicator",
        2,
        0,
        "2",
    )
    listed = await one.ask(200, "GET", "/couch/_replicator/_all_docs?include_docs=true")
    assert [(row["id"], row["value"]["rev"], row["doc"]["target"]) for row in listed["rows"]] == [
        (id, revs[id], id) for id in ("a", "b")
    ]
    some = await one.ask(200, "GET", '/couch/_replicator/_all_docs?startkey="b"&endkey="c"')
    assert ([row["id"] for row in some["rows"]], some["total_rows"]) == (["b"], 2)
    head = await one.http.head("/couch/_replicator/a")
    assert head.headers["etag"] == f'"{revs["a"]}"'
    assert (await one.http.get("/couch/_replicator/a", headers={"If-None-Match": head.headers["etag"]})).is_redirect
    await one.ask(404, "GET", "/couch/_replicator/a?rev=1-other")

    gone = {"_id": "a", "_rev": revs["a"], "_deleted": True}
    (row,) = await one.ask(201, "POST", "/couch/_replicator/_bulk_docs", json={"docs": [gone]})
    asked = {"keys": ["a", "none", "b"]}
    keyed = await one.ask(200, "POST", "/couch/_replicator/_all_docs", json=asked)
    assert [each.get("value", each.get("error")) for each in keyed["rows"]] == [
        *({"rev": row["rev"], "deleted": True}, "not_found", {"rev": revs["b"]})
    ]
    told = await one.ask(200, "GET", "/couch/_replicator/_changes?include_docs=true")
    assert [(each["id"], each.get("deleted")) for each in told["results"]] == [("b", None), ("a", True)]
    assert (told["last_seq"], told["pending"]) == ("3", 0)
    page = await one.ask(200, "GET", "/couch/_replicator/_changes?limit=1")
    assert ([each["id"] for each in page["results"]], page["pending"]) == (["b"], 1)
    rest = await one.ask(200, "GET", f"/couch/_replicator/_changes?since={page['last_seq']}")
    assert [each["id"] for each in rest["results"]] == ["a"]
    by_ids = await one.ask(200, "POST", "/couch/_replicator/_changes?filter=_doc_ids", json={"doc_ids": ["a"]})
    assert [each["id"] for each in by_ids["results"]] == ["a"]
    assert (await one.ask(200, "GET", "/couch/_replicator/_changes?since=now"))["results"] == []
    assert (await one.ask(200, "GET", "/couch/_replicator/_security"))["members"]["roles"] == ["_admin"]
    for method, status in (("PUT", 412), ("DELETE", 403)):
        await one.ask(status, method, "/couch/_replicator")
    for path in ("_revs_diff", "_bulk_get", "_find", "_purge"):
        await one.ask(404, "POST", f"/couch/_replicator/{path}", json={})


async def test_who_waits_for_changes_hears_of_the_end_of_a_replication(one: Side) -> None:
    empty = await one.ask(200, "GET", "/couch/_replicator/_changes?feed=longpoll&since=0&timeout=100")
    assert empty == {"results": [], "last_seq": "0", "pending": 0}
    await one.ask(201, "PUT", DOC, json={"source": "geo", "target": "copy", "create_target": True})
    waiting = one.http.get("/couch/_replicator/_changes?feed=longpoll&since=1&heartbeat=100&include_docs=true")
    told = (await waiting).json()
    assert [row["doc"]["_replication_state"] for row in told["results"]] == ["completed"]


async def test_the_same_task_is_paused_resumed_and_cancelled_elsewhere(one: Side) -> None:
    await one.ask(
        201, "PUT", DOC, json={"source": "geo", "target": "copy", "create_target": True, "continuous": True}
    )
    place = "/couch/_scheduler/docs/_replicator/rep"
    id = (await becomes(one, place, stands("running")))["id"]
    await one.ask(200, "POST", f"/replications/{id}/pause")
    assert (await one.ask(200, "GET", place))["state"] == "pending"
    await one.ask(200, "POST", f"/replications/{id}/resume")
    await becomes(one, place, stands("running"))
    await one.ask(200, "DELETE", f"/replications/{id}")
    assert (await one.ask(404, "GET", DOC))["reason"] == "deleted"
    await one.ask(404, "GET", place)


# -- who may, and what is shown


async def test_passwords_are_shown_to_nobody_and_stay_when_a_document_is_edited(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "spile")
    async with side(tmp_path / "one") as one, side(tmp_path / "other", token="pa55word") as other:
        one.store.create("geo").put({"_id": "a"})
        other.store.create("geo")
        other.store.create("sea")
        body = {"source": "geo", "continuous": True}
        url = other.place(login="u5er:pa55word@")
        auth = {"url": other.place("sea"), "auth": {"basic": {"username": "u5er", "password": "pa55word"}}}
        shown = (await one.http.put(DOC, json={**body, "target": url})).text
        shown += (await one.http.put(f"{DOC}2", json={**body, "target": auth})).text
        for name in ("geo", "sea"):
            await eventually(lambda name=name: other.barrel(name).info().doc_count == 1, SECONDS)  # type: ignore[misc]
        doc = await one.ask(200, "GET", DOC)
        assert doc["target"] == other.place()
        assert (await one.ask(200, "GET", f"{DOC}2"))["target"] == {"url": other.place("sea")}
        await one.ask(201, "PUT", DOC, json={**doc, "note": "edited"})
        one.barrel().put({"_id": "b"})
        await eventually(lambda: other.barrel().info().doc_count == 2, SECONDS)
        paths = [row.template for row in TABLE if row.method == "GET" and row.template.startswith("/_")]
        for path in (*paths, "/_replicator/_changes?include_docs=true", "/_replicator/_all_docs?include_docs=true"):
            shown += (await one.http.get("/couch" + path.replace("{id}", "rep"))).text
        for path in ("/replications", "/health", "/metrics", "/barrels"):
            shown += (await one.http.get(path)).text
        assert "rep2" in shown
        assert not [secret for secret in ("u5er", "pa55word") if secret in shown + caplog.text]
        assert [each.name for each in one.store.barrels()] == ["geo"]  # so that nothing of them is published


async def test_all_of_it_is_the_operators(tmp_path: Path) -> None:
    words = ("/_replicat", "/_scheduler", "/_active_tasks")
    rows = [row for row in TABLE if row.template.startswith(words)]
    assert len(rows) > 20
    async with side(tmp_path, token="secret") as one:
        async with httpx.AsyncClient(base_url=one.url, timeout=60) as stranger:
            for row in rows:
                answer = await stranger.request(row.method, "/couch" + row.template, json={})
                assert (row, answer.status_code) == (row, 401)
        await one.ask(201, "PUT", DOC, json={"source": "a", "target": "b"})


NO_REPLICATIONS = [
    b"{}",
    b"[]",
    b"{",
    b"\xff",
    b'{"source": "a"}',
    b'{"source": "a", "target": ""}',
    b'{"source": "a", "target": 1}',
    b'{"source": "a", "target": {"uri": "http://h/b"}}',
    b'{"source": "a", "target": "a"}',
    b'{"source": "a", "target": "A"}',
    b'{"source": "a", "target": "data#b"}',
    b'{"source": "a", "target": "ftp://h/b"}',
    b'{"source": "a", "target": "http://h/b?x=y"}',
    b'{"source": "a", "target": "http://h:port/b"}',
    b'{"source": "a", "target": {"url": "http://h/b", "headers": {"X-Mine": "1"}}}',
    b'{"source": "a", "target": {"url": "http://h/b", "headers": {"Authorization": "Digest x"}}}',
    b'{"source": "a", "target": {"url": "http://h/b", "headers": {"Authorization": "Basic ???"}}}',
    b'{"source": "a", "target": {"url": "http://h/b", "headers": ["x"]}}',
    b'{"source": "a", "target": {"url": "http://h/b", "auth": {"basic": "x"}}}',
    b'{"source": "a", "target": {"url": "http://h/b", "auth": {"oauth": {}}}}',
    b'{"source": "a", "target": {"url": "b", "auth": {"basic": {"username": "x", "password": "y"}}}}',
    b'{"source": "a", "target": "b", "continuous": "yes"}',
    b'{"source": "a", "target": "b", "create_target": 1}',
    b'{"source": "a", "target": "b", "doc_ids": "d"}',
    b'{"source": "a", "target": "b", "doc_ids": []}',
    b'{"source": "a", "target": "b", "doc_ids": [1]}',
    b'{"source": "a", "target": "b", "doc_ids": ["d"], "selector": {"n": 1}}',
    b'{"source": "a", "target": "b", "selector": []}',
    b'{"source": "a", "target": "b", "selector": {"n": {"$no": 1}}}',
    b'{"source": "a", "target": "b", "selector": {"n": 1180591620717411303424}}',
    b'{"source": "a", "target": "b", "filter": "app/mine"}',
    b'{"source": "a", "target": "b", "query_params": []}',
    b'{"source": "a", "target": "b", "since_seq": "7-x"}',
    b'{"source": "a", "target": "b", "winning_revs_only": true}',
    b'{"source": "a", "target": "b", "proxy": "http://p"}',
    b'{"source": {"url": "http://h/a", "headers": {"Authorization": "Basic OnRvaw=="}}, "target": "b"}',
    b'{"source": {"url": "http://h/a", "auth": {"basic": {"username": "", "password": "a"}}}, "target": "b"}',
    b'{"source": {"url": "http://h/a", "headers": {"Authorization": "Bearer a\\nb"}}, "target": "b"}',
    '{"source": {"url": "http://h/a", "headers": {"Authorization": "Bearer \u00e4"}}, "target": "b"}'.encode(),
]


async def test_what_is_no_replication_is_refused_in_couchdbs_form_and_not_kept(one: Side) -> None:
    kind = {"Content-Type": "application/json"}
    for body in NO_REPLICATIONS:
        once = await one.http.post("/couch/_replicate", content=body, headers=kind)
        put = await one.http.put(DOC, content=body)
        post = await one.http.post("/couch/_replicator", content=body, headers=kind)
        assert (body, once.status_code, once.json()["error"]) == (body, 400, "bad_request")
        for answer in (put, post):
            assert (body, answer.json()["error"] in ("bad_request", "forbidden")) == (body, True)
            assert answer.status_code in (400, 403)
            assert answer.json().keys() == {"error", "reason"}
    assert (await one.ask(200, "GET", "/couch/_replicator/_changes"))["results"] == []
    assert (await one.ask(200, "GET", "/replications"))["replications"] == []


async def test_other_requests_that_are_wrong_are_refused(one: Side) -> None:
    body = {"source": "geo", "target": "copy"}
    for more in ({"cancel": "yes"}, {"cancel": True, "replication_id": 7}):
        await one.ask(400, "POST", "/couch/_replicate", json={**body, **more})
    await one.ask(415, "POST", "/couch/_replicate", content=b"{}")
    for id, status in (("_design%2Fx", 403), ("_mine", 400), ("x" * 600, 403)):
        await one.ask(status, "PUT", f"/couch/_replicator/{id}", json=body)
    await one.ask(400, "PUT", DOC, json={**body, "_mine": 1})
    await one.ask(403, "PUT", DOC, json={**body, "_attachments": {"a": {"data": "aGk="}}})
    await one.ask(409, "PUT", DOC, json={**body, "_rev": "1-a"})
    await one.ask(404, "DELETE", f"{DOC}?rev=1-a")
    for docs in ({}, {"docs": 1}, {"docs": ["x"]}, {"docs": [], "new_edits": False}):
        await one.ask(400, "POST", "/couch/_replicator/_bulk_docs", json=docs)
    await one.ask(400, "GET", "/couch/_replicator/_changes?feed=continuous")
    await one.ask(400, "GET", "/couch/_scheduler/docs?states=odd")
    await one.ask(400, "GET", "/couch/_scheduler/jobs?limit=-1")
    await one.ask(404, "GET", "/couch/_scheduler/jobs/none")
    await one.ask(404, "GET", "/couch/_scheduler/docs/_replicator/none")
