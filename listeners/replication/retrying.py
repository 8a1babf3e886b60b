"""Asking a peer again while it cannot answer: with growing, jittered waits, for a while or for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception
from tenacity import wait_random_exponential as jittered

from feeds.errors import SpileError
from listeners.replication.peer import Told

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a call is made (None: until it succeeds), and the waits in between: doubling, jittered."""

    attempts: int | None = 8
    first_s: float = 0.2
    max_s: float = 30.0


class Attempt(Protocol):
    """Makes a call to a peer, and makes it again while that helps."""

    def __call__(self, call: Callable[[], Awaitable[T]]) -> Awaitable[T]: ...


async def persistently(
    call: Callable[[], Awaitable[T]], patience: Patience, told: Told, stop: asyncio.Event | None = None
) -> T:
    """What the call gives in the end; raises what it raised last, at once when it is to `stop`.

    `told` hears of each failure that is followed by another attempt, and of None once one has succeeded after that.
    """
    wait = jittered(multiplier=patience.first_s, max=patience.max_s)
    failed = False

    async def once() -> T:
        return await call()

    def before_sleep(state: RetryCallState) -> None:
        nonlocal failed
        failed = True
        error = _error(state)
        if error is not None:
            told(error)

    def waits(state: RetryCallState) -> float:
        error = _error(state)
        asked = 0.0 if error is None else float(error.details.get("retry_after", 0))
        return max(patience.first_s / 4 + wait(state), min(asked, patience.max_s))

    async def sleep(seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await (stop or asyncio.Event()).wait()
        except TimeoutError:
            return

    def has_ended(state: RetryCallState) -> bool:
        tried = patience.attempts is not None and state.attempt_number >= patience.attempts
        return tried or (stop is not None and stop.is_set())

    result: T = await AsyncRetrying(
        retry=retry_if_exception(lambda error: isinstance(error, SpileError) and error.retryable),
        stop=has_ended,
        wait=waits,
        sleep=sleep,
        before_sleep=before_sleep,
        reraise=True,
    )(once)
    if failed:
        told(None)
    return result


def _error(state: RetryCallState) -> SpileError | None:
    error = None if state.outcome is None else state.outcome.exception()
    return error if isinstance(error, SpileError) else None
