"""Finding documents by their paths and values, in order, page by page.

The index gives candidates in order; each is checked against the document itself, since texts are cut in the index.
What begins with `_id` is looked up among the documents.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from sqlalchemy import Connection

from feeds.errors import BadRequest
from feeds.paths import ATTACHMENTS, Leaf, document_leaves, encode_segment, id_levels, key_path, value_segment
from feeds.patterns import Pattern
from feeds.rows import FindPage, Found, document_json
from feeds.storage import ids
from feeds.storage.asking import rows_of
from feeds.storage.hits import DOC_MAX, Hit, Hits
from feeds.storage.queries import Queries
from feeds.storage.schema import DELETED
from feeds.storage.selection import EVERY_VALUE, HIGHEST, LOWEST, Bounds, Places
from feeds.values import after_prefix, encode_value, text_prefix

LIMIT_MAX = 10_000
_CHUNK = 200
_BODIES = 25  # held at once: documents may be large
_SURELY_KEPT = 1 + 97  # bytes of an indexed text: a character that would end behind byte 100 is cut off whole
_TEXTS = 3  # the place of texts in the order of values

Order = Literal["key", "value"]
# In what order and whether back, then a hit as in `Hit`, its value in hexadecimal digits.
_Mark = tuple[str, int, str, str, Annotated[int, msgspec.Meta(ge=0, le=DOC_MAX)], str]
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

    def admits(self, value: Any) -> bool:
        """Whether a value is within the bounds, in full; with one bound only values of its kind are."""
        if self.prefix is not None:
            return type(value) is str and value.startswith(self.prefix)
        order = _order_of(value)
        low = None if self.low is msgspec.UNSET else _order_of(self.low)
        high = None if self.high is msgspec.UNSET else _order_of(self.high)
        if low is None or high is None:
            kinds = [bound[0] for bound in (low, high) if bound is not None]
            if kinds and kinds[0] != order[0]:
                return False
        return (low is None or order >= low) and (high is None or order <= high)


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
        query, limit = self._query, self._query.limit
        mark = _read_token(query) if query.after is not None else None
        if query.pattern.levels[0] == "_id":
            return self._page_of_ids(mark)
        hits = self._hits(mark)
        found: list[Found] = []
        last: Hit | None = None
        while len(found) < limit:
            chunk = list(_take(hits, min(_CHUNK, limit - len(found))))
            if not chunk:
                return FindPage(found, None)
            last = chunk[-1]
            found.extend(self._checked(chunk))
        more = next(hits, None) is not None
        return FindPage(found, _token(query, last) if more and last is not None else None)

    # -- candidates

    def _hits(self, mark: Hit | None) -> Iterator[Hit]:
        query = self._query
        places = Places(
            query.pattern.levels,
            named=not query.bounded,
            bounds=self._bounds() if query.bounded else EVERY_VALUE,
        )
        hits = Hits(
            self._connection,
            self._queries,
            self._barrel,
            places,
            page=query.limit,
            descending=query.descending,
            mark=mark,
        )
        return hits.by_key() if query.order == "key" else hits.by_value()

    def _bounds(self) -> Bounds:
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

    def _documents(self, numbers: Sequence[int]) -> dict[int, Any]:
        listed = self._queries.as_list(numbers)
        rows = rows_of(self._connection, self._queries.docs_by_number, (self._barrel, listed))
        return {row[0]: row for row in rows}

    def _checked(self, chunk: Sequence[Hit]) -> Iterator[Found]:
        for begin in range(0, len(chunk), _BODIES):
            yield from self._checked_part(chunk[begin : begin + _BODIES])

    def _checked_part(self, chunk: Sequence[Hit]) -> Iterator[Found]:
        known = self._documents(sorted({hit[2] for hit in chunk}))
        leaves: dict[int, dict[tuple[str, str | bytes], Leaf]] = {}
        accepts = self._acceptor()
        for value, path, doc, places in chunk:
            row = known.get(doc)
            if row is None or (row[7] is not None and row[7] <= self._now):
                continue
            if doc not in leaves:
                leaves[doc] = {_place(leaf): leaf for leaf in document_leaves(_decode(row[9]))}
            leaf = leaves[doc].get((path, value if path == ATTACHMENTS else places))
            if leaf is None or not accepts(leaf):
                continue
            hit = Found(row[2], key_path(leaf), leaf[2])
            if self._query.docs:
                hit.doc = msgspec.Raw(document_json(row[2], f"{row[3]}-{row[4]}", row[9]))
            yield hit

    def _acceptor(self) -> Callable[[Leaf], bool]:
        query = self._query
        levels = query.pattern.levels

        def accepts(leaf: Leaf) -> bool:
            place = key_path(leaf).split("/")
            if not query.bounded:
                return _matches_either(query.pattern, place, leaf)
            if levels[-1] == "#":
                named = matches_path(levels[:-1], place[: len(levels) - 1])
            else:
                named = matches_path(levels, place)
            return named and query.admits(leaf[2])

        return accepts

    # -- ids

    def _page_of_ids(self, mark: Hit | None) -> FindPage:
        """Documents by their ids, which are the values that bounds are about; `_id` itself means all of them."""
        query, levels = self._query, self._query.pattern.levels
        pattern = ids.IdPattern(levels if len(levels) > 1 else ("_id", "#"))
        spans = [(max(low, begin), min(high, end)) for low, high in pattern.spans for begin, end in _id_spans(query)]
        if mark is not None and query.descending:
            spans = [(low, min(high, mark[1])) for low, high in spans]
        elif mark is not None:
            spans = [(max(low, mark[1] + ids.JUST_BEHIND), high) for low, high in spans]
        rows: list[Any] = []
        every = ids.documents_in(self._connection, self._queries, self._barrel, spans, descending=query.descending)
        for row in every:
            lives = not row[5] & DELETED and (row[7] is None or row[7] > self._now)
            if lives and pattern.matches(row[2]) and query.admits(row[2]):
                rows.append(row)
                if len(rows) > query.limit:
                    break
        more = len(rows) > query.limit
        del rows[query.limit :]
        found = [Found(row[2], "_id/" + id_levels(row[2]), row[2]) for row in rows]
        if query.docs:
            self._add_documents(found, [row[0] for row in rows])
        return FindPage(found, _token(query, (b"", rows[-1][2], rows[-1][0], "")) if more else None)

    def _add_documents(self, found: Sequence[Found], numbers: Sequence[int]) -> None:
        for begin in range(0, len(found), _BODIES):
            known = self._documents(numbers[begin : begin + _BODIES])
            for hit, number in zip(found[begin : begin + _BODIES], numbers[begin : begin + _BODIES], strict=True):
                row = known[number]
                hit.doc = msgspec.Raw(document_json(row[2], f"{row[3]}-{row[4]}", row[9]))


def matches_path(levels: Sequence[str], place: Sequence[str]) -> bool:
    """Whether a real path's levels fit literal levels and `+`."""
    return len(levels) == len(place) and all(level in ("+", at) for level, at in zip(levels, place, strict=True))


def _place(leaf: Leaf) -> tuple[str, str | bytes]:
    """What tells a leaf from the others of its document: attachments stand side by side under one key."""
    shape, places, value = leaf
    return shape, encode_value(value) if shape == ATTACHMENTS else places


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
        return (_TEXTS, value)
    return (4 if type(value) is dict else 5, 0)


def _id_spans(query: Query) -> list[tuple[str, str]]:
    """Where the ids lie that are within the bounds, as far as texts bound them."""
    if query.prefix is not None:
        return [(query.prefix, query.prefix + ids.LAST)]
    given = [bound for bound in (query.low, query.high) if bound is not msgspec.UNSET]
    if len(given) == 1 and type(given[0]) is not str:
        return []  # with one bound only values of its kind are meant
    low = query.low if type(query.low) is str else ""
    high = query.high + ids.JUST_BEHIND if type(query.high) is str else ids.LAST
    return [(low, high)]


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
        told = msgspec.json.decode(base64.urlsafe_b64decode(padded), type=_Mark)
        if (told[0], told[1]) != (query.order[0], int(query.descending)):
            raise ValueError("it belongs to another order")
        return bytes.fromhex(told[2]), told[3], told[4], told[5]
    except (ValueError, msgspec.MsgspecError) as error:
        raise BadRequest(
            f"after={query.after!r} does not continue this search: {error}",
            hint="Send `next` of the last page with the same path, bounds and order.",
        ) from None
