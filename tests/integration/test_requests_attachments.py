"""Attachments over MQTT: in documents, and their contents in ranges."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from attachment_tools import digest, inline

from broker.requests import RequestLimits
from broker.requests.naming import Named, Names
from feeds.errors import BadRequest, Forbidden, Overloaded

from .requests_tools import Device, Service, serving

PHOTO = bytes(range(256)) * 2500


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(tmp_path, limits=RequestLimits(uploads_per_client=2, upload_s=0.0)) as service:
        yield service


@pytest.fixture
async def device(service: Service) -> Device:
    return await service.device()


def part(offset: int, length: int, whole: bytes = PHOTO, /, **changed: Any) -> dict[str, Any]:
    """A range of `whole`."""
    return {
        "upload": "u1",
        "digest": sha256(whole).hexdigest(),
        "offset": offset,
        "total": len(whole),
        "data": b64encode(whole[offset : offset + length]).decode(),
        **changed,
    }


async def called(device: Device, name: str, body: dict[str, Any]) -> Any:
    """What a call results in, or its refusal."""
    answer = await device.asked(f"call/geo/{name}", body)
    if answer.topic == f"result/geo/{name}":
        return answer.body["result"]
    assert answer.topic == f"rejected/call/geo/{name}", answer
    return answer.body


def kept(service: Service, id: str, name: str) -> bytes:
    return service.barrel.attachment(id, name).bytes()


@pytest.mark.parametrize("verb", ["put", "set", "merge"])
async def test_a_document_brings_its_attachments_inline(service: Service, device: Device, verb: str) -> None:
    if verb == "merge":
        service.barrel.put({"n": 1}, id="d")
    answer = await device.asked(f"{verb}/geo/d", {"n": 1, "_attachments": {"p.txt": inline(b"a photo")}})
    assert answer.topic == f"accepted/{verb}/geo/d", answer
    assert kept(service, "d", "p.txt") == b"a photo"
    told = (await device.asked("get/geo/d")).body["doc"]["_attachments"]["p.txt"]
    assert told["stub"] is True and told["digest"] == digest(b"a photo")


async def test_a_stub_keeps_an_attachment_and_a_name_left_out_is_removed(service: Service, device: Device) -> None:
    both = {"a": inline(b"1"), "b": inline(b"2")}
    rev = (await device.asked("put/geo/d", {"_attachments": both})).body["rev"]
    await device.asked("put/geo/d", {"_rev": rev, "_attachments": {"a": {"stub": True}}})
    assert list(service.barrel.get("d").data["_attachments"]) == ["a"]
    assert kept(service, "d", "a") == b"1"


async def test_what_is_wrong_with_an_attachment_refuses_the_document(service: Service, device: Device) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"data": "no base64!"}, "bad_request"),
        (inline(b"1", digest=digest(b"2")), "bad_request"),
        ({"stub": True}, "missing_stub"),
        ({"upload": "unknown"}, "not_found"),
    ]
    for given, code in wrong:
        answer = await device.asked("put/geo/d", {"_attachments": {"a": given}})
        assert (answer.topic, answer.body["error"]) == ("rejected/put/geo/d", code)
    assert service.barrel.head() == 0


async def test_in_a_bulk_each_document_stands_for_itself(service: Service, device: Device) -> None:
    docs = [
        {"_id": "good", "_attachments": {"a": inline(b"1")}},
        {"_id": "bad", "_attachments": {"a": {"stub": True}}},
        {"_id": "worse", "_attachments": {"a": {"upload": "unknown"}}},
        {"_id": "plain", "n": 1},
    ]
    results = (await called(device, "bulk", {"docs": docs}))["results"]
    assert [result.get("error") for result in results] == [None, "missing_stub", "not_found", None]
    assert kept(service, "good", "a") == b"1"


async def test_a_content_is_read_in_ranges_by_its_digest(service: Service, device: Device) -> None:
    service.barrel.attach("d", "photo.jpg", PHOTO)
    read = b""
    while len(read) < len(PHOTO):
        told = await called(device, "blob", {"digest": digest(PHOTO), "offset": len(read)})
        assert told["total"] == len(PHOTO) and told["offset"] == len(read)
        read += b64decode(told["data"])
        assert told["length"] <= 256 * 1024
    assert read == PHOTO
    some = await called(device, "blob", {"digest": sha256(PHOTO).hexdigest(), "offset": 10, "length": 5})
    assert b64decode(some["data"]) == PHOTO[10:15]


async def test_only_contents_that_the_barrel_has_are_read(service: Service, device: Device) -> None:
    service.store.create("other").attach("d", "secret", b"secret")
    told = await called(device, "blob", {"digest": digest(b"secret")})
    assert told["error"] == "not_found"
    service.barrel.attach("d", "photo.jpg", PHOTO)
    beyond = await called(device, "blob", {"digest": digest(PHOTO), "offset": len(PHOTO) + 1})
    assert (beyond["error"], beyond["length"]) == ("bad_request", len(PHOTO))


async def test_a_content_is_uploaded_in_ranges_and_then_named_by_a_document(service: Service, device: Device) -> None:
    first = await called(device, "blob_put", part(0, 300_000))
    assert first["received"] == 300_000
    last = await called(device, "blob_put", part(300_000, 400_000))
    assert (last["digest"], last["length"]) == (digest(PHOTO), len(PHOTO))
    assert last["id"] == first["id"]
    answer = await device.asked("put/geo/d", {"_attachments": {"p": {"upload": "u1", "content_type": "image/jpeg"}}})
    assert answer.topic == "accepted/put/geo/d", answer
    assert kept(service, "d", "p") == PHOTO


async def test_ranges_that_come_again_do_no_harm(service: Service, device: Device) -> None:
    await called(device, "blob_put", part(0, 300_000))
    assert (await called(device, "blob_put", part(0, 300_000)))["received"] == 300_000
    assert (await called(device, "blob_put", part(200_000, 200_000)))["received"] == 400_000
    last = await called(device, "blob_put", part(400_000, 400_000))
    assert await called(device, "blob_put", part(400_000, 400_000)) == last
    assert last["digest"] == digest(PHOTO)


async def test_a_gap_is_refused_with_where_to_go_on(device: Device) -> None:
    begun = await called(device, "blob_put", part(5, 100))
    assert (begun["error"], begun["size"]) == ("conflict", 0)
    await called(device, "blob_put", part(0, 100))
    gap = await called(device, "blob_put", part(200, 100))
    assert (gap["error"], gap["size"], gap["upload"]) == ("conflict", 100, "u1")


async def test_an_upload_goes_on_by_its_id_when_its_name_is_forgotten(service: Service, device: Device) -> None:
    id = (await called(device, "blob_put", part(0, 300_000)))["id"]
    service.requests._serving.names.clear()
    last = await called(device, "blob_put", part(300_000, 400_000, upload=id))
    assert (last["id"], last["digest"]) == (id, digest(PHOTO))


async def test_other_bytes_than_announced_are_refused_and_can_be_sent_again(device: Device) -> None:
    wrong = await called(device, "blob_put", part(0, 700_000, digest=digest(b"else")))
    assert wrong["error"] == "bad_request"
    told = await called(device, "blob_put", part(0, 700_000))
    assert told["digest"] == digest(PHOTO)


async def test_what_cannot_be_a_range_is_refused(service: Service, device: Device) -> None:
    for changed, code in (
        ({"data": "?"}, "bad_request"),
        ({"total": 10}, "bad_request"),
        ({"total": 1 << 50}, "too_large"),
        ({"digest": "sha256-00"}, "bad_request"),
        ({"upload": ""}, "bad_request"),
    ):
        assert (await called(device, "blob_put", part(0, 100, **changed)))["error"] == code
    assert service.requests.stats()["blob_uploads"] == 0


async def test_an_upload_for_a_document_is_named_by_that_alone(service: Service, device: Device) -> None:
    id = (await called(device, "blob_put", part(0, 300_000, doc="mine")))["id"]
    service.requests._serving.names.clear()
    for doc in ({}, {"doc": "other"}):
        wrong = await called(device, "blob_put", part(300_000, 400_000, upload=id, **doc))
        assert wrong["error"] == "bad_request"
    last = await called(device, "blob_put", part(300_000, 400_000, upload=id, doc="mine"))
    assert last["digest"] == digest(PHOTO)
    named = {"_attachments": {"p": {"upload": id}}}
    other = await device.asked("put/geo/other", named)
    assert (other.topic, other.body["error"]) == ("rejected/put/geo/other", "bad_request")
    assert (await device.asked("put/geo/mine", named)).topic == "accepted/put/geo/mine"


async def test_who_may_use_one_document_only_sends_and_reads_its_contents(tmp_path: Path) -> None:
    def decide(who: str, verb: str, barrel: str, path: str) -> None:
        if path != "_id/mine":
            raise Forbidden(f"{who} may not {verb} {path}")

    async with serving(tmp_path, decide=decide) as service:
        device = await service.device()
        service.barrel.attach("other", "secret", b"secret")
        for doc in ({}, {"doc": "other"}):
            assert (await called(device, "blob_put", part(0, 9, **doc)))["error"] == "forbidden"
            assert (await called(device, "blob", {"digest": digest(b"secret"), **doc}))["error"] == "forbidden"
        assert (await called(device, "blob_put", part(0, 9, doc=7)))["error"] == "bad_request"
        assert (await called(device, "blob_put", part(0, 9, doc="_x")))["error"] == "bad_request"
        assert (await called(device, "blob_put", part(0, 700_000, doc="mine")))["digest"] == digest(PHOTO)
        answer = await device.asked("put/geo/mine", {"_attachments": {"p": {"upload": "u1"}}})
        assert answer.topic == "accepted/put/geo/mine", answer
        told = await called(device, "blob", {"digest": digest(PHOTO), "doc": "mine", "length": 5})
        assert b64decode(told["data"]) == PHOTO[:5]
        told = await called(device, "blob", {"digest": digest(b"secret"), "doc": "mine"})
        assert told["error"] == "not_found"


async def test_an_upload_that_nobody_goes_on_with_gives_way(service: Service, device: Device) -> None:
    ids = [(await called(device, "blob_put", part(0, 9, upload=name)))["id"] for name in ("a", "b", "c")]
    assert service.requests.stats()["blob_uploads"] == 2
    uploads, key = service.store.uploads, service.barrel.key
    assert uploads.get(key, ids[2], "anonymous").size == 9
    with pytest.raises(Exception, match="no upload"):
        uploads.get(key, ids[0], "anonymous")


async def test_an_empty_content_is_one_range(device: Device) -> None:
    told = await called(device, "blob_put", part(0, 0, b""))
    assert (told["length"], told["digest"]) == (0, digest(b""))


async def test_a_stream_brings_contents_that_fit_into_a_message(service: Service, device: Device) -> None:
    service.barrel.attach("d", "small", b"small")
    service.barrel.attach("d", "photo.jpg", PHOTO)
    opening = {"run": "r1", "since": "first", "follow": False, "docs": True, "attachments": "contents"}
    device.ask("stream/geo/s", opening)
    rows: list[Any] = []
    while not rows:
        rows = (await device.hear()).body["rows"]
    (row,) = rows
    assert b64decode(row["doc"]["_attachments"]["small"]["data"]) == b"small"
    assert row["doc"]["_attachments"]["photo.jpg"]["stub"] is True


def test_a_client_that_begins_too_much_at_once_is_refused() -> None:
    names = Names(per_client=1, idle_s=60.0, names_max=10)
    names.keep(("c", "geo", "a"), Named("1", ("d", 1, None), 0.0))
    with pytest.raises(Overloaded, match="begun"):
        names.make_room("c", 59.0)
    assert names.make_room("other", 59.0) is None
    assert names.make_room("c", 61.0) == ("geo", "1")


def test_a_name_has_one_purpose_and_stands_for_one_upload() -> None:
    names = Names(per_client=1, idle_s=60.0, names_max=2)
    names.keep(("c", "geo", "a"), Named("1", ("d", 1, None), 0.0))
    for other in (("e", 1, None), ("d", 2, None), ("d", 1, "doc")):
        with pytest.raises(BadRequest, match="another digest"):
            names.use(("c", "geo", "a"), other, 0.0)
    assert (names.id("c", "geo", "a"), names.id("c", "geo", "b")) == ("1", "b")
    for name in "bc":
        names.keep(("c", "geo", name), Named(name, ("d", 1, None), 0.0, is_finished=True))
    assert (len(names), names.id("c", "geo", "a")) == (2, "a")


async def test_an_upload_that_could_not_be_given_up_is_given_up_when_asked_again(
    service: Service, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    await called(device, "blob_put", part(0, 1000))
    abort = service.store.uploads.abort

    def refusing(*given: Any) -> None:
        monkeypatch.setattr(service.store.uploads, "abort", abort)
        raise Overloaded("later")

    monkeypatch.setattr(service.store.uploads, "abort", refusing)
    assert (await called(device, "blob_drop", {"upload": "u1"}))["error"] == "overloaded"
    assert await called(device, "blob_drop", {"upload": "u1"}) == {"upload": "u1", "dropped": True}
