"""What replicators ask for over MQTT: who this is, what is missing, many revisions at once, and what changes a
barrel."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from broker.requests import RequestLimits
from feeds import Write
from feeds.errors import Forbidden

from .requests_tools import Device, Service, serving
from .store_tools import revisions


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(tmp_path) as service:
        yield service


@pytest.fixture
async def device(service: Service) -> Device:
    return await service.device()


async def answered(device: Device, name: str, body: Any = b"", barrel: str = "geo") -> Any:
    """The result of a call, or why it is refused."""
    answer = await device.asked(f"call/{barrel}/{name}", body)
    return answer.body["result"] if answer.topic == f"result/{barrel}/{name}" else answer.body


def digest(data: bytes) -> str:
    return f"sha256-{sha256(data).hexdigest()}"


def part(whole: bytes, offset: int, length: int, **changed: Any) -> dict[str, Any]:
    """A range of a document that is replicated."""
    about = {
        "upload": "u",
        "verb": "replicate",
        "id": "big",
        "digest": sha256(whole).hexdigest(),
        "total": len(whole),
    }
    return {**about, "offset": offset, "data": b64encode(whole[offset : offset + length]).decode(), **changed}


async def test_who_this_is(service: Service, device: Device) -> None:
    service.barrel.put({"_id": "a"})
    service.store.configure("geo", {"replicate_expiry": True})
    assert await answered(device, "identity") == {
        "service": "spile",
        "store": service.store.id,
        "barrel": "geo",
        "epoch": service.barrel.epoch,
        "seq": 1,
        "replicate_expiry": True,
    }
    assert (await answered(device, "identity", barrel="none"))["error"] == "not_found"


async def test_which_contents_no_document_has(service: Service, device: Device) -> None:
    service.barrel.attach("d", "f", b"here")
    service.store.create("other").attach("d", "f", b"elsewhere")
    digests = [digest(b"here"), sha256(b"here").hexdigest(), digest(b"elsewhere"), digest(b"nowhere")]
    told = await answered(device, "blobs_diff", {"digests": digests})
    assert told == {"missing": digests[2:]}
    for wrong in ({}, {"digests": ["x"]}, {"digests": [digest(b"")] * 1_001}):
        assert (await answered(device, "blobs_diff", wrong))["error"] == "bad_request"


async def test_of_many_revisions_as_many_are_read_as_fit(tmp_path: Path) -> None:
    async with serving(tmp_path, limits=RequestLimits(answer_bytes_max=10_000)) as service:
        device = await service.device()
        revs = [service.barrel.put({"_id": f"d{number}", "text": "x" * 3_000}).rev for number in range(7)]
        revs[4] = service.barrel.put({"_id": "d4", "_rev": revs[4], "text": "y" * 20_000}).rev
        asked = [{"id": f"d{number}", "rev": rev, "revs": True} for number, rev in enumerate(revs)]
        asked.insert(1, {"id": "never", "rev": "1-a", "revs": True})
        told: list[dict[str, Any]] = []
        calls = 0
        while len(told) < len(asked):
            some = (await answered(device, "get", {"docs": asked[len(told) :], "fit": True}))["results"]
            assert some
            told += some
            calls += 1
        assert calls == 3
        assert [each.get("error") for each in told] == [None, "not_found", None, None, None, "too_large", None, None]
        assert (told[5]["id"], told[5]["rev"]) == ("d4", revs[4]) and told[5]["size"] > 20_000
        assert told[0]["doc"]["_revisions"]["start"] == 1
        assert (await answered(device, "get", {"docs": asked}))["error"] == "too_large"


async def test_what_is_replicated_again_with_its_token_is_written_once(service: Service, device: Device) -> None:
    body = {"new_edits": False, "docs": [revisions("a", "bb", "aa"), revisions("b", "cc")], "_token": "t"}
    first = await device.asked("call/geo/bulk", body)
    again = await device.asked("call/geo/bulk", body)
    assert (first.body["token"], again.body["token"]) == ("t", "t")
    assert [each.get("repeated", False) for each in first.body["result"]["results"]] == [False, False]
    assert [each["repeated"] for each in again.body["result"]["results"]] == [True, True]
    # The token is not kept: what is replicated is known by its revisions.
    other = await answered(device, "bulk", {**body, "docs": [revisions("c", "dd")]})
    assert other["results"][0]["rev"] == "1-dd"
    wrong = await answered(device, "bulk", {**body, "_token": 1})
    assert wrong["error"] == "bad_request"


async def test_a_large_revision_is_replicated_in_ranges(service: Service, device: Device) -> None:
    doc = revisions("big", "cc", "bb", "aa", text="x" * 50_000)
    whole = json.dumps(doc).encode()
    for offset in (40_000, 0, 20_000):
        told = await answered(device, "body_put", part(whole, offset, 20_000))
    assert (told["id"], told["rev"]) == ("big", "3-cc")
    assert service.barrel.get("big", revs=True).data["_revisions"]["ids"] == ["cc", "bb", "aa"]
    again = await answered(device, "body_put", part(whole, 0, len(whole), upload="v"))
    assert again["repeated"] is True
    other = await answered(device, "body_put", part(whole, 0, len(whole), upload="w", id="other"))
    assert other["error"] == "bad_request"
    assert service.barrel.head() == 1


async def test_who_may_write_one_document_only_replicates_nothing_into_it(tmp_path: Path) -> None:
    """A replicated stub may name whatever any document of the barrel has."""

    def decide(who: str, verb: str, barrel: str, path: str) -> None:
        if path != "_id/mine":
            raise Forbidden(f"{who} may not {verb} {path}")

    async with serving(tmp_path, decide=decide) as service:
        device = await service.device()
        service.barrel.attach("other", "secret", b"secret")
        stub = {"stub": True, "digest": digest(b"secret"), "content_type": "a/b"}
        whole = json.dumps(revisions("mine", "aa", _attachments={"a": stub})).encode()
        refused = await answered(device, "body_put", part(whole, 0, len(whole), id="mine"))
        assert refused["error"] == "forbidden"
        put = await answered(device, "body_put", part(b"{}", 0, 2, id="mine", verb="put", upload="v"))
        assert put["id"] == "mine"
        assert service.barrel.get("mine").data.keys() == {"_id", "_rev"}


async def test_leaves_are_purged(service: Service, device: Device) -> None:
    service.barrel.bulk([revisions("a", "aa"), revisions("a", "bb"), revisions("b", "cc")], new_edits=False)
    told = await answered(device, "purge", {"a": ["1-bb"], "b": [], "_token": "t"})
    assert [each["id"] for each in told["results"]] == ["a", "b"]
    assert service.barrel.get("a").rev == "1-aa"
    assert [row.id for row in service.barrel.changes().results] == ["a"]
    assert await answered(device, "purge", {}) == {"results": []}
    assert (await answered(device, "purge", {"a": "1-aa"}))["error"] == "bad_request"


async def test_a_barrel_is_made_with_its_settings(service: Service, device: Device) -> None:
    told = await answered(device, "create", {"revs_limit": 5, "_token": "t"}, "new")
    assert told["name"] == "new" and told["settings"]["revs_limit"] == 5
    assert service.store.barrel("new").settings.revs_limit == 5
    assert (await answered(device, "create", {}, "new"))["error"] == "exists"
    assert (await answered(device, "create", {"odd": 1}, "newer"))["error"] == "bad_request"


async def test_whoever_may_not_administer_neither_makes_nor_purges(tmp_path: Path) -> None:
    def decide(who: str, verb: str, barrel: str, path: str) -> None:
        if verb == "admin":
            raise Forbidden

    async with serving(tmp_path, decide=decide) as service:
        device = await service.device()
        service.barrel.submit([Write.put({"_id": "a"})]).result()
        for name, body, barrel in (("purge", {"a": []}, "geo"), ("create", {}, "new")):
            assert (await answered(device, name, body, barrel))["error"] == "forbidden"
        assert service.barrel.head() == 1 and [each.name for each in service.store.barrels()] == ["geo"]


async def test_an_upload_is_given_up(service: Service, device: Device) -> None:
    data = b"content" * 100
    first = {"upload": "mine", "digest": digest(data), "total": len(data), "offset": 0}
    first["data"] = b64encode(data[:100]).decode()
    assert (await answered(device, "blob_put", first))["received"] == 100
    assert await answered(device, "blob_drop", {"upload": "mine"}) == {"upload": "mine", "dropped": True}
    assert await answered(device, "blob_drop", {"upload": "mine"}) == {"upload": "mine", "dropped": False}
    rest = {**first, "offset": 100, "data": b64encode(data[100:]).decode()}
    assert (await answered(device, "blob_put", rest))["error"] == "conflict"
    # By the id that was told it can be given up by another name of the same client.
    id = (await answered(device, "blob_put", first))["id"]
    assert (await answered(device, "blob_drop", {"upload": id}))["dropped"] is True
