"""What a request may cost, who may ask it, and what becomes of it when something breaks."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from broker.mqtt.contract import Client, Message
from broker.requests import RequestLimits, RequestService
from broker.requests.lanes import outcomes_of
from feeds import Outcome, Store, StoreSettings
from feeds.errors import Forbidden

from .requests_tools import Service, serving, until


@contextmanager
def no_reader_free(service: Service) -> Iterator[None]:
    """Keep every reader's thread busy, so that requests which need one stay in work."""
    held = Event()
    for _ in range(4):
        service.readers.submit(held.wait)
    try:
        yield
    finally:
        held.set()


async def test_what_is_beyond_the_limit_is_refused_as_overloaded_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path, limits=RequestLimits(requests_max=2)) as service:
        service.barrel.put({"a": 1}, id="x")
        device = await service.device()
        with no_reader_free(service):
            for _ in range(5):
                device.ask("get/geo/x", {"_token": "t"})
            for _ in range(3):
                refused = await device.hear()
                assert (refused.topic, refused.body["error"]) == ("rejected/get/geo/x", "overloaded")
                assert refused.body["token"] == "t" and refused.body["hint"]
        assert [(await device.hear()).topic for _ in range(2)] == ["document/geo/x"] * 2
        await until(lambda: service.requests.stats()["depth"]["mqtt_requests"] == 0)


async def test_bytes_in_work_are_bounded(tmp_path: Path) -> None:
    async with serving(tmp_path, limits=RequestLimits(bytes_max=1_000)) as service:
        device = await service.device()
        with no_reader_free(service):
            device.ask("put/geo/a", {"text": "x" * 50_000})
            device.ask("put/geo/b", {"text": "x" * 900})
            refused = await device.hear()
            assert (refused.topic, refused.body["error"]) == ("rejected/put/geo/b", "overloaded")
        assert (await device.hear()).topic == "accepted/put/geo/a"
        await until(lambda: service.requests.stats()["depth"]["mqtt_request_bytes"] == 0)


async def test_a_bulk_whose_answer_cannot_fit_writes_nothing(tmp_path: Path) -> None:
    limits = RequestLimits(answer_bytes_max=4_000, bulk_documents_max=100)
    async with serving(tmp_path, limits=limits) as service:
        device = await service.device()
        for count in (60, 101):
            answer = await device.asked("call/geo/bulk", {"docs": [{"n": n} for n in range(count)]})
            assert (answer.topic, answer.body["error"]) == ("rejected/call/geo/bulk", "too_large")
            assert service.barrel.head() == 0


async def test_a_bulk_whose_refusals_do_not_fit_says_what_became_of_it(tmp_path: Path) -> None:
    async with serving(tmp_path, limits=RequestLimits(answer_bytes_max=4_000)) as service:
        device = await service.device()
        answer = await device.asked("call/geo/bulk", {"docs": [{"n": 1}, *[{"_odd": 1}] * 50]})
        assert answer.body["error"] == "too_large" and answer.body["size"] > 4_000
        assert (answer.body["written"], answer.body["refused"]) == (1, 50)
        assert service.barrel.head() == 1


async def test_a_document_above_the_limit_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, settings=StoreSettings(document_bytes_max=1_000)) as service:
        device = await service.device()
        body = json.dumps({"text": "x" * 1_000}).encode()
        for place in ("put/geo/x", "set/geo/x"):
            answer = await device.asked(place, body)
            assert (answer.topic, answer.body["error"]) == (f"rejected/{place}", "too_large")


async def test_a_refusal_is_no_larger_than_a_message(tmp_path: Path) -> None:
    async with serving(tmp_path, limits=RequestLimits(answer_bytes_max=4_000)) as service:
        device = await service.device()
        answer = await device.asked("put/geo/x", {"_" + "k" * 100_000: 1})
        assert answer.body["error"] == "bad_request" and len(answer.body["reason"]) < 2_000


async def test_who_may_do_what_is_asked_for_every_verb(tmp_path: Path) -> None:
    asked: list[tuple[str, str, str, str]] = []

    def decide(who: str, verb: str, barrel: str, path: str) -> None:
        asked.append((who, verb, barrel, path))
        raise Forbidden("Not today.")

    async with serving(tmp_path, decide=decide) as service:
        service.barrel.put({"a": 1}, id="a/x")
        device = await service.device()
        upload = {"upload": "u", "verb": "put", "id": "u/1", "digest": "0" * 64}
        requests = {
            "put/geo/a/x": ({}, ("write", "_id/a/x")),
            "set/geo/a%2Bx": ({}, ("write", "_id/a%2Bx")),
            "merge/geo/x": ({}, ("write", "_id/x")),
            "delete/geo/x": ({"_rev": "1-a"}, ("write", "_id/x")),
            "put/geo": ({"_id": "named"}, ("write", "_id/named")),
            "get/geo/a/x": ({}, ("read", "_id/a/x")),
            "call/geo/bulk": ({"docs": []}, ("write", "#")),
            "call/geo/get": ({"docs": []}, ("read", "#")),
            "call/geo/revs_diff": ({}, ("read", "#")),
            "call/geo/info": ({}, ("read", "#")),
            "call/geo/head": ({}, ("read", "#")),
            "call/geo/body": ({"id": "a/x"}, ("read", "_id/a/x")),
            "call/geo/body_put": ({**upload, "offset": 0, "total": 1, "data": "e30="}, ("write", "_id/u/1")),
            "call/geo/local": ({"id": "p", "op": "put", "doc": {}}, ("write", "_local/p")),
        }
        for place, (body, _) in requests.items():
            answer = await device.asked(place, body)
            assert (answer.topic, answer.body["error"]) == (f"rejected/{place}", "forbidden")
        assert asked == [("anonymous", verb, "geo", path) for _, (verb, path) in requests.values()]
        assert service.barrel.head() == 1


async def test_a_fault_of_the_service_is_told_logged_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path) as service:
        device = await service.device()
        service.readers.shutdown()
        answer = await device.asked("get/geo/x", {"_token": "t"})
        assert (answer.topic, answer.body["error"]) == ("rejected/get/geo/x", "internal")
        assert answer.body["token"] == "t" and "shutdown" not in json.dumps(answer.body)
        (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
        assert "anonymous/d1" in record.getMessage() and "get/geo/x" in record.getMessage()
        assert service.requests.stats()["rejected"] == {"internal": 1}


async def test_a_closed_store_is_told_as_unavailable(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        device = await service.device()
        service.store.close()
        answer = await device.asked("put/geo/x", {"a": 1})
        assert (answer.topic, answer.body["error"]) == ("rejected/put/geo/x", "unavailable")


async def test_what_was_done_is_counted(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        device = await service.device()
        await device.asked("put/geo/x", {"a": 1})
        await device.asked("put/geo/x", {"a": 2})
        await device.asked("get/geo/x")
        deaf = await service.device("d2", listens=False)
        await asyncio.wait_for(deaf.ask("set/geo/x", {"a": 3}), 30)
        stats = service.requests.stats()
        assert stats["served"] == {"put": 1, "get": 1, "set": 1}
        assert (stats["rejected"], stats["unheard"]) == ({"conflict": 1}, 1)
        assert stats["clients"] == 0


class Told:
    """Takes answers in place of a broker."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, Message]] = []

    async def __call__(self, client_name: str, message: Message) -> bool:
        self.messages.append((client_name, message))
        return True

    def bodies(self) -> list[Any]:
        """What the answers say."""
        payloads = [message.payload for _, message in self.messages]
        return [json.loads(payload) for payload in payloads if isinstance(payload, bytes)]


async def test_topics_of_others_and_impossible_ones_are_refused_by_the_service_itself(
    tmp_path: Path,
) -> None:
    told = Told()
    with Store.open(tmp_path) as store, ThreadPoolExecutor(1) as readers:
        store.create("geo")
        service = RequestService(store, None, told, readers)
        client = Client.of("ann", "d/1")
        assert service.accepts("from/ann/d%2F1/put/geo/x") and not service.accepts("fromage/x")
        await service.handle(client, "from/bob/d1/put/geo/x", b"{}")
        await service.handle(client, "from/ann/d%2F1/stream/geo/s", b'{"run": "r"}')
        await service.handle(client, "from/ann/d%2F1/odd/geo/" + "é" * 32_700, b"{")
        await service.refused(client, "é" * 32_767, b"", "because")
        errors = [body["error"] for body in told.bodies()]
        topics = [message.topic for _, message in told.messages]
        assert errors == ["forbidden", "unavailable", "bad_request", "forbidden"]
        assert topics[0] == "to/ann/d%2F1/rejected/put/geo/x"
        assert all(topic.startswith("to/ann/d%2F1/rejected/") for topic in topics)
        assert all(len(topic.encode()) <= 65_535 for topic in topics)
        assert told.bodies()[2]["sha256"] == sha256(b"{").hexdigest()


async def test_who_waits_for_the_writer_and_is_cancelled_does_not_cancel_the_write() -> None:
    future: Future[list[Outcome]] = Future()
    task = asyncio.create_task(outcomes_of(future))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not future.cancelled()


async def test_a_request_that_is_cancelled_leaves_nothing_behind(tmp_path: Path) -> None:
    told = Told()
    with Store.open(tmp_path) as store, ThreadPoolExecutor(1) as readers:
        barrel = store.create("geo")
        service = RequestService(store, None, told, readers)
        client = Client.of(None, "d1")
        for _ in range(20):
            task = asyncio.create_task(service.handle(client, "from/anonymous/d1/set/geo/x", b'{"a": 1}'))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await service.handle(client, "from/anonymous/d1/set/geo/x", b'{"a": 2}')
        assert barrel.get("x").data["a"] == 2 and len(told.messages) == 1
        assert service.stats()["depth"] == {"mqtt_requests": 0, "mqtt_request_bytes": 0}
