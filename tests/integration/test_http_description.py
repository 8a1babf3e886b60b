"""The description is complete and true: generated requests find no failure of the service and no undescribed answer."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings

from broker.http.openapi_operations import OPERATIONS

from .http_tools import fill, served


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service in a thread of its own, with something in it."""
    folder: Path = tmp_path_factory.mktemp("described")
    ready = threading.Event()
    stop = asyncio.Event()
    told: list[str] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        async with served(folder) as web:
            fill(web.store.create("geo"), 20)
            told.append(web.url)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="described")
    thread.start()
    assert ready.wait(20)
    yield told[0]
    loops[0].call_soon_threadsafe(stop.set)
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def api(base_url: str) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{base_url}/openapi.json")


schema = schemathesis.pytest.from_fixture("api")


@schema.parametrize()
@settings(
    max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate]
)
def test_generated_requests_are_answered_as_described(case: schemathesis.Case) -> None:
    case.call_and_validate(timeout=10)


def test_every_route_and_every_option_is_described(base_url: str) -> None:
    described = httpx.get(f"{base_url}/openapi.json").json()
    named = {operation["operationId"] for path in described["paths"].values() for operation in path.values()}
    assert named == set(OPERATIONS)
