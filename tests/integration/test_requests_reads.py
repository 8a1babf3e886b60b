"""Reading over MQTT: documents by topic, and what is called by name."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from .requests_tools import Device, Heard, Service, serving


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(tmp_path) as service:
        yield service


@pytest.fixture
async def device(service: Service) -> Device:
    return await service.device()


async def called(device: Device, name: str, body: Any = b"") -> Any:
    """The result of a call."""
    answer = await device.asked(f"call/geo/{name}", body)
    assert answer.topic == f"result/geo/{name}", answer
    return answer.body["result"]


async def refused(device: Device, name: str, body: Any = b"") -> Any:
    """Why a call is refused."""
    answer = await device.asked(f"call/geo/{name}", body)
    assert answer.topic == f"rejected/call/geo/{name}", answer
    return answer.body


async def test_a_document_is_read_by_its_topic(service: Service, device: Device) -> None:
    service.barrel.put({"country": "France"}, id="city/paris")
    answer = await device.asked("get/geo/city/paris")
    assert answer == Heard("document/geo/city/paris", {"doc": service.barrel.get("city/paris").data})


async def test_a_read_gives_its_token_back(service: Service, device: Device) -> None:
    service.barrel.put({"a": 1}, id="x")
    assert (await device.asked("get/geo/x", {"_token": "t"})).body["token"] == "t"
    assert (await device.asked("call/geo/head", {"_token": "t"})).body["token"] == "t"


async def test_a_revision_and_what_stands_beside_it_can_be_asked_for(service: Service, device: Device) -> None:
    first = service.barrel.put({"n": 1}, id="x")
    second = service.barrel.put({"n": 2}, id="x", rev=first.rev)
    old = await device.asked("get/geo/x", {"rev": first.rev})
    assert old.body["doc"]["n"] == 1
    full = (await device.asked("get/geo/x", {"revs": True, "history": True, "conflicts": True})).body["doc"]
    assert full["_revisions"]["start"] == 2
    assert [each["rev"] for each in full["_history"]] == [second.rev, first.rev]


async def test_missing_and_deleted_are_told_apart(service: Service, device: Device) -> None:
    written = service.barrel.put({"a": 1}, id="gone")
    service.barrel.delete("gone", rev=written.rev)
    missing, deleted = await device.asked("get/geo/never"), await device.asked("get/geo/gone")
    assert (missing.topic, deleted.topic) == ("rejected/get/geo/never", "rejected/get/geo/gone")
    assert (missing.body["error"], deleted.body["error"]) == ("not_found", "not_found")
    assert missing.body["missing"] is True and deleted.body["deleted"] is True


@pytest.mark.parametrize("options", [b"[]", b'{"rev": 1}', b'{"other": true}', b"{"])
async def test_options_that_mean_nothing_are_refused(service: Service, device: Device, options: bytes) -> None:
    service.barrel.put({"a": 1}, id="x")
    answer = await device.asked("get/geo/x", options)
    assert (answer.topic, answer.body["error"]) == ("rejected/get/geo/x", "bad_request")


async def test_bulk_answers_each_document_in_order(service: Service, device: Device) -> None:
    service.barrel.put({"n": 0}, id="b")
    docs = [{"_id": "a", "n": 1}, {"_id": "b", "n": 1}, {"_id": "_odd"}, {"n": 3}, "text"]
    results = (await called(device, "bulk", {"docs": docs}))["results"]
    assert [each.get("error") for each in results] == [None, "conflict", "bad_request", None, "bad_request"]
    assert results[0] == {"id": "a", "rev": service.barrel.get("a").rev, "seq": 2}
    assert service.barrel.get(results[3]["id"]).data["n"] == 3


async def test_a_document_of_a_bulk_that_cannot_be_read_is_refused_alone(service: Service, device: Device) -> None:
    docs = [b'{"_id":"a"}', b'{"_id":"b","n":1e400}', b'{"_id":"c","n":1,"n":2}', b'{"_id":"d","n":"\xff"}']
    docs += [b'"{}"', b'{"_id":"e"}']
    body = b'{"_token":"t","docs":[%b]}' % b",".join(docs)
    results = (await called(device, "bulk", body))["results"]
    assert [each.get("error") for each in results] == [None, *["bad_request"] * 4, None]
    for result, told in zip(results[1:5], ["too large", "'n' twice", "not UTF-8", "a string"], strict=True):
        assert told in result["reason"]
    assert results[2]["id"] == "c"
    again = (await called(device, "bulk", body))["results"]
    assert again[0]["repeated"] and again[5]["repeated"]
    assert service.barrel.head() == 2


async def test_bulk_updates_and_replicates(service: Service, device: Device) -> None:
    docs = [{"_id": "a", "n": 1}, {"_id": "a", "n": 2}]
    updated = await called(device, "bulk", {"docs": docs, "update": True})
    assert [each["rev"][:2] for each in updated["results"]] == ["1-", "2-"]
    grafted = {"_id": "r", "_rev": "3-c", "_revisions": {"start": 3, "ids": ["c", "b"]}, "n": 3}
    replicated = await called(device, "bulk", {"docs": [grafted], "new_edits": False})
    assert replicated["results"][0]["rev"] == "3-c"
    assert service.barrel.get("r", revs=True).data["_revisions"]["ids"] == ["c", "b"]


async def test_bulk_repeated_with_its_token_writes_once(service: Service, device: Device) -> None:
    body = {"docs": [{"n": 1}, {"_id": "_odd"}, {"n": 2}], "_token": "t"}
    first = (await called(device, "bulk", body))["results"]
    again = (await called(device, "bulk", body))["results"]
    assert [each.get("id") for each in again] == [each.get("id") for each in first]
    assert again[0]["repeated"] and again[1]["error"] == "bad_request"
    assert service.barrel.head() == 2
    assert (await refused(device, "bulk", {**body, "update": True}))["error"] == "token_reused"


@pytest.mark.parametrize(
    "body", [b"", b"[]", {"docs": 1}, {"docs": [], "odd": 1}, {"docs": [], "update": 1}, b'{"docs":[{}],"docs":[]}']
)
async def test_a_bulk_that_is_none_is_refused(service: Service, device: Device, body: Any) -> None:
    assert (await refused(device, "bulk", body))["error"] == "bad_request"


async def test_many_are_read_in_the_order_asked_for(service: Service, device: Device) -> None:
    first = service.barrel.put({"n": 1}, id="a")
    service.barrel.put({"n": 2}, id="a", rev=first.rev)
    asked = [{"id": "a"}, {"id": "none"}, {"id": "a", "rev": first.rev, "revs": True}]
    results = (await called(device, "get", {"docs": asked}))["results"]
    assert results[0]["doc"]["n"] == 2 and results[2]["doc"]["_revisions"]["start"] == 1
    assert (results[1]["id"], results[1]["error"], results[1]["missing"]) == ("none", "not_found", True)


async def test_unknown_revisions_are_told(service: Service, device: Device) -> None:
    rev = service.barrel.put({"a": 1}, id="a").rev
    assert await called(device, "revs_diff", {"a": [rev, "2-x"], "b": ["1-y"], "_token": "t"}) == {
        "a": {"missing": ["2-x"], "possible_ancestors": [rev]},
        "b": {"missing": ["1-y"]},
    }
    assert (await refused(device, "revs_diff", {"a": "1-x"}))["error"] == "bad_request"


async def test_local_documents_are_written_read_and_deleted(service: Service, device: Device) -> None:
    put = await called(device, "local", {"id": "point/1", "op": "put", "doc": {"at": 1}})
    assert put == {"id": "_local/point/1", "rev": "0-1"}
    stale = {"id": "point/1", "op": "put", "doc": {"at": 2}, "rev": "0-7"}
    assert (await refused(device, "local", stale))["error"] == "conflict"
    assert (await called(device, "local", {**stale, "rev": "0-1"}))["rev"] == "0-2"
    found = await called(device, "local", {"id": "point/1", "op": "get"})
    assert found == {"doc": {"_id": "_local/point/1", "_rev": "0-2", "at": 2}}
    await called(device, "local", {"id": "point/1", "op": "delete", "rev": "0-2"})
    assert (await refused(device, "local", {"id": "point/1", "op": "get"}))["missing"] is True
    assert service.barrel.head() == 0


async def test_local_calls_of_a_client_are_served_in_order(service: Service, device: Device) -> None:
    for n in range(30):
        device.ask("call/geo/local", {"id": "p", "op": "put", "doc": {"n": n}})
    revs = [(await device.hear()).body["result"]["rev"] for _ in range(30)]
    assert revs == [f"0-{n}" for n in range(1, 31)]
    assert service.barrel.local_get("p").data["n"] == 29


@pytest.mark.parametrize(
    "body",
    [
        {"id": "p", "op": "put"},
        {"id": "p", "op": "get", "doc": {}},
        {"id": "p", "op": "get", "rev": "0-1"},
        {"id": "p", "op": "drop"},
        {"op": "get"},
    ],
)
async def test_a_local_call_that_makes_no_sense_is_refused(service: Service, device: Device, body: Any) -> None:
    assert (await refused(device, "local", body))["error"] == "bad_request"


async def test_a_barrel_tells_about_itself(service: Service, device: Device) -> None:
    service.barrel.put({"a": 1}, id="x")
    info = await called(device, "info")
    assert (info["name"], info["seq"], info["doc_count"]) == ("geo", 1, 1)
    assert await called(device, "head", {}) == {"seq": 1, "epoch": service.barrel.epoch}
    assert (await refused(device, "info", {"odd": 1}))["error"] == "bad_request"
    missing = await device.asked("call/none/info")
    assert (missing.topic, missing.body["error"]) == ("rejected/call/none/info", "not_found")


@pytest.mark.parametrize("name", ["blobs", "drop", "bulk/extra"])
async def test_an_unknown_call_names_those_that_are_known(service: Service, device: Device, name: str) -> None:
    refusal = await refused(device, name, {"_token": "t"})
    assert (refusal["error"], refusal["token"]) == ("bad_request", "t")
    assert "call" in refusal["reason"]


async def test_a_document_too_large_for_a_message_is_read_in_ranges(service: Service, device: Device) -> None:
    written = service.barrel.put({"text": "é" * 400_000}, id="big")
    whole = service.barrel.get("big").json()
    refusal = (await device.asked("get/geo/big")).body
    assert (refusal["error"], refusal["size"], refusal["limit"]) == ("too_large", len(whole), 256 * 1024)
    assert refusal["rev"] == written.rev and "body" in refusal["hint"]
    read = b""
    first = await called(device, "body", {"id": "big"})
    while len(read) < first["total"]:
        part = await called(device, "body", {"id": "big", "rev": first["rev"], "offset": len(read)})
        read += b64decode(part["data"])
    assert read == whole and sha256(read).hexdigest() == first["sha256"]
    assert json.loads(read) == service.barrel.get("big").data


async def test_a_range_is_what_was_asked_for(service: Service, device: Device) -> None:
    service.barrel.put({"text": "abc"}, id="x")
    whole = service.barrel.get("x").json()
    part = await called(device, "body", {"id": "x", "offset": 3, "length": 5})
    assert b64decode(part["data"]) == whole[3:8]
    assert (part["offset"], part["length"], part["total"]) == (3, 5, len(whole))
    end = await called(device, "body", {"id": "x", "offset": len(whole), "length": 5})
    assert (end["length"], end["data"]) == (0, "")
    for odd in ({"offset": len(whole) + 1}, {"offset": -1}, {"length": 0}):
        assert (await refused(device, "body", {"id": "x", **odd}))["error"] == "bad_request"


async def test_many_documents_too_large_for_a_message_are_refused(service: Service, device: Device) -> None:
    for n in range(4):
        service.barrel.put({"text": "x" * 100_000}, id=str(n))
    refusal = await refused(device, "get", {"docs": [{"id": str(n)} for n in range(4)]})
    assert (refusal["error"], refusal["fitting"]) == ("too_large", 2)
    assert refusal["size"] > refusal["limit"]
