"""Reading the changes once: positions, limits, patterns, and answers larger than memory should hold."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from .http_tools import Served, fill, served

CHANGES = "/barrels/geo/changes"


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as running:
        running.store.create("geo")
        yield running


async def ask(web: Served, **options: Any) -> dict[str, Any]:
    answer = await web.client.get(CHANGES, params={key: str(value) for key, value in options.items()})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_an_empty_log_is_told_as_such(web: Served) -> None:
    epoch = web.store.barrel("geo").epoch
    assert await ask(web) == {"results": [], "last_seq": f"0-{epoch}", "pending": 0, "epoch": epoch}


async def test_every_document_is_told_once_at_its_newest(web: Served) -> None:
    fill(web.store.barrel("geo"), 3)
    web.store.barrel("geo").put({"n": 9}, id="d0", update=True)
    told = await ask(web)
    assert [(row["seq"], row["id"]) for row in told["results"]] == [(2, "d1"), (3, "d2"), (4, "d0")]
    assert told["last_seq"].startswith("4-")
    row = told["results"][2]
    assert row["changes"] == [row["rev"]]
    assert "doc" not in row


async def test_pages_join_without_a_gap(web: Served) -> None:
    fill(web.store.barrel("geo"), 25)
    seen: list[str] = []
    since, pending = "first", 25
    while pending:
        told = await ask(web, since=since, limit=10)
        seen += [row["id"] for row in told["results"]]
        since, pending = told["last_seq"], told["pending"]
        assert pending == 25 - len(seen)
    assert seen == [f"d{number}" for number in range(25)]
    assert (await ask(web, since=since))["results"] == []


async def test_a_large_answer_comes_whole(web: Served) -> None:
    fill(web.store.barrel("geo"), 3500)
    told = await ask(web, docs="true")
    assert [row["doc"]["number"] for row in told["results"]] == list(range(3500))
    assert (told["pending"], told["last_seq"].split("-")[0]) == (0, "3500")
    limited = await ask(web, limit=2500)
    assert (len(limited["results"]), limited["pending"]) == (2500, 1000)


async def test_patterns_narrow_what_is_told(web: Served) -> None:
    fill(web.store.barrel("geo"), 9)
    told = await ask(web, pattern="/region/north", docs="true")
    assert [row["id"] for row in told["results"]] == ["d0", "d3", "d6"]
    assert told["results"][0]["paths"] == ["region/north"]
    both = await web.client.get(f"{CHANGES}?pattern=region/north&pattern=number/%2B")
    assert len(both.json()["results"]) == 9
    body = {"pattern": ["region/north", "region/south"], "limit": 4}
    asked = await web.client.post(CHANGES, json=body)
    assert len(asked.json()["results"]) == 4
    assert asked.json()["pending"] == 2


async def test_leaves_are_told_after_a_position(web: Served) -> None:
    fill(web.store.barrel("geo"), 3)
    here = (await ask(web))["last_seq"]
    web.store.barrel("geo").put({"region": "west"}, id="d0", update=True)
    told = await ask(web, since=here, pattern="region/north")
    assert [(row["id"], row.get("removed")) for row in told["results"]] == [("d0", True)]


async def test_a_post_body_and_the_query_join(web: Served) -> None:
    fill(web.store.barrel("geo"), 3)
    answer = await web.client.post(f"{CHANGES}?limit=1", json={"limit": 2, "docs": True})  # the query wins
    rows = answer.json()["results"]
    assert (len(rows), "doc" in rows[0]) == (1, True)


async def test_backwards_begins_at_the_head(web: Served) -> None:
    fill(web.store.barrel("geo"), 5)
    told = await ask(web, descending="true", limit=2)
    assert [row["id"] for row in told["results"]] == ["d4", "d3"]
    refused = await web.client.get(CHANGES, params={"descending": "true"})
    assert refused.status_code == 400


async def test_a_limit_of_nothing_asks_how_much_there_is(web: Served) -> None:
    fill(web.store.barrel("geo"), 5)
    told = await ask(web, limit=0)
    assert (told["results"], told["pending"]) == ([], 5)
    assert (await ask(web, since="now", limit=0))["pending"] == 0


@pytest.mark.parametrize("feed", ["normal", "longpoll"])
async def test_a_position_of_another_life_is_gone(web: Served, feed: str) -> None:
    fill(web.store.barrel("geo"), 2)
    for since in ("1-other", "99"):
        answer = await web.client.get(CHANGES, params={"since": since, "feed": feed})
        assert (answer.status_code, answer.json()["error"]) == (410, "epoch_changed")


@pytest.mark.parametrize(
    "query",
    [
        "since=x",
        "since=-1",
        "limit=x",
        "feed=push",
        "pattern=a%2B",
        "pattern=",
        "docs=2",
        "heartbeat=5",
        "include_docs=true",
    ],
)
async def test_a_wrong_question_is_refused(web: Served, query: str) -> None:
    answer = await web.client.get(f"{CHANGES}?{query}")
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"since":{}}', b'{"limit":"many"}', b'{"patterns":["a"]}', b'{"docs":1}']
)
async def test_a_wrong_body_is_refused(web: Served, body: bytes) -> None:
    answer = await web.client.post(CHANGES, content=body)
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")


async def test_a_deletion_is_told_as_one(web: Served) -> None:
    fill(web.store.barrel("geo"), 1)
    rev = web.store.barrel("geo").get("d0").rev
    web.store.barrel("geo").delete("d0", rev=rev)
    (row,) = (await ask(web))["results"]
    assert row["deleted"] is True
