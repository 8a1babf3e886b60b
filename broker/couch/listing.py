"""Documents in the order of their ids: `_all_docs`, and the same of local and of design documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from broker.couch.errors import CouchError, bad_request
from broker.couch.face import database, json_object, query_of
from broker.couch.local import PREFIX
from broker.couch.paging import paged_answer
from broker.couch.query import Query
from broker.couch.reading import TOGETHER, TOGETHER_WITH_CONTENTS, Beside, as_jsons, read_many
from broker.http.answers import AnyAnswer, encode_json
from broker.http.call import Call
from feeds import Barrel, Document
from feeds.errors import Missing
from feeds.storage.ids import JUST_BEHIND, LAST
from feeds.storage.listing import PAGE, Listed, count_documents, find_documents, list_documents

_ASKED_BYTES_MAX: Final = 8 << 20
_KEYS_MAX: Final = 100_000
_LARGE_BYTES: Final = 16 << 10  # a local document that ends its page
_COUNTED_MAX: Final = 10_000  # documents that are counted for `offset`; with more before a page it is null
_DESIGN: Final = ("_design/", "_design0")


@dataclass(frozen=True, slots=True)
class Range:
    """Which documents are listed, and how."""

    within: tuple[str, str]
    """The list that it is a part of."""
    low: str
    high: str
    """Not among them."""
    descending: bool
    skip: int
    limit: int | None
    docs: bool
    beside: Beside
    update_seq: bool

    @property
    def page(self) -> int:
        """How many are read at a time."""
        if not self.docs:
            return PAGE
        return TOGETHER_WITH_CONTENTS if self.beside.attachments else TOGETHER

    @classmethod
    def of(cls, query: Query, within: tuple[str, str]) -> Range:
        """What a request asks for, of the ids in `within`."""
        low, high = within
        descending = query.flag("descending")
        first, last = _key(query, "startkey", "start_key"), _key(query, "endkey", "end_key")
        inclusive = query.flag("inclusive_end", True)
        if query.has("key"):
            first = last = _key(query, "key")
            inclusive = True
        if descending:
            # The first bound is always among them, the last one only if it is said so.
            low = low if last is None else max(low, last if inclusive else last + JUST_BEHIND)
            high = high if first is None else min(high, first + JUST_BEHIND)
        else:
            low = low if first is None else max(low, first)
            high = high if last is None else min(high, last + JUST_BEHIND if inclusive else last)
        return cls(
            within,
            low,
            high,
            descending,
            query.number("skip") or 0,
            query.number("limit"),
            query.flag("include_docs"),
            Beside(conflicts=query.flag("conflicts"), attachments=query.flag("attachments")),
            query.flag("update_seq"),
        )


def _key(query: Query, *names: str) -> str | None:
    if not query.has(*names):
        return None
    value = query.json(*names)
    if isinstance(value, str):
        return value
    # Other values, null among them, sort before or behind all texts, as in CouchDB's order of JSON.
    return LAST if isinstance(value, dict | list) else ""


async def all_docs(call: Call) -> AnyAnswer:
    """Every document by its id, in byte order, or those that are asked for by `keys`."""
    return await _list(call, ("", LAST))


async def design_docs(call: Call) -> AnyAnswer:
    """The design documents, which are documents like others here."""
    return await _list(call, _DESIGN)


async def _list(call: Call, within: tuple[str, str]) -> AnyAnswer:
    barrel = database(call)
    query = query_of(call)
    if call.method == "POST":
        query = query.over(await json_object(call, _ASKED_BYTES_MAX))
    asked = Range.of(query, within)
    if query.has("keys"):
        keys = query.json("keys")
        check_keys(keys, query)
        pages = _by_keys(barrel, keys, asked)
    else:
        pages = _in_order(barrel, asked)
    return await paged_answer(call, pages, contents=asked.beside.attachments)


def check_keys(keys: Any, query: Query) -> None:
    """Refuse `keys` that are none, too many, or given beside a range."""
    if not isinstance(keys, list):
        raise bad_request("`keys` parameter must be an array.")
    if len(keys) > _KEYS_MAX:
        raise CouchError(413, "request_entity_too_large", f"At most {_KEYS_MAX} keys are asked for at once.")
    if query.has("key", "startkey", "start_key", "endkey", "end_key"):
        raise CouchError(400, "query_parse_error", "`keys` is incompatible with `key`, `start_key` and `end_key`")


def _head(barrel: Barrel, asked: Range, offset: int | None) -> bytes:
    info = barrel.info()
    total = count_documents(barrel, *_DESIGN, most=_COUNTED_MAX) if asked.within == _DESIGN else info.doc_count
    told: dict[str, Any] = {"total_rows": total}
    if asked.update_seq:
        told["update_seq"] = barrel.position(info.seq)
    told["offset"] = offset
    return encode_json(told)[:-1] + b',"rows":['


def _in_order(barrel: Barrel, asked: Range) -> Iterator[bytes]:
    """The answer in pieces. Blocks."""
    before: int | None = 0
    within = asked.within
    outside = (asked.high, within[1]) if asked.descending else (within[0], asked.low)
    if asked.low < asked.high and outside[0] < outside[1]:
        before = count_documents(barrel, *outside, most=_COUNTED_MAX)
    piece = _head(barrel, asked, None if before is None else before + asked.skip)
    skip, left = asked.skip, asked.limit
    low, high, more = asked.low, asked.high, asked.low < asked.high and asked.limit != 0
    comma = b""
    while more:
        page = list_documents(barrel, low, high, descending=asked.descending, limit=asked.page)
        more = page.more
        if page.documents:
            last = page.documents[-1].id
            low, high = (low, last) if asked.descending else (last + JUST_BEHIND, high)
        live = [each for each in page.documents if not each.deleted]
        live, skip = live[skip:], max(0, skip - len(live))
        if left is not None:
            live = live[:left]
            left -= len(live)
            more = more and left > 0
        for rows in _rows(barrel, [(each.id, each) for each in live], asked):
            yield piece + comma + rows
            piece, comma = b"", b","
        if not live:
            yield b""
    yield piece + b"]}"


def _by_keys(barrel: Barrel, keys: Sequence[Any], asked: Range) -> Iterator[bytes]:
    """The answer in pieces, in the order of the keys. Blocks."""
    chosen = list(keys)[::-1] if asked.descending else list(keys)
    chosen = chosen[asked.skip :] if asked.limit is None else chosen[asked.skip : asked.skip + asked.limit]
    piece, comma = _head(barrel, asked, None), b""
    for start in range(0, len(chosen), asked.page):
        part = chosen[start : start + asked.page]
        known = find_documents(barrel, [key for key in part if isinstance(key, str)])
        found = [(key, known.get(key) if isinstance(key, str) else None) for key in part]
        for rows in _rows(barrel, found, asked):
            yield piece + comma + rows
            piece, comma = b"", b","
    yield piece + b"]}"


def _rows(barrel: Barrel, found: Sequence[tuple[Any, Listed | None]], asked: Range) -> Iterator[bytes]:
    """Rows as JSON without brackets, as many at a time as fit into memory with their documents."""
    at = 0
    for docs in _documents(barrel, [each for _, each in found if _lives(each)], asked) if asked.docs else ():
        end, left = at, len(docs)
        while end < len(found) and (left or not _lives(found[end][1])):
            left -= _lives(found[end][1])
            end += 1
        texts = iter(docs)
        rows = [_row(key, each, next(texts) if _lives(each) else b"null") for key, each in found[at:end]]
        at = end
        yield b",".join(rows)
    if at < len(found):
        yield b",".join(_row(key, each, b"null" if asked.docs else None) for key, each in found[at:])


def _lives(listed: Listed | None) -> TypeGuard[Listed]:
    return listed is not None and not listed.deleted


def _row(key: Any, listed: Listed | None, doc: bytes | None) -> bytes:
    if listed is None:
        return encode_json({"key": key, "error": "not_found"})
    value: dict[str, Any] = {"rev": listed.rev}
    if listed.deleted:
        value["deleted"] = True
    row = encode_json({"id": listed.id, "key": listed.id, "value": value})
    return row if doc is None else row[:-1] + b',"doc":' + doc + b"}"


def _documents(barrel: Barrel, listed: Sequence[Listed], asked: Range) -> Iterator[list[bytes]]:
    """These documents as JSON, as many at a time as fit into memory; null where one is not there any more."""
    for found in read_many(barrel, [(each.id, each.rev) for each in listed], asked.beside):
        texts = iter(as_jsons(barrel, [each for each in found if isinstance(each, Document)], asked.beside))
        yield [next(texts) if isinstance(each, Document) else b"null" for each in found]


async def local_docs(call: Call) -> AnyAnswer:
    """The local documents by their ids."""
    barrel = database(call)
    query = query_of(call)
    if call.method == "POST":
        query = query.over(await json_object(call, _ASKED_BYTES_MAX))
    asked = Range.of(query, (PREFIX, "_local0"))
    keys = query.json("keys") if query.has("keys") else None
    if query.has("keys"):
        check_keys(keys, query)
    return await paged_answer(call, _local(barrel, asked, keys))


def _local(barrel: Barrel, asked: Range, keys: Sequence[Any] | None) -> Iterator[bytes]:
    known = [PREFIX + id for id in barrel.local_ids()]
    chosen = list(keys) if keys is not None else [id for id in known if asked.low <= id < asked.high]
    if asked.descending:
        chosen.reverse()
    chosen = chosen[asked.skip :] if asked.limit is None else chosen[asked.skip : asked.skip + asked.limit]
    piece, comma = b'{"total_rows":null,"offset":null,"rows":[', b""
    rows: list[bytes] = []
    for id in chosen:
        rows.append(_local_row(barrel, id, asked.docs))
        if len(rows) == PAGE or len(rows[-1]) > _LARGE_BYTES:
            yield piece + comma + b",".join(rows)
            piece, comma, rows = b"", b",", []
    yield piece + (comma if rows else b"") + b",".join(rows) + b"]}"


def _local_row(barrel: Barrel, id: Any, docs: bool) -> bytes:
    try:
        if not isinstance(id, str):
            raise Missing
        document = barrel.local_get(id.removeprefix(PREFIX))
    except Missing:
        return encode_json({"key": id, "error": "not_found"})
    row = encode_json({"id": document.id, "key": document.id, "value": {"rev": document.rev}})
    return row[:-1] + b',"doc":' + document.json() + b"}" if docs else row
