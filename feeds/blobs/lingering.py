"""How long the committer waits for more before it makes a group durable. Pure.

Writers that were answered together come back together, one by one: who begins with the first of them syncs for that
one alone, and then for all the others. Waiting a moment for as many as were just answered makes one group of them. It
is learned whether they come: where they did not, it is left out for a while.
"""

from __future__ import annotations

LINGER_S_MAX = 0.001
SMALL_BYTES_MAX = 1024 * 1024  # of a group: for larger ones the syncs are not what takes the time
_PART = 0.25  # of the time that the last group took
_PAUSE_MAX = 64  # groups


class Lingering:
    """What one committer has learned of its writers. Not thread-safe: it is the committer's."""

    def __init__(self) -> None:
        self._answered = 0
        self._limit_s = 0.0
        self._pause = 1  # groups to go without, the next time that nobody came
        self._left = 0  # of these

    def answered(self, count: int, size: int, took_s: float) -> None:
        """A group of so many steps and bytes is done."""
        self._answered = count if size <= SMALL_BYTES_MAX else 0
        self._limit_s = min(LINGER_S_MAX, took_s * _PART)

    def limit_s(self) -> float:
        """For how long to wait for more; 0 for not at all."""
        if not self._answered:
            return 0.0
        if self._left:
            self._left -= 1
            return 0.0
        return self._limit_s

    @property
    def wanted(self) -> int:
        """How many more would be all."""
        return self._answered

    def came(self, count: int) -> None:
        """So many came meanwhile."""
        if 2 * count >= self._answered:
            self._pause = 1
        else:
            self._left, self._pause = self._pause, min(2 * self._pause, _PAUSE_MAX)
