"""Documents with their attachments over HTTP: inline, as multipart/related, and in feeds."""

import asyncio
import os
from base64 import b64decode
from collections.abc import AsyncIterator
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import connect

from broker.http import HttpLimits
from broker.http.related import read_related
from feeds import Store, Write

from .attachment_tools import damage, digest, inline
from .http_tools import Served, eventually, served

DOC = "/barrels/geo/docs/paris"
LARGE = os.urandom(3 << 20)
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as running:
        running.store.create("geo")
        yield running


def stubs(web: Served, id: str = "paris") -> dict[str, Any]:
    found: dict[str, Any] = web.store.barrel("geo").get(id).data.get("_attachments", {})
    return found


def related(doc: dict[str, Any], *parts: tuple[str, bytes], end: bytes = b"\r\n--XX--\r\n") -> bytes:
    """A document and contents, each with the lines of its head."""
    body = b"--XX\r\nContent-Type: application/json\r\n\r\n" + msgspec.json.encode(doc)
    for head, data in parts:
        body += b"\r\n--XX\r\n" + head.encode() + b"\r\n" * (2 if head else 1) + data
    return body + end


async def send(web: Served, body: bytes, boundary: str = "XX", **params: str) -> Any:
    headers = {"Content-Type": f'multipart/related; boundary="{boundary}"'}
    return await web.client.put(DOC, content=body, headers=headers, params=params)


# Inline


async def test_inline_contents_are_stored_and_told_as_stubs(web: Served) -> None:
    put = await web.client.put(DOC, json={"n": 1, "_attachments": {"a.txt": inline(b"hello")}})
    assert put.status_code == 201
    told = (await web.client.get(DOC)).json()
    assert told["_attachments"]["a.txt"] == {
        "content_type": "text/plain",
        "digest": digest(b"hello"),
        "length": 5,
        "revpos": 1,
        "stub": True,
    }
    again = await web.client.put(DOC, json={**told, "n": 2})
    assert again.status_code == 200
    assert stubs(web) == told["_attachments"]


async def test_every_way_of_writing_takes_inline_contents(web: Served) -> None:
    created = await web.client.post("/barrels/geo/docs", json={"_id": "a", "_attachments": {"x": inline(b"1")}})
    assert created.status_code == 201
    patch = {"_attachments": {"y": inline(b"2"), "x": None}}
    assert (await web.client.patch("/barrels/geo/docs/a", json=patch)).status_code == 200
    assert set(stubs(web, "a")) == {"y"}
    docs = [
        {"_id": "b", "_attachments": {"x": inline(b"3")}},
        {"_id": "c", "_attachments": {"x": {"data": "no base64!"}}},
        {"_id": "d", "_attachments": {"x": {"stub": True}}},
        {"_id": "e", "_attachments": {"x": inline(b"4", digest=digest(b"other"))}},
    ]
    results = (await web.client.post("/barrels/geo/docs/_bulk", json={"docs": docs})).json()["results"]
    assert [each.get("error") for each in results] == [None, "bad_request", "missing_stub", "bad_request"]
    assert [each["id"] for each in results] == ["b", "c", "d", "e"]
    assert web.store.barrel("geo").info().doc_count == 2


@pytest.mark.parametrize(
    ("told", "status", "error"),
    [
        ({"data": "no base64!"}, 400, "bad_request"),
        ({"data": "aGVsbG8"}, 400, "bad_request"),
        (inline(b"hello", length=4), 400, "bad_request"),
        (inline(b"hello", digest=digest(b"other")), 400, "bad_request"),
        ({"stub": True}, 412, "missing_stub"),
        ({"upload": "unknown"}, 404, "not_found"),
        ({"follows": True}, 412, "missing_stub"),
        ({"link": "no url"}, 400, "bad_request"),
        ({}, 400, "bad_request"),
    ],
)
async def test_what_is_wrong_with_an_attachment_leaves_the_document_as_it_was(
    web: Served, told: dict[str, Any], status: int, error: str
) -> None:
    rev = (await web.client.put(DOC, json={"n": 1})).json()["rev"]
    answer = await web.client.put(DOC, json={"_rev": rev, "n": 2, "_attachments": {"a": told}})
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert (await web.client.get(DOC)).json() == {"_id": "paris", "_rev": rev, "n": 1}
    assert web.store.blobs.rows.counts()["blob_refs"] == 0


async def test_inline_contents_do_not_count_towards_the_limit_on_documents(tmp_path: Path) -> None:
    async with served(tmp_path, limits=HttpLimits(document_bytes_max=1000)) as web:
        web.store.create("geo")
        data = os.urandom(100_000)
        assert (await web.client.put(DOC, json={"_attachments": {"a": inline(data)}})).status_code == 201
        answer = await web.client.put(DOC, json={"n": "x" * 1000, "_attachments": {"a": inline(data)}})
        assert (answer.status_code, answer.json()["error"]) == (413, "too_large")
        assert (
            await web.client.put("/barrels/geo/docs/b", content=b'{"n":"' + b"x" * 2000 + b'"}')
        ).status_code == 413


async def test_a_document_is_read_with_its_contents_inline(web: Served) -> None:
    doc = {"_attachments": {"a": inline(b"hello"), "b": {"link": "https://example.org/"}}}
    await web.client.put(DOC, json=doc)
    told = (await web.client.get(DOC, params={"attachments": "true"})).json()["_attachments"]
    assert b64decode(told["a"]["data"]) == b"hello" and "stub" not in told["a"]
    assert told["b"] == {"link": "https://example.org/", "revpos": 1}


# multipart/related


async def test_a_document_comes_with_its_contents_behind_it(web: Served) -> None:
    doc = {
        "n": 1,
        "_attachments": {
            "big": {"follows": True, "content_type": "image/png", "length": len(LARGE), "digest": digest(LARGE)},
            "inline": inline(b"hello"),
            "small": {"follows": True},
        },
    }
    put = await send(web, related(doc, ("", LARGE), ("Content-Type: text/css", b"small\r\n--X")))
    assert put.status_code == 201, put.json()
    found = stubs(web)
    assert (found["big"]["digest"], found["big"]["content_type"]) == (digest(LARGE), "image/png")
    assert (found["small"]["digest"], found["small"]["content_type"]) == (digest(b"small\r\n--X"), "text/css")
    assert found["inline"]["length"] == 5


async def test_parts_may_say_whose_they_are(web: Served) -> None:
    doc = {"_attachments": {"a": {"follows": True}, "€": {"follows": True}}}
    named = "Content-Disposition: attachment; filename=\"x\"; filename*=UTF-8''%E2%82%AC"
    assert (await send(web, related(doc, (named, b"euro"), ("", b"a")))).status_code == 201
    assert (stubs(web)["a"]["digest"], stubs(web)["€"]["digest"]) == (digest(b"a"), digest(b"euro"))


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64])
def test_a_multipart_is_the_same_in_whatever_pieces_it_comes(tmp_path: Path, step: int) -> None:
    first = b"\r\n--X\r\n--XY\r\n--\r\r\n" + bytes(range(256))
    doc = {"_attachments": {"a": {"follows": True}, "b": {"follows": True}, "c": {"follows": True}}}
    body = related(doc, ("", first), ("", b""), ("Content-Type: text/css\r\nX-More: " + "x" * 200, b"\r\n"))
    with Store.open(tmp_path) as store:
        barrel = store.create("geo")
        pieces = (body[at : at + step] for at in range(0, len(body), step))
        came = read_related(pieces, "XX", barrel, lambda text: Write.put(text, id="x"), 10_000)
        assert {name: each.digest for name, each in came.follows.items()} == {
            "a": digest(first),
            "b": digest(b""),
            "c": digest(b"\r\n"),
        }
        barrel.write(barrel.absorb([came.write], follows=came.follows)[0])
        assert barrel.attachment("x", "c").content_type == "text/css"


FOLLOWING = {"_attachments": {"a": {"follows": True}}}


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (related(FOLLOWING), 412, "missing_stub"),
        (related(FOLLOWING, ("", b"1"), ("", b"2")), 400, "bad_request"),
        (related(FOLLOWING, ("", b"cut off"), end=b""), 400, "bad_request"),
        (related(FOLLOWING, ("Content-Encoding: gzip", b"1")), 400, "bad_request"),
        (related({"_attachments": {"a": {"follows": True, "length": 2}}}, ("", b"1")), 400, "bad_request"),
        (related({"_attachments": {"a": {"follows": True, "length": 1}}}, ("", b"12")), 413, "too_large"),
        (related({"_attachments": {"a": {"follows": True, "digest": digest(b"2")}}}, ("", b"1")), 400, "bad_request"),
        (b"--XX\r\n\r\nno json\r\n--XX--\r\n", 400, "bad_request"),
        (b"no boundary at all", 400, "bad_request"),
        (b"--XX\r\nbroken head\r\n\r\n{}\r\n--XX--", 400, "bad_request"),
        (b"", 400, "bad_request"),
    ],
)
async def test_what_is_wrong_with_a_multipart_is_told_and_nothing_written(
    web: Served, body: bytes, status: int, error: str
) -> None:
    answer = await send(web, body)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert web.store.barrel("geo").info().doc_count == 0
    assert web.store.blobs.rows.counts()["blob_refs"] == 0
    await eventually(lambda: web.app.admission.transfers.uploads.used == 0)


async def test_a_multipart_without_a_boundary_is_refused(web: Served) -> None:
    answer = await web.client.put(DOC, content=b"x", headers={"Content-Type": "multipart/related"})
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")


async def test_a_multipart_that_is_cut_off_leaves_nothing(web: Served) -> None:
    _, writer = await web.connect()
    body = related(FOLLOWING, ("", LARGE))
    head = f"PUT {DOC} HTTP/1.1\r\nHost: t\r\nContent-Type: multipart/related; boundary=XX\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[: 3 << 19])
    await writer.drain()
    stats = web.store.blobs.contents.stats
    await eventually(lambda: stats()["incoming"] == 1)
    writer.transport.abort()
    await eventually(lambda: stats()["incoming"] == 0)
    assert web.store.barrel("geo").info().doc_count == 0
    assert web.store.blobs.rows.counts()["blobs"] == 0


async def test_a_document_is_read_with_its_contents_behind_it_and_sent_back_so(web: Served) -> None:
    doc = {"n": 1, "_attachments": {"a/€": inline(b"hello"), "big": {"follows": True}, "c": {"link": "x:y"}}}
    assert (await send(web, related(doc, ("Content-Type: image/png", LARGE)))).status_code == 201
    answer = await web.client.get(DOC, headers={"Accept": "multipart/related"})
    kind = answer.headers["content-type"]
    assert kind.startswith("multipart/related")
    message: Any = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + answer.content)
    first, *rest = message.get_payload()
    told = msgspec.json.decode(first.get_payload(decode=True))
    assert told["_attachments"]["big"]["follows"] is True and "stub" not in told["_attachments"]["big"]
    assert [part.get_param("filename", header="content-disposition") for part in rest] == ["a", "big"]
    assert b"filename*=UTF-8''a%2F%E2%82%AC" in answer.content
    assert LARGE in answer.content and b"\r\n\r\nhello\r\n--" in answer.content

    there = {"Content-Type": kind}
    back = await web.client.put("/barrels/geo/docs/rome", content=answer.content, headers=there)
    assert back.status_code == 400  # its _id is another one
    copied = answer.content.replace(b'"_id":"paris"', b'"_id":"rome"').replace(told["_rev"].encode(), b"")
    copied = copied.replace(b'"_rev":"",', b"")
    back = await web.client.put("/barrels/geo/docs/rome", content=copied, headers=there)
    assert back.status_code == 201, back.json()
    assert stubs(web, "rome") == stubs(web)


@pytest.mark.parametrize("damaged", ["a", "b"])
async def test_a_document_whose_contents_are_damaged_is_refused_as_a_whole(
    web: Served, tmp_path: Path, damaged: str
) -> None:
    contents = {"a": b"the first content", "b": b"the second content"}
    await web.client.put(DOC, json={"_attachments": {name: inline(data) for name, data in contents.items()}})
    damage(tmp_path / "blobs", contents[damaged])
    if damaged == "b":  # it is known by then, which the first one's is not
        assert (await web.client.get("/barrels/geo/attachments/paris/b")).status_code == 500
    answer = await web.client.get(DOC, headers={"Accept": "multipart/related"})
    assert (answer.status_code, answer.json()["error"]) == (500, "bad_checksum")
    assert answer.json()["digest"] == digest(contents[damaged])
    assert (await web.client.get(DOC)).status_code == 200


async def test_json_is_read_where_it_is_preferred(web: Served) -> None:
    await web.client.put(DOC, json={"_attachments": {"a": inline(b"hello")}})
    for accept in ("*/*", "application/json", "multipart/related;q=0.1, application/json", "multipart/related;q=0"):
        answer = await web.client.get(DOC, headers={"Accept": accept})
        assert (answer.headers["content-type"], "etag" in answer.headers) == ("application/json", True)


# Feeds


async def fill(web: Served) -> None:
    for name, attachments in (("a", {"x": inline(b"hello")}), ("b", {}), ("c", {"y": inline(b"world")})):
        doc = {"_id": name, "_attachments": attachments} if attachments else {"_id": name}
        assert (await web.client.post("/barrels/geo/docs", json=doc)).status_code == 201


def data_of(row: dict[str, Any], name: str) -> bytes:
    return b64decode(row["doc"]["_attachments"][name]["data"])


ASKED = {"docs": "true", "attachments": "contents"}


async def test_changes_tell_what_came_and_bring_contents_where_asked(web: Served) -> None:
    await fill(web)
    rows = (await web.client.get("/barrels/geo/changes", params={"docs": "true"})).json()["results"]
    assert rows[0]["attachments"] == {"came": ["x"]} and rows[0]["doc"]["_attachments"]["x"]["stub"] is True
    assert "attachments" not in rows[1]
    for more in ({}, {"limit": "3"}, {"descending": "true", "limit": "3"}):
        rows = (await web.client.get("/barrels/geo/changes", params={**ASKED, **more})).json()["results"]
        assert {row["id"]: row for row in rows}.keys() == {"a", "b", "c"}
        assert data_of(next(row for row in rows if row["id"] == "c"), "y") == b"world"
    refused = await web.client.get("/barrels/geo/changes", params={"attachments": "contents"})
    assert (refused.status_code, refused.json()["error"]) == (400, "bad_request")


async def test_contents_in_feeds_are_bounded_and_damage_stays_a_stub(web: Served, tmp_path: Path) -> None:
    await fill(web)
    doc = {"_id": "d", "_attachments": {"big": inline(os.urandom((1 << 20) + 1)), "small": inline(b"small")}}
    await web.client.post("/barrels/geo/docs", json=doc)
    damage(tmp_path / "blobs", b"world")
    rows = (await web.client.get("/barrels/geo/changes", params=ASKED)).json()["results"]
    told = {row["id"]: row["doc"].get("_attachments") for row in rows}
    assert told["d"]["big"]["stub"] is True and b64decode(told["d"]["small"]["data"]) == b"small"
    assert told["c"]["y"]["stub"] is True


async def test_every_following_mode_brings_contents(web: Served) -> None:
    await fill(web)
    for feed, mark in (("continuous", ""), ("eventsource", "data: ")):
        async with web.client.stream("GET", "/barrels/geo/changes", params={**ASKED, "feed": feed}) as answer:
            lines = answer.aiter_lines()
            rows: list[dict[str, Any]] = []
            while not rows or rows[-1]["id"] != feed:
                line = await anext(lines)
                if line.startswith(mark + "{"):
                    rows.append(msgspec.json.decode(line.removeprefix(mark)))
                    if rows[-1]["id"] == "c":
                        later = {"_id": feed, "_attachments": {"z": inline(feed.encode())}}
                        await web.client.post("/barrels/geo/docs", json=later)
            assert (data_of(rows[0], "x"), data_of(rows[-1], "z")) == (b"hello", feed.encode())
    polling = asyncio.create_task(
        web.client.get("/barrels/geo/changes", params={**ASKED, "feed": "longpoll", "since": "now"})
    )
    await eventually(lambda: web.at_the_head == 1)
    await web.client.post("/barrels/geo/docs", json={"_attachments": {"z": inline(b"polled")}})
    assert data_of((await polling).json()["results"][0], "z") == b"polled"


async def test_a_websocket_brings_contents(web: Served) -> None:
    await fill(web)
    async with connect(f"{web.url.replace('http', 'ws')}/barrels/geo/feed") as socket:
        await socket.send(
            msgspec.json.encode({"run": "r", "since": "first", "docs": True, "attachments": "contents"}).decode()
        )
        rows: list[dict[str, Any]] = []
        while len(rows) < 3:
            rows += msgspec.json.decode(await socket.recv())["rows"]
        assert data_of(rows[2], "y") == b"world"
