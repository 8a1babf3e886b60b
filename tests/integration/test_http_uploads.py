"""Uploads over HTTP that can be gone on with: begun, sent in parts, finished, named by documents, given up."""

import asyncio
import os
from base64 import b64encode
from collections.abc import AsyncIterator
from hashlib import md5, sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker.http import HttpLimits

from .attachment_tools import digest
from .http_tools import Served, eventually, served

UPLOADS = "/barrels/geo/uploads"
LARGE = os.urandom(3 << 20)


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as running:
        running.store.create("geo")
        yield running


def field(data: bytes) -> str:
    return f"sha-256=:{b64encode(sha256(data).digest()).decode()}:"


async def begin(web: Served, content: bytes = b"", **headers: str) -> httpx.Response:
    return await web.client.post(UPLOADS, content=content, headers=_headers(headers))


async def append(web: Served, where: str, offset: int, content: Any, **headers: str) -> httpx.Response:
    told = {"Upload-Offset": str(offset), "Content-Type": "application/partial-upload", **_headers(headers)}
    return await web.client.patch(where, content=content, headers=told)


def _headers(given: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in given.items()}


async def test_a_content_is_sent_in_parts_and_named_by_a_document(web: Served) -> None:
    begun = await begin(web, upload_length=str(len(LARGE)), repr_digest=field(LARGE))
    assert begun.status_code == 201
    where = begun.headers["location"]
    assert (begun.headers["upload-offset"], begun.headers["upload-complete"]) == ("0", "?0")
    half = len(LARGE) // 2
    first = await append(web, where, 0, LARGE[:half])
    assert (first.status_code, first.json()["size"]) == (200, half)
    state = await web.client.head(where)
    assert (state.headers["upload-offset"], state.headers["upload-length"]) == (str(half), str(len(LARGE)))
    last = await append(web, where, half, LARGE[half:], upload_complete="?1")
    assert (last.status_code, last.headers["upload-complete"]) == (200, "?1")
    assert last.json()["digest"] == digest(LARGE)

    named = {"_attachments": {"big": {"upload": begun.json()["upload"], "content_type": "image/png"}}}
    assert (await web.client.put("/barrels/geo/docs/a", json=named)).status_code == 201
    assert (await web.client.get("/barrels/geo/attachments/a/big")).content == LARGE
    put = await web.client.put("/barrels/geo/attachments/b/big", params={"upload": begun.json()["upload"]})
    assert (put.status_code, put.json()["digest"]) == (201, digest(LARGE))


async def test_a_whole_content_can_come_with_the_first_request(web: Served) -> None:
    begun = await begin(web, b"hello", upload_complete="?1", content_digest=field(b"hello"))
    assert (begun.status_code, begun.json()["complete"], begun.json()["digest"]) == (201, True, digest(b"hello"))
    part = await begin(web, b"he")
    assert part.json() | {"upload": ""} == {"upload": "", "size": 2, "length": None, "complete": False}
    last = await append(web, part.headers["location"], 2, b"llo", upload_complete="?1", repr_digest=field(b"hello"))
    assert last.json()["complete"] is True
    again = await append(web, part.headers["location"], 5, b"", upload_complete="?1")
    assert (again.status_code, again.json()["digest"]) == (200, digest(b"hello"))


async def test_a_part_at_the_wrong_place_is_told_where_to_go_on(web: Served) -> None:
    where = (await begin(web, b"hello")).headers["location"]
    answer = await append(web, where, 3, b"x")
    assert (answer.status_code, answer.json()["error"], answer.json()["size"]) == (409, "conflict", 5)
    assert answer.headers["upload-offset"] == "5"
    assert (await append(web, where, 9, b"x")).status_code == 409
    assert (await append(web, where, 5, b" world")).json()["size"] == 11


async def test_a_part_that_was_cut_off_is_gone_on_with(web: Served) -> None:
    where = (await begin(web, upload_length=str(len(LARGE)))).headers["location"]
    _, writer = await web.connect()
    head = f"PATCH {where} HTTP/1.1\r\nHost: t\r\nUpload-Offset: 0\r\nContent-Length: {len(LARGE)}\r\n\r\n"
    writer.write(head.encode() + LARGE[:1_000_000])
    await writer.drain()
    await eventually(lambda: web.app.admission.transfers.uploads.used == 1)
    writer.transport.abort()
    await eventually(lambda: web.app.admission.transfers.uploads.used == 0)
    size = int((await web.client.head(where)).headers["upload-offset"])
    assert size <= 1_000_000
    last = await append(web, where, size, LARGE[size:], upload_complete="?1", repr_digest=field(LARGE))
    assert last.json()["digest"] == digest(LARGE)


async def test_a_part_with_a_wrong_digest_is_not_taken(web: Served) -> None:
    where = (await begin(web)).headers["location"]
    wrong = await append(web, where, 0, b"hello", content_digest=field(b"other"))
    assert (wrong.status_code, wrong.json()["error"]) == (400, "bad_request")
    assert (await web.client.head(where)).headers["upload-offset"] == "0"
    assert (await append(web, where, 0, b"hello", content_digest=field(b"hello"))).json()["size"] == 5


async def test_an_upload_that_is_not_what_was_announced_is_refused(web: Served) -> None:
    short = (await begin(web, upload_length="10")).headers["location"]
    answer = await append(web, short, 0, b"hello", upload_complete="?1")
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")
    assert (await append(web, short, 5, b"world", upload_complete="?1")).json()["complete"] is True
    long = (await begin(web, upload_length="3")).headers["location"]
    assert (await append(web, long, 0, b"hello")).status_code == 413
    other = (await begin(web, repr_digest=field(b"other"))).headers["location"]
    answer = await append(web, other, 0, b"hello", upload_complete="?1")
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")
    assert (await web.client.head(other)).status_code == 404


async def test_an_upload_is_announced_with_its_sha256(web: Served) -> None:
    brief = f"md5=:{b64encode(md5(b'hello').digest()).decode()}:"
    refused = await begin(web, repr_digest=brief)
    assert (refused.status_code, refused.json()["error"]) == (400, "bad_request")
    where = (await begin(web, b"hello")).headers["location"]
    last = await append(web, where, 5, b"", upload_complete="?1", repr_digest=f"{brief}, {field(b'hello')}")
    assert last.json()["complete"] is True
    other = await append(web, where, 5, b"", upload_complete="?1", repr_digest=field(b"other"))
    assert (other.status_code, other.json()["error"]) == (400, "bad_request")


async def test_a_first_request_that_fails_leaves_no_upload(web: Served) -> None:
    wrong = await begin(web, b"hello", upload_complete="?1", repr_digest=field(b"other"))
    assert (wrong.status_code, wrong.json()["error"]) == (400, "bad_request")
    assert web.store.blobs.contents.stats()["incoming"] == 0
    _, writer = await web.connect()
    writer.write(f"POST {UPLOADS} HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\nhalf".encode())
    await eventually(lambda: web.store.blobs.contents.stats()["incoming"] == 1)
    writer.transport.abort()
    await eventually(lambda: web.store.blobs.contents.stats()["incoming"] == 0)


async def test_an_upload_is_given_up_and_unknown_to_other_barrels(web: Served) -> None:
    web.store.create("other")
    begun = await begin(web, b"hello")
    where, id = begun.headers["location"], begun.json()["upload"]
    assert (await web.client.head(f"/barrels/other/uploads/{id}")).status_code == 404
    unfinished = await web.client.put("/barrels/geo/attachments/a/x", params={"upload": id})
    assert (unfinished.status_code, unfinished.json()["error"]) == (412, "missing_stub")
    assert (await web.client.delete(where)).json() == {"aborted": id}
    assert (await web.client.head(where)).status_code == 404
    assert (await append(web, where, 5, b"x")).status_code == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"Upload-Offset": "x"},
        {"Upload-Offset": "-1"},
        {"Upload-Offset": "?1"},
        {"Upload-Offset": "1.5"},
        {"Upload-Offset": "0", "Upload-Complete": "yes"},
        {},
    ],
)
async def test_headers_that_mean_nothing_are_refused(web: Served, headers: dict[str, str]) -> None:
    where = (await begin(web)).headers["location"]
    answer = await web.client.patch(where, content=b"x", headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")
    assert (await web.client.head(where)).headers["upload-offset"] == "0"


async def test_two_requests_do_not_go_on_with_one_upload_at_once(web: Served) -> None:
    where = (await begin(web)).headers["location"]
    leave = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"slow"
        await leave.wait()

    appending = asyncio.create_task(append(web, where, 0, slow()))
    await eventually(lambda: web.app.admission.transfers.uploads.used == 1)
    busy = await append(web, where, 0, b"quick")
    assert (busy.status_code, busy.json()["error"]) == (409, "conflict")
    leave.set()
    assert (await appending).json()["size"] == 4


async def test_an_upload_survives_a_restart(tmp_path: Path) -> None:
    async with served(tmp_path) as web:
        web.store.create("geo")
        where = (await begin(web, LARGE[:2_000_000], upload_length=str(len(LARGE)))).headers["location"]
    async with served(tmp_path) as web:
        size = int((await web.client.head(where)).headers["upload-offset"])
        assert size == 2_000_000
        last = await append(web, where, size, LARGE[size:], upload_complete="?1")
        assert last.json()["digest"] == digest(LARGE)


async def test_an_upload_is_bounded(tmp_path: Path) -> None:
    async with served(tmp_path, limits=HttpLimits(attachment_bytes_max=1000)) as web:
        web.store.create("geo")
        assert (await begin(web, upload_length="1001")).status_code == 413
        where = (await begin(web, bytes(900))).headers["location"]
        assert (await append(web, where, 900, bytes(101))).status_code == 413
        assert (await append(web, where, 900, bytes(100))).json()["size"] == 1000


async def test_a_repeated_bulk_write_is_answered_alike_when_an_upload_that_it_named_is_gone(web: Served) -> None:
    begun = await begin(web, b"hello", upload_complete="?1", content_digest=field(b"hello"))
    named = {"f": {"upload": begun.json()["upload"], "content_type": "text/plain"}}
    docs = {"docs": [{"_id": "a"}, {"_id": "b", "_attachments": named}, {"_id": "c"}]}

    async def bulk() -> list[Any]:
        told = await web.client.post("/barrels/geo/docs/_bulk", json=docs, headers={"Idempotency-Key": "k"})
        return [each.get("id") if "rev" in each else each["error"] for each in told.json()["results"]]

    assert await bulk() == ["a", "b", "c"]
    assert (await web.client.delete(begun.headers["location"])).status_code in (200, 204)
    assert await bulk() == ["a", "b", "c"]
