"""What `/health` says of a whole service in trouble, and that it says so no longer when the trouble is over."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker.serve import Service, serving
from broker.settings import load_settings
from feeds.storage.transaction import Transaction

from .http_tools import eventually
from .mqtt_tools import RawClient, leave_no_client
from .store_tools import change


class Watched:
    """A service in this process, and a client that asks how it is."""

    def __init__(self, service: Service, client: httpx.AsyncClient) -> None:
        self.service = service
        self.client = client

    async def health(self) -> tuple[int, str, dict[str, Any]]:
        """The status, the state of the whole, and the parts."""
        answer = await self.client.get("/health")
        told = answer.json()
        assert told["ok"] == (answer.status_code == 200)
        return answer.status_code, told["state"], told["parts"]

    async def put(self, name: str, **body: Any) -> int:
        """The status of a document's write."""
        return (await self.client.put(f"/barrels/geo/docs/{name}", json=body)).status_code

    async def until_state(self, **states: str) -> dict[str, Any]:
        """The parts, once these have these states."""
        parts: dict[str, Any] = {}

        async def reached() -> bool:
            nonlocal parts
            parts = (await self.health())[2]
            return all(parts[name]["state"] == state for name, state in states.items())

        await eventually(reached, seconds=30)
        return parts


@asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[Watched]:
    flags = {"data": folder, "http": "127.0.0.1:0", "mqtt": "127.0.0.1:0"}
    async with serving(load_settings(flags)) as service:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.http.port}", timeout=20) as client:
            assert (await client.post("/barrels/geo")).status_code == 201
            try:
                yield Watched(service, client)
            finally:
                await leave_no_client()


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Watched]:
    async with watched(tmp_path) as running:
        yield running


def assert_told(part: dict[str, Any], reason: str) -> None:
    """It says what is wrong, since when, and what to do."""
    assert reason in part["failure"]
    assert len(part["hint"]) > 20
    assert datetime.fromisoformat(part["since"]).tzinfo is not None


async def in_state_file(service: Service, statement: str) -> None:
    """Run a statement on the broker's own state, whatever that is in."""
    state = service.mqtt._state
    connection = state._connection
    assert isinstance(connection, sqlite3.Connection)
    await state._in_thread(lambda: connection.execute(statement).fetchone())


async def test_a_service_at_work_says_since_when(web: Watched) -> None:
    status, state, parts = await web.health()
    assert (status, state) == (200, "running")
    for part in parts.values():
        assert part["state"] == "running"
        assert part["failure"] is None
        assert part["hint"] is None
        assert datetime.fromisoformat(part["since"]).tzinfo is not None


async def test_a_full_store_is_failing_until_it_takes_writes_again_though_nobody_writes(web: Watched) -> None:
    store = web.service.store
    change(store, "PRAGMA max_page_count = 1")  # as many as there are
    while (status := await web.put("x", text="x" * 100_000)) == 201:
        pass
    assert status == 507
    assert (await web.health())[:2] == (503, "failing")
    parts = await web.until_state(store="failing", maintenance="waiting")
    assert_told(parts["store"], "disk is full")
    assert_told(parts["maintenance"], "disk is full")
    assert parts["mqtt"]["state"] == "running"

    def make_room(transaction: Transaction) -> None:
        transaction.execute("PRAGMA max_page_count = 1000000")
        raise ZeroDivisionError("a write that succeeds would tell the store that it is well again")

    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(store.writer.call, make_room)
    assert (await web.health())[0] == 503
    await web.until_state(store="running", maintenance="running")
    assert (await web.health())[:2] == (200, "running")
    assert await web.put("y", text="x" * 100_000) == 201


async def test_a_broker_that_cannot_keep_what_it_has_to_is_failing_and_the_publisher_waits(web: Watched) -> None:
    away = await RawClient.connect(web.service.mqtt.port, "away", clean=False)
    await away.subscribe(("barrels/geo/_id/#", 1))
    await away.disconnect()
    await in_state_file(web.service, "PRAGMA max_page_count = 1")
    for number in range(20):
        assert await web.put(f"d{number}", text="x" * 10_000) == 201, "the store has a disk of its own"
    parts = await web.until_state(mqtt="failing", publisher="waiting")
    assert (await web.health())[:2] == (503, "failing")
    assert_told(parts["mqtt"], "disk is full")
    assert_told(parts["publisher"], "disk is full")
    assert parts["publisher"]["doing"] == "publishing to the embedded broker"
    assert parts["publisher"]["tries"] >= 1
    assert datetime.fromisoformat(parts["publisher"]["next_try"]).tzinfo is not None
    await in_state_file(web.service, "PRAGMA max_page_count = 1000000")
    await web.until_state(mqtt="running", publisher="running")
    again = await RawClient.connect(web.service.mqtt.port, "away", clean=False)
    missing = {f"barrels/geo/_id/d{number}" for number in range(20)}
    while missing:
        missing.discard((await again.heard()).topic)  # some come twice


async def test_a_broker_that_does_not_run_is_failing_and_the_publisher_waits_and_can_be_stopped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with watched(tmp_path) as web:
        await web.service.mqtt.stop()
        assert await web.put("x", n=1) == 201
        parts = await web.until_state(mqtt="failing", publisher="waiting")
        assert_told(parts["mqtt"], "does not run")
        assert_told(parts["publisher"], "not running")
        assert (await web.health())[:2] == (503, "failing")
    assert "it is told after the next start" in caplog.text
    assert "<unknown>" not in caplog.text


async def test_metrics_show_which_parts_serve(web: Watched) -> None:
    text = (await web.client.get("/metrics")).text
    assert 'spile_health_ok{name="store"} 1.0' in text
    assert 'spile_health_waiting{name="publisher"} 0.0' in text
    assert "spile_publisher_waiting_seconds 0.0" in text
