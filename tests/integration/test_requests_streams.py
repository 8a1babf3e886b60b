"""Streams over MQTT: opened, credited and closed by requests, their arrays told to their listener alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker.requests import RequestLimits
from feeds.errors import Forbidden
from listeners import listen_async

from .requests_tools import Device, Service, serving, until


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(tmp_path) as service:
        yield service


@pytest.fixture
async def device(service: Service) -> Device:
    return await service.device()


def opening(**options: Any) -> dict[str, Any]:
    return {"run": "r1", "since": "first", "follow": False, **options}


async def arrays(device: Device, topic: str = "stream/geo/s") -> list[dict[str, Any]]:
    """Every array up to the one that ends the stream."""
    heard: list[dict[str, Any]] = []
    while not heard or "end" not in heard[-1]:
        came = await device.hear()
        assert came.topic == topic, came
        heard.append(came.body)
    return heard


async def test_a_stream_tells_what_is_there_and_ends(service: Service, device: Device) -> None:
    for n in range(3):
        service.barrel.put({"n": n}, id=str(n))
    device.ask("stream/geo/s", opening(docs=True))
    heard = await arrays(device)
    assert heard[0]["start"] is True and heard[-1]["end"] == {"code": "done"}
    assert [row["doc"]["n"] for array in heard for row in array["rows"]] == [0, 1, 2]


async def test_a_stream_goes_on_with_credit_and_ends_with_a_close(service: Service, device: Device) -> None:
    device.ask("stream/geo/s", opening(follow=True, window=1))
    assert (await device.hear()).body["start"] is True
    for n in range(3):
        service.barrel.put({"n": n}, id=str(n))
    seen: list[str] = []
    while len(seen) < 3:
        array = (await device.hear()).body
        seen += [row["id"] for row in array["rows"]]
        assert len(array["rows"]) <= 1
        device.ask("credit/geo/s", {"run": "r1", "ack": array["seq"], "window": 1, "bytes": 1000})
    assert seen == ["0", "1", "2"]
    await device.ask("credit/geo/s", {"run": "r1", "close": True})
    await until(lambda: service.streams.stats()["streams"] == [])


async def test_credit_for_a_stream_that_is_not_there_is_told_so(service: Service, device: Device) -> None:
    device.ask("credit/geo/s", {"run": "old", "ack": "1-x", "window": 1, "bytes": 1})
    answer = await device.hear()
    assert (answer.topic, answer.body["run"], answer.body["end"]["code"]) == ("stream/geo/s", "old", "closed")


async def test_documents_too_large_for_a_message_are_left_out(tmp_path: Path) -> None:
    async with serving(tmp_path, limits=RequestLimits(publish_bytes_max=100)) as service:
        device = await service.device()
        service.barrel.put({"text": "x" * 200}, id="big")
        service.barrel.put({"text": "x"}, id="small")
        device.ask("stream/geo/s", opening(docs=True))
        rows = [row for array in await arrays(device) for row in array["rows"]]
        assert rows[0]["doc_omitted"] is True and "doc" not in rows[0]
        assert rows[1]["doc"]["text"] == "x"


@pytest.mark.parametrize(
    ("place", "options", "code"),
    [
        ("none/s", {}, "not_found"),
        ("geo/s", {"patterns": ["a/#/b"]}, "bad_request"),
        ("geo/s", {"since": "yesterday"}, "bad_request"),
    ],
)
async def test_an_open_that_cannot_be_served_ends_its_run(
    service: Service, device: Device, place: str, options: dict[str, Any], code: str
) -> None:
    device.ask(f"stream/{place}", opening(**options))
    (array,) = await arrays(device, f"stream/{place}")
    assert (array["run"], array["end"]["code"]) == ("r1", code)


@pytest.mark.parametrize("place", ["stream/geo/s", "credit/geo/s", "stream/geo", "credit/geo/a/b"])
async def test_what_is_no_message_of_a_stream_is_rejected(service: Service, device: Device, place: str) -> None:
    answer = await device.asked(place, {"odd": 1, "_token": "t"})
    assert (answer.topic, answer.body["error"]) == (f"rejected/{place}", "bad_request")
    assert answer.body["token"] == "t"


async def test_a_streams_name_is_one_level(service: Service, device: Device) -> None:
    answer = await device.asked("stream/geo/a/b", opening())
    assert (answer.topic, answer.body["error"]) == ("rejected/stream/geo/a/b", "bad_request")
    device.ask("stream/geo/a%2Fb", opening())
    assert (await arrays(device, "stream/geo/a%2Fb"))[-1]["end"]["code"] == "done"


async def test_a_stream_is_its_clients_own(service: Service, device: Device) -> None:
    other = await service.device("d2")
    device.ask("stream/geo/s", opening(follow=True))
    other.ask("stream/geo/s", opening(follow=True, run="r2"))
    assert (await device.hear()).body["run"] == "r1"
    assert (await other.hear()).body["run"] == "r2"
    await other.ask("credit/geo/s", {"run": "r2", "close": True})
    await until(lambda: len(service.streams.stats()["streams"]) == 1)
    service.barrel.put({"n": 1}, id="x")
    while not (rows := (await device.hear()).body["rows"]):
        pass
    assert [row["id"] for row in rows] == ["x"]
    while not other.heard.empty():
        assert (array := (await other.hear()).body)["run"] == "r2" and not array["rows"]


async def test_streams_end_with_their_clients_connection(service: Service, device: Device) -> None:
    device.ask("stream/geo/s", opening(follow=True))
    await device.hear()
    service.devices.remove(device)
    await device.close()
    await until(lambda: service.streams.stats()["streams"] == [])


async def test_patterns_that_a_client_may_not_read_are_refused(tmp_path: Path) -> None:
    def decide(who: str, verb: str, barrel: str, path: str) -> None:
        if not path.startswith("open/"):
            raise Forbidden(f"{who} may not {verb} {path}.")

    async with serving(tmp_path, decide=decide) as service:
        device = await service.device()
        for patterns in ([], ["open/#", "closed/#"]):
            device.ask("stream/geo/s", opening(patterns=patterns))
            (array,) = await arrays(device)
            assert array["end"]["code"] == "forbidden"
        device.ask("stream/geo/s", opening(patterns=["/open/#"]))
        assert (await arrays(device))[-1]["end"]["code"] == "done"


async def test_a_listener_hears_past_and_future_over_mqtt(service: Service) -> None:
    for n in range(500):
        service.barrel.put({"n": n}, id=str(n))
    url = f"mqtt://127.0.0.1:{service.broker.port}/geo"
    heard: list[str] = []
    async with asyncio.timeout(20):
        async for change in listen_async(url, since="first", window=50):
            heard.append(change.id)
            if len(heard) == 500:
                service.barrel.put({"n": 500}, id="500")
            if len(heard) == 501:
                break
    assert heard == [str(n) for n in range(501)]
