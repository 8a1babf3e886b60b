"""CouchDB's replicator, as it was recorded, with Spile as its source and as its target."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker.http import HttpLimits

from .couch_tools import CouchReplicator, md5, related
from .http_tools import Served, served


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as running:
        running.store.create("one")
        yield running


def replicator(web: Served, source: str = "one", target: str = "two", **options: Any) -> CouchReplicator:
    ends = (f"{web.url}/couch/{source}/", f"{web.url}/couch/{target}/")
    return CouchReplicator(web.client, *ends, **{"create_target": True, **options})


def leaves(web: Served, barrel: str) -> dict[str, list[str]]:
    return {row.id: row.changes for row in web.store.barrel(barrel).changes().results}


def is_same(web: Served) -> bool:
    """Whether both have the same leaves of the same documents."""
    return leaves(web, "one") == leaves(web, "two")


async def test_everything_comes_over_and_a_second_run_brings_nothing(web: Served) -> None:
    one = web.store.barrel("one")
    one.bulk([{"_id": f"doc{n}", "n": n} for n in range(300)])
    done = await replicator(web).run()
    assert (done.docs_read, done.docs_written, done.doc_write_failures) == (300, 300, 0)
    assert is_same(web)
    again = await replicator(web).run()
    assert (again.docs_read, again.docs_written) == (0, 0)
    one.put({"_id": "later"})
    assert (await replicator(web).run()).docs_written == 1


async def test_conflicts_deletions_and_histories_come_over(web: Served) -> None:
    one = web.store.barrel("one")
    first = one.put({"_id": "doc", "n": 1}).rev
    one.put({"_id": "doc", "_rev": first, "n": 2})
    history = {"start": 2, "ids": ["bbbb", first.partition("-")[2]]}
    one.bulk([{"_id": "doc", "_rev": "2-bbbb", "_revisions": history, "n": 3}], new_edits=False)
    gone = one.put({"_id": "gone"}).rev
    one.delete("gone", rev=gone)
    one.put({"_id": "last words", "_deleted": True, "why": "kept"})
    await replicator(web).run()
    assert is_same(web)
    two = web.store.barrel("two")
    for rev in leaves(web, "one")["doc"]:
        assert two.get("doc", rev=rev, revs=True).data == one.get("doc", rev=rev, revs=True).data
    (kept,) = leaves(web, "two")["last words"]
    assert two.get("last words", rev=kept).data["why"] == "kept"


async def test_ids_with_slashes_design_documents_and_odd_names_come_over(web: Served) -> None:
    one = web.store.barrel("one")
    for id in ("a/b/c", "_design/views", "ünï code", "plus+and%20percent", "emoji 🍺", "q?a=b&c#d"):
        one.put({"_id": id, "x": 1})
        one.attach(id, "file one.txt", id.encode())
    await replicator(web).run()
    assert is_same(web)
    for id in leaves(web, "one"):
        assert web.store.barrel("two").attachment(id, "file one.txt").bytes() == id.encode()


async def test_attachments_come_over_and_later_only_those_that_are_new(web: Served) -> None:
    one = web.store.barrel("one")
    large = bytes(range(256)) * 5000
    one.attach("doc", "large.bin", large)
    one.attach("doc", "empty", b"")
    await replicator(web).run()
    assert web.store.barrel("two").attachment("doc", "large.bin").bytes() == large

    base = one.get("doc").rev
    one.attach("doc", "new.txt", b"new", rev=base, content_type="text/plain")
    answer = await web.client.get(
        "/couch/one/doc",
        params={"open_revs": json.dumps([one.get("doc").rev]), "atts_since": json.dumps([base]), "revs": "true"},
        headers={"Accept": "multipart/mixed"},
    )
    assert large not in answer.content and b"\r\n\r\nnew\r\n" in answer.content
    await replicator(web).run()
    assert is_same(web)
    two = web.store.barrel("two")
    assert [two.attachment("doc", name).bytes() for name in ("empty", "new.txt")] == [b"", b"new"]
    assert two.attachment("doc", "large.bin").bytes() == large


async def test_a_replication_is_narrowed_by_ids_and_by_a_selector(web: Served) -> None:
    one = web.store.barrel("one")
    one.bulk([{"_id": f"doc{n}", "n": n} for n in range(30)])
    await replicator(web, doc_ids=["doc3", "doc5", "never"]).run()
    assert sorted(leaves(web, "two")) == ["doc3", "doc5"]
    await replicator(web, target="three", selector={"n": {"$gte": 28}}).run()
    assert sorted(leaves(web, "three")) == ["doc28", "doc29"]


async def test_a_target_that_was_made_anew_is_filled_from_the_beginning(web: Served) -> None:
    one = web.store.barrel("one")
    one.bulk([{"_id": f"doc{n}"} for n in range(10)])
    await replicator(web).run()
    before = (await web.client.get("/couch/two")).json()["instance_start_time"]
    web.store.drop("two")
    assert (await replicator(web).run()).docs_written == 10
    assert (await web.client.get("/couch/two")).json()["instance_start_time"] != before


async def test_a_source_that_was_made_anew_is_read_from_the_beginning(web: Served) -> None:
    web.store.barrel("one").bulk([{"_id": f"doc{n}"} for n in range(10)])
    last = (await web.client.get("/couch/one/_changes")).json()["last_seq"]
    web.store.drop("one")
    web.store.create("one").put({"_id": "of the new life"})
    told = (await web.client.get("/couch/one/_changes", params={"since": last})).json()
    assert [row["id"] for row in told["results"]] == ["of the new life"]


async def test_compressed_contents_are_taken_plain(web: Served) -> None:
    """As CouchDB sends them: digest and encoded_length are of the compressed bytes."""
    data = b"compress me " * 1000
    stub = {"content_type": "text/plain", "revpos": 1, "digest": md5(b"of the gzip"), "length": len(data)}
    doc = {
        "_id": "doc",
        "_rev": "1-aaaa",
        "_revisions": {"start": 1, "ids": ["aaaa"]},
        "_attachments": {
            "a.txt": {**stub, "follows": True, "encoding": "gzip", "encoded_length": 99},
            "b.txt": {**stub, "follows": True, "length": 5, "digest": md5(b"plain")},
        },
    }
    body, kind = related(doc, ("a.txt", data, True), ("b.txt", b"plain", False))
    put = await web.client.put("/couch/one/doc?new_edits=false", content=body, headers={"Content-Type": kind})
    assert (put.status_code, put.json()) == (201, {"ok": True, "id": "doc", "rev": "1-aaaa"})
    one = web.store.barrel("one")
    assert one.attachment("doc", "a.txt").bytes() == data
    assert one.attachment("doc", "b.txt").bytes() == b"plain"

    # The next revision names what the target has by stubs, with the digest of the compressed bytes.
    kept = {**stub, "stub": True, "encoding": "gzip", "encoded_length": 99}
    other = {**stub, "stub": True, "length": 5, "digest": md5(b"something compressed")}
    later = {
        "_id": "doc",
        "_rev": "3-cccc",
        "_revisions": {"start": 3, "ids": ["cccc", "bbbb", "aaaa"]},
        "_attachments": {"a.txt": kept, "b.txt": other, "c.txt": {**stub, "follows": True, "length": 3, "revpos": 3}},
    }
    body, kind = related(later, ("c.txt", b"new", False))
    put = await web.client.put("/couch/one/doc?new_edits=false", content=body, headers={"Content-Type": kind})
    assert put.status_code == 201, put.text
    assert one.attachment("doc", "a.txt").bytes() == data
    assert [one.attachment("doc", name).bytes() for name in ("b.txt", "c.txt")] == [b"plain", b"new"]


async def test_all_compressed_contents_of_a_request_are_bounded_together(tmp_path: Path) -> None:
    doc = {"_attachments": {name: {"content_type": "text/plain", "follows": True} for name in "ab"}}
    async with served(tmp_path, limits=HttpLimits(attachment_bytes_max=1 << 20)) as web:
        web.store.create("one")
        for size, status in ((600 << 10, 413), (500 << 10, 201)):
            body, kind = related(doc, ("a", bytes(size), True), ("b", bytes(size), True))
            put = await web.client.put("/couch/one/doc", content=body, headers={"Content-Type": kind})
            assert put.status_code == status, put.text


async def test_a_stub_of_what_is_not_here_is_412_and_the_whole_document_is_taken_then(web: Served) -> None:
    stub = {"content_type": "text/plain", "revpos": 1, "digest": md5(b"nowhere"), "length": 7}
    doc = {"_id": "doc", "_rev": "2-b", "_revisions": {"start": 2, "ids": ["b", "a"]}, "_attachments": {}}
    body, kind = related({**doc, "_attachments": {"x": {**stub, "stub": True}}})
    put = await web.client.put("/couch/one/doc?new_edits=false", content=body, headers={"Content-Type": kind})
    assert (put.status_code, put.json()) == (412, {"error": "missing_stub", "reason": "id:doc, name:x"})
    assert leaves(web, "one") == {}
    body, kind = related({**doc, "_attachments": {"x": {**stub, "follows": True}}}, ("x", b"nowhere", False))
    put = await web.client.put("/couch/one/doc?new_edits=false", content=body, headers={"Content-Type": kind})
    assert put.status_code == 201


async def test_what_spile_cannot_hold_is_a_failure_that_is_named(web: Served) -> None:
    deep: Any = {}
    for _ in range(120):
        deep = {"in": deep}
    docs: list[dict[str, Any]] = [
        {"_id": "fine", "_rev": "1-a"},
        {"_id": "control\u0001character", "_rev": "1-b"},
        {"_id": "deep", "_rev": "1-c", "deep": deep},
        {"_id": "large number", "_rev": "1-d", "n": 1 << 70},
        {"_id": "fine too", "_rev": "2-e"},
    ]
    put = await web.client.post("/couch/one/_bulk_docs", json={"new_edits": False, "docs": docs})
    assert put.status_code == 201
    failures = put.json()
    assert [(each["id"], each["rev"], each["error"]) for each in failures] == [
        ("control\u0001character", "1-b", "forbidden"),
        ("deep", "1-c", "forbidden"),
        ("large number", "1-d", "forbidden"),
    ]
    assert all(each["reason"] for each in failures)
    assert sorted(leaves(web, "one")) == ["fine", "fine too"]
    again = await web.client.post("/couch/one/_bulk_docs", json={"new_edits": False, "docs": docs[:1]})
    assert (again.status_code, again.json()) == (201, [])
