"""Whose uploads are: a caller's own, for a whole barrel or for one document, found again by their labels."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from pathlib import Path

import httpx
import pytest
from attachment_tools import brief, digest, opened
from store_tools import refusal

from broker.http import OpenAccess
from broker.http.services import Verb
from feeds import Barrel, Write
from feeds.attachments import uploads as rules
from feeds.attachments.held import held_content
from feeds.errors import BadRequest, Forbidden, NotFound, Overloaded, Unauthorized

from .http_tools import Served, served

UPLOADS = "/barrels/geo/uploads"
OWN = f"{UPLOADS}?doc=ann%2F1"


class Users(OpenAccess):
    """`root` may do everything, everyone else may use the documents below their own names."""

    def who(self, headers: Sequence[tuple[bytes, bytes]], host: str) -> str:
        for name, value in headers:
            if name == b"authorization":
                return value.decode()
        raise Unauthorized

    def decide(self, who: str, verb: Verb, barrel: str, path: str) -> None:
        if who != "root" and not path.startswith(f"_id/{who}/"):
            raise Forbidden(f"{who} may not {verb} {path} of {barrel}")


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path, access=Users()) as running:
        running.store.create("geo")
        yield running


async def ask(web: Served, who: str, method: str, place: str, content: bytes = b"", **headers: str) -> httpx.Response:
    told = {"Authorization": who, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return await web.client.request(method, place, content=content, headers=told)


async def begun(web: Served, who: str, place: str, content: bytes = b"", **headers: str) -> str:
    answer = await ask(web, who, "POST", place, content, **headers)
    assert answer.status_code == 201, answer.text
    return str(answer.headers["location"])


async def test_who_may_write_one_document_uploads_for_it(web: Served) -> None:
    assert (await ask(web, "ann", "POST", UPLOADS)).status_code == 403
    assert (await ask(web, "ann", "POST", f"{UPLOADS}?doc=bob%2F1")).status_code == 403
    where = await begun(web, "ann", OWN)
    assert (await ask(web, "ann", "PATCH", where, b"abc", upload_offset="0")).json()["size"] == 3
    assert (await ask(web, "ann", "HEAD", where)).headers["upload-offset"] == "3"
    told = (await ask(web, "ann", "PATCH", where, b"def", upload_offset="3", upload_complete="?1")).json()
    assert (told["doc"], told["digest"]) == ("ann/1", digest(b"abcdef"))
    put = await ask(web, "ann", "PUT", f"/barrels/geo/attachments/ann%2F1/a?upload={told['upload']}")
    assert put.status_code == 201
    read = await ask(web, "ann", "GET", "/barrels/geo/attachments/ann%2F1/a")
    assert read.content == b"abcdef"


async def test_an_upload_is_named_by_the_document_it_was_begun_for_and_by_no_other(web: Served) -> None:
    where = await begun(web, "ann", OWN, b"mine", upload_complete="?1")
    id = where.rpartition("/")[2]
    for place in ("attachments/ann%2F2/a", "attachments/other/a"):
        wrong = await ask(web, "root", "PUT", f"/barrels/geo/{place}?upload={id}")
        assert wrong.status_code == 404  # it is not root's
    wrong = await ask(web, "ann", "PUT", f"/barrels/geo/attachments/ann%2F2/a?upload={id}")
    assert (wrong.status_code, wrong.json()["error"]) == (400, "bad_request")
    doc = json.dumps({"_attachments": {"a": {"upload": id}}}).encode()
    assert (await ask(web, "ann", "PUT", "/barrels/geo/docs/ann/2", doc)).status_code == 400
    assert (await ask(web, "ann", "PUT", "/barrels/geo/docs/ann/1", doc)).status_code == 201


async def test_the_uploads_of_others_are_not_there(web: Served) -> None:
    where = await begun(web, "ann", OWN, b"abc")
    for who in ("bob", "root"):
        for method in ("GET", "HEAD", "PATCH", "DELETE"):
            answer = await ask(web, who, method, where, upload_offset="3")
            assert answer.status_code == 404, (who, method)
    nowhere = await ask(web, "ann", "GET", where.replace("geo", "nowhere"))
    assert (nowhere.status_code, nowhere.json()["error"]) == (404, "not_found")
    assert (await ask(web, "ann", "GET", where)).json()["size"] == 3


async def test_who_lost_the_document_lost_its_upload(web: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    where = await begun(web, "ann", OWN, b"abc")
    monkeypatch.setattr(Users, "decide", Forbidding().decide)
    for method in ("GET", "PATCH", "DELETE"):
        answer = await ask(web, "ann", method, where, upload_offset="3")
        assert answer.status_code == 403, method


class Forbidding:
    def decide(self, who: str, verb: Verb, barrel: str, path: str) -> None:
        raise Forbidden


async def test_a_caller_lists_its_own_uploads(web: Served) -> None:
    first = await begun(web, "ann", OWN + "&label=photo%201", b"abc")
    second = await begun(web, "ann", OWN, b"abc", upload_complete="?1", upload_length="3")
    await begun(web, "ann", f"{UPLOADS}?doc=ann%2F2")
    await begun(web, "root", UPLOADS)
    assert (await ask(web, "ann", "GET", UPLOADS)).status_code == 403
    told = (await ask(web, "ann", "GET", OWN)).json()
    for each in told["results"]:
        assert each.pop("touched").endswith("+00:00")
    ids = [where.rpartition("/")[2] for where in (first, second)]
    assert told == {
        "results": [
            {"upload": ids[0], "length": None, "complete": False, "doc": "ann/1", "label": "photo 1"},
            {"upload": ids[1], "length": 3, "complete": True, "doc": "ann/1"},
        ],
        "next": None,
    }
    page = (await ask(web, "ann", "GET", OWN + "&limit=1")).json()
    assert ([each["upload"] for each in page["results"]], page["next"]) == (ids[:1], ids[0])
    page = (await ask(web, "ann", "GET", f"{OWN}&limit=1&after={page['next']}")).json()
    assert [each["upload"] for each in page["results"]] == ids[1:]
    page = (await ask(web, "ann", "GET", f"{OWN}&limit=1&after={page['next']}")).json()
    assert page == {"results": [], "next": None}
    assert len((await ask(web, "root", "GET", UPLOADS)).json()["results"]) == 1


@pytest.mark.parametrize("place", ["?doc=", "?doc=_x", f"?doc={'x' * 513}", "?doc=a&doc=b", "?doc=a&label="])
async def test_what_is_no_document_or_label_is_refused(web: Served, place: str) -> None:
    answer = await ask(web, "root", "POST", UPLOADS + place)
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")
    assert (await ask(web, "root", "GET", UPLOADS)).json()["results"] == []


async def test_a_content_is_read_by_its_digest_through_a_document_that_has_it(web: Served) -> None:
    geo = web.store.barrel("geo")
    geo.attach("ann/1", "a", b"mine")
    geo.attach("bob/1", "a", b"secret")
    mine, secret = (digest(data).removeprefix("sha256-") for data in (b"mine", b"secret"))
    read = await ask(web, "ann", "GET", f"/barrels/geo/blobs/{mine}?doc=ann%2F1")
    assert (read.status_code, read.content) == (200, b"mine")
    part = await ask(web, "ann", "GET", f"/barrels/geo/blobs/{mine}?doc=ann%2F1", range="bytes=1-2")
    assert (part.status_code, part.content) == (206, b"in")
    for place, status in (
        (f"{mine}", 403),
        (f"{secret}?doc=bob%2F1", 403),
        (f"{secret}?doc=ann%2F1", 404),
        (f"{mine}?doc=ann%2F2", 404),
        (f"{mine}?doc=_x", 400),
    ):
        assert (await ask(web, "ann", "GET", f"/barrels/geo/blobs/{place}")).status_code == status, place
    assert (await ask(web, "root", "GET", f"/barrels/geo/blobs/{secret}")).content == b"secret"
    geo.purge("ann/1", [])
    assert (await ask(web, "ann", "GET", f"/barrels/geo/blobs/{mine}?doc=ann%2F1")).status_code == 404


# In process


@pytest.fixture
def geo(database_url: str, tmp_path: Path) -> Iterator[Barrel]:
    with opened(database_url, tmp_path / "contents") as store:
        yield store.create("geo")


def test_a_callers_uploads_come_in_pages(geo: Barrel) -> None:
    uploads = geo.store.uploads
    ids = [uploads.start(geo.key, "me", doc=doc).id for doc in ("a", "b", "a")]
    uploads.start(geo.key, "other", doc="a")
    assert [each.id for each in uploads.page(geo.key, "me")] == ids
    assert [each.id for each in uploads.page(geo.key, "me", after=ids[0], limit=1)] == [ids[1]]
    assert [each.id for each in uploads.page(geo.key, "me", doc="a")] == [ids[0], ids[2]]
    assert [each.id for each in uploads.page(geo.key, "me", doc="a", after=ids[0])] == [ids[2]]
    assert uploads.page(geo.key + 1, "me") == []


def test_a_content_is_held_by_the_documents_that_have_it(geo: Barrel) -> None:
    geo.attach("a", "f", b"content")
    held = held_content(geo, digest(b"content"))
    assert held == held_content(geo, digest(b"content"), "a")
    assert isinstance(refusal(partial(held_content, geo, digest(b"content"), "b")), NotFound)


def test_an_upload_without_a_document_may_become_any_documents(geo: Barrel) -> None:
    uploads = geo.store.uploads
    upload = uploads.start(geo.key)
    uploads.append(geo.key, upload.id, 0, b"abc")
    uploads.finish(geo.key, upload.id)
    assert uploads.find(geo.key, upload.id).doc is None
    for id in ("a", "b"):
        write = Write.put({"_id": id, "_attachments": {"f": {"upload": upload.id}}})
        assert geo.write(geo.absorb([write])[0]).created


def test_a_caller_begins_no_more_uploads_than_a_bound(geo: Barrel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "UNFINISHED_MAX", 2)
    uploads = geo.store.uploads
    ids = [uploads.start(geo.key, "me").id for _ in range(2)]
    assert isinstance(refusal(lambda: uploads.start(geo.key, "me")), Overloaded)
    assert geo.store.blobs.contents.stats()["incoming"] == 2
    uploads.start(geo.key, "other")
    uploads.finish(geo.key, ids[0], "me")
    uploads.start(geo.key, "me")
    assert isinstance(refusal(lambda: uploads.start(geo.key, "me")), Overloaded)
    uploads.abort(geo.key, ids[1], "me")
    uploads.start(geo.key, "me")


def test_labels_are_short_text(geo: Barrel) -> None:
    for label in ("", "x" * 257, "a\nb", "\ud800"):
        assert isinstance(refusal(partial(geo.store.uploads.start, geo.key, label=label)), BadRequest)
    assert isinstance(refusal(lambda: geo.store.uploads.find(geo.key, "x")), NotFound)


async def test_a_revision_made_elsewhere_takes_no_content_of_a_document_that_its_writer_may_not_read(
    web: Served,
) -> None:
    web.store.barrel("geo").attach("bob/1", "a", b"secret")
    stub = {"content_type": "text/plain", "revpos": 1, "stub": True, "digest": brief(b"secret")}
    doc = json.dumps({"_id": "ann/1", "_rev": "1-abc", "_attachments": {"a": stub}}).encode()
    answer = await ask(web, "ann", "PUT", "/couch/geo/ann%2F1?new_edits=false", doc)
    assert answer.status_code == 403, answer.text
    answer = await ask(web, "root", "PUT", "/couch/geo/ann%2F1?new_edits=false", doc)
    assert answer.status_code == 201, answer.text
