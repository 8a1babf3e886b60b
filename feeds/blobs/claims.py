"""Which ranges of one file are being worked on: none overlaps another, and who comes second waits."""

from __future__ import annotations

from bisect import bisect_left, bisect_right


class Claims:
    """Ranges [start, end) that do not overlap. Not thread-safe: its file's lock guards it."""

    __slots__ = ("_ends", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: dict[int, int] = {}

    def end(self) -> int:
        """Behind the last one; 0 where there is none."""
        return self._ends[self._starts[-1]] if self._starts else 0

    def free(self, start: int, end: int) -> bool:
        """Whether no byte of the range is claimed."""
        before = bisect_left(self._starts, end)
        return not before or self._ends[self._starts[before - 1]] <= start

    def add(self, start: int, end: int) -> None:
        """Claim a free range."""
        starts = self._starts
        if not starts or start > starts[-1]:
            starts.append(start)
        else:
            starts.insert(bisect_right(starts, start), start)
        self._ends[start] = end

    def remove(self, start: int) -> None:
        """Give the range that begins here back."""
        starts = self._starts
        at = 0 if starts[0] == start else bisect_left(starts, start)
        del starts[at]
        del self._ends[start]
