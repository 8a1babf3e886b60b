"""Documents over HTTP, on a real store and a real server."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from .http_tools import Served, served

DOCS = "/barrels/geo/docs"


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as running:
        running.store.create("geo")
        yield running


async def test_a_document_is_created_read_updated_and_deleted(web: Served) -> None:
    made = await web.client.put(f"{DOCS}/a", json={"n": 1})
    assert made.status_code == 201
    assert made.json().keys() == {"id", "rev", "seq"}
    rev = made.json()["rev"]
    assert made.headers["etag"] == f'"{rev}"'

    read = await web.client.get(f"{DOCS}/a")
    assert (read.status_code, read.json()) == (200, {"_id": "a", "_rev": rev, "n": 1})
    assert read.headers["etag"] == f'"{rev}"'
    assert read.headers["content-type"] == "application/json"

    changed = await web.client.put(f"{DOCS}/a", json={"_rev": rev, "n": 2})
    assert changed.status_code == 200
    assert changed.json()["seq"] == 2

    gone = await web.client.delete(f"{DOCS}/a", params={"rev": changed.json()["rev"]})
    assert gone.status_code == 200
    assert (await web.client.get(f"{DOCS}/a")).json()["deleted"] is True
    assert (await web.client.get(f"{DOCS}/never")).json()["missing"] is True


async def test_a_tombstone_can_be_written_over_and_counts_as_created(web: Served) -> None:
    rev = (await web.client.put(f"{DOCS}/a", json={})).json()["rev"]
    await web.client.delete(f"{DOCS}/a", params={"rev": rev})
    again = await web.client.put(f"{DOCS}/a", json={"n": 2})
    assert again.status_code == 201
    assert again.json()["rev"].startswith("3-")


async def test_a_stale_revision_is_a_conflict_and_a_stale_condition_fails(web: Served) -> None:
    rev = (await web.client.put(f"{DOCS}/a", json={"n": 1})).json()["rev"]
    assert (await web.client.put(f"{DOCS}/a", json={"_rev": rev, "n": 2})).status_code == 200
    stale = await web.client.put(f"{DOCS}/a", json={"_rev": rev, "n": 3})
    assert (stale.status_code, stale.json()["error"]) == (409, "conflict")
    assert "hint" in stale.json()
    condition = await web.client.put(f"{DOCS}/a", json={"n": 3}, headers={"If-Match": f'"{rev}"'})
    assert (condition.status_code, condition.json()["error"]) == (412, "precondition_failed")
    deleting = await web.client.delete(f"{DOCS}/a", headers={"If-Match": f'"{rev}"'})
    assert deleting.status_code == 412


async def test_if_match_names_the_revision_to_extend(web: Served) -> None:
    rev = (await web.client.put(f"{DOCS}/a", json={"n": 1})).json()["rev"]
    second = await web.client.put(f"{DOCS}/a", json={"n": 2}, headers={"If-Match": f'"{rev}"'})
    assert second.status_code == 200
    third = await web.client.patch(f"{DOCS}/a", json={"m": 1}, headers={"If-Match": second.headers["etag"]})
    assert third.status_code == 200
    fourth = await web.client.put(f"{DOCS}/a", json={"n": 4}, headers={"If-Match": "*"})
    assert fourth.status_code == 200
    assert (await web.client.delete(f"{DOCS}/a", headers={"If-Match": fourth.headers["etag"]})).status_code == 200
    assert (await web.client.put(f"{DOCS}/a", json={}, headers={"If-Match": "*"})).status_code == 412


async def test_if_none_match_creates_only(web: Served) -> None:
    fresh = {"If-None-Match": "*"}
    made = await web.client.put(f"{DOCS}/a", json={"n": 1}, headers=fresh)
    assert made.status_code == 201
    assert (await web.client.put(f"{DOCS}/a", json={"n": 2}, headers=fresh)).status_code == 412
    await web.client.delete(f"{DOCS}/a", params={"rev": made.json()["rev"]})
    assert (await web.client.put(f"{DOCS}/a", json={"n": 2}, headers=fresh)).status_code == 201
    named = await web.client.put(f"{DOCS}/b", json={"_rev": "1-a"}, headers=fresh)
    assert named.status_code == 400


async def test_what_is_held_already_is_not_sent_again(web: Served) -> None:
    made = await web.client.put(f"{DOCS}/a", json={"n": 1})
    held = await web.client.get(f"{DOCS}/a", headers={"If-None-Match": f'"0-x", {made.headers["etag"]}'})
    assert (held.status_code, held.content, held.headers["etag"]) == (304, b"", made.headers["etag"])
    assert (await web.client.get(f"{DOCS}/a", headers={"If-None-Match": '"1-other"'})).status_code == 200


async def test_update_extends_the_winner_whatever_it_is(web: Served) -> None:
    for number in range(3):
        answer = await web.client.put(f"{DOCS}/a", params={"update": "true"}, json={"n": number})
        assert answer.status_code == (201 if number == 0 else 200)
    assert answer.json()["rev"].startswith("3-")


async def test_a_document_without_an_id_is_given_one(web: Served) -> None:
    made = await web.client.post(DOCS, json={"n": 1})
    assert made.status_code == 201
    assert (await web.client.get(made.headers["location"])).json()["_id"] == made.json()["id"]
    named = await web.client.post(DOCS, json={"_id": "x/y", "n": 1})
    assert named.json()["id"] == "x/y"
    assert (await web.client.get(named.headers["location"])).status_code == 200


async def test_a_merge_patch_changes_what_it_names(web: Served) -> None:
    await web.client.put(f"{DOCS}/a", json={"keep": 1, "drop": 2, "deep": {"x": 1}})
    kind = {"content-type": "application/merge-patch+json"}
    patched = await web.client.patch(f"{DOCS}/a", content=b'{"drop":null,"deep":{"y":2}}', headers=kind)
    assert patched.status_code == 200
    document = (await web.client.get(f"{DOCS}/a")).json()
    assert {key: document[key] for key in document if key[0] != "_"} == {"keep": 1, "deep": {"x": 1, "y": 2}}
    same = await web.client.patch(f"{DOCS}/a", json={"keep": 1})
    assert same.json()["unchanged"] is True
    assert (await web.client.patch(f"{DOCS}/none", json={"a": 1})).status_code == 404


async def test_a_deletion_names_its_revision(web: Served) -> None:
    await web.client.put(f"{DOCS}/a", json={})
    assert (await web.client.delete(f"{DOCS}/a")).status_code == 409
    assert (await web.client.get(f"{DOCS}/a")).status_code == 200


async def test_reading_tells_history_and_conflicts(web: Served) -> None:
    barrel = web.store.barrel("geo")
    first = barrel.put({"n": 1}, id="a").rev
    second = barrel.put({"n": 2}, id="a", rev=first).rev
    barrel.bulk([{"_id": "a", "_rev": "2-0", "_revisions": {"start": 2, "ids": ["0", first[2:]]}}], new_edits=False)
    read = await web.client.get(f"{DOCS}/a", params={"revs": "true", "conflicts": "true", "history": "true"})
    assert read.json()["_revisions"]["start"] == 2
    assert read.json()["_conflicts"] == ["2-0"]
    assert [row["rev"] for row in read.json()["_history"]] == [second, first]
    assert [[row["rev"] for row in branch] for branch in read.json()["_branches"]] == [["2-0", first]]
    assert "etag" not in read.headers
    old = await web.client.get(f"{DOCS}/a", params={"rev": first})
    assert (old.json()["n"], old.headers["etag"]) == (1, f'"{first}"')


@pytest.mark.parametrize(
    ("path", "id"),
    [
        ("a/b/c", "a/b/c"),
        ("a%2Fb%2fc", "a/b/c"),
        ("caf%C3%A9", "café"),
        ("a+b%20c%2Bd", "a+b c+d"),
        ("100%25", "100%"),
        ("q%3Fx%23y", "q?x#y"),
        ("_design/app", "_design/app"),
        ("..", ".."),
        ("a/./b", "a/./b"),
        ("a;b=c,d:e@f!$&'()*~", "a;b=c,d:e@f!$&'()*~"),
    ],
)
async def test_an_id_stands_plain_or_encoded(web: Served, path: str, id: str) -> None:
    status, _ = await web.plain("PUT", f"{DOCS}/{path}", b'{"n":1}')
    assert status == 201
    assert web.store.barrel("geo").get(id).data["_id"] == id
    assert (await web.plain("GET", f"{DOCS}/{path}"))[0] == 200


@pytest.mark.parametrize(
    "path", ["%zz", "%ff", "%00", "_x", "%5Fbulk", "_local/x", "x" * 513, "/".join("x" * 33), "%"]
)
async def test_an_id_that_cannot_be_is_refused(web: Served, path: str) -> None:
    status, body = await web.plain("PUT", f"{DOCS}/{path}", b"{}")
    assert status == 400, body
    assert b'"bad_request"' in body


async def test_a_slash_in_a_barrels_name_is_encoded(web: Served) -> None:
    assert (await web.plain("POST", "/barrels/a%2Fb%2Bc"))[0] == 201
    assert (await web.plain("PUT", "/barrels/a%2Fb%2Bc/docs/x/y", b"{}"))[0] == 201
    assert web.store.barrel("a/b+c").get("x/y").id == "x/y"
    status, body = await web.plain("GET", "/barrels/a/b+c/docs/x/y")
    assert status == 404
    assert b"%2F" in body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'"x"',
        b"{",
        b'{"a":NaN}',
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'{"_foo":1}',
        b'{"_id":"other"}',
        b'{"_rev":"x"}',
        b'{"a":1e999}',
        b'{"a":36893488147419103232}',
        b'{"a":' * 101 + b"1" + b"}" * 101,
        b"[" * 100_000,
    ],
)
async def test_what_is_no_document_is_refused_and_not_stored(web: Served, body: bytes) -> None:
    answer = await web.client.put(f"{DOCS}/a", content=body)
    assert answer.status_code == 400, answer.text
    assert answer.json().keys() >= {"error", "reason", "hint"}
    assert (await web.client.get(f"{DOCS}/a")).status_code == 404


async def test_any_content_type_will_do(web: Served) -> None:
    answer = await web.client.put(f"{DOCS}/a", content=b"{}", headers={"content-type": "text/plain"})
    assert answer.status_code == 201


async def test_a_repeated_request_with_a_key_is_done_once(web: Served) -> None:
    key = {"Idempotency-Key": "k-1"}
    first = await web.client.post(DOCS, json={"n": 1}, headers=key)
    again = await web.client.post(DOCS, json={"n": 1}, headers=key)
    assert again.json()["id"] == first.json()["id"]
    assert again.json()["rev"] == first.json()["rev"]
    assert (await web.client.get("/barrels/geo")).json()["doc_count"] == 1
    other = await web.client.post(DOCS, json={"n": 2}, headers=key)
    assert (other.status_code, other.json()["error"]) == (422, "token_reused")


async def test_a_key_covers_deletions_and_updates(web: Served) -> None:
    put: dict[str, Any] = {"params": {"update": "true"}, "json": {"n": 1}, "headers": {"Idempotency-Key": "u"}}
    rev = (await web.client.put(f"{DOCS}/a", **put)).json()["rev"]
    assert (await web.client.put(f"{DOCS}/a", **put)).json()["rev"] == rev
    gone: dict[str, Any] = {"params": {"rev": rev}, "headers": {"Idempotency-Key": "d"}}
    first = await web.client.delete(f"{DOCS}/a", **gone)
    assert (await web.client.delete(f"{DOCS}/a", **gone)).json()["rev"] == first.json()["rev"]


async def test_a_repeated_creation_is_found_where_the_first_one_was(web: Served) -> None:
    key = {"Idempotency-Key": "k-2"}
    first = await web.client.post(DOCS, json={"n": 1}, headers=key)
    again = await web.client.post(DOCS, json={"n": 1}, headers=key)
    assert again.headers["location"] == first.headers["location"] == f"{DOCS}/{first.json()['id']}"


async def test_a_repeated_deletion_of_whatever_is_there_is_answered_as_done(web: Served) -> None:
    await web.client.put(f"{DOCS}/a", json={"n": 1})
    headers = {"Idempotency-Key": "k-3", "If-Match": "*"}
    first = await web.client.delete(f"{DOCS}/a", headers=headers)
    again = await web.client.delete(f"{DOCS}/a", headers=headers)
    assert (again.status_code, again.json()) == (200, {**first.json(), "repeated": True})
    await web.client.put(f"{DOCS}/a", json={"n": 2})
    late = await web.client.delete(f"{DOCS}/a", headers=headers)
    assert late.json()["rev"] == first.json()["rev"]
    assert (await web.client.get(f"{DOCS}/a")).json()["n"] == 2
    for id in ("a", "never"):
        await web.client.delete(f"{DOCS}/{id}", headers={"If-Match": "*"})
        other = await web.client.delete(f"{DOCS}/{id}", headers={"Idempotency-Key": "k-4", "If-Match": "*"})
        assert (other.status_code, other.json()["error"]) == (412, "precondition_failed")


async def test_head_answers_like_get_without_a_body(web: Served) -> None:
    made = await web.client.put(f"{DOCS}/a", json={"n": 1})
    head = await web.client.head(f"{DOCS}/a")
    full = await web.client.get(f"{DOCS}/a")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(full.content))
    assert head.headers["etag"] == made.headers["etag"]
    for path in ("/", "/health", "/barrels", "/barrels/geo", "/barrels/geo/changes", "/barrels/geo/paths/n"):
        assert (await web.client.head(path)).status_code == 200
    for feed in ("continuous", "eventsource", "longpoll"):
        live = await web.client.head("/barrels/geo/changes", params={"feed": feed, "since": "now"})
        assert (live.status_code, live.content) == (200, b"")


async def test_a_replicated_revision_may_be_read_and_matched_whatever_its_text(web: Served) -> None:
    barrel = web.store.barrel("geo")
    barrel.bulk([{"_id": "a", "_rev": "1-été%"}], new_edits=False)
    read = await web.client.get(f"{DOCS}/a")
    assert read.status_code == 200
    again = await web.client.get(f"{DOCS}/a", headers={"If-None-Match": read.headers["etag"]})
    assert again.status_code == 304
    written = await web.client.put(f"{DOCS}/a", json={"n": 2}, headers={"If-Match": read.headers["etag"]})
    assert written.status_code == 200


async def test_unknown_options_and_methods_are_refused_with_a_hint(web: Served) -> None:
    wrong = await web.client.get(f"{DOCS}/a", params={"revisions": "true"})
    assert wrong.status_code == 400
    assert "revs" in wrong.json()["hint"]
    method = await web.client.request("POST", f"{DOCS}/a")
    assert (method.status_code, method.headers["allow"]) == (405, "DELETE, GET, HEAD, PATCH, PUT")
    nowhere = await web.client.get("/documents")
    assert (nowhere.status_code, nowhere.json()["error"]) == (404, "not_found")
