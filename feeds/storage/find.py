"""Finding documents by their paths and values, in order, page by page.

The index gives candidates in order; each is checked against the document itself, since texts are cut in the index.
"""

from __future__ import annotations

import base64
import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection

from feeds.errors import BadRequest
from feeds.paths import Leaf, document_leaves, encode_segment, key_path, value_segment
from feeds.patterns import Pattern
from feeds.rows import FindPage, Found, document_json
from feeds.storage.queries import Queries
from feeds.storage.selection import HIGHEST, LOWEST, Range, matches_shape, pattern_ranges, shapes_under
from feeds.values import after_prefix, encode_value, text_prefix

LIMIT_MAX = 10_000
_CHUNK = 200
_BODIES = 25  # held at once: documents may be large
_SURELY_KEPT = 1 + 97  # bytes of an indexed text: a character that would end behind byte 100 is cut off whole
_DOC_MAX = (1 << 63) - 1
_LAST_PLACES = "\U0010ffff"

Order = Literal["key", "value"]
Hit = tuple[bytes, str, int, str, Range]  # value, shape's path, doc, places, and where it was found
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Query:
    """What to find: a pattern of key paths (or of whole paths), and which values there."""

    pattern: Pattern
    low: Any = msgspec.UNSET
    high: Any = msgspec.UNSET
    prefix: str | None = None
    order: Order = "key"
    descending: bool = False
    limit: int = 100
    after: str | None = None
    docs: bool = False

    def check(self) -> None:
        """Refuse what cannot be meant."""
        if self.order not in ("key", "value"):
            raise BadRequest(f"order cannot be {self.order!r}", hint="Order by key or by value.")
        if not 1 <= self.limit <= LIMIT_MAX:
            raise BadRequest(f"limit cannot be {self.limit}", hint=f"Ask for 1 to {LIMIT_MAX} at a time.")
        if self.prefix is not None and (self.low is not msgspec.UNSET or self.high is not msgspec.UNSET):
            raise BadRequest("prefix does not go with from and to", hint="Give the one or the others.")

    @property
    def bounded(self) -> bool:
        return self.prefix is not None or self.low is not msgspec.UNSET or self.high is not msgspec.UNSET


class Finder:
    """Runs one query on a snapshot of the store."""

    def __init__(self, connection: Connection, queries: Queries, barrel: int, query: Query, now: float) -> None:
        query.check()
        self._connection = connection
        self._queries = queries
        self._barrel = barrel
        self._query = query
        self._now = now

    def page(self) -> FindPage:
        """The next hits in order, and the token that goes on behind them."""
        limit = self._query.limit
        found: list[Found] = []
        hits = self._hits()
        last: Hit | None = None
        while len(found) < limit:
            chunk = list(_take(hits, min(_CHUNK, limit - len(found))))
            if not chunk:
                return FindPage(found, None)
            last = chunk[-1]
            found.extend(self._checked(chunk))
        more = next(hits, None) is not None
        return FindPage(found, _token(self._query, last) if more and last is not None else None)

    # -- candidates

    def _hits(self) -> Iterator[Hit]:
        query = self._query
        mark = _read_token(query) if query.after is not None else None
        ranges = self._ranges()
        ranges.sort(key=lambda each: (each.path, each.low), reverse=query.descending)
        if query.order == "key":
            for each in ranges:
                if mark is None or not self._passed((each.path,), (mark[1],)):
                    yield from self._scan(each, mark if mark is not None and each.path == mark[1] else None)
            return
        scans = [self._scan(each, self._mark_for(each, mark)) for each in ranges]
        yield from heapq.merge(*scans, key=lambda hit: hit[:4], reverse=query.descending)

    def _passed(self, place: tuple[Any, ...], mark: tuple[Any, ...]) -> bool:
        return place > mark if self._query.descending else place < mark

    def _mark_for(self, each: Range, mark: tuple[bytes, str, int, str] | None) -> tuple[bytes, str, int, str] | None:
        """Where a scan of one shape goes on when the last hit of all shapes was `mark`."""
        if mark is None or each.path == mark[1]:
            return mark
        # At the same value, shapes that come before the mark's lie below it: told already when ascending, and
        # still to come when descending. Either way the scan goes on from above all their hits at that value.
        before = each.path < mark[1]
        return (mark[0], each.path, _DOC_MAX, _LAST_PLACES) if before else (mark[0], each.path, -1, "")

    def _scan(self, each: Range, mark: tuple[bytes, str, int, str] | None) -> Iterator[Hit]:
        """The hits of one range in value order, from behind `mark`."""
        if self._query.descending:
            statement, bound, place = self._queries.hits_back, each.low, (each.high, -1, "")
        else:
            statement, bound, place = self._queries.hits, each.high, (each.low, -1, "")
        if mark is not None:
            marked = (mark[0], mark[2], mark[3])
            place = min(place, marked) if self._query.descending else max(place, marked)
        chunk = min(_CHUNK, self._query.limit + 1)
        while True:
            parameters = (each.shape, bound, *place, chunk)
            rows = self._connection.exec_driver_sql(statement, parameters).all()
            for value, doc, places in rows:
                yield value, each.path, doc, places, each
            if len(rows) < chunk:
                return
            place = tuple(rows[-1])

    def _ranges(self) -> list[Range]:
        query, levels = self._query, self._query.pattern.levels
        found: dict[Range, None] = {}
        if not query.bounded:
            for each in pattern_ranges(self._connection, self._queries, self._barrel, levels):
                found[each] = None
            if levels[-1] == "#":
                return list(found)
        low, high = self._bounds()
        exact = levels[:-1] if levels[-1] == "#" else levels
        for shape, path in shapes_under(self._connection, self._queries, self._barrel, exact):
            places = path.split("/")
            fits = len(places) == len(exact) or (levels[-1] == "#" and len(places) > len(exact))
            if fits and matches_shape(exact, places[: len(exact)]):
                found[Range(shape, path, low, high)] = None
        return list(found)

    def _bounds(self) -> tuple[bytes, bytes]:
        query = self._query
        if query.prefix is not None:
            prefix = text_prefix(query.prefix)
            return prefix, after_prefix(prefix)
        low = LOWEST if query.low is msgspec.UNSET else encode_value(query.low)[:_SURELY_KEPT]
        high = HIGHEST
        if query.high is not msgspec.UNSET:
            high = encode_value(query.high)
            high = high + b"\x00" if len(high) <= _SURELY_KEPT else after_prefix(high[:_SURELY_KEPT])
        if query.low is not msgspec.UNSET and query.high is msgspec.UNSET:
            high = bytes((low[0] | 0x0F,)) + HIGHEST  # values of the same kind
        elif query.high is not msgspec.UNSET and query.low is msgspec.UNSET:
            low = bytes((high[0] & 0xF0,))
        return low, high

    # -- the documents themselves

    def _checked(self, chunk: Sequence[Hit]) -> Iterator[Found]:
        for begin in range(0, len(chunk), _BODIES):
            yield from self._checked_part(chunk[begin : begin + _BODIES])

    def _checked_part(self, chunk: Sequence[Hit]) -> Iterator[Found]:
        numbers = msgspec.json.encode(sorted({hit[2] for hit in chunk})).decode()
        rows = self._connection.exec_driver_sql(self._queries.docs_by_number, (self._barrel, numbers)).all()
        known = {row[0]: row for row in rows}
        leaves: dict[int, dict[tuple[str, str], Leaf]] = {}
        accepts = self._acceptor()
        for _, path, doc, places, _ in chunk:
            row = known.get(doc)
            if row is None or (row[7] is not None and row[7] <= self._now):
                continue
            if doc not in leaves:
                leaves[doc] = {(leaf[0], leaf[1]): leaf for leaf in document_leaves(_decode(row[8]))}
            leaf = leaves[doc].get((path, places))
            if leaf is None or not accepts(leaf):
                continue
            hit = Found(row[2], key_path(leaf), leaf[2])
            if self._query.docs:
                hit.doc = msgspec.Raw(document_json(row[2], f"{row[3]}-{row[4]}", row[8]))
            yield hit

    def _acceptor(self) -> Callable[[Leaf], bool]:
        query = self._query
        levels = query.pattern.levels
        low = None if query.low is msgspec.UNSET else _order_of(query.low)
        high = None if query.high is msgspec.UNSET else _order_of(query.high)

        def accepts(leaf: Leaf) -> bool:
            place = key_path(leaf).split("/")
            if query.bounded:
                if levels[-1] == "#":
                    if not matches_path(levels[:-1], place[: len(levels) - 1]):
                        return False
                elif not matches_path(levels, place):
                    return False
            elif not _matches_either(query.pattern, place, leaf):
                return False
            if query.prefix is not None:
                return type(leaf[2]) is str and leaf[2].startswith(query.prefix)
            if low is None and high is None:
                return True
            order = _order_of(leaf[2])
            return (low is None or order >= low) and (high is None or order <= high)

        return accepts


def matches_path(levels: Sequence[str], place: Sequence[str]) -> bool:
    """Whether a real path's levels fit literal levels and `+`."""
    return len(levels) == len(place) and all(level in ("+", at) for level, at in zip(levels, place, strict=True))


def _matches_either(pattern: Pattern, place: Sequence[str], leaf: Leaf) -> bool:
    # The whole text, not cut as in topics: who asks for one value means that one.
    value = encode_segment(leaf[2]) if type(leaf[2]) is str else value_segment(leaf[2])
    return matches_path(pattern.levels, place) or pattern.matches((*place, value))


def _order_of(value: Any) -> tuple[int, Any]:
    """A key that compares as the index does, with nothing cut."""
    if value is None:
        return (0, 0)
    if type(value) is bool:
        return (1, value)
    if type(value) in (int, float):
        return (2, value)
    if type(value) is str:
        return (3, value)
    return (4 if type(value) is dict else 5, 0)


def _take(hits: Iterator[Hit], count: int) -> Iterator[Hit]:
    for _ in range(count):
        hit = next(hits, None)
        if hit is None:
            return
        yield hit


def _token(query: Query, hit: Hit) -> str:
    told = msgspec.json.encode([query.order[0], int(query.descending), hit[0].hex(), hit[1], hit[2], hit[3]])
    return base64.urlsafe_b64encode(told).decode().rstrip("=")


def _read_token(query: Query) -> tuple[bytes, str, int, str]:
    assert query.after is not None
    try:
        padded = query.after + "=" * (-len(query.after) % 4)
        told = msgspec.json.decode(base64.urlsafe_b64decode(padded), type=tuple[str, int, str, str, int, str])
        if (told[0], told[1]) != (query.order[0], int(query.descending)):
            raise ValueError("it belongs to another order")
        return bytes.fromhex(told[2]), told[3], told[4], told[5]
    except (ValueError, msgspec.MsgspecError) as error:
        raise BadRequest(
            f"after={query.after!r} does not continue this search: {error}",
            hint="Send `next` of the last page with the same path, bounds and order.",
        ) from None
