"""Two services on one database, each with a broker of its own: each tells its own subscribers everything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from mqtt_tools import RawClient, leave_no_client, until

from broker.serve import Service, serving
from broker.settings import load_settings
from feeds.errors import StoreLocked


@pytest.fixture
def url(databases: Any) -> Iterator[str]:
    with databases.lent() as lent:
        yield lent


def settings(url: str, data: Path) -> Any:
    return load_settings({"database": url, "data": data, "http": "127.0.0.1:0", "mqtt": "127.0.0.1:0"})


async def put(service: Service, name: str) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.http.port}", timeout=20) as client:
        assert (await client.put(f"/barrels/geo/docs/{name}", json={"n": 1})).is_success


async def test_each_is_told_what_either_wrote_and_keeps_a_position_of_its_own(url: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        stack.push_async_callback(leave_no_client)
        one = await stack.enter_async_context(serving(settings(url, tmp_path / "one")))
        two = await stack.enter_async_context(serving(settings(url, tmp_path / "two")))
        barrel = one.store.create("geo")
        clients = [await RawClient.connect(each.mqtt.port, "listener") for each in (one, two)]  # type: ignore[union-attr]
        for client in clients:
            await client.subscribe(("barrels/geo/_id/+", 1))
        await put(one, "a")
        await put(two, "b")
        for client in clients:
            heard = await client.hear(2)
            assert sorted(each.topic.rpartition("/")[2] for each in heard) == ["a", "b"]

        def positions() -> dict[str, int]:
            return {each.broker: each.position.seq for each in one.store.lags.publishers(barrel.name)}

        await until(lambda: sorted(positions().values()) == [2, 2])
        assert all(name.startswith("embedded-") for name in positions())


async def test_a_data_directory_belongs_to_one_of_them(url: str, tmp_path: Path) -> None:
    async with serving(settings(url, tmp_path)):
        with pytest.raises(StoreLocked, match="in use"):
            async with serving(settings(url, tmp_path)):
                raise AssertionError("it has started")
