"""Writing documents over MQTT: every verb, every refusal, in order, and once per token."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from feeds.errors import Deleted

from .requests_tools import Heard, Service, serving


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(tmp_path) as service:
        yield service


async def test_a_document_that_is_put_is_stored_and_told_with_its_revision(service: Service) -> None:
    device = await service.device()
    answer = await device.asked("put/geo/paris", {"country": "France"})
    stored = service.barrel.get("paris")
    assert answer == Heard("accepted/put/geo/paris", {"id": "paris", "rev": stored.rev, "seq": 1})
    assert stored.data == {"_id": "paris", "_rev": stored.rev, "country": "France"}


async def test_answers_come_with_qos_1_and_are_never_retained(service: Service) -> None:
    device = await service.device()
    answer = await device.asked("put/geo/paris", {"a": 1})
    assert (answer.qos, answer.retain) == (1, False)
    late = await service.device("d2", listens=False)
    await late.subscribe("to/anonymous/d2/#")
    assert late.heard.empty()


async def test_a_request_is_acknowledged_only_when_it_is_committed(service: Service) -> None:
    device = await service.device()
    await asyncio.wait_for(device.ask("put/geo/paris", {"a": 1}), 10)
    assert service.barrel.get("paris").data["a"] == 1


async def test_an_update_names_the_revision_it_builds_on(service: Service) -> None:
    device = await service.device()
    first = (await device.asked("put/geo/paris", {"n": 1})).body["rev"]
    second = await device.asked("put/geo/paris", {"_rev": first, "n": 2})
    assert second.body["rev"].startswith("2-")
    assert service.barrel.get("paris").data["n"] == 2


async def test_a_conflict_stores_nothing_and_says_what_to_do(service: Service) -> None:
    device = await service.device()
    await device.asked("put/geo/paris", {"n": 1})
    refused = await device.asked("put/geo/paris", {"n": 2})
    assert refused.topic == "rejected/put/geo/paris"
    assert refused.body["error"] == "conflict" and refused.body["reason"] and refused.body["hint"]
    assert service.barrel.get("paris").data["n"] == 1


async def test_set_extends_whatever_is_there(service: Service) -> None:
    device = await service.device()
    for n in range(3):
        assert (await device.asked("set/geo/sensor/1", {"n": n})).topic == "accepted/set/geo/sensor/1"
    document = service.barrel.get("sensor/1")
    assert document.data["n"] == 2 and document.rev.startswith("3-")


async def test_a_merge_patch_changes_what_it_names(service: Service) -> None:
    device = await service.device()
    await device.asked("put/geo/paris", {"a": 1, "b": 2, "c": 3})
    merged = await device.asked("merge/geo/paris", {"b": None, "c": 4})
    assert merged.topic == "accepted/merge/geo/paris"
    again = await device.asked("merge/geo/paris", {"c": 4, "_rev": merged.body["rev"]})
    assert again.body == {**merged.body, "unchanged": True}
    assert {"a": 1, "c": 4}.items() <= service.barrel.get("paris").data.items()
    assert "b" not in service.barrel.get("paris").data


async def test_a_document_is_deleted_at_its_revision(service: Service) -> None:
    device = await service.device()
    rev = (await device.asked("put/geo/paris", {"a": 1})).body["rev"]
    assert (await device.asked("delete/geo/paris", {})).body["error"] == "bad_request"
    assert (await device.asked("delete/geo/paris", {"_rev": "1-other"})).body["error"] == "conflict"
    assert (await device.asked("delete/geo/paris", {"_rev": rev})).topic == "accepted/delete/geo/paris"
    with pytest.raises(Deleted):
        service.barrel.get("paris")


async def test_without_an_id_one_is_made_or_taken_from_the_document(service: Service) -> None:
    device = await service.device()
    made = await device.asked("put/geo", {"a": 1})
    assert made.topic == "accepted/put/geo" and service.barrel.get(made.body["id"]).data["a"] == 1
    named = await device.asked("put/geo", {"_id": "paris", "a": 2})
    assert named.body["id"] == "paris"
    assert (await device.asked("merge/geo", {"a": 2})).body["error"] == "bad_request"


async def test_names_are_decoded_level_by_level(service: Service) -> None:
    service.store.create("maps/eu+west")
    device = await service.device("d/1+")
    answer = await device.asked("put/maps%2Feu%2Bwest/50%25/paris", {"a": 1})
    assert answer.topic == "accepted/put/maps%2Feu%2Bwest/50%25/paris"
    assert answer.body["id"] == "50%/paris"
    assert service.store.barrel("maps/eu+west").get("50%/paris").data["a"] == 1


@pytest.mark.parametrize(
    ("place", "body", "error", "word"),
    [
        ("put/geo/x", b"{not json", "bad_request", "JSON"),
        ("set/geo/x", b"", "bad_request", "empty"),
        ("put/geo/x", b"[1, 2]", "bad_request", "object"),
        ("put/geo/x", b'{"a": "\xff"}', "bad_request", "UTF-8"),
        ("put/geo/x", b'{"a": "\\ud800"}', "bad_request", ""),
        ("put/geo/x", b'{"_secret": 1}', "bad_request", "_secret"),
        ("put/geo/x", b'{"_id": "y"}', "bad_request", "_id"),
        ("put/geo/_odd", b"{}", "bad_request", "underscore"),
        ("put/geo/", b"{}", "bad_request", "_id"),
        ("put/geo/x", b'{"a": 1e999}', "bad_request", ""),
        ("put/geo/x", b'{"_token": 7}', "bad_request", "_token"),
        ("put/geo/x", b'{"_token": "' + b"t" * 129 + b'"}', "bad_request", "_token"),
        ("delete/geo/x", b'{"_rev": "1-a", "why": 1}', "bad_request", "why"),
        ("merge/geo/nowhere", b'{"a": 1}', "not_found", "nowhere"),
        ("put/none/x", b"{}", "not_found", "none"),
        ("steal/geo/x", b"{}", "bad_request", "steal"),
        ("put", b"{}", "bad_request", "topic"),
        ("put/geo/50%", b"{}", "bad_request", "50%"),
        ("put/geo/a%2f", b"{}", "bad_request", "a%2f"),
    ],
)
async def test_what_cannot_be_served_is_refused_with_a_reason(
    service: Service, place: str, body: bytes, error: str, word: str
) -> None:
    service.barrel.put({"there": True}, id="x")
    device = await service.device()
    answer = await device.asked(place, body)
    assert answer.topic == f"rejected/{place}"
    assert answer.body["error"] == error and answer.body["hint"]
    assert word in answer.body["reason"], answer.body
    assert service.barrel.head() == 1


async def test_a_body_that_cannot_be_read_is_told_by_its_digest(service: Service) -> None:
    device = await service.device()
    for body in (b"{broken", b'{"_token": 7}', b'"text"'):
        answer = await device.asked("put/geo/x", body)
        assert answer.body["sha256"] == hashlib.sha256(body).hexdigest()


async def test_a_refusal_comes_with_its_token(service: Service) -> None:
    device = await service.device()
    for place in ("put/none/x", "steal/geo/x", "call/geo/nothing", "get/geo/x", "put/geo/%zz"):
        answer = await device.asked(place, {"_token": "t-1"})
        assert answer.topic == f"rejected/{place}" and answer.body["token"] == "t-1"


async def test_a_token_is_taken_off_and_comes_back(service: Service) -> None:
    device = await service.device()
    answer = await device.asked("put/geo/x", {"_token": "t-1", "a": 1})
    plain = await device.asked("put/geo/y", {"a": 1})
    assert answer.body["token"] == "t-1"
    assert answer.body["rev"] == plain.body["rev"]
    assert "_token" not in service.barrel.get("x").data


async def test_a_request_repeated_with_its_token_is_answered_as_done(service: Service) -> None:
    device = await service.device()
    first = await device.asked("set/geo/x", {"_token": "t-1", "a": 1, "b": 2})
    again = await device.asked("set/geo/x", {"b": 2, "_token": "t-1", "a": 1})
    assert again.body == {**first.body, "repeated": True}
    assert service.barrel.head() == 1


async def test_a_token_used_for_another_body_is_refused(service: Service) -> None:
    device = await service.device()
    await device.asked("set/geo/x", {"_token": "t-1", "a": 1})
    answer = await device.asked("set/geo/x", {"_token": "t-1", "a": 2})
    assert answer.topic == "rejected/set/geo/x"
    assert (answer.body["error"], answer.body["token"]) == ("token_reused", "t-1")
    assert service.barrel.get("x").data["a"] == 1


async def test_tokens_of_different_clients_and_documents_do_not_meet(service: Service) -> None:
    one, other = await service.device("d1"), await service.device("d2")
    for device, place in ((one, "set/geo/x"), (one, "set/geo/y"), (other, "set/geo/x")):
        answer = await device.asked(place, {"_token": "t", "by": device.name})
        assert answer.topic == f"accepted/{place}" and "repeated" not in answer.body


async def test_only_the_client_that_asked_hears_the_answer(service: Service) -> None:
    one, other = await service.device("d1"), await service.device("d2")
    await other.subscribe("#")
    await one.asked("put/geo/x", {"a": 1})
    await one.asked("put/geo/x", {"a": 2})
    await other.asked("put/geo/y", {"a": 1})
    assert other.heard.empty() and one.heard.empty()


@pytest.mark.parametrize(
    "topic", ["barrels/geo/_id/x", "to/anonymous/d1/accepted/put/geo/x", "from/anonymous/d2/put/geo/x"]
)
async def test_a_publication_where_the_client_may_not_is_told_to_it(service: Service, topic: str) -> None:
    device, other = await service.device("d1"), await service.device("d2")
    done = device.publish(topic, json.dumps({"a": 1, "_token": "t"}).encode())
    answer = await device.hear()
    await asyncio.wait_for(done, 10)
    assert answer.topic == f"rejected/publish/{topic}"
    assert answer.body["error"] == "forbidden" and answer.body["reason"] and answer.body["hint"]
    assert answer.body["token"] == "t"
    assert service.barrel.head() == 0 and other.heard.empty()


async def test_a_thousand_writes_sent_at_once_keep_their_order(service: Service) -> None:
    device = await service.device()
    done = [device.ask("set/geo/sensor", {"n": n, "_token": str(n)}) for n in range(1_000)]
    answers = [await device.hear() for _ in range(1_000)]
    await asyncio.wait_for(asyncio.gather(*done), 20)
    assert [answer.body["token"] for answer in answers] == [str(n) for n in range(1_000)]
    assert [answer.body["seq"] for answer in answers] == list(range(1, 1_001))
    assert service.barrel.get("sensor").data["n"] == 999


async def test_a_large_write_is_not_overtaken_by_the_small_ones_behind_it(service: Service) -> None:
    device = await service.device()
    sizes = [10, 400_000, 10, 1_500_000, 10, 10]
    for n, size in enumerate(sizes):
        device.ask("set/geo/x", {"n": n, "text": "x" * size})
    answers = [await device.hear() for _ in sizes]
    assert sorted(answer.body["seq"] for answer in answers) == [1, 2, 3, 4, 5, 6]
    assert [entry.seq for entry in service.barrel.tail(0)] == [1, 2, 3, 4, 5, 6]
    assert service.barrel.get("x").data["n"] == 5


async def test_a_client_reads_what_it_wrote_before_without_waiting(service: Service) -> None:
    device = await service.device()
    device.ask("set/geo/x", {"n": 0, "text": "x" * 500_000})
    for n in range(1, 50):
        device.ask("set/geo/x", {"n": n})
        device.ask("get/geo/x")
    answers = [await device.hear() for _ in range(99)]
    read = [answer.body["doc"]["n"] for answer in answers if answer.topic.startswith("document")]
    assert len(read) == 49 and all(seen >= at for at, seen in enumerate(read, 1))


async def test_a_refused_write_does_not_hold_up_those_behind_it(service: Service) -> None:
    device = await service.device()
    device.ask("put/geo/big", b'{"text": "' + b"x" * 500_000)
    device.ask("put/geo/small", {"a": 1})
    answers = {(await device.hear()).topic for _ in range(2)}
    assert answers == {"rejected/put/geo/big", "accepted/put/geo/small"}
