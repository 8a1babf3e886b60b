"""Doing something until it is done: what is waited for, what is not, and what is told meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from broker.perseverance import Obstacle, Perseverance, Undertaking
from feeds.errors import BadRequest, SpileError, Unavailable
from listeners.backoff import Backoff

TELLING = Undertaking("publishing to the far broker", "See that it runs.")
log = logging.getLogger("spile.test")


def failing(*errors: SpileError, then: str = "done") -> Callable[[], Awaitable[str]]:
    """A step that fails in these ways, and gives something at last."""
    left = list(errors)

    async def step() -> str:
        if left:
            raise left.pop(0)
        return then

    return step


def patient(wait_s: float = 3600.0) -> Perseverance:
    """Whose clock stands still, and which waits so long that only its end ends a wait."""
    return Perseverance(log, clock=lambda: 1_000.0, backoff=lambda: Backoff(wait_s, wait_s * 10, rng=lambda: 0.5))


async def waiting(perseverance: Perseverance) -> Obstacle:
    async with asyncio.timeout(30):
        while perseverance.obstacle is None:
            await asyncio.sleep(0)
    return perseverance.obstacle


async def test_it_is_done_again_until_it_is_done() -> None:
    perseverance = patient(0.001)
    assert await perseverance.carry(TELLING, failing(*[Unavailable("away")] * 4)) == "done"
    assert perseverance.obstacle is None


async def test_what_waiting_cannot_help_is_raised_at_once() -> None:
    perseverance = patient()
    with pytest.raises(BadRequest):
        await perseverance.carry(TELLING, failing(BadRequest()))
    assert perseverance.obstacle is None


async def test_meanwhile_it_tells_what_it_waits_for_since_when_and_until_when() -> None:
    perseverance = patient()
    task = asyncio.create_task(perseverance.carry(TELLING, failing(Unavailable("away"))))
    assert await waiting(perseverance) == Obstacle(TELLING, "away", since=1_000.0, tries=1, next_try=4_600.0)
    perseverance.stop()
    assert await task == "done"


async def test_at_the_end_it_is_tried_once_more_and_then_given_up() -> None:
    perseverance = patient()
    task = asyncio.create_task(perseverance.carry(TELLING, failing(*[Unavailable("away")] * 3)))
    await waiting(perseverance)
    perseverance.stop()
    with pytest.raises(Unavailable):
        await task
    assert perseverance.obstacle is None


async def test_it_can_be_cancelled_while_it_waits() -> None:
    perseverance = patient()
    task = asyncio.create_task(perseverance.carry(TELLING, failing(Unavailable())))
    await waiting(perseverance)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert perseverance.obstacle is None


async def test_the_log_names_what_waits_and_says_it_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    errors = [*[Unavailable("away")] * 5, *[Unavailable("still starting")] * 5]
    await patient(0.001).carry(TELLING, failing(*errors))
    assert [record.getMessage() for record in caplog.records] == [
        "publishing to the far broker waits, and is tried again: away",
        "publishing to the far broker waits, and is tried again: still starting",
        "publishing to the far broker goes on after 0.0 s and 11 tries",
    ]
