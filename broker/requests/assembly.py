"""A document put together from ranges, in whatever order and however often they come.

Pure.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from feeds.errors import BadRequest


class Assembly:
    """`total` bytes, of which some have come."""

    def __init__(self, total: int, pieces_max: int) -> None:
        """Nothing yet; `pieces_max` bounds how many ranges may stand with gaps between them."""
        self.total = total
        self.received = 0
        self._data = bytearray(total)
        self._pieces_max = pieces_max
        self._starts: list[int] = []
        self._ends: list[int] = []

    @property
    def complete(self) -> bool:
        """Whether every byte has come."""
        return self.received == self.total

    def add(self, offset: int, data: bytes) -> None:
        """Take a range. What came before is replaced by the same; BadRequest for what lies outside."""
        end = offset + len(data)
        if end > self.total:
            raise BadRequest(f"The range ends at {end}, and the document at {self.total}.")
        if not data:
            return
        starts, ends = self._starts, self._ends
        # Pieces from `first` up to `last` touch the new one and become one with it.
        first, last = bisect_left(ends, offset), bisect_right(starts, end)
        if first == last and len(starts) == self._pieces_max:
            raise BadRequest(f"The ranges leave more than {self._pieces_max} gaps.", hint="Send them in order.")
        start = min(offset, starts[first]) if first < last else offset
        stop = max(end, ends[last - 1]) if first < last else end
        replaced = sum(ends[at] - starts[at] for at in range(first, last))
        starts[first:last], ends[first:last] = [start], [stop]
        self.received += stop - start - replaced
        self._data[offset:end] = data

    def whole(self) -> bytes:
        """All of it, once it is complete."""
        assert self.complete
        return bytes(self._data)
