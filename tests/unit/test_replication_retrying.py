"""How a call to a peer is made again: after waits that grow and are jittered, for as long as that helps."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from feeds.errors import Forbidden, Overloaded, SpileError, Unavailable
from listeners.replication import Patience
from listeners.replication.retrying import persistently

REAL = asyncio.timeout


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts; none takes any time."""
    found: list[float] = []

    def timeout(seconds: float) -> Any:
        found.append(seconds)
        return REAL(0)

    monkeypatch.setattr(asyncio, "timeout", timeout)
    return found


def failing(*errors: SpileError) -> Callable[[], Any]:
    left = list(errors)

    async def call() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return call


async def test_waits_grow_and_are_jittered_up_to_a_bound(waited: list[float]) -> None:
    random.seed(7)
    patience = Patience(attempts=None, first_s=1.0, max_s=16.0)
    runs = []
    for _ in range(30):
        await persistently(failing(*[Unavailable("away")] * 10), patience, lambda error: None)
        runs.append(list(waited))
        waited.clear()
    assert all(len(run) == 10 for run in runs)
    for number in range(10):
        each = [run[number] for run in runs]
        assert max(each) <= 0.25 + min(16.0, 2.0**number)
        assert min(each) >= 0.25
        assert len(set(each)) > 10, "many that failed at once do not come back at once"
    assert sum(run[0] for run in runs) < sum(run[3] for run in runs) < sum(run[9] for run in runs)


async def test_a_service_that_says_when_is_asked_no_earlier(waited: list[float]) -> None:
    said = Overloaded("Later")
    said.details["retry_after"] = 7
    await persistently(failing(said), Patience(first_s=0.01, max_s=30), lambda error: None)
    assert waited[0] >= 7
    said.details["retry_after"] = 86_400
    await persistently(failing(said), Patience(first_s=0.01, max_s=30), lambda error: None)
    assert waited[1] == 30, "but it does not say how patient we are"


async def test_the_error_of_the_last_attempt_comes_out(waited: list[float]) -> None:
    errors = [Unavailable("first"), Unavailable("second"), Unavailable("third"), Unavailable("fourth")]
    with pytest.raises(Unavailable, match="third"):
        await persistently(failing(*errors), Patience(attempts=3), lambda error: None)
    assert len(waited) == 2


async def test_what_waiting_cannot_help_comes_out_at_once(waited: list[float]) -> None:
    with pytest.raises(Forbidden):
        await persistently(failing(Forbidden("no")), Patience(attempts=None), lambda error: None)
    assert waited == []


async def test_it_tells_what_it_waits_for_and_when_that_is_over(waited: list[float]) -> None:
    told: list[str | None] = []
    patience = Patience(attempts=None)

    def hear(error: SpileError | None) -> None:
        told.append(None if error is None else error.reason)

    assert await persistently(failing(Unavailable("a"), Unavailable("b")), patience, hear) == "done"
    assert await persistently(failing(), patience, hear) == "done"
    assert told == ["a", "b", None]
    assert len(waited) == 2


async def test_who_is_to_stop_waits_no_more() -> None:
    stop = asyncio.Event()
    patience = Patience(attempts=None, first_s=1000.0, max_s=1000.0)
    calling = asyncio.create_task(
        persistently(failing(*[Unavailable("away")] * 9), patience, lambda error: stop.set(), stop)
    )
    async with REAL(20):
        with pytest.raises(Unavailable):
            await calling
