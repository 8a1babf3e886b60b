"""The description is complete and true: generated requests meet no failure, and no answer it does not tell of."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from broker.http.openapi_operations import OPERATIONS

from .http_tools import fill, served

EXAMPLES = 30
# A condition may fail (412) before a body is looked at, and a place in the log be gone (410).
REFUSALS = [400, 401, 403, 404, 405, 409, 410, 412, 413, 422]
CONFIG = SchemathesisConfig.from_dict({"checks": {"negative_data_rejection": {"expected-statuses": REFUSALS}}})
schemathesis.serializer.alias("application/partial-upload", "application/octet-stream")
NOTHING_TO_GET_WRONG = {"welcome", "health", "metrics", "description", "list_barrels", "all_listeners"}
NOTHING_TO_GET_WRONG |= {"list_replications"}
CASES = [(name, GenerationMode.POSITIVE) for name in OPERATIONS] + [
    (name, GenerationMode.NEGATIVE) for name in OPERATIONS if name not in NOTHING_TO_GET_WRONG
]


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service in a thread of its own, with something in it."""
    folder: Path = tmp_path_factory.mktemp("described")
    ready = threading.Event()
    told: list[Any] = []

    async def run() -> None:
        stop = asyncio.Event()
        async with served(folder) as web:
            fill(web.store.create("geo"), 20)
            told.extend((web.url, asyncio.get_running_loop(), stop))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="described")
    thread.start()
    assert ready.wait(60)
    url, loop, stop = told
    yield url
    loop.call_soon_threadsafe(stop.set)
    thread.join(60)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def described(base_url: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{base_url}/openapi.json", timeout=60).json()
    return found


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_generated_requests_are_answered_as_described(
    base_url: str, described: dict[str, Any], name: str, mode: GenerationMode
) -> None:
    operation = schemathesis.openapi.from_dict(described, config=CONFIG).find_operation_by_id(name)
    # What contradicts itself (two revisions, a stale one) is refused, and no schema can say so.
    excluded: list[Any] = [
        positive_data_acceptance,
        *([negative_data_rejection] if mode is GenerationMode.POSITIVE else []),
    ]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    def answered(case: schemathesis.Case[Any]) -> None:
        if case.path.endswith("/changes"):
            case.query = {**(case.query or {}), "timeout": 20}
        if case.path == "/replications" and (case.query or {}).get("wait") in (True, "true"):
            case.query = {"wait": "false"}  # nobody is to be asked who is not ours
        case.call_and_validate(base_url=base_url, timeout=60, excluded_checks=excluded)

    answered()


def test_every_route_and_every_option_is_described(described: dict[str, Any]) -> None:
    operations = [operation for path in described["paths"].values() for operation in path.values()]
    assert {operation["operationId"] for operation in operations} == set(OPERATIONS)
    assert all(part["description"] for operation in operations for part in operation["parameters"])


def test_every_answer_of_the_table_of_errors_may_be_told(described: dict[str, Any]) -> None:
    statuses = {
        int(status) for path in described["paths"].values() for one in path.values() for status in one["responses"]
    }
    assert {400, 401, 403, 404, 409, 410, 412, 413, 422, 503, 507} <= statuses
