"""`_changes` through CouchDB's protocol: once, long-polled, continuous, as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker.couch.changes import _forwards
from broker.couch.feed_options import read_asked
from broker.couch.query import Query
from feeds import Store

from .couch_db import DB, db
from .http_tools import Served, fill, served

CHANGES = f"{DB}/_changes"


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as running:
        running.store.create("db")
        yield running


async def changes(web: Served, **params: Any) -> Any:
    answer = await web.client.get(CHANGES, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(answer: Any) -> list[str]:
    return [row["id"] for row in answer["results"]]


# Once


def test_of_a_page_without_rows_the_step_ends_as_well(tmp_path: Path) -> None:
    """So that looking through all of a barrel keeps no reader's thread to the end."""
    with Store.open(tmp_path) as store:
        barrel = store.create("db")
        barrel.bulk([{"_id": f"d{n}"} for n in range(2_500)])
        asked = read_asked(Query(b"filter=_selector"), {"selector": {"n": 1}}, None)
        *steps, last = _forwards(barrel, asked)
        assert len(steps) > 1 and set(steps) == {b""}
        assert json.loads(last)["results"] == []


async def test_each_document_has_one_row_at_its_newest_change(web: Served) -> None:
    first = db(web).put({"_id": "a"}).rev
    b = db(web).put({"_id": "b"}).rev
    a = db(web).put({"_id": "a", "_rev": first, "n": 1}).rev
    gone = db(web).delete("b", rev=b).rev
    answer = await changes(web)
    at = db(web).position
    assert answer["results"] == [
        {"seq": at(3), "id": "a", "changes": [{"rev": a}]},
        {"seq": at(4), "id": "b", "changes": [{"rev": gone}], "deleted": True},
    ]
    assert (answer["last_seq"], answer["pending"]) == (at(4), 0)


async def test_a_reader_goes_on_from_what_it_was_told(web: Served) -> None:
    fill(db(web), 10)
    first = await changes(web, limit=4)
    assert (ids(first), first["pending"]) == (["d0", "d1", "d2", "d3"], 6)
    rest = await changes(web, since=first["last_seq"])
    assert ids(rest) == ["d4", "d5", "d6", "d7", "d8", "d9"]
    assert ids(await changes(web, since=json.dumps(first["results"][1]["seq"]))) == [f"d{n}" for n in range(2, 10)]
    assert ids(await changes(web, since=8)) == ["d8", "d9"]
    for beginning in ("0", "", "what another server gave"):
        assert len(ids(await changes(web, since=beginning))) == 10
    assert ids(await changes(web, since="now")) == []
    beyond = await changes(web, since=rest["last_seq"])
    assert (beyond["results"], beyond["last_seq"]) == ([], rest["last_seq"])


async def test_no_rows_tell_how_many_there_are(web: Served) -> None:
    fill(db(web), 5)
    none = await changes(web, limit=0)
    assert (none["results"], none["pending"], none["last_seq"]) == ([], 5, db(web).position(0))
    assert (await changes(web, limit=0, since=db(web).position(3)))["pending"] == 2
    assert len(ids(await changes(web, limit=99))) == 5


async def test_the_newest_come_first_where_that_is_asked_for(web: Served) -> None:
    fill(db(web), 2_300)
    answer = await changes(web, descending="true")
    assert ids(answer) == [f"d{n}" for n in range(2_299, -1, -1)]
    assert ids(await changes(web, descending="true", limit=2, include_docs="true")) == ["d2299", "d2298"]


async def test_long_logs_come_whole(web: Served) -> None:
    fill(db(web), 5_000)
    answer = await changes(web, style="all_docs", include_docs="true")
    assert [row["doc"]["number"] for row in answer["results"]] == list(range(5_000))
    assert answer["last_seq"] == db(web).position(5_000)


async def test_rows_bring_their_documents(web: Served) -> None:
    docs = [{"_id": "a", "_rev": "1-a"}, {"_id": "a", "_rev": "1-b"}, {"_id": "c", "_rev": "1-c", "_deleted": True}]
    await web.client.post(f"{DB}/_bulk_docs", json={"docs": docs, "new_edits": False})
    db(web).attach("d", "a.txt", b"hi")
    a, c, d = (await changes(web, include_docs="true", conflicts="true"))["results"]
    assert a["doc"] == {"_id": "a", "_rev": "1-b", "_conflicts": ["1-a"]}
    assert c["doc"] == {"_id": "c", "_rev": "1-c", "_deleted": True}
    assert d["doc"]["_attachments"]["a.txt"]["digest"].startswith("md5-")
    *_, d = (await changes(web, include_docs="true", attachments="true"))["results"]
    assert d["doc"]["_attachments"]["a.txt"]["data"] == "aGk="


async def test_rows_are_chosen_by_ids(web: Served) -> None:
    fill(db(web), 20)
    db(web).put({"_id": "_design/x", "a/b": 1})
    asked = {"doc_ids": ["d3", "d11", "_design/x", "none"]}
    answer = await web.client.post(CHANGES, params={"filter": "_doc_ids"}, json=asked)
    assert ids(answer.json()) == ["d3", "d11", "_design/x"]
    assert ids(await changes(web, filter="_doc_ids", doc_ids='["d5"]')) == ["d5"]
    assert ids(await changes(web, filter="_design")) == ["_design/x"]
    long = "%" * 512
    db(web).put({"_id": long})
    answer = await web.client.post(CHANGES, params={"filter": "_doc_ids"}, json={"doc_ids": ["d3", long, "a/" * 99]})
    assert ids(answer.json()) == ["d3", long]
    many = {"doc_ids": [f"d{n}" for n in range(2, 3_000)]}
    answer = await web.client.post(CHANGES, params={"filter": "_doc_ids", "limit": 3}, json=many)
    assert ids(answer.json()) == ["d2", "d3", "d4"]


async def test_rows_are_chosen_by_a_selector(web: Served) -> None:
    fill(db(web), 30)
    rev = db(web).get("d1").rev
    db(web).delete("d1", rev=rev)
    asked = {"selector": {"region": "south"}}
    answer = await web.client.post(CHANGES, params={"filter": "_selector"}, json=asked)
    assert ids(answer.json()) == [f"d{n}" for n in range(4, 30, 3)]
    assert "doc" not in answer.json()["results"][0]
    some = await web.client.post(
        CHANGES, params={"filter": "_selector", "limit": 2, "include_docs": "true"}, json=asked
    )
    assert [row["doc"]["number"] for row in some.json()["results"]] == [4, 7]
    rest = await web.client.post(
        CHANGES, params={"filter": "_selector", "since": some.json()["last_seq"]}, json=asked
    )
    assert ids(rest.json()) == [f"d{n}" for n in range(10, 30, 3)]
    deleted = {"selector": {"_deleted": True}}
    answer = await web.client.post(CHANGES, params={"filter": "_selector"}, json=deleted)
    assert ids(answer.json()) == ["d1"]


@pytest.mark.parametrize(
    ("params", "body", "status"),
    [
        ({"feed": "x"}, None, 400),
        ({"style": "x"}, None, 400),
        ({"limit": "x"}, None, 400),
        ({"heartbeat": "0"}, None, 400),
        ({"heartbeat": "x"}, None, 400),
        ({"descending": "x"}, None, 400),
        ({"filter": "_doc_ids"}, {}, 400),
        ({"filter": "_doc_ids"}, {"doc_ids": [7]}, 400),
        ({"filter": "_selector"}, {}, 400),
        ({"filter": "_selector"}, {"selector": {"a": {"$no": 1}}}, 400),
        ({"filter": "_view"}, None, 404),
        ({"filter": "app/important"}, None, 404),
        ({}, [], 400),
    ],
)
async def test_what_cannot_be_asked_is_refused(web: Served, params: dict[str, str], body: Any, status: int) -> None:
    answer = await (
        web.client.get(CHANGES, params=params) if body is None else web.client.post(CHANGES, params=params, json=body)
    )
    assert answer.status_code == status, answer.text
    assert answer.json().keys() == {"error", "reason"}


# Following


class Reader:
    """An answer that is read as it comes."""

    def __init__(self, response: httpx.Response) -> None:
        self._pieces = response.aiter_bytes()
        self._text = b""

    async def line(self) -> bytes:
        """The next line, without its end."""
        async with asyncio.timeout(20):
            while b"\n" not in self._text:
                self._text += await anext(self._pieces)
        line, _, self._text = self._text.partition(b"\n")
        return line

    async def row(self) -> dict[str, Any]:
        """The next line that is no heartbeat."""
        while not (line := await self.line()):
            pass
        found: dict[str, Any] = json.loads(line)
        return found

    async def rest(self) -> bytes:
        """All that still comes."""
        async with asyncio.timeout(20):
            async for piece in self._pieces:
                self._text += piece
        return self._text


async def test_a_long_poll_answers_at_once_where_there_is_something(web: Served) -> None:
    fill(db(web), 3)
    answer = await changes(web, feed="longpoll")
    assert (ids(answer), answer["last_seq"]) == (["d0", "d1", "d2"], db(web).position(3))
    assert ids(await changes(web, feed="longpoll", limit=1)) == ["d0"]
    assert ids(await changes(web, feed="longpoll", limit=0)) == []


async def test_a_long_poll_holds_until_something_comes(web: Served) -> None:
    fill(db(web), 3)
    params = {"feed": "longpoll", "since": "now", "heartbeat": "100", "include_docs": "true"}
    async with web.client.stream("GET", CHANGES, params=params) as response:
        reader = Reader(response)
        assert await reader.line() == b""  # a heartbeat
        db(web).put({"_id": "new", "n": 1})
        answer = json.loads(await reader.rest())
    assert [(row["id"], row["doc"]["n"]) for row in answer["results"]] == [("new", 1)]
    assert answer["last_seq"] == db(web).position(4)


async def test_a_long_poll_that_hears_nothing_says_so(web: Served) -> None:
    fill(db(web), 3)
    answer = await changes(web, feed="longpoll", since="now", timeout=50)
    assert answer == {"results": [], "last_seq": db(web).position(3), "pending": 0}


async def test_a_long_poll_waits_for_what_its_filter_lets_through(web: Served) -> None:
    params = {"feed": "longpoll", "filter": "_selector", "heartbeat": "100"}
    body = {"selector": {"wanted": True}}
    async with web.client.stream("POST", CHANGES, params=params, json=body) as response:
        reader = Reader(response)
        assert await reader.line() == b""
        db(web).put({"_id": "a", "wanted": False})
        db(web).put({"_id": "b", "wanted": True})
        answer = json.loads(await reader.rest())
    assert ids(answer) == ["b"]
    assert answer["last_seq"] == db(web).position(2)


async def test_a_continuous_answer_has_a_row_a_line(web: Served) -> None:
    fill(db(web), 2)
    params = {"feed": "continuous", "heartbeat": "100", "style": "all_docs"}
    async with web.client.stream("GET", CHANGES, params=params) as response:
        reader = Reader(response)
        assert [(await reader.row())["id"] for _ in range(2)] == ["d0", "d1"]
        assert await reader.line() == b""
        rev = db(web).put({"_id": "new"}).rev
        assert await reader.row() == {"seq": db(web).position(3), "id": "new", "changes": [{"rev": rev}]}


async def test_a_continuous_answer_ends_with_where_it_stands(web: Served) -> None:
    fill(db(web), 3)
    answer = await web.client.get(CHANGES, params={"feed": "continuous", "timeout": "1000"})
    *rows, last = answer.text.splitlines()
    assert [json.loads(row)["id"] for row in rows] == ["d0", "d1", "d2"]
    assert json.loads(last) == {"last_seq": db(web).position(3), "pending": 0}
    answer = await web.client.get(CHANGES, params={"feed": "continuous", "limit": "2", "timeout": "60000"})
    assert json.loads(answer.text.splitlines()[-1]) == {"last_seq": db(web).position(2), "pending": 1}


async def test_a_position_of_another_life_is_followed_from_the_beginning(web: Served) -> None:
    fill(db(web), 5)
    last = (await changes(web))["last_seq"]
    web.store.drop("db")
    fill(web.store.create("db"), 2)
    for feed in ("continuous", "longpoll"):
        answer = await web.client.get(CHANGES, params={"feed": feed, "since": last, "timeout": "1000"})
        assert '"d0"' in answer.text and '"d1"' in answer.text
        assert f'"last_seq":"{db(web).position(2)}"' in answer.text


async def test_server_sent_events_have_ids_to_go_on_from(web: Served) -> None:
    fill(db(web), 2)
    params = {"feed": "eventsource", "timeout": "1000"}
    answer = await web.client.get(CHANGES, params=params)
    assert answer.headers["content-type"] == "text/event-stream"
    first, second = answer.text.strip().split("\n\n")
    data, id = first.splitlines()
    assert json.loads(data.removeprefix("data: "))["id"] == "d0"
    assert id == f"id: {db(web).position(1)}"
    again = await web.client.get(CHANGES, params=params, headers={"Last-Event-ID": id.removeprefix("id: ")})
    assert again.text.strip() == second


async def test_a_database_that_is_dropped_ends_what_follows_it(web: Served) -> None:
    async with web.client.stream("GET", CHANGES, params={"feed": "continuous", "heartbeat": "100"}) as response:
        reader = Reader(response)
        assert await reader.line() == b""
        web.store.drop("db")
        assert b"last_seq" in await reader.rest()
