"""What a peer that speaks CouchDB's protocol is made of: words, histories, parts of answers, contents to be moved."""

from __future__ import annotations

import asyncio
import tempfile
import time
from base64 import b64decode
from collections.abc import AsyncIterator
from hashlib import md5, sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from feeds.attachments.links import is_link_type, link_type, type_of_link
from feeds.errors import (
    BadRequest,
    Exists,
    Forbidden,
    MissingStub,
    NotFound,
    RateLimited,
    SpileError,
    TooLarge,
    Unavailable,
)
from listeners.replication import BadPeer, Blob, Fetched, spooled
from listeners.replication.ancestry import beside_held, held_generation
from listeners.replication.over_couch_parts import texts_in
from listeners.replication.over_couch_session import SessionAuth
from listeners.replication.over_couch_words import (
    NotServed,
    attachment_path,
    couch_refusal,
    document_path,
    document_refusal,
    in_query,
    plain_number,
    seq_number,
    seq_text,
)
from listeners.replication.spooled import Spool, Spooled


@pytest.mark.parametrize(
    ("id", "path"),
    [
        ("a", "/a"),
        ("a/b c", "/a%2Fb%20c"),
        ("_design/x/y", "/_design/x%2Fy"),
        ("_local/x", "/_local/x"),
        ("..", "/%2E%2E"),
        ("ü+?#", "/%C3%BC%2B%3F%23"),
    ],
)
def test_ids_stand_in_paths_as_couchdb_writes_them(id: str, path: str) -> None:
    assert document_path(id) == path
    assert attachment_path(id, "dir/ü b") == path + "/dir/%C3%BC%20b"


@pytest.mark.parametrize(
    ("seq", "text", "number"),
    [
        (5, "5", 5),
        ("5-g1AAA", "5-g1AAA", 5),
        ([5, "g1"], '[5,"g1"]', 5),
        ("opaque", "opaque", None),
        ("²", "²", None),
        ([10**30, "ü"], f'[{10**30},"ü"]', None),
        ("9" * 5_000, "9" * 5_000, None),
        (None, "null", None),
    ],
)
def test_sequences_are_given_back_as_they_were(seq: object, text: str, number: int | None) -> None:
    assert (seq_text(seq), seq_number(seq)) == (text, number)
    assert plain_number(seq_text(seq)) == (number if text == "5" else None)
    assert in_query(since=seq_text(seq)) == "?since=" + str(httpx.QueryParams({"s": text}))[2:].replace("+", "%20")


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, b'{"error":"not_found","reason":"missing"}', NotFound),
        (412, b'{"error":"file_exists","reason":"x"}', Exists),
        (412, b'{"error":"missing_stub","reason":"x"}', MissingStub),
        (413, b'{"error":"document_too_large"}', TooLarge),
        (414, b"<html>", TooLarge),
        (405, b"", NotServed),
        (417, b'{"error":"expectation_failed","reason":null}', Forbidden),
        (429, b'{"reason":"slower"}', RateLimited),
        (500, b'{"error":"unknown_error","reason":"{badmatch}"}', Unavailable),
        (400, b'{"error":true,"reason":{"deep":1}}', BadRequest),
    ],
)
def test_errors_of_couchdb_are_those_of_spile(status: int, body: bytes, kind: type[SpileError]) -> None:
    error = couch_refusal(status, body)
    assert type(error) is kind and error.reason


def test_what_is_no_error_of_couchdb_is_left_to_its_status() -> None:
    assert couch_refusal(502, b"<html>") is None
    assert couch_refusal(500, b'{"other":1}') is None
    assert isinstance(document_refusal("forbidden", "no"), Forbidden)
    assert isinstance(document_refusal("never heard of", None), BadRequest)
    assert not document_refusal("unknown_error", "a function does not like it").retryable


@pytest.mark.parametrize("kind", [None, "text/html", 'a/b; c="d e"', "ü"])
def test_the_type_of_a_link_comes_through(kind: str | None) -> None:
    assert is_link_type(link_type(kind))
    assert type_of_link(link_type(kind)) == kind
    assert not is_link_type("text/uri-list")


DOC = (
    b'{"_id":"d","_rev":"3-c","_revisions":{"start":3,"ids":["c","b","a"]},"_attachments":'
    b'{"old":{"stub":true,"digest":"sha256-1","length":1,"revpos":1},"new":{"stub":true,"digest":"sha256-2","length":2,"revpos":3}}}'
)


def test_what_an_ancestor_has_is_not_sent_again() -> None:
    blobs = tuple(Blob("d", "3-c", name, f"sha256-{n}", n) for n, name in enumerate(("old", "new"), 1))
    doc = Fetched("d", "3-c", DOC, blobs)
    assert beside_held(doc, ("2-b",)).blobs == blobs[1:]
    assert beside_held(doc, ("1-a",)).blobs == blobs[1:]
    for strange in ((), ("2-other",), ("3-c",), ("9-z",)):
        assert beside_held(doc, strange).blobs == blobs
    assert held_generation(DOC, ["1-a", "2-b", "2-x"]) == 2
    assert held_generation(b'{"_id":"d"}', ["1-a"]) == 0
    untold = Fetched("d", "3-c", DOC.replace(b'"revpos":1', b'"revpos":null'), blobs)
    assert beside_held(untold, ("2-b",)).blobs == blobs


async def of(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


MIXED = (
    b'\r\n--B\r\nContent-Type: application/json\r\n\r\n{"_id":"a"}'
    b'\r\n--B\r\nContent-Type: multipart/related; boundary="b"\r\n\r\n'
    b'--b\r\nContent-Type: application/json\r\n\r\n{"_id":"c"}\r\n--b\r\n\r\n\x00content\r\n--b--'
    b'\r\n--B\r\nContent-Type: application/json; error="true"\r\n\r\n{"missing":"2-x"}\r\n--B--'
)


@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_documents_are_found_among_parts_however_they_arrive(size: int) -> None:
    pieces = [MIXED[at : at + size] for at in range(0, len(MIXED), size)]
    found = await texts_in(of(*pieces), 'multipart/mixed; boundary="B"', 1000)
    assert found == [b'{"_id":"a"}', b'{"_id":"c"}', b'{"missing":"2-x"}']


@pytest.mark.parametrize(
    ("body", "kind", "error"),
    [
        (MIXED[:-9], 'multipart/mixed; boundary="B"', BadPeer),
        (b"no parts at all", 'multipart/mixed; boundary="B"', BadPeer),
        (MIXED, "multipart/mixed", BadPeer),
        (
            MIXED.replace(b"application/json", b"x/y").replace(b'{"_id":"a"}', b"x" * 2000),
            'a/b; boundary="B"',
            TooLarge,
        ),
    ],
)
async def test_parts_that_cannot_be_read_are_told(body: bytes, kind: str, error: type[SpileError]) -> None:
    with pytest.raises(error):
        await texts_in(of(body), kind, 1000)


DEEP = b"".join(
    b'--b%d\r\nContent-Type: multipart/related; boundary="b%d"\r\n\r\n' % (depth, depth + 1) for depth in range(3000)
)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"--b0\r\nContent-Type: " + b"x" * 100_000, BadPeer),
        (b"--b0\r\n" + b"X-Y: z\r\n" * 20_000, BadPeer),
        (b"--b0\r\n\r\n\r\n" * 100_000 + b"--b0--", TooLarge),
        (DEEP, TooLarge),
    ],
)
async def test_parts_take_no_more_than_their_bound(body: bytes, error: type[SpileError]) -> None:
    pieces = [body[at : at + 1000] for at in range(0, len(body), 1000)]
    with pytest.raises(error):
        await texts_in(of(*pieces), 'multipart/mixed; boundary="b0"', 10_000)


async def kept(spool: Spool, data: bytes, *, awaited: bool = False) -> Spooled:
    incoming = spool.incoming()
    for at in range(0, len(data), 100_000):
        await incoming.write(data[at : at + 100_000])
    content = await incoming.end()
    spool.keep(content, awaited=awaited)
    return content


@pytest.mark.parametrize("size", [0, 10, 70_000, 700_000])
async def test_contents_on_their_way_are_read_as_they_came(size: int) -> None:
    spool, data = Spool(), bytes(range(250)) * (size // 250)
    content = await kept(spool, data)
    assert (content.digest, content.length) == (f"sha256-{sha256(data).hexdigest()}", len(data))
    assert bytes.fromhex(md5(data).hexdigest()) == b64decode(content.md5)
    assert (content.path is None) == (len(data) <= 65536)
    for offset in (0, len(data) // 3):
        assert b"".join([piece async for piece in spool.read(content, offset)]) == data[offset:]
    folder = None if content.path is None else content.path.parent
    spool.close()
    assert folder is None or not folder.exists()


async def test_the_oldest_contents_go_first_and_awaited_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(spooled, "FILES_BYTES_MAX", 250_000)
    spool = Spool(lambda: now[0])
    first = await kept(spool, b"1" * 100_000, awaited=True)
    second = await kept(spool, b"2" * 100_000)
    third = await kept(spool, b"3" * 100_000)
    assert [spool.find(each.digest) is not None for each in (first, second, third)] == [True, False, True]
    spool.taken(first.digest)
    fourth = await kept(spool, b"4" * 100_000, awaited=True)
    assert spool.find(first.digest) is None
    now[0] += spooled.AWAITED_S + 1  # nobody came for it
    await kept(spool, b"5" * 100_000)
    await kept(spool, b"6" * 100_000)
    assert spool.find(fourth.digest) is None
    files = list(Path(str(first.path)).parent.iterdir())
    assert len(files) == 2
    spool.close()


async def test_a_content_that_is_given_up_leaves_no_file() -> None:
    spool = Spool()
    incoming = spool.incoming()
    await incoming.write(b"x" * 300_000)
    content = await incoming.end()
    assert content.path is not None and content.path.exists()
    incoming.abort()
    assert not content.path.exists()
    spool.close()


async def test_contents_that_come_at_once_lie_in_one_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    make, made = tempfile.mkdtemp, list[str]()

    def slowly(*given: Any, **more: Any) -> str:
        made.append(str(make(*given, **more)))
        time.sleep(0.05)
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", slowly)
    spool = Spool()
    contents = await asyncio.gather(*(kept(spool, b"%d" % number * 300_000) for number in range(4)))
    assert len(made) == 1
    for content in contents:
        assert len([piece async for piece in spool.read(content)]) > 0
    spool.close()
    assert not await asyncio.to_thread(Path(made[0]).exists)


async def test_many_small_contents_are_not_kept_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooled, "MEMORY_BYTES_MAX", 100_000)
    spool = Spool()
    contents = [await kept(spool, b"%d" % number) for number in range(1_000)]
    assert 100 < sum(spool.find(each.digest) is not None for each in contents) < 200
    assert spool.find(contents[-1].digest) is not None


def couchdb(seen: list[httpx.Request], **headers: str) -> httpx.MockTransport:
    """A server that gives a cookie to whoever asks."""

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if request.url.path != "/_session":
            return httpx.Response(200, json={})
        cookie = {"set-cookie": f"AuthSession=c{len(seen)}; Path=/{headers.get('ends', '')}"}
        return httpx.Response(200, headers=cookie, stream=Endless())

    return httpx.MockTransport(answer)


class Endless(httpx.AsyncByteStream):
    """An answer that has no end."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(1_000):
            yield bytes(1 << 10)
        raise AssertionError("all of it is read")


@pytest.mark.parametrize(("ends", "lasts"), [("", 240), ("; Max-Age=600", 240), ("; Max-Age=60", 30)])
async def test_a_cookie_is_renewed_before_it_ends_and_no_login_is_read_whole(ends: str, lasts: int) -> None:
    now, seen = [0.0], list[httpx.Request]()
    auth = SessionAuth("http://h", "me", "secret", clock=lambda: now[0])
    async with httpx.AsyncClient(transport=couchdb(seen, ends=ends), auth=auth) as client:
        for now[0] in (0, lasts - 1, lasts, lasts + 1):
            await client.get("http://h/db")
    assert [request.url.path for request in seen] == ["/_session", "/db", "/db", "/_session", "/db", "/db"]
    assert [request.headers["cookie"] for request in (seen[2], seen[5])] == ["AuthSession=c1", "AuthSession=c4"]


async def test_a_login_that_is_answered_strangely_is_followed_by_the_password_itself() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        strange = {"set-cookie": "=;=,,;\x01"}
        return httpx.Response(200, headers=strange if request.url.path.endswith("/_session") else {}, json={})

    auth = SessionAuth("http://h", "me", "pä:ss")
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), auth=auth) as client:
        await client.get("http://h/db")
        await client.get("http://h/db")
    assert [request.url.path for request in seen] == ["/_session", "/db", "/db"]
    assert all(request.headers["authorization"].startswith("Basic ") for request in seen[1:])
