"""What the index has under some places, in order, from a mark on: candidates for hits, read as they are asked for.

A shape costs a look-up, whatever it holds: many are looked up in one statement, and only those that have something
are read. In key order shapes come one after the other, so that a page ends the search; in value order the least value
of each is asked for first, and a shape is read when its turn comes.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import Connection

from feeds.storage.asking import rows_of
from feeds.storage.queries import Queries
from feeds.storage.selection import JUST_BEHIND, Places, shapes_in

Hit = tuple[bytes, str, int, str]  # value, shape's path, doc, places: in this order they come in value order

DOC_MAX = (1 << 63) - 1  # a document's number is a seq
_FEW, _MANY = 8, 4_096  # ranges looked up together, at first and at most
_CHUNK_FIRST, _CHUNK = 8, 200  # hits of one range read at a time
_TOGETHER_MAX = 1_000  # hits of many ranges read at once
_LAST_PLACES = "\U0010ffff"


class Range(NamedTuple):
    """The values from `low` up to, not including, `high` on one shape."""

    shape: int
    path: str
    low: bytes
    high: bytes


class _Backwards(tuple[Any, ...]):
    """A hit that sorts the other way round."""

    __slots__ = ()

    def __lt__(self, other: tuple[Any, ...]) -> bool:
        return tuple.__gt__(self, other)


class Hits:
    """The hits under some places, `page` of which will be asked for, behind `mark`."""

    def __init__(
        self,
        connection: Connection,
        queries: Queries,
        barrel: int,
        places: Places,
        *,
        page: int,
        descending: bool,
        mark: Hit | None,
    ) -> None:
        self._connection = connection
        self._queries = queries
        self._barrel = barrel
        self._places = places
        self._page = page
        self._descending = descending
        self._mark = mark

    def by_key(self) -> Iterator[Hit]:
        """By the shape's path, then by value."""
        ranges = self._ranges(self._mark[1] if self._mark is not None else None)
        size = _FEW
        while batch := list(islice(ranges, size)):
            yield from self._one_after_the_other(batch)
            size = min(2 * size, _MANY)

    def by_value(self) -> Iterator[Hit]:
        """By value, then by the shape's path."""
        ranges = list(self._ranges(None))
        if self._mark is not None:
            ranges = [each for each in map(self._clipped, ranges) if each.low < each.high]
        if len(ranges) == 1:
            yield from self._read(ranges[0], _CHUNK)
            return
        order: Callable[[Hit], tuple[Any, ...]] = _Backwards if self._descending else tuple
        least = (DOC_MAX, _LAST_PLACES) if self._descending else (-1, "")
        # A range stands in the heap with the least that it may hold, and is read when nothing else comes before that.
        heap: list[tuple[tuple[Any, ...], int, Range | Iterator[Hit], Hit | None]] = []
        for number, (each, value) in enumerate(self._outermost(ranges)):
            heap.append((order((value, each.path, *least)), number, each, None))
        heapq.heapify(heap)
        while heap:
            _, number, source, hit = heap[0]
            if hit is not None:
                yield hit
            reading = self._read(source) if isinstance(source, Range) else source
            following = next(reading, None)
            if following is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (order(following), number, reading, following))

    # -- ranges

    def _ranges(self, path: str | None) -> Iterator[Range]:
        """What is meant, in key order, from the shape of this path on."""
        spans = self._places.spans
        if path is not None and self._descending:
            spans = [(low, min(high, path + JUST_BEHIND)) for low, high in spans]
        elif path is not None:
            spans = [(max(low, path), high) for low, high in spans]
        step = -1 if self._descending else 1
        shapes = shapes_in(self._connection, self._queries, self._barrel, spans, descending=self._descending)
        for shape, each in shapes:
            for low, high in self._places.bounds(each)[::step]:
                yield Range(shape, each, low, high)

    def _clipped(self, each: Range) -> Range:
        """What of a range lies behind the mark, in value order (its own hits at the mark's value are passed over
        when they are read)."""
        assert self._mark is not None
        value, path, _, _ = self._mark
        if self._descending:
            end = value + b"\x00" if each.path <= path else value
            return Range(each.shape, each.path, each.low, min(each.high, end))
        begin = value + b"\x00" if each.path < path else value
        return Range(each.shape, each.path, max(each.low, begin), each.high)

    def _outermost(self, ranges: Sequence[Range]) -> Iterator[tuple[Range, bytes]]:
        """Those of the ranges that have a hit, with the value that comes first in the order."""
        statement = self._queries.last_values if self._descending else self._queries.first_values
        for (low, high), group in _by_bounds(ranges).items():
            for begin in range(0, len(group), _MANY):
                chunk = {each.shape: each for each in group[begin : begin + _MANY]}
                for shape, value in self._rows(statement, low, high, self._queries.as_list(list(chunk))):
                    if value is not None:
                        yield chunk[shape], value

    # -- reading

    def _one_after_the_other(self, ranges: list[Range]) -> Iterator[Hit]:
        """The hits of ranges in key order: read at once while they are few, else of fewer ranges at a time."""
        at_mark = self._mark is not None and ranges[0].path == self._mark[1]
        if len(ranges) > 1 and not at_mark:
            paths = {each.shape: each.path for each in ranges}
            hits_max = min(self._page + 1, _TOGETHER_MAX)
            found: list[Hit] = []
            for (low, high), group in _by_bounds(ranges).items():
                numbers = self._queries.as_list([each.shape for each in group])
                rows = self._rows(self._queries.hits_among, numbers, low, high, hits_max + 1 - len(found))
                found.extend((value, paths[shape], doc, place) for shape, value, doc, place in rows)
                if len(found) > hits_max:
                    break
            else:
                found.sort(key=lambda hit: (hit[1], hit[0], hit[2], hit[3]), reverse=self._descending)
                yield from found
                return
        middle = 1 if at_mark else len(ranges) // 2
        if len(ranges) == 1:
            yield from self._read(ranges[0], _CHUNK)
            return
        yield from self._one_after_the_other(ranges[:middle])
        yield from self._one_after_the_other(ranges[middle:])

    def _read(self, each: Range, chunk: int = _CHUNK_FIRST) -> Iterator[Hit]:
        """The hits of one range in value order, behind the mark if that is one of them."""
        if self._descending:
            statement, bound, place = self._queries.hits_back, each.low, (each.high, -1, "")
        else:
            statement, bound, place = self._queries.hits, each.high, (each.low, -1, "")
        if self._mark is not None and each.path == self._mark[1]:
            marked = (self._mark[0], self._mark[2], self._mark[3])
            place = min(place, marked) if self._descending else max(place, marked)
        while True:
            chunk = min(chunk, self._page + 1)
            rows = self._rows(statement, each.shape, bound, *place, chunk)
            for value, doc, places in rows:
                yield value, each.path, doc, places
            if len(rows) < chunk:
                return
            place = tuple(rows[-1])
            chunk = min(4 * chunk, _CHUNK)

    def _rows(self, statement: str, *parameters: Any) -> Sequence[Any]:
        return rows_of(self._connection, statement, parameters)


def _by_bounds(ranges: Sequence[Range]) -> dict[tuple[bytes, bytes], list[Range]]:
    groups: dict[tuple[bytes, bytes], list[Range]] = {}
    for each in ranges:
        groups.setdefault((each.low, each.high), []).append(each)
    return groups
