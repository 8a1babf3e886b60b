"""Documents through CouchDB's protocol: the rules that replicators and their suites lean on."""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker.http import HttpLimits

from .couch_db import DB, db
from .couch_tools import md5, parts_of
from .http_tools import Served, served

CONFLICT = {"error": "conflict", "reason": "Document update conflict."}
TREE: list[dict[str, Any]] = [
    {"_id": "doc", "_rev": "2-bbbb", "_revisions": {"start": 2, "ids": ["bbbb", "aaaa"]}, "n": "b"},
    {"_id": "doc", "_rev": "2-cccc", "_revisions": {"start": 2, "ids": ["cccc", "aaaa"]}, "n": "c"},
    {"_id": "doc", "_rev": "3-dddd", "_revisions": {"start": 3, "ids": ["dddd", "2d", "aaaa"]}, "_deleted": True},
]


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as running:
        running.store.create("db")
        yield running


async def put(web: Served, doc: dict[str, Any], id: str = "doc", **params: str) -> Any:
    return await web.client.put(f"{DB}/{id}", json=doc, params=params)


async def get(web: Served, id: str = "doc", **params: str) -> Any:
    return await web.client.get(f"{DB}/{id}", params=params)


async def branched(web: Served) -> None:
    """A document with two live leaves and a deleted one."""
    answer = await web.client.post(f"{DB}/_bulk_docs", json={"new_edits": False, "docs": TREE})
    assert (answer.status_code, answer.json()) == (201, [])


# Writing


async def test_a_document_is_written_read_and_deleted(web: Served) -> None:
    made = await put(web, {"n": 1})
    assert made.status_code == 201
    assert made.json().keys() == {"ok", "id", "rev"}
    rev = made.json()["rev"]
    assert made.headers["etag"] == f'"{rev}"'
    read = await get(web)
    assert read.json() == {"_id": "doc", "_rev": rev, "n": 1}
    assert read.headers["etag"] == f'"{rev}"'
    gone = await web.client.delete(f"{DB}/doc", params={"rev": rev})
    assert (gone.status_code, gone.json()["ok"], gone.json()["rev"][:2]) == (200, True, "2-")
    assert (await get(web)).json() == {"error": "not_found", "reason": "deleted"}
    assert (await get(web, "never")).json() == {"error": "not_found", "reason": "missing"}
    deletion = await get(web, rev=gone.json()["rev"])
    assert (deletion.status_code, deletion.json()["_deleted"]) == (200, True)


async def test_what_builds_on_no_leaf_is_a_conflict(web: Served) -> None:
    rev = (await put(web, {"n": 1})).json()["rev"]
    assert (await put(web, {"n": 2})).json() == CONFLICT
    assert (await put(web, {"n": 2, "_rev": "1-0"})).status_code == 409
    assert (await put(web, {"_rev": "1-0"}, "fresh")).json() == CONFLICT
    assert (await put(web, {"n": 2, "_rev": rev})).status_code == 201
    assert (await put(web, {"n": 2, "_rev": rev})).json() == CONFLICT  # the very same again
    assert (await put(web, {"n": 3}, rev=rev)).json() == CONFLICT
    assert (await web.client.delete(f"{DB}/doc", params={"rev": rev})).json() == CONFLICT
    assert (await web.client.delete(f"{DB}/doc")).json() == CONFLICT
    assert (await web.client.delete(f"{DB}/never")).status_code == 404


async def test_the_revision_may_be_in_the_query_or_in_a_header(web: Served) -> None:
    rev = (await put(web, {"n": 1})).json()["rev"]
    rev = (await put(web, {"n": 2}, rev=rev)).json()["rev"]
    with_header = await web.client.put(f"{DB}/doc", json={"n": 3}, headers={"If-Match": f'"{rev}"'})
    assert with_header.status_code == 201
    both = await web.client.put(f"{DB}/doc", json={"n": 4}, params={"rev": rev}, headers={"If-Match": '"9-9"'})
    assert both.status_code == 400


async def test_a_deleted_document_is_written_again_without_a_revision(web: Served) -> None:
    rev = (await put(web, {"n": 1})).json()["rev"]
    await web.client.delete(f"{DB}/doc", params={"rev": rev})
    assert (await put(web, {"n": 2})).json()["rev"].startswith("3-")


async def test_a_losing_leaf_may_be_updated(web: Served) -> None:
    await branched(web)
    assert (await put(web, {"_rev": "2-bbbb", "n": "of b"})).json()["rev"].startswith("3-")
    assert (await get(web)).json()["n"] == "of b"


async def test_a_document_is_posted_with_its_id_or_without(web: Served) -> None:
    with_id = await web.client.post(DB, json={"_id": "x", "n": 1})
    assert (with_id.status_code, with_id.json()["id"]) == (201, "x")
    made = (await web.client.post(f"{DB}/", json={"n": 1})).json()["id"]
    assert (await get(web, made)).json()["n"] == 1


async def test_a_document_is_copied(web: Served) -> None:
    rev = (await put(web, {"n": 1, "_attachments": {"a": {"data": "aGk="}}})).json()["rev"]
    copied = await web.client.request("COPY", f"{DB}/doc", headers={"Destination": "other%20one"})
    assert (copied.status_code, copied.json()["id"]) == (201, "other one")
    assert db(web).attachment("other one", "a").bytes() == b"hi"
    again = await web.client.request("COPY", f"{DB}/doc", headers={"Destination": "other%20one"})
    assert again.json() == CONFLICT
    over = f"other%20one?rev={copied.json()['rev']}"
    await put(web, {"_rev": rev, "n": 2})
    assert (await web.client.request("COPY", f"{DB}/doc", headers={"Destination": over})).status_code == 201
    assert db(web).get("other one").data["n"] == 2
    assert (await web.client.request("COPY", f"{DB}/doc")).status_code == 400


@pytest.mark.parametrize(
    ("text", "status", "error", "reason"),
    [
        ("[]", 400, "bad_request", "Document must be a JSON object"),
        ("{", 400, "bad_request", "invalid UTF-8 JSON"),
        ('{"_foo": 1}', 400, "doc_validation", "Bad special document member: _foo"),
        ('{"_rev": "x"}', 400, "bad_request", "Invalid rev format"),
        ('{"_rev": 7}', 400, "bad_request", "Invalid rev format"),
        ('{"_deleted": 1}', 400, "bad_request", "_deleted must be true or false"),
        ('{"_id": "another"}', 400, None, None),
        ('{"_attachments": {"_x": {"data": ""}}}', 400, "bad_request", "Attachment name can't start with '_'"),
        ('{"_attachments": {"x": {"data": "%"}}}', 400, "bad_request", "Invalid attachment data for x"),
        ('{"_attachments": []}', 400, "bad_request", "Attachments property must be a JSON object."),
        ('{"_attachments": {"x": {"stub": true}}}', 412, "missing_stub", "id:doc, name:x"),
        ('{"n": 123456789012345678901234567890}', 403, "forbidden", None),
    ],
)
async def test_what_is_no_document_is_refused(
    web: Served, text: str, status: int, error: str | None, reason: str | None
) -> None:
    answer = await web.client.put(f"{DB}/doc", content=text)
    assert answer.status_code == status, answer.text
    assert answer.json().keys() == {"error", "reason"}
    assert error in (None, answer.json()["error"]) and reason in (None, answer.json()["reason"])
    assert db(web).head() == 0


async def test_what_a_reader_was_given_beside_a_document_may_come_back(web: Served) -> None:
    await branched(web)
    read = (await get(web, meta="true", revs="true", local_seq="true")).json()
    assert read.keys() == {
        *("_id", "_rev", "n", "_revisions", "_revs_info", "_conflicts", "_deleted_conflicts", "_local_seq")
    }
    assert (await put(web, {**read, "n": 2})).status_code == 201
    assert (await get(web)).json().keys() == {"_id", "_rev", "n"}


# Writing many


async def test_many_are_written_in_order_each_by_itself(web: Served) -> None:
    rev = (await put(web, {"n": 1})).json()["rev"]
    docs = [{"_id": "a"}, {"_id": "doc", "n": 2}, {"n": 3}, {"_id": "doc", "_rev": rev, "_deleted": True}]
    answer = await web.client.post(f"{DB}/_bulk_docs", json={"docs": docs, "w": 3})
    assert answer.status_code == 201
    first, second, third, fourth = answer.json()
    assert (first["ok"], first["id"]) == (True, "a")
    assert second == {"id": "doc", **CONFLICT}
    assert third["ok"] and len(third["id"]) == 32
    assert fourth["rev"].startswith("2-")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "Request body must be a JSON object"),
        ("7", "Request body must be a JSON object"),
        ("{}", "POST body must include `docs` parameter."),
        ('{"docs": {}}', "`docs` parameter must be an array."),
        ('{"docs": [], "new_edits": 1}', "`new_edits` parameter must be a boolean."),
        ('{"docs": [7]}', "Document must be a JSON object"),
        ('{"docs": [{"_id": "fine"}, {"_id": "_x"}]}', "Only reserved document ids may start with underscore."),
        ('{"docs": [{"_id": "fine"}, {"_id": 7}]}', "Document id must be a string"),
        ('{"docs": [{"_id": "fine"}, {"_id": "y", "_foo": 7}]}', "Bad special document member: _foo"),
        ('{"docs": [{"_id": "a", "_rev": "zzz"}], "new_edits": false}', "Invalid rev format"),
        ('{"docs": [{"_id": "a"}], "new_edits": false}', "A document with new_edits=false has a _rev."),
        ('{"docs": ', "invalid UTF-8 JSON"),
    ],
)
async def test_a_malformed_request_stores_nothing(web: Served, text: str, reason: str) -> None:
    answer = await web.client.post(f"{DB}/_bulk_docs", content=text, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["reason"]) == (400, reason)
    assert db(web).head() == 0


async def test_a_post_says_that_it_is_json(web: Served) -> None:
    for path in ("_bulk_docs", "_bulk_get", "_revs_diff", "_changes", "_all_docs", "_ensure_full_commit", "_purge"):
        answer = await web.client.post(f"{DB}/{path}", content=b"{}", headers={"Content-Type": "text/plain"})
        assert (answer.status_code, answer.json()["error"]) == (415, "bad_content_type")


async def test_what_was_made_elsewhere_is_kept_as_it_is(web: Served) -> None:
    await branched(web)
    before = db(web).head()
    await branched(web)
    assert db(web).head() == before
    read = (await get(web, conflicts="true", deleted_conflicts="true")).json()
    assert read == {
        **{"_id": "doc", "_rev": "2-cccc", "n": "c"},
        **{"_conflicts": ["2-bbbb"], "_deleted_conflicts": ["3-dddd"]},
    }
    (row,) = (await web.client.get(f"{DB}/_changes", params={"style": "all_docs"})).json()["results"]
    assert [each["rev"] for each in row["changes"]] == ["2-cccc", "2-bbbb", "3-dddd"]
    (row,) = (await web.client.get(f"{DB}/_changes")).json()["results"]
    assert [each["rev"] for each in row["changes"]] == ["2-cccc"]
    alone = await put(web, {"_rev": "3-c", "n": 1}, "single", new_edits="false")
    assert (alone.status_code, alone.json()["rev"]) == (201, "3-c")


async def test_what_a_batch_becomes_is_bounded_and_not_only_what_is_sent(tmp_path: Path) -> None:
    packed = b64encode(gzip.compress(bytes(512 << 10))).decode()
    attached = {"_attachments": {"a": {"data": packed, "encoding": "gzip"}}}
    async with served(tmp_path, limits=HttpLimits(bulk_bytes_max=1 << 20)) as web:
        web.store.create("db")
        for count, status in ((3, 413), (2, 201)):
            docs = [{"_id": str(number), **attached} for number in range(count)]
            answer = await web.client.post(f"{DB}/_bulk_docs", json={"docs": docs})
            assert answer.status_code == status
            assert db(web).head() == (0 if status == 413 else count)


# Reading


async def test_history_is_told_with_what_is_still_there(web: Served) -> None:
    revs = [(await put(web, {"n": 1})).json()["rev"]]
    for n in (2, 3):
        revs.append((await put(web, {"n": n, "_rev": revs[-1]})).json()["rev"])
    read = (await get(web, revs="true", revs_info="true")).json()
    assert read["_revisions"] == {"start": 3, "ids": [rev.partition("-")[2] for rev in reversed(revs)]}
    assert read["_revs_info"] == [{"rev": rev, "status": "available"} for rev in reversed(revs)]
    assert (await get(web, rev=revs[0])).json()["n"] == 1
    web.store.compact("db")
    read = (await get(web, revs_info="true")).json()
    assert [each["status"] for each in read["_revs_info"]] == ["available", "missing", "missing"]
    assert (await get(web, rev=revs[0])).json() == {"error": "not_found", "reason": "missing"}
    assert (await get(web, rev="x")).json() == {"error": "bad_request", "reason": "Invalid rev format"}


async def test_latest_is_the_newest_leaf_that_descends_even_a_deleted_one(web: Served) -> None:
    await branched(web)
    assert (await get(web, rev="2-2d", latest="true")).json()["_rev"] == "3-dddd"
    assert (await get(web, rev="2-bbbb", latest="true")).json()["_rev"] == "2-bbbb"
    assert (await get(web, rev="1-aaaa", latest="true")).json()["_rev"] == "3-dddd"
    assert (await get(web, rev="1-zzzz", latest="true")).status_code == 404


async def test_several_revisions_are_read_as_a_list(web: Served) -> None:
    await branched(web)
    accept = {"Accept": "application/json"}
    every = await web.client.get(f"{DB}/doc", params={"open_revs": "all", "revs": "true"}, headers=accept)
    assert [each["ok"]["_rev"] for each in every.json()] == ["2-cccc", "2-bbbb", "3-dddd"]
    assert every.json()[2]["ok"]["_deleted"] is True
    assert every.json()[0]["ok"]["_revisions"] == {"start": 2, "ids": ["cccc", "aaaa"]}
    asked = json.dumps(["2-bbbb", "9-none"])
    some = await web.client.get(f"{DB}/doc", params={"open_revs": asked}, headers=accept)
    assert (some.json()[0]["ok"]["n"], some.json()[1]) == ("b", {"missing": "9-none"})
    for wrong in ("{}", '"x"', "[7]", "7"):
        assert (await get(web, open_revs=wrong)).status_code == 400
    assert (await get(web, "never", open_revs="all")).status_code == 404
    none = await web.client.get(f"{DB}/never", params={"open_revs": '["1-x"]'}, headers=accept)
    assert none.json() == [{"missing": "1-x"}]


async def test_several_revisions_are_read_as_multipart(web: Served) -> None:
    await branched(web)
    answer = await get(web, open_revs='["2-bbbb", "9-none"]')
    assert answer.headers["content-type"].startswith("multipart/mixed; boundary=")
    (head, doc), (other, missing) = parts_of(answer.content, answer.headers["content-type"])
    assert (head["content-type"], json.loads(doc)["n"]) == ("application/json", "b")
    assert (other["content-type"], json.loads(missing)) == ('application/json; error="true"', {"missing": "9-none"})


async def test_a_document_that_the_client_has_is_not_sent_again(web: Served) -> None:
    rev = (await put(web, {})).json()["rev"]
    answer = await web.client.get(f"{DB}/doc", headers={"If-None-Match": f'"{rev}"'})
    assert (answer.status_code, answer.content) == (304, b"")
    head = await web.client.head(f"{DB}/doc")
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", f'"{rev}"')


async def test_contents_come_inline_or_behind_the_document(web: Served) -> None:
    db(web).attach("doc", "a.txt", b"hello", content_type="text/plain")
    stub = (await get(web)).json()["_attachments"]["a.txt"]
    assert stub == {"content_type": "text/plain", "revpos": 1, "digest": md5(b"hello"), "length": 5, "stub": True}
    inline = (await get(web, attachments="true")).json()["_attachments"]["a.txt"]
    assert (inline["data"], inline["digest"], "stub" in inline) == ("aGVsbG8=", md5(b"hello"), False)
    related = await web.client.get(
        f"{DB}/doc", params={"attachments": "true"}, headers={"Accept": "multipart/related"}
    )
    (_, doc), (head, content) = parts_of(related.content, related.headers["content-type"])
    assert json.loads(doc)["_attachments"]["a.txt"]["follows"] is True
    assert (head["content-disposition"], content) == ('attachment; filename="a.txt"', b"hello")


async def test_many_are_read_in_the_order_asked_for(web: Served) -> None:
    await branched(web)
    docs = [{"id": "doc", "rev": "2-bbbb"}, {"id": "never", "rev": "1-x"}, {"id": "doc"}, {"id": "none"}]
    docs.append({"id": "doc", "rev": "2-2d"})
    answer = await web.client.post(f"{DB}/_bulk_get", params={"revs": "true", "latest": "true"}, json={"docs": docs})
    assert list(answer.json()) == ["results"]
    first, second, third, fourth, fifth = answer.json()["results"]
    assert first["docs"][0]["ok"]["_revisions"] == {"start": 2, "ids": ["bbbb", "aaaa"]}
    missing = {"error": "not_found", "reason": "missing"}
    assert second == {"id": "never", "docs": [{"error": {"id": "never", "rev": "1-x", **missing}}]}
    assert [each["ok"]["_rev"] for each in third["docs"]] == ["2-cccc", "2-bbbb", "3-dddd"]
    assert fourth["docs"] == [{"error": {"id": "none", "rev": "undefined", **missing}}]
    assert fifth["docs"][0]["ok"]["_rev"] == "3-dddd"
    assert (await web.client.post(f"{DB}/_bulk_get", json={"docs": []})).json() == {"results": []}
    for wrong in ({}, {"docs": 7}, {"docs": [{}]}, {"docs": [{"id": 7}]}, []):
        assert (await web.client.post(f"{DB}/_bulk_get", json=wrong)).status_code == 400


async def test_what_is_not_here_is_told_by_revision(web: Served) -> None:
    await branched(web)
    asked = {"doc": ["2-bbbb", "2-2d", "9-z"], "new": ["1-x", "1-y"], "known": []}
    diff = await web.client.post(f"{DB}/_revs_diff", json=asked)
    assert diff.json() == {
        "doc": {"missing": ["9-z"], "possible_ancestors": ["2-cccc", "2-bbbb", "3-dddd"]},
        "new": {"missing": ["1-x", "1-y"]},
    }
    missing = await web.client.post(f"{DB}/_missing_revs", json=asked)
    assert missing.json() == {"missing_revs": {"doc": ["9-z"], "new": ["1-x", "1-y"]}}
    for wrong in ([], {"doc": "2-x"}, {"doc": [7]}, {"doc": ["x"]}):
        assert (await web.client.post(f"{DB}/_revs_diff", json=wrong)).status_code == 400


# Others


async def test_a_document_is_the_same_through_both_faces(web: Served) -> None:
    await branched(web)
    await web.client.put(
        f"{DB}/doc/a.txt", params={"rev": "2-cccc"}, content=b"hi", headers={"Content-Type": "text/plain"}
    )
    through, native = (await get(web, conflicts="true")).json(), db(web).get("doc", conflicts=True).data
    stub = through.pop("_attachments")["a.txt"]
    other = native.pop("_attachments")["a.txt"]
    assert through == native
    assert (stub.pop("digest"), other.pop("digest")[:7]) == (md5(b"hi"), "sha256-")
    assert stub == other


async def test_design_documents_are_documents_whose_functions_are_kept(web: Served) -> None:
    design = {"views": {"all": {"map": "function (doc) { emit(doc._id) }"}}, "filters": {"f": "function () {}"}}
    assert (await put(web, design, "_design/app")).status_code == 201
    for id in ("_design/app", "_design%2Fapp"):
        assert (await get(web, id)).json()["views"] == design["views"]
    temporary = await web.client.post(f"{DB}/_temp_view", json={"map": "function () {}"})
    assert (temporary.status_code, temporary.json()["error"]) == (410, "gone")
    for place in ("_view/all", "_show/x", "_list/x/all", "_update/x", "_info"):
        answer = await web.client.get(f"{DB}/_design/app/{place}")
        assert (answer.status_code, answer.json()["error"]) == (404, "not_found")
        assert "does not run" in answer.json()["reason"]
        asked = await web.client.post(f"{DB}/_design/app/{place}", json={"keys": []})
        assert (asked.status_code, asked.json()) == (404, answer.json())
    filtered = await web.client.get(f"{DB}/_changes", params={"filter": "app/f"})
    assert (filtered.status_code, "does not run" in filtered.json()["reason"]) == (404, True)


async def test_a_link_of_spiles_is_a_small_text_here_and_a_link_again_when_it_comes_back(web: Served) -> None:
    link = {"plan": {"link": "https://example.org/plans/7", "content_type": "application/pdf"}}
    first = db(web).put({"_id": "doc", "_attachments": link})
    read = (await get(web)).json()
    assert read["_attachments"]["plan"]["content_type"] == 'text/uri-list; of="application/pdf"'
    assert (await web.client.get(f"{DB}/doc/plan")).content == b"https://example.org/plans/7"
    edited = (await put(web, {**read, "n": 1})).json()["rev"]
    assert db(web).get("doc").data["_attachments"]["plan"] == {**link["plan"], "revpos": 1}

    inline = (await get(web, attachments="true", rev=edited, revs="true")).json()
    assert first.rev in [f"1-{inline['_revisions']['ids'][1]}"]
    web.store.create("other")
    copy = await web.client.post("/couch/other/_bulk_docs", json={"new_edits": False, "docs": [inline]})
    assert copy.json() == []
    assert web.store.barrel("other").get("doc").data["_attachments"]["plan"]["link"] == link["plan"]["link"]
