"""How long to wait before the next attempt: growing, and jittered so that many do not come at once.

Pure: randomness comes in.
"""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Waits that double from `first_s` to `max_s`, each spread over half to one and a half of itself."""

    def __init__(
        self, first_s: float = 0.1, max_s: float = 30.0, *, rng: Callable[[], float] = random.random
    ) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._rng = rng
        self._attempts = 0

    def next(self) -> float:
        """The wait in seconds before the next attempt."""
        wait_s = min(self._max_s, self._first_s * 2.0 ** min(self._attempts, 30))
        self._attempts += 1
        return wait_s * (0.5 + self._rng())

    def reset(self) -> None:
        """It worked: begin small again."""
        self._attempts = 0
