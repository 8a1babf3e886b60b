"""What readers through CouchDB's protocol cost: short steps, bounded memory, an end where nobody listens."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.couch.asking import read_find
from broker.couch.bulk import _Asked, _results
from broker.couch.changes import _backwards, _forwards
from broker.couch.documents import _listed
from broker.couch.feed_options import read_asked
from broker.couch.find import _explained, _pages
from broker.couch.listing import Range, _by_keys, _in_order, _local
from broker.couch.query import Query
from broker.couch.reading import Beside, open_revisions
from feeds import Barrel, Store
from feeds.storage.ids import LAST

from .couch_db import DB
from .http_tools import Served, eventually, fill, served

ALL = ("", LAST)


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as running:
        running.store.create("db")
        yield running


@pytest.fixture
def barrel(tmp_path: Path) -> Iterator[Barrel]:
    with Store.open(tmp_path) as store:
        yield store.create("db")


def selected(query: bytes, selector: dict[str, Any]) -> Any:
    return read_asked(Query(b"filter=_selector&" + query), {"selector": selector}, None)


def test_looking_through_all_documents_is_done_in_steps(barrel: Barrel) -> None:
    barrel.bulk([{"_id": f"d{n:04}", "n": n} for n in range(1_000)])
    none = {"$or": [{"n": -1}, {"m": 5}]}
    for more in ({}, {"sort": ["n"]}):
        *steps, last = _pages(barrel, read_find({"selector": none, **more}))
        assert len(steps) >= 5 and set(steps) == {b""}
        assert json.loads(last)["docs"] == []
    *steps, last = _pages(barrel, read_find({"selector": {"$or": [{"n": {"$gte": 900}}, {"m": 5}]}, "limit": 50}))
    assert set(steps[:-1]) == {b""}
    assert [doc["n"] for doc in json.loads(steps[-1] + last)["docs"]] == list(range(900, 950))


def test_looking_into_the_index_is_done_in_steps(barrel: Barrel) -> None:
    barrel.bulk([{"_id": f"d{n:04}", "n": n, "m": n % 2} for n in range(3_000)])
    pieces = list(_pages(barrel, read_find({"selector": {"n": {"$gte": 0}, "m": 5}})))
    assert pieces[:-1] == [b""] * (len(pieces) - 1)
    *steps, last = _explained(barrel, read_find({"selector": {"n": {"$gte": 0}}}))
    assert len(steps) >= 3 and set(steps) == {b""}
    assert json.loads(last)["index"]["name"] == "n"


def test_a_page_is_whole_however_few_of_its_rows_are_asked_for(barrel: Barrel) -> None:
    barrel.bulk([{"_id": f"d{n}", "n": n} for n in range(2_500)])
    asked = selected(b"limit=1", {"n": {"$in": [2_400, 2_401]}})
    pieces = list(_forwards(barrel, asked))
    assert len(pieces) < 10
    told = json.loads(b"".join(pieces))
    assert [row["id"] for row in told["results"]] == ["d2400"]
    assert (told["last_seq"], told["pending"]) == (barrel.position(2_401), 99)
    pieces = list(_backwards(barrel, selected(b"limit=1&descending=true", {"n": {"$in": [99, 100]}})))
    assert len(pieces) < 10
    assert [row["id"] for row in json.loads(b"".join(pieces))["results"]] == ["d100"]


SIZE = 3 << 20


def large(barrel: Barrel) -> list[str]:
    """Documents of which two are read together, and not three."""
    docs = [{"_id": id, "_rev": "1-a", "x": "x" * SIZE} for id in "abcd"]
    docs += [{"_id": "a", "_rev": f"1-{leaf}", "x": "x" * SIZE} for leaf in "bc"]
    for doc in docs:
        barrel.bulk([doc], new_edits=False)
    return ["a", "b", "c", "d"]


def locals_of(barrel: Barrel) -> Iterator[bytes]:
    for id in "abcd":
        barrel.local_put(id, {"x": "x" * SIZE})
    return _local(barrel, Range.of(Query(b"include_docs=true"), ("_local/", "_local0")), None)


READERS: dict[str, Callable[[Barrel], Iterator[bytes]]] = {
    "_all_docs": lambda b: _in_order(b, Range.of(Query(b"include_docs=true"), ALL)),
    "_all_docs of keys": lambda b: _by_keys(b, list("abcd"), Range.of(Query(b"include_docs=true"), ALL)),
    "_bulk_get": lambda b: _results(b, [_Asked(id) for id in "abcd"], Beside(), False),
    "_bulk_get of revisions": lambda b: _results(b, [_Asked(id, "1-a") for id in "abcd"], Beside(), False),
    "open_revs": lambda b: _listed(b, open_revisions(b, "a", None, Beside()), Beside()),
    "_local_docs": locals_of,
    "_changes": lambda b: _forwards(b, read_asked(Query(b"include_docs=true"), {}, None)),
    "_changes back": lambda b: _backwards(b, read_asked(Query(b"include_docs=true&descending=true"), {}, None)),
    "_find": lambda b: _pages(b, read_find({"selector": {}})),
}


def test_no_more_large_documents_are_read_together_than_fit(barrel: Barrel) -> None:
    large(barrel)
    for name, read in READERS.items():
        pieces = list(read(barrel))
        assert max(map(len, pieces)) < 4 * SIZE, name
        whole = json.loads(b"".join(pieces))
        rows = whole if isinstance(whole, list) else next(each for each in whole.values() if isinstance(each, list))
        assert len(rows) in (3, 4), name
        assert sum(map(len, pieces)) > 3 * SIZE, name


async def test_who_leaves_while_nothing_is_found_ends_the_search(
    web: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, ended = threading.Event(), threading.Event()

    def endless(*_: Any) -> Iterator[bytes]:
        try:
            while True:
                began.set()
                time.sleep(0.001)
                yield b""
        finally:
            ended.set()

    monkeypatch.setattr("broker.couch.find._pages", endless)
    monkeypatch.setattr("broker.couch.changes._forwards", endless)
    head = "POST %s HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n"
    for place in ("_find", "_changes?filter=_selector", "_changes?filter=_selector&feed=longpoll"):
        began.clear()
        ended.clear()
        _, writer = await web.connect()
        writer.write((head % f"{DB}/{place}").encode() + b'{"selector":{}}')
        await eventually(began.is_set)
        writer.close()
        await eventually(ended.is_set)


async def test_documents_before_a_page_are_counted_up_to_a_bound(
    web: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(web.store.barrel("db"), 8)
    monkeypatch.setattr("broker.couch.listing._COUNTED_MAX", 3)
    for params, offset in (({}, 0), ({"startkey": '"d3"'}, 3), ({"startkey": '"d4"'}, None), ({"skip": "5"}, 5)):
        told = (await web.client.get(f"{DB}/_all_docs", params=params)).json()
        assert told["offset"] == offset, params
        assert told["total_rows"] == 8
    back = {"descending": "true", "startkey": '"d5"'}
    assert (await web.client.get(f"{DB}/_all_docs", params=back)).json()["offset"] == 2
