"""`_find` and `_explain`: documents that a selector means, narrowed by the path index where it can be."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from broker.couch import stubs
from broker.couch.asking import Asked, bookmark_after, read_find
from broker.couch.candidates import Candidates, candidates_of
from broker.couch.errors import CouchError
from broker.couch.face import database, json_object
from broker.couch.paging import paged_answer
from broker.couch.reading import Beside, read_many
from broker.http.answers import AnyAnswer, encode_json
from broker.http.call import Call
from feeds import Barrel, Document
from feeds.selector.collation import compare

_ASKED_BYTES_MAX: Final = 1 << 20
_CHUNK: Final = 200
SORTED_MAX: Final = 20_000  # documents held at once to be put in order
_SORTED_BYTES_MAX: Final = 64 << 20
_UNNARROWED: Final = "No condition of the selector narrows the index: every document was looked at."


async def find(call: Call) -> AnyAnswer:
    """The documents that a selector means."""
    barrel = database(call)
    asked = read_find(await json_object(call, _ASKED_BYTES_MAX))
    return await paged_answer(call, _pages(barrel, asked))


async def explain(call: Call) -> AnyAnswer:
    """How they would be found."""
    barrel = database(call)
    asked = read_find(await json_object(call, _ASKED_BYTES_MAX))
    return await paged_answer(call, _explained(barrel, asked))


def _pages(barrel: Barrel, asked: Asked) -> Generator[bytes, None, None]:
    """The answer in pieces, an empty one where some documents were looked at and none is told. Blocks."""
    began = time.monotonic()
    looked_in = yield from candidates_of(barrel, asked.selector)
    looker = _Looker(barrel, asked, looked_in)
    piece, comma = b'{"docs":[', b""
    count = 0
    for docs in looker.in_order() if asked.sort else looker.as_they_are():
        count += len(docs)
        if docs:
            yield piece + comma + b",".join(docs)
            piece, comma = b"", b","
        else:
            yield b""
    told: dict[str, Any] = {"bookmark": looker.bookmark}
    if not looked_in.is_narrowed:
        told["warning"] = _UNNARROWED
    if asked.stats:
        told["execution_stats"] = {
            "total_keys_examined": looker.examined,
            "total_docs_examined": looker.examined,
            "total_quorum_docs_examined": 0,
            "results_returned": count,
            "execution_time_ms": round((time.monotonic() - began) * 1000, 3),
        }
    yield piece + b"]," + encode_json(told)[1:]


class _Looker:
    """Looks at one document after the other."""

    def __init__(self, barrel: Barrel, asked: Asked, looked_in: Candidates) -> None:
        self._barrel = barrel
        self._asked = asked
        self._looked_in = looked_in
        self.examined = 0
        self.bookmark = "nil"

    def as_they_are(self) -> Iterator[list[bytes]]:
        """Matches by their ids, behind the bookmark; those of some documents that were looked at."""
        skip, left = self._asked.skip, self._asked.limit
        for matches in self._matches(self._asked.after) if left else ():
            matches, skip = matches[skip:], max(0, skip - len(matches))
            part = matches[:left]
            if part:
                self.bookmark = bookmark_after(part[-1][0].id)
            yield [self._told(document, doc) for document, doc in part]
            left -= len(part)
            if not left:
                return

    def in_order(self) -> Iterator[list[bytes]]:
        """Matches that have every field to sort by, sorted, behind the bookmark."""
        downs = [down for _, down in self._asked.sort]
        after = self._asked.after
        behind = None if after is None else _Key([*self._asked.key], downs, after)
        keyed = []
        size = 0
        for matches in self._matches(None):
            for document, doc in matches:
                values = [_field(doc, path) for path, _ in self._asked.sort]
                if any(value is _ABSENT for value in values):
                    continue
                key = _Key(values, downs, document.id)
                if behind is not None and not behind < key:
                    continue
                keyed.append((key, document, doc))
                size += len(document.body)
                if len(keyed) > SORTED_MAX or size > _SORTED_BYTES_MAX:
                    raise CouchError(
                        400,
                        "no_usable_index",
                        f"More than {SORTED_MAX} documents, or {_SORTED_BYTES_MAX} bytes, would have to be sorted: "
                        "narrow it down.",
                    )
            yield []
        keyed.sort(key=lambda each: each[0])
        part = keyed[self._asked.skip : self._asked.skip + self._asked.limit]
        if part:
            last, document, _ = part[-1]
            self.bookmark = bookmark_after(document.id, last.values)
        for at in range(0, len(part), _CHUNK):
            yield [self._told(document, doc) for _, document, doc in part[at : at + _CHUNK]]

    def _matches(self, after: str | None) -> Iterator[list[tuple[Document, dict[str, Any]]]]:
        """Those among some documents, and then among some more."""
        beside = Beside(conflicts=self._asked.conflicts)
        for chunk in self._looked_in.chunks(self._barrel, after, _CHUNK):
            for read in read_many(self._barrel, [(id, None) for id in chunk], beside):
                found = []
                for document in read:
                    if not isinstance(document, Document):
                        continue  # deleted meanwhile, or never more than a tombstone
                    self.examined += 1
                    doc = document.data
                    if self._asked.selector.matches(doc):
                        found.append((document, doc))
                yield found

    def _told(self, document: Document, doc: dict[str, Any]) -> bytes:
        (text,) = stubs.told(self._barrel, [document.json()])
        if self._asked.fields:
            text = encode_json(_projected(doc if b"_attachments" not in text else _decoded(text), self._asked.fields))
        return text


class _Absent:
    pass


_ABSENT: Final = _Absent()


class _Key:
    """Values to sort by, each up or down; and the id, up, where they are equal."""

    __slots__ = ("_downs", "_id", "values")

    def __init__(self, values: list[Any], downs: list[bool], id: str) -> None:
        self.values = values
        self._downs = downs
        self._id = id

    def __lt__(self, other: _Key) -> bool:
        for value, beside, down in zip(self.values, other.values, self._downs, strict=True):
            order = compare(value, _sorted_keys(beside))
            if order:
                return (order > 0) is down
        return self._id < other._id


def _sorted_keys(value: Any) -> Any:
    """The value with the keys of objects in order, as `compare` wants its right side."""
    if isinstance(value, dict):
        return {key: _sorted_keys(value[key]) for key in sorted(value)}
    return [_sorted_keys(each) for each in value] if isinstance(value, list) else value


def _field(doc: Mapping[str, Any], path: Sequence[str]) -> Any:
    value: Any = doc
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return _ABSENT
        value = value[name]
    return value


def _projected(doc: dict[str, Any], fields: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    """Only these fields, where they stand."""
    found: dict[str, Any] = {}
    for path in fields:
        value = _field(doc, path)
        if value is _ABSENT:
            continue
        place = found
        for name in path[:-1]:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                break
        else:
            place[path[-1]] = value
    return found


def _decoded(text: bytes) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(text)
    return found


def _explained(barrel: Barrel, asked: Asked) -> Generator[bytes, None, None]:
    """The answer behind empty pieces. Blocks."""
    looked_in = yield from candidates_of(barrel, asked.selector)
    by_id = looked_in.name == "_all_docs"
    field = "_id" if by_id else looked_in.name.replace("/", ".")
    told = {
        "dbname": barrel.name,
        "index": {
            "ddoc": None,
            "name": looked_in.name,
            "type": "special" if by_id else "json",
            "def": {"fields": [{field: "asc"}]},
        },
        "selector": asked.given,
        "opts": {"use_index": [], "bookmark": "nil", "limit": asked.limit, "skip": asked.skip},
        "limit": asked.limit,
        "skip": asked.skip,
        "fields": [".".join(path) for path in asked.fields] or "all_fields",
    }
    yield encode_json(told)
