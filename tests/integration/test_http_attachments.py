"""Single attachments over HTTP: put, read whole and in part, taken away, and refused."""

import asyncio
import os
from base64 import b64encode
from collections.abc import AsyncIterator
from hashlib import md5, sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from disks import Ballast, small_disk

from broker.http import HttpLimits, OpenAccess
from broker.http.services import Verb
from broker.regulation import Regulation, Regulator
from feeds.errors import Forbidden

from .attachment_tools import damage, digest
from .http_tools import Served, eventually, served

PLACE = "/barrels/geo/attachments/fr%2Fparis/"
LARGE = os.urandom(3 << 20)


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as running:
        running.store.create("geo")
        yield running


def sha_field(data: bytes) -> str:
    return f"sha-256=:{b64encode(sha256(data).digest()).decode()}:"


def stubs(web: Served, id: str = "fr/paris") -> dict[str, Any]:
    """The attachments of a document."""
    found: dict[str, Any] = web.store.barrel("geo").get(id).data.get("_attachments", {})
    return found


def contents(web: Served) -> int:
    """How many contents the store has, and copies of them in its folder."""
    return web.store.blobs.rows.counts()["blobs"]


async def put(web: Served, name: str, data: bytes, **headers: str) -> httpx.Response:
    return await web.client.put(
        PLACE + name, content=data, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


async def test_what_is_put_is_read_again_with_its_type_and_digests(web: Served) -> None:
    answer = await put(web, "a.txt", b"hello", content_type="text/plain; charset=utf-8")
    assert answer.status_code == 201
    told = answer.json()
    assert (told["id"], told["digest"], told["length"]) == ("fr/paris", digest(b"hello"), 5)
    assert stubs(web)["a.txt"]["content_type"] == "text/plain; charset=utf-8"

    read = await web.client.get(PLACE + "a.txt")
    assert (read.status_code, read.content) == (200, b"hello")
    assert read.headers["content-type"] == "text/plain; charset=utf-8"
    assert read.headers["content-length"] == "5"
    assert read.headers["etag"] == f'"{digest(b"hello")}"'
    assert read.headers["content-md5"] == b64encode(md5(b"hello").digest()).decode()
    assert sha_field(b"hello") in read.headers["repr-digest"]
    assert sha_field(b"hello") in read.headers["content-digest"]
    assert read.headers["spile-rev"] == told["rev"]

    head = await web.client.head(PLACE + "a.txt")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "5")


async def test_a_large_content_passes_both_ways(web: Served) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(LARGE), 100_000):
            yield LARGE[at : at + 100_000]

    assert (await web.client.put(PLACE + "big", content=chunks())).status_code == 201
    assert (await web.client.get(PLACE + "big")).content == LARGE
    admission = web.app.admission
    await eventually(lambda: not (admission.transfers.uploads.used or admission.transfers.downloads.used))
    await eventually(lambda: admission.bytes.used == 0)


async def test_the_type_is_guessed_where_none_is_sent(web: Served) -> None:
    assert (await web.plain("PUT", PLACE + "a.png", b"x"))[0] == 201
    assert (await web.plain("PUT", PLACE + "strange", b"x"))[0] == 201
    assert [stub["content_type"] for stub in stubs(web).values()] == ["image/png", "application/octet-stream"]


async def test_an_empty_content_is_one(web: Served) -> None:
    assert (await put(web, "empty", b"")).status_code == 201
    assert (await web.client.get(PLACE + "empty")).content == b""
    assert stubs(web)["empty"]["length"] == 0


async def test_names_may_hold_slashes_and_anything_printable(web: Served) -> None:
    for name in ("a%2Fb%2Fc.txt", "%E2%82%AC%20uro", "50%25", "%22quoted%22"):
        assert (await put(web, name, name.encode())).status_code == 201
        assert (await web.client.get(PLACE + name)).content == name.encode()
    assert set(stubs(web)) == {"a/b/c.txt", "€ uro", "50%", '"quoted"'}
    told = (await web.client.get(PLACE + "%E2%82%AC%20uro")).headers["content-disposition"]
    assert told == "attachment; filename=\"uro\"; filename*=UTF-8''%E2%82%AC%20uro"
    assert 'filename="c.txt"' in (await web.client.get(PLACE + "a%2Fb%2Fc.txt")).headers["content-disposition"]


@pytest.mark.parametrize("name", ["_a", "a%00b", "a%0Ab", "%C2%85", "x" * 513, "%FF"])
async def test_names_that_cannot_be_are_refused(web: Served, name: str) -> None:
    answer = await put(web, name, b"x")
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")
    assert web.store.barrel("geo").info().doc_count == 0


async def test_an_id_whose_slashes_stand_plain_leads_nowhere(web: Served) -> None:
    assert (await web.client.put("/barrels/geo/attachments/fr/paris/a.txt", content=b"x")).status_code == 404


async def test_what_a_browser_is_told_keeps_a_stored_page_from_acting(web: Served) -> None:
    await put(web, "page.html", b"<script>alert(1)</script>", content_type="text/html")
    await put(web, "pic.svg", b"<svg/>", content_type="image/svg+xml")
    await put(web, "pic.png", b"png", content_type="image/png")
    for name, shown in (("page.html", "attachment"), ("pic.svg", "attachment"), ("pic.png", "inline")):
        headers = (await web.client.get(PLACE + name)).headers
        assert headers["content-disposition"].startswith(shown)
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].endswith("; sandbox")


# Conditions


async def test_an_upload_goes_onto_the_revision_that_it_names(web: Served) -> None:
    first = (await put(web, "a", b"1")).json()["rev"]
    second = await put(web, "a", b"2", if_match=f'"{first}"')
    assert second.status_code == 200
    stale = await put(web, "a", b"3", if_match=f'"{first}"')
    assert (stale.status_code, stale.json()["error"]) == (412, "precondition_failed")
    answer = await web.client.put(PLACE + "a", content=b"3", params={"rev": first})
    assert (answer.status_code, answer.json()["error"]) == (409, "conflict")
    assert (await web.client.get(PLACE + "a")).content == b"2"
    assert (await web.client.get(PLACE + "a", params={"rev": first})).content == b"1"


async def test_an_upload_can_ask_for_the_content_that_it_replaces(web: Served) -> None:
    tag = (await put(web, "a", b"1")).headers["etag"]
    await put(web, "other", b"x")
    assert (await put(web, "a", b"2", if_match=tag)).status_code == 200
    assert (await put(web, "a", b"3", if_match=tag)).status_code == 412
    assert (await put(web, "a", b"3", if_match="*")).status_code == 200
    assert (await put(web, "new", b"3", if_match="*")).status_code == 412
    assert (await put(web, "a", b"4", if_none_match="*")).status_code == 412
    assert (await put(web, "new", b"4", if_none_match="*")).status_code == 201
    assert set(stubs(web)) == {"a", "other", "new"}


async def test_of_two_uploads_to_one_name_at_once_the_later_is_refused(web: Served) -> None:
    begun = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"slow"
        begun.set()
        await quick_done.wait()

    quick_done = asyncio.Event()
    uploading = asyncio.create_task(web.client.put(PLACE + "a", content=slow()))
    await begun.wait()
    await eventually(lambda: web.app.admission.transfers.uploads.used == 1)
    assert (await put(web, "a", b"quick")).status_code == 201
    quick_done.set()
    answer = await uploading
    assert (answer.status_code, answer.json()["error"]) == (409, "conflict")
    assert (await web.client.get(PLACE + "a")).content == b"quick"


async def test_a_repeated_upload_with_a_token_is_answered_once(web: Served) -> None:
    first = await put(web, "a", b"1", idempotency_key="k")
    again = await put(web, "a", b"1", idempotency_key="k")
    assert again.json()["rev"] == first.json()["rev"]
    other = await put(web, "a", b"2", idempotency_key="k")
    assert (other.status_code, other.json()["error"]) == (422, "token_reused")


async def test_an_attachment_is_taken_away(web: Served) -> None:
    tag = (await put(web, "a", b"1")).headers["etag"]
    await put(web, "b", b"2")
    assert (await web.client.delete(PLACE + "a", headers={"If-Match": '"sha256-00"'})).status_code == 412
    gone = await web.client.delete(PLACE + "a", headers={"If-Match": tag})
    assert gone.status_code == 200
    assert set(stubs(web)) == {"b"}
    assert (await web.client.delete(PLACE + "a")).json()["error"] == "not_found"
    rev = gone.json()["rev"]
    assert (await web.client.delete(PLACE + "b", params={"rev": rev})).status_code == 200
    missing = await web.client.get(PLACE + "b")
    assert (missing.status_code, missing.json()["error"]) == (404, "not_found")


# Parts


@pytest.mark.parametrize(
    ("asked", "told", "content"),
    [
        ("bytes=0-3", "bytes 0-3/10", b"0123"),
        ("bytes=4-", "bytes 4-9/10", b"456789"),
        ("bytes=-3", "bytes 7-9/10", b"789"),
        ("bytes=-30", "bytes 0-9/10", b"0123456789"),
        ("bytes=8-100", "bytes 8-9/10", b"89"),
    ],
)
async def test_a_range_is_a_part(web: Served, asked: str, told: str, content: bytes) -> None:
    await put(web, "a", b"0123456789")
    answer = await web.client.get(PLACE + "a", headers={"Range": asked})
    assert (answer.status_code, answer.headers["content-range"], answer.content) == (206, told, content)
    assert "content-md5" not in answer.headers and sha_field(b"0123456789") in answer.headers["repr-digest"]


@pytest.mark.parametrize("asked", ["bytes=0-1,4-5", "lines=1-2", "bytes=5-2", "bytes=x", "bytes=-"])
async def test_several_ranges_and_what_is_none_are_answered_with_the_whole(web: Served, asked: str) -> None:
    await put(web, "a", b"0123456789")
    answer = await web.client.get(PLACE + "a", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, b"0123456789")


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=99-100", "bytes=-0"])
async def test_a_range_beyond_the_end_is_refused_with_the_length(web: Served, asked: str) -> None:
    await put(web, "a", b"0123456789")
    answer = await web.client.get(PLACE + "a", headers={"Range": asked})
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */10")
    assert (answer.json()["error"], answer.json()["length"]) == ("range_not_satisfiable", 10)


async def test_a_range_of_a_large_content_reads_only_that(web: Served) -> None:
    await put(web, "big", LARGE)
    answer = await web.client.get(PLACE + "big", headers={"Range": f"bytes=1000-{(2 << 20) - 1}"})
    assert answer.content == LARGE[1000 : 2 << 20]


async def test_a_range_goes_on_only_with_the_same_content(web: Served) -> None:
    tag = (await put(web, "a", b"0123456789")).headers["etag"]
    same = await web.client.get(PLACE + "a", headers={"Range": "bytes=5-", "If-Range": tag})
    assert (same.status_code, same.content) == (206, b"56789")
    other = await web.client.get(PLACE + "a", headers={"Range": "bytes=5-", "If-Range": '"sha256-00"'})
    assert (other.status_code, other.content) == (200, b"0123456789")
    held = await web.client.get(PLACE + "a", headers={"If-None-Match": tag})
    assert (held.status_code, held.content) == (304, b"")
    assert (await web.client.get(PLACE + "a", headers={"If-Match": '"sha256-00"'})).status_code == 412


# What is wrong with a body


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-MD5": b64encode(md5(b"other").digest()).decode()},
        {"Repr-Digest": sha_field(b"other")},
        {"Content-Digest": f"md5=:{b64encode(md5(b'other').digest()).decode()}:"},
        {"Digest": f"SHA-256={b64encode(sha256(b'other').digest()).decode()}"},
    ],
)
async def test_a_content_that_is_not_what_its_digest_says_is_refused(web: Served, headers: dict[str, str]) -> None:
    await put(web, "a", b"before")
    answer = await web.client.put(PLACE + "a", content=b"mine", headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")
    assert "digest" in answer.json()["reason"]
    assert (await web.client.get(PLACE + "a")).content == b"before"
    assert contents(web) == 1


async def test_what_is_refused_is_named(web: Served) -> None:
    wrong = await put(web, "photo.jpg", b"hello", content_md5=b64encode(md5(b"other").digest()).decode())
    assert "'photo.jpg'" in wrong.json()["reason"]


async def test_digests_that_agree_are_taken(web: Served) -> None:
    answer = await put(
        web,
        "a",
        b"mine",
        content_md5=b64encode(md5(b"mine").digest()).decode(),
        repr_digest=f"{sha_field(b'mine')}, sha-512=:AAAA:",
        digest=f"MD5={b64encode(md5(b'mine').digest()).decode()},unixsum=30637",
    )
    assert answer.status_code == 201


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-MD5": "no base64!"},
        {"Content-MD5": "AAAA"},
        {"Repr-Digest": "sha-256=AAAA"},
        {"Repr-Digest": "sha-256=:AAAA:"},
        {"Content-Digest": "=="},
        {"Digest": "SHA-256"},
        {"Repr-Digest": sha_field(b"a"), "Content-Digest": sha_field(b"b")},
        {"Content-Encoding": "gzip"},
        {"Content-Type": "té"},
    ],
)
async def test_headers_that_mean_nothing_are_refused_before_anything_is_stored(
    web: Served, headers: dict[str, str]
) -> None:
    sent = [(name.encode(), value.encode()) for name, value in headers.items()]
    answer = await web.client.put(PLACE + "a", content=b"mine", headers=sent)
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")
    assert contents(web) == 0


async def test_a_body_that_is_cut_off_leaves_nothing(web: Served, tmp_path: Path) -> None:
    await put(web, "a", b"before")
    incoming = web.store.blobs.contents.stats
    for head in (b"Content-Length: 3000000", b"Transfer-Encoding: chunked"):
        _, writer = await web.connect()
        part = LARGE[: 3 << 19]
        chunk = part if head.startswith(b"Content") else b"180000\r\n" + part + b"\r\n"
        writer.write(b"PUT " + PLACE.encode() + b"a HTTP/1.1\r\nHost: t\r\n" + head + b"\r\n\r\n" + chunk)
        await writer.drain()
        await eventually(lambda: incoming()["incoming"] == 1)
        writer.transport.abort()
        await eventually(lambda: incoming()["incoming"] == 0)
        await eventually(lambda: web.app.admission.transfers.uploads.used == 0)
    assert (await web.client.get(PLACE + "a")).content == b"before"
    assert contents(web) == 1
    await eventually(lambda: web.app.admission.bytes.used == 0)


async def test_a_body_that_stops_coming_is_given_up(tmp_path: Path) -> None:
    async with served(tmp_path, limits=HttpLimits(body_s_max=0.2)) as web:
        web.store.create("geo")
        head = b"a HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 100\r\n\r\nhalf"
        assert b" 504 " in (await web.raw(b"PUT " + PLACE.encode() + head)).splitlines()[0]
        assert web.store.barrel("geo").info().doc_count == 0
        await eventually(lambda: web.store.blobs.contents.stats()["incoming"] == 0)


async def test_a_content_beyond_the_limit_is_refused_while_it_comes(tmp_path: Path) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(10_000)

    async with served(tmp_path, limits=HttpLimits(attachment_bytes_max=100_000)) as web:
        web.store.create("geo")
        answer = await web.client.put(PLACE + "a", content=chunks())
        assert (answer.status_code, answer.json()["limit"]) == (413, 100_000)
        assert (await put(web, "a", bytes(100_001))).status_code == 413
        assert (await put(web, "a", bytes(100_000))).status_code == 201


async def test_a_client_that_waits_to_be_asked_sends_nothing_in_vain(web: Served) -> None:
    await put(web, "a", b"before")
    head = b"PUT " + PLACE.encode() + b"a HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\nExpect: 100-continue\r\n"
    refused = await web.raw(head + b"If-None-Match: *\r\n\r\n")
    assert refused.startswith(b"HTTP/1.1 412 ") and b"connection: close" in refused.lower()
    reader, writer = await web.connect()
    writer.write(head + b"\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
    writer.write(b"late")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_only_so_many_are_on_their_way_in_at_once(tmp_path: Path) -> None:
    ready, leave = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        ready.set()
        await leave.wait()

    async with served(tmp_path, limits=HttpLimits(uploads_max=1)) as web:
        web.store.create("geo")
        uploading = asyncio.create_task(web.client.put(PLACE + "a", content=slow()))
        await ready.wait()
        await eventually(lambda: web.app.admission.transfers.uploads.used == 1)
        answer = await put(web, "b", b"x")
        assert (answer.status_code, answer.json()["error"]) == (503, "overloaded")
        assert "http_uploads" in answer.json()["reason"] and "retry-after" in answer.headers
        leave.set()
        assert (await uploading).status_code == 201
        assert (await put(web, "b", b"x")).status_code == 201


async def test_a_client_that_takes_nothing_holds_no_more_than_its_place(tmp_path: Path) -> None:
    async with served(tmp_path, limits=HttpLimits(downloads_max=1)) as web:
        web.store.create("geo")
        await put(web, "big", os.urandom(32 << 20))
        _, writer = await web.connect()
        writer.write(b"GET " + PLACE.encode() + b"big HTTP/1.1\r\nHost: t\r\n\r\n")
        await writer.drain()
        downloads = web.app.admission.transfers.downloads
        await eventually(lambda: downloads.used == 1)
        answer = await web.client.get(PLACE + "big")
        assert (answer.status_code, answer.json()["error"]) == (503, "overloaded")
        await put(web, "small", b"x")
        assert (await web.client.get(PLACE + "small")).content == b"x"
        writer.transport.abort()
        await eventually(lambda: downloads.used == 0)
        assert (await web.client.get(PLACE + "big")).status_code == 200


async def test_uploads_cost_request_units_as_they_come(tmp_path: Path) -> None:
    regulator = Regulator(Regulation(units_per_s=2000, units_burst=500))
    async with served(tmp_path, regulator=regulator) as web:
        web.store.create("geo")
        began = asyncio.get_running_loop().time()
        assert (await put(web, "a", os.urandom(2 << 20))).status_code == 201
        assert asyncio.get_running_loop().time() - began > 0.5


# What is wrong with what is stored


async def test_damage_is_told_and_never_served(web: Served, tmp_path: Path) -> None:
    data = os.urandom(5_000)
    await put(web, "a", data)
    damage(tmp_path / "blobs", data[1000:1100])
    answer = await web.client.get(PLACE + "a")
    assert (answer.status_code, answer.json()["error"]) == (500, "bad_checksum")
    assert digest(data) in answer.json()["reason"]
    await put(web, "b", data)
    assert (await web.client.get(PLACE + "a")).content == data


async def test_damage_in_the_middle_cuts_the_connection(web: Served, tmp_path: Path) -> None:
    await put(web, "big", LARGE)
    damage(tmp_path / "blobs", LARGE[(2 << 20) + 100 : (2 << 20) + 200])
    received = bytearray()
    with pytest.raises(httpx.RemoteProtocolError):
        async with web.client.stream("GET", PLACE + "big") as answer:
            assert answer.status_code == 200
            async for chunk in answer.aiter_bytes():
                received += chunk
    assert len(received) < len(LARGE) and LARGE.startswith(bytes(received))
    sound = await web.client.get(PLACE + "big", headers={"Range": "bytes=0-999"})
    assert sound.content == LARGE[:1000]


async def test_a_file_that_lost_its_end_is_told(web: Served, tmp_path: Path) -> None:
    await put(web, "a", b"hello")
    for path in (tmp_path / "blobs" / "files").iterdir():
        os.truncate(path, 3)
    answer = await web.client.get(PLACE + "a")
    assert (answer.status_code, answer.json()["error"]) == (500, "partial_read")
    assert (await web.client.get("/barrels/geo/docs/fr/paris", params={"attachments": "true"})).status_code == 500
    assert (await web.client.get("/barrels/geo/docs/fr/paris")).status_code == 200


async def test_a_link_is_told_and_not_followed(web: Served) -> None:
    link = "https://example.org/plan"
    web.store.barrel("geo").put({"_id": "fr/paris", "_attachments": {"plan": {"link": link}}})
    answer = await web.client.get(PLACE + "plan")
    assert (answer.status_code, answer.json()["link"]) == (400, link)
    assert (await put(web, "plan", b"mine")).status_code == 200


async def test_a_full_disk_is_told_and_harms_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", mib=8) as disk:
        async with served(tmp_path / "data", blobs=disk / "blobs") as web:
            web.store.create("geo")
            await put(web, "a", b"before")
            ballast = Ballast(disk)
            ballast.grow()
            data = os.urandom(2 << 20)
            answer = await put(web, "a", data)
            assert (answer.status_code, answer.json()["error"]) == (507, "storage_full")
            doc = {"_attachments": {"a": {"data": b64encode(data).decode()}}}
            answer = await web.client.put("/barrels/geo/docs/x", json=doc)
            assert (answer.status_code, answer.json()["error"]) == (507, "storage_full")
            assert (await web.client.get(PLACE + "a")).content == b"before"
            assert web.store.barrel("geo").info().doc_count == 1
            ballast.drop()
            assert (await put(web, "a", data)).status_code == 200
            assert (await web.client.get(PLACE + "a")).content == data


# Access


class OwnOnly(OpenAccess):
    """Anyone may read and write documents below `own`, and read nothing else."""

    def decide(self, who: str, verb: Verb, barrel: str, path: str) -> None:
        if not path.startswith("_id/own"):
            raise Forbidden(f"{who} may not {verb} {path}.")


async def test_an_attachment_is_guarded_as_its_document_and_contents_as_the_barrel(tmp_path: Path) -> None:
    async with served(tmp_path, access=OwnOnly()) as web:
        web.store.create("geo").attach("other", "a", b"secret")
        assert (await web.client.put("/barrels/geo/attachments/own%2Fx/a", content=b"mine")).status_code == 201
        assert (await web.client.get("/barrels/geo/attachments/own%2Fx/a")).content == b"mine"
        secret = digest(b"secret").removeprefix("sha256-")
        for method, place in (
            ("GET", "attachments/other/a"),
            ("PUT", "attachments/other/a"),
            ("DELETE", "attachments/other/a"),
            ("GET", f"blobs/{secret}"),
            ("POST", "uploads"),
            ("GET", "uploads"),
            ("POST", "uploads?doc=other"),
            ("GET", "uploads?doc=other"),
            ("GET", f"blobs/{secret}?doc=other"),
        ):
            answer = await web.client.request(method, f"/barrels/geo/{place}")
            assert answer.status_code == 403, (method, place)
        stolen = {"_attachments": {"a": {"stub": True, "digest": digest(b"secret")}}}
        answer = await web.client.put("/barrels/geo/docs/own/y", json=stolen)
        assert (answer.status_code, answer.json()["error"]) == (412, "missing_stub")


# By digest


async def test_a_content_is_read_by_its_digest_through_a_barrel_that_has_it(web: Served) -> None:
    web.store.create("other")
    await put(web, "a", LARGE)
    named = digest(LARGE).removeprefix("sha256-")
    answer = await web.client.get(f"/barrels/geo/blobs/{named}")
    assert (answer.status_code, answer.content) == (200, LARGE)
    assert "immutable" in answer.headers["cache-control"]
    part = await web.client.get(f"/barrels/geo/blobs/{named}", headers={"Range": "bytes=-5"})
    assert (part.status_code, part.content) == (206, LARGE[-5:])
    assert (await web.client.get(f"/barrels/other/blobs/{named}")).status_code == 404
    assert (await web.client.get(f"/barrels/geo/blobs/{'0' * 64}")).status_code == 404
    assert (await web.client.get("/barrels/geo/blobs/zz")).status_code == 400
