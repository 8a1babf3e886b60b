"""Single attachments through CouchDB's protocol, and who may ask: pages of other origins, sessions, passwords."""

from __future__ import annotations

import hashlib
import random
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker.access import TokenAccess
from broker.http import HttpLimits

from .attachment_tools import damage
from .couch_db import DB, db
from .couch_tools import md5
from .http_tools import Served, served

FILE = f"{DB}/doc/a.txt"
TEXT = {"Content-Type": "text/plain"}
PAGE = "https://app.example"


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path, limits=HttpLimits(origins=frozenset([PAGE]))) as running:
        running.store.create("db")
        yield running


async def put(web: Served, data: bytes = b"hello", place: str = FILE, **params: str) -> Any:
    return await web.client.put(place, content=data, headers=TEXT, params=params)


async def test_an_attachment_begins_a_document_and_is_read(web: Served) -> None:
    made = await put(web)
    assert (made.status_code, made.json().keys()) == (201, {"ok", "id", "rev"})
    read = await web.client.get(FILE)
    assert (read.content, read.headers["content-type"]) == (b"hello", "text/plain")
    tag = b64encode(hashlib.md5(b"hello").digest()).decode()
    assert (read.headers["etag"], read.headers["content-md5"]) == (f'"{tag}"', tag)
    assert read.headers["x-content-type-options"] == "nosniff"
    again = await web.client.get(FILE, headers={"If-None-Match": f'"{tag}"'})
    assert again.status_code == 304
    head = await web.client.head(FILE)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "5", b"")


async def test_an_attachment_goes_onto_a_revision_that_is_a_leaf(web: Served) -> None:
    rev = (await put(web)).json()["rev"]
    assert (await put(web)).status_code == 409
    assert (await put(web, rev="1-0")).status_code == 409
    assert (await put(web, rev="x")).status_code == 400
    second = await put(web, b"other", f"{DB}/doc/b.txt", rev=rev)
    assert (second.status_code, second.json()["rev"][:2]) == (201, "2-")
    assert (await put(web, b"other", f"{DB}/doc/b.txt", rev=rev)).status_code == 409
    third = await web.client.put(FILE, content=b"new", headers={**TEXT, "If-Match": second.json()["rev"]})
    assert third.status_code == 201
    assert (await web.client.get(FILE, params={"rev": rev})).content == b"hello"
    assert sorted(db(web).get("doc").data["_attachments"]) == ["a.txt", "b.txt"]


async def test_an_attachment_of_a_deleted_document_brings_it_back(web: Served) -> None:
    rev = db(web).put({"_id": "doc", "n": 1}).rev
    db(web).delete("doc", rev=rev)
    assert (await put(web)).json()["rev"].startswith("3-")
    assert "n" not in db(web).get("doc").data


async def test_an_attachment_is_taken_away(web: Served) -> None:
    rev = (await put(web)).json()["rev"]
    assert (await web.client.delete(FILE)).status_code == 409
    assert (await web.client.delete(f"{DB}/doc/none", params={"rev": rev})).status_code == 404
    gone = await web.client.delete(FILE, params={"rev": rev})
    assert (gone.status_code, gone.json()["rev"][:2]) == (200, "2-")
    assert "_attachments" not in db(web).get("doc").data


async def test_what_is_missing_is_told_apart(web: Served) -> None:
    await put(web)
    none = await web.client.get(f"{DB}/doc/none")
    assert (none.status_code, none.json()["reason"]) == (404, "Document is missing attachment")
    assert (await web.client.get(f"{DB}/never/a.txt")).json()["reason"] == "missing"
    assert (await web.client.get(FILE, params={"rev": "9-x"})).status_code == 404
    assert (await put(web, place=f"{DB}/doc/_x")).status_code == 400
    assert (await put(web, place=f"{DB}/doc/con%01trol")).status_code == 403


async def test_names_may_hold_slashes_as_they_are_or_encoded(web: Served) -> None:
    rev = (await put(web, place=f"{DB}/_design/app/css/site.css")).json()["rev"]
    assert (await web.client.get(f"{DB}/_design/app/css%2Fsite.css")).content == b"hello"
    assert db(web).get("_design/app").rev == rev


async def test_a_part_of_an_attachment_is_read(web: Served) -> None:
    await put(web, bytes(range(200)) * 1000)
    part = await web.client.get(FILE, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, bytes(range(10, 20)))
    assert part.headers["content-range"] == "bytes 10-19/200000"
    beyond = await web.client.get(FILE, headers={"Range": "bytes=200000-"})
    assert (beyond.status_code, beyond.json()["error"]) == (416, "requested_range_not_satisfiable")
    assert beyond.headers["content-range"] == "bytes */200000"


async def test_a_content_that_is_not_what_its_digest_says_is_refused(web: Served) -> None:
    wrong = {**TEXT, "Content-MD5": md5(b"another").removeprefix("md5-")}
    refused = await web.client.put(FILE, content=b"hello", headers=wrong)
    assert refused.status_code == 400, refused.text
    assert db(web).head() == 0


@pytest.mark.parametrize("size", [5_000, 3 << 20])
async def test_a_document_with_a_damaged_content_behind_it_cannot_be_taken_for_whole(
    web: Served, tmp_path: Path, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    data = random.Random(size).randbytes(size)
    rev = (await put(web, data)).json()["rev"]
    await put(web, b"sound", f"{DB}/doc/b.txt", rev=rev)
    damage(tmp_path / "blobs", data[-1_000:-900])
    for kind, params in (("related", {"attachments": "true"}), ("mixed", {"open_revs": "all"})):
        caplog.clear()
        received = bytearray()
        with pytest.raises(httpx.RemoteProtocolError):
            accept = {"Accept": f"multipart/{kind}"}
            async with web.client.stream("GET", f"{DB}/doc", params=params, headers=accept) as answer:
                assert "content-length" not in answer.headers
                async for chunk in answer.aiter_bytes():
                    received += chunk
        assert not received.rstrip().endswith(b"--")
        assert hashlib.sha256(data).hexdigest() in caplog.text and "broken off" in caplog.text
    alone = await web.client.get(f"{DB}/doc/b.txt")
    assert alone.content == b"sound"


# Pages of other origins


async def test_pages_of_an_allowed_origin_may_do_everything(web: Served) -> None:
    asking = {"Origin": PAGE, "Access-Control-Request-Method": "PUT"}
    for place in ("/couch/", DB, f"{DB}/_bulk_docs", FILE, f"{DB}/_local/x"):
        before = await web.client.options(place, headers=asking)
        assert before.status_code == 204
        assert before.headers["access-control-allow-origin"] == PAGE
        assert before.headers["access-control-allow-credentials"] == "true"
        assert "PUT" in before.headers["access-control-allow-methods"]
        assert "content-type" in before.headers["access-control-allow-headers"]
    written = await web.client.put(f"{DB}/doc", json={}, headers={"Origin": PAGE})
    assert (written.status_code, written.headers["access-control-allow-origin"]) == (201, PAGE)
    missing = await web.client.get(f"{DB}/none", headers={"Origin": PAGE})
    assert (missing.status_code, missing.headers["access-control-allow-origin"]) == (404, PAGE)
    feed = await web.client.get(f"{DB}/_changes?feed=longpoll", headers={"Origin": PAGE})
    assert feed.headers["access-control-allow-origin"] == PAGE


async def test_pages_of_other_origins_get_to_see_and_change_nothing(web: Served) -> None:
    strange = {"Origin": "https://evil.example"}
    read = await web.client.get(DB, headers=strange)
    assert "access-control-allow-origin" not in read.headers
    assert (await web.client.put(f"{DB}/doc", json={}, headers=strange)).status_code == 403
    assert (await web.client.options(DB, headers=strange)).status_code == 403
    assert db(web).head() == 0


# Signing in


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Served]:
    access = TokenAccess("secret")
    async with served(tmp_path, access=access, sign_in=access.sign_in) as running:
        running.store.create("db")
        yield running


async def test_without_a_password_nothing_is_told(guarded: Served) -> None:
    for path in ("/couch/", DB, f"{DB}/doc", f"{DB}/_changes", "/couch/_all_dbs"):
        refused = await guarded.client.get(path)
        assert (refused.status_code, refused.json()["error"]) == (401, "unauthorized"), path
        assert refused.json().keys() == {"error", "reason"}
    assert (await guarded.client.get("/couch/_session")).json()["userCtx"] == {"name": None, "roles": []}
    assert (await guarded.client.get("/couch/_up")).status_code == 200


async def test_the_token_is_everyones_password(guarded: Served) -> None:
    assert (await guarded.client.get(DB, auth=("ann", "secret"))).status_code == 200
    assert (await guarded.client.get(DB, auth=("ann", "wrong"))).status_code == 401
    assert (await guarded.client.get(DB, headers={"Authorization": "Basic !"})).status_code == 401
    assert (await guarded.client.get(DB, headers={"Authorization": "Bearer secret"})).status_code == 200


async def test_who_gives_a_name_is_called_by_it(guarded: Served) -> None:
    bearer = {"Authorization": "Bearer secret"}
    for given, name in (
        ({"auth": ("ann", "secret")}, "ann"),
        ({"auth": ("", "secret")}, "token"),
        ({"headers": bearer}, "token"),
    ):
        told = await guarded.client.get("/couch/_session", **given)  # type: ignore[arg-type]
        assert told.json()["userCtx"] == {"name": name, "roles": ["_admin"]}


async def test_who_is_refused_is_told_what_to_send(guarded: Served) -> None:
    nothing = await guarded.client.get(DB)
    assert nothing.json()["reason"] == "This service asks for a token: any name will do, with the token as password."
    for auth in (("ann", "wrong"), ("ann", "")):
        wrong = await guarded.client.get(DB, auth=auth)
        assert wrong.json()["reason"].startswith("The password or token is not this service's")
        session = await guarded.client.get("/couch/_session", auth=auth)
        assert (session.status_code, session.json()["error"]) == (401, "unauthorized")


async def test_a_session_lasts_until_it_ends(guarded: Served) -> None:
    wrong = await guarded.client.post("/couch/_session", data={"name": "ann", "password": "wrong"})
    assert (wrong.status_code, wrong.json()["error"]) == (401, "unauthorized")
    right = await guarded.client.post("/couch/_session", data={"name": "ann", "password": "secret"})
    assert (right.status_code, right.json()["name"]) == (200, "ann")
    assert "HttpOnly" in right.headers["set-cookie"]
    assert (await guarded.client.get(DB)).status_code == 200  # by the cookie that httpx keeps
    told = (await guarded.client.get("/couch/_session")).json()
    assert (told["info"]["authenticated"], told["userCtx"]["name"]) == ("cookie", "ann")
    await guarded.client.delete("/couch/_session")
    assert (await guarded.client.get(DB)).status_code == 401
    forged = {"Cookie": "AuthSession=" + right.cookies["AuthSession"][:-4] + "AAAA"}
    assert (await guarded.client.get(DB, headers=forged)).status_code == 401
    json = await guarded.client.post("/couch/_session", json={"name": "ann", "password": "secret"})
    assert json.status_code == 200
    for body in ({}, {"name": "ann"}):
        assert (await guarded.client.post("/couch/_session", json=body)).status_code == 400


async def test_a_cookie_alone_changes_nothing_by_a_get(tmp_path: Path) -> None:
    """A page of another site can have a browser follow a link, with its cookies."""
    access = TokenAccess("secret")
    async with served(tmp_path, access=access, sign_in=access.sign_in, peers=["near=http://127.0.0.1:9"]) as web:
        web.store.create("db")
        place = "/barrels/db/docs/none?p2p_read=first&p2p_timeout=100"
        await web.client.post("/couch/_session", data={"name": "ann", "password": "secret"})
        assert (await web.client.get(place)).status_code == 404
        kept = f"{place}&keep=true"
        by_hand = {"Authorization": "Bearer secret"}
        for headers, status in (({}, 403), (by_hand, 404), ({**by_hand, "Sec-Fetch-Site": "cross-site"}, 403)):
            assert (await web.client.get(kept, headers=headers)).status_code == status


async def test_a_cookie_stands_for_a_day() -> None:
    now = 1_000_000.0
    access = TokenAccess("secret", clock=lambda: now)
    headers = [(b"cookie", b"x=y; AuthSession=" + (access.sign_in("ann", "secret") or "").encode())]
    assert access.who(headers, "") == "token"
    now += 24 * 3600 + 1
    with pytest.raises(Exception, match="token"):
        access.who(headers, "")
    other = TokenAccess("another", clock=lambda: 1_000_000.0)
    with pytest.raises(Exception, match="token"):
        other.who(headers, "")


async def test_where_everyone_is_trusted_everyone_gets_a_session(web: Served) -> None:
    answer = await web.client.post("/couch/_session", data={"name": "ann", "password": "x"})
    assert (answer.status_code, "AuthSession" in answer.cookies) == (200, True)
    assert (await web.client.get(DB)).status_code == 200
