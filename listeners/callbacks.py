"""Telling one change to a callback: tried again while it fails, then given up.

What is done with a change that was given up is `listeners.listener`'s.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    stop_after_attempt,
    stop_any,
    stop_when_event_set,
    wait_exponential,
    wait_random,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a failing callback is called, and the waits between: doubling from the first, jittered."""

    attempts: int = 5
    first_s: float = 0.2
    max_s: float = 30.0


def call_until_done(
    callback: Callable[[T], object],
    value: T,
    retries: Retries,
    stop: threading.Event,
    failed: Callable[[BaseException, int], None] | None = None,
) -> None:
    """Call it until it returns. Raises what it raised last, when its attempts are used up or `stop` is set.

    `failed` hears of each failure that is followed by another attempt, with the attempt's number.
    """

    def sleep(seconds: float) -> None:
        stop.wait(seconds)

    def before_sleep(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if failed is not None and error is not None:
            failed(error, state.attempt_number)

    retrying = Retrying(
        stop=stop_any(stop_after_attempt(max(1, retries.attempts)), stop_when_event_set(stop)),
        wait=wait_exponential(multiplier=retries.first_s, max=retries.max_s) + wait_random(0, retries.first_s),
        sleep=sleep,
        before_sleep=before_sleep,
        reraise=True,
    )
    retrying(callback, value)
