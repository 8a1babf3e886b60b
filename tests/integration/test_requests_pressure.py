"""Requests over MQTT while writes wait for long, and while a client uses more than its rate."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event

from broker.regulation import Regulation, Regulator
from broker.regulation.regulator import FLOOR_UNITS

from .requests_tools import Device, Service, serving, until

HELD = FLOOR_UNITS // 3 * 3
"""Of three clients their whole parts: all of it is let in, also where the window is put up before all has come."""


@asynccontextmanager
async def pressed(folder: Path) -> AsyncIterator[tuple[Service, Regulator, list[Device]]]:
    """A service whose writer stands still under as many writes of three devices as are let in."""
    regulator, held = Regulator(), Event()
    async with serving(folder, regulator=regulator) as service:
        greedy = [await service.device(f"greedy{number}") for number in range(3)]
        standing = asyncio.get_running_loop().run_in_executor(None, service.store.writer.call, lambda _: held.wait())
        try:
            for number in range(HELD):
                greedy[number % 3].ask(f"put/geo/{number}", {"_token": str(number)})
            await until(lambda: regulator.stats()["units"] == HELD and regulator.stats()["window"] > 0)
            yield service, regulator, greedy
        finally:
            held.set()
            await standing


async def test_a_write_of_a_greedy_client_is_rejected_at_once_and_acknowledged_a_moment_later(tmp_path: Path) -> None:
    async with pressed(tmp_path) as (service, _, greedy):
        slow = service.broker.stats().queues["mqtt_slowed"]
        done = [greedy[0].publish(f"from/{greedy[0].name}/put/geo/more", b'{"_token":"more"}') for _ in range(20)]
        answer = await greedy[0].hear()
        assert (answer.topic, answer.body["error"]) == ("rejected/put/geo/more", "overloaded")
        assert (answer.body["token"], answer.body["retry_after"]) == ("more", 1)
        await until(lambda: service.broker.stats().queues["mqtt_slowed"] > slow)
        assert not any(each.done() for each in done)  # in order, behind what is not committed
    assert service.requests.stats()["rejected"] == {"overloaded": 20}


async def test_another_client_is_served_meanwhile(tmp_path: Path) -> None:
    async with pressed(tmp_path) as (service, regulator, greedy):
        modest = await service.device("modest")
        greedy[0].ask("put/geo/more", {})
        assert (await greedy[0].hear()).body["error"] == "overloaded"
        assert (await modest.asked("get/geo/0", {})).body["error"] == "not_found"
        modest.ask("put/geo/mine", {})
        await until(lambda: regulator.stats()["clients"] == 4)
    await until(lambda: regulator.stats()["units"] == 0)


async def test_a_client_has_a_rate_of_units(tmp_path: Path) -> None:
    regulator = Regulator(Regulation(units_per_s=0.01, units_burst=2))
    async with serving(tmp_path, regulator=regulator) as service:
        device = await service.device()
        assert (await device.asked("put/geo/a", {"text": "x" * 2_000})).topic == "accepted/put/geo/a"
        answer = await device.asked("put/geo/b", {"_token": "t"})
        assert (answer.topic, answer.body["error"]) == ("rejected/put/geo/b", "rate_limited")
        assert (answer.body["token"], 60 <= answer.body["retry_after"] <= 100) == ("t", True)
        assert (await (await service.device("other")).asked("put/geo/b", {})).topic == "accepted/put/geo/b"


async def test_what_was_read_is_paid_for_afterwards(tmp_path: Path) -> None:
    regulator = Regulator(Regulation(units_per_s=0.1, units_burst=10))
    async with serving(tmp_path, regulator=regulator) as service:
        service.barrel.put({"text": "x" * 200_000}, id="large")
        device = await service.device()
        assert (await device.asked("get/geo/large")).topic == "document/geo/large"
        answer = await device.asked("get/geo/large")
        assert (answer.body["error"], answer.body["retry_after"] >= 10) == ("rate_limited", True)


async def test_a_stream_of_who_has_used_up_its_units_goes_slower(tmp_path: Path) -> None:
    regulator = Regulator(Regulation(units_per_s=20, units_burst=4))
    async with serving(tmp_path, regulator=regulator) as service:
        for number in range(4):
            service.barrel.put({"text": "x" * 100_000}, id=str(number))
        device = await service.device()
        begun = time.monotonic()
        device.ask("stream/geo/s", {"run": "r", "since": "first", "follow": False, "docs": True})
        rows = 0
        while True:
            array = (await device.hear()).body
            rows += len(array["rows"])
            if "end" in array:
                break
        # 400 KB are 40 units, of which 4 were there and 20 come in a second; the last array is paid for behind it.
        assert (rows, time.monotonic() - begun > 0.5) == (4, True)
