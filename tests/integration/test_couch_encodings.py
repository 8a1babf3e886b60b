"""Bodies and answers that travel compressed, and what of a document's attachments travels at all."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker.http import HttpLimits

from .couch_db import DB, db
from .couch_tools import JSON, md5, parts_of, related
from .http_tools import Served, fill, served

PACKED = {"Content-Encoding": "gzip"}
BODY_MAX = 1 << 20


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Served]:
    limits = HttpLimits(document_bytes_max=100_000, bulk_bytes_max=BODY_MAX, attachment_bytes_max=BODY_MAX)
    async with served(tmp_path, limits=limits) as running:
        running.store.create("db")
        yield running


def packed(value: Any) -> bytes:
    return gzip.compress(json.dumps(value).encode())


# Requests


async def test_a_body_may_come_compressed(web: Served) -> None:
    docs = [{"_id": f"d{n}", "n": n} for n in range(500)]
    bulk = await web.client.post(f"{DB}/_bulk_docs", content=packed({"docs": docs}), headers={**JSON, **PACKED})
    assert bulk.status_code == 201 and all(row["ok"] for row in bulk.json())
    put = await web.client.put(f"{DB}/doc", content=packed({"n": 1}), headers=PACKED)
    assert put.status_code == 201
    asked = {"d3": [db(web).get("d3").rev, "9-x"]}
    diff = await web.client.post(f"{DB}/_revs_diff", content=packed(asked), headers={**JSON, **PACKED})
    assert diff.json() == {"d3": {"missing": ["9-x"], "possible_ancestors": asked["d3"][:1]}}
    local = await web.client.put(f"{DB}/_local/x", content=packed({"n": 2}), headers=PACKED)
    assert (local.status_code, db(web).local_get("x").data["n"]) == (201, 2)


async def test_attachments_may_come_compressed_and_are_kept_plain(web: Served) -> None:
    data = b"compress me " * 5_000
    kind = {"Content-Type": "text/plain"}
    put = await web.client.put(f"{DB}/doc/a.txt", content=gzip.compress(data), headers={**kind, **PACKED})
    assert put.status_code == 201, put.text
    read = await web.client.get(f"{DB}/doc/a.txt")
    assert (read.content, "content-encoding" in read.headers) == (data, False)
    body, boundary = related({"_attachments": {"b": {"follows": True, "length": 3}}}, ("b", b"abc", False))
    whole = await web.client.put(
        f"{DB}/other", content=gzip.compress(body), headers={"Content-Type": boundary, **PACKED}
    )
    assert whole.status_code == 201, whole.text
    assert db(web).attachment("other", "b").bytes() == b"abc"


@pytest.mark.parametrize(
    ("place", "plain", "status"),
    [
        ("_bulk_docs", b" " * (2 * BODY_MAX), 413),
        ("_bulk_docs", b"[" * BODY_MAX * 40, 413),
        ("doc", b'{"a":"' + b"x" * 200_000 + b'"}', 413),
        ("doc/a.txt", b"x" * (2 * BODY_MAX), 413),
    ],
    ids=["a batch", "a bomb", "a document", "an attachment"],
)
async def test_what_a_compressed_body_becomes_is_bounded(web: Served, place: str, plain: bytes, status: int) -> None:
    method = "POST" if place.startswith("_") else "PUT"
    answer = await web.client.request(
        method, f"{DB}/{place}", content=gzip.compress(plain), headers={**JSON, **PACKED}
    )
    assert answer.status_code == status, answer.text
    assert answer.json().keys() == {"error", "reason"}
    assert (db(web).head(), web.app.admission.bytes.used) == (0, 0)


@pytest.mark.parametrize(
    "wrong",
    [b"no gzip", gzip.compress(b"{}" * 99)[:-9], gzip.compress(b"{}") + b"more", b""],
    ids=["none", "cut", "more", "nothing"],
)
async def test_what_is_no_gzip_is_refused(web: Served, wrong: bytes) -> None:
    for method, place in (("PUT", "doc"), ("PUT", "doc/a.txt"), ("POST", "_bulk_docs")):
        answer = await web.client.request(method, f"{DB}/{place}", content=wrong, headers={**JSON, **PACKED})
        assert (answer.status_code, answer.json()["error"]) == (400, "bad_request"), answer.text
    assert db(web).head() == 0


async def test_another_encoding_is_not_supported(web: Served) -> None:
    for encoding in ("br", "deflate", "gzip, gzip"):
        answer = await web.client.put(f"{DB}/doc", content=b"{}", headers={"Content-Encoding": encoding})
        assert (answer.status_code, answer.json()["error"]) == (415, "bad_content_type")
        assert encoding in answer.json()["reason"]
    assert (await web.client.put(f"{DB}/doc", json={}, headers={"Content-Encoding": "identity"})).status_code == 201


# Answers


async def raw(web: Served, path: str, accepted: str) -> tuple[bytes, str]:
    """The bytes of an answer as they came, and their encoding."""
    async with web.client.stream("GET", f"{DB}/{path}", headers={"Accept-Encoding": accepted}) as answer:
        assert answer.status_code == 200
        return b"".join([chunk async for chunk in answer.aiter_raw()]), answer.headers.get("content-encoding", "")


@pytest.mark.parametrize("count", [300, 6_000])
async def test_lists_travel_compressed_where_the_client_takes_that(web: Served, count: int) -> None:
    fill(db(web), count)
    for path in ("_changes?include_docs=true", "_all_docs?include_docs=true"):
        plain, none = await raw(web, path, "identity")
        packed, encoding = await raw(web, path, "br;q=1.0, gzip;q=0.5")
        assert (none, encoding) == ("", "gzip")
        assert gzip.decompress(packed) == plain
        assert len(packed) < len(plain) / 3
        assert (await raw(web, path, "gzip;q=0, deflate"))[1] == ""
    head = await web.client.get(f"{DB}/_changes")
    assert "accept-encoding" in head.headers["vary"] and len(head.json()["results"]) == count


async def test_documents_small_answers_and_live_ones_travel_as_they_are(web: Served) -> None:
    db(web).put({"_id": "doc", "text": "x" * 50_000})
    for path in ("doc", "_changes", "_changes?feed=longpoll", "_changes?feed=continuous&limit=1&include_docs=true"):
        assert (await raw(web, path, "gzip"))[1] == "", path


# What of the attachments is sent


async def attached(web: Served) -> list[str]:
    """A document that was given an attachment with each of its two revisions: both revisions."""
    first = db(web).attach("doc", "old.txt", b"old", content_type="text/plain").rev
    return [first, db(web).attach("doc", "new.txt", b"new", rev=first, content_type="text/plain").rev]


def told(doc: dict[str, Any]) -> dict[str, Any]:
    """What stands in place of each attachment."""
    return {
        name: "stub" if stub.get("stub") else "follows" if stub.get("follows") else stub["data"]
        for name, stub in doc["_attachments"].items()
    }


async def test_only_what_came_since_is_inline_in_the_others_place_stand_stubs(web: Served) -> None:
    first, second = await attached(web)
    only_new = {"old.txt": "stub", "new.txt": "bmV3"}
    both = {"old.txt": "b2xk", "new.txt": "bmV3"}
    for since, wanted in (([first], only_new), (["1-another"], both), ([first, second], None), ([], both)):
        wanted = wanted or {"old.txt": "stub", "new.txt": "stub"}
        params = {"atts_since": json.dumps(since)}
        assert told((await web.client.get(f"{DB}/doc", params=params)).json()) == wanted, since
        accept = {"Accept": "application/json"}
        (row,) = (await web.client.get(f"{DB}/doc", params={**params, "open_revs": "all"}, headers=accept)).json()
        assert told(row["ok"]) == wanted


async def test_many_are_read_each_with_what_came_since(web: Served) -> None:
    first, second = await attached(web)
    db(web).put({"_id": "plain"})
    docs = [
        {"id": "doc", "rev": second, "atts_since": [first]},
        {"id": "doc", "rev": second},
        {"id": "plain", "atts_since": ["1-x"]},
        {"id": "doc", "rev": second, "atts_since": []},
    ]
    only_new, stubs = {"old.txt": "stub", "new.txt": "bmV3"}, {"old.txt": "stub", "new.txt": "stub"}
    for params, wanted in (({}, only_new), ({"attachments": "false"}, stubs)):
        answer = await web.client.post(f"{DB}/_bulk_get", params=params, json={"docs": docs})
        one, two, plain, three = (row["docs"][0]["ok"] for row in answer.json()["results"])
        assert (told(one), told(two), told(three)) == (wanted, stubs, stubs)
        assert "_attachments" not in plain


async def test_contents_are_kept_plain_so_that_there_is_no_encoding_to_tell(web: Served) -> None:
    packed_stub = {"content_type": "text/plain", "revpos": 1, "follows": True, "encoding": "gzip", "length": 3}
    body, kind = related({"_attachments": {"a": packed_stub}}, ("a", b"abc", True))
    assert (await web.client.put(f"{DB}/doc", content=body, headers={"Content-Type": kind})).status_code == 201
    asked = {"att_encoding_info": "true"}
    stub = {"content_type": "text/plain", "revpos": 1, "digest": md5(b"abc"), "length": 3}
    one = (await web.client.get(f"{DB}/doc", params=asked)).json()
    assert one["_attachments"] == {"a": {**stub, "stub": True}}
    accept = {"Accept": "application/json"}
    (row,) = (await web.client.get(f"{DB}/doc", params={**asked, "open_revs": "all"}, headers=accept)).json()
    assert row["ok"] == one
    mixed = await web.client.get(f"{DB}/doc", params={**asked, "attachments": "true", "open_revs": "all"})
    ((head, inner),) = parts_of(mixed.content, mixed.headers["content-type"])
    (_, doc), (part, content) = parts_of(inner, head["content-type"])
    assert json.loads(doc)["_attachments"] == {"a": {**stub, "follows": True}}
    assert (content, "content-encoding" in part) == (b"abc", False)
