"""Following changes over plain HTTP: long-poll, continuous lines, server-sent events."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from broker.http import HttpLimits

from .http_tools import Served, eventually, fill, served

CHANGES = "/barrels/geo/changes"


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path, limits=HttpLimits(live_max=5)) as running:
        running.store.create("geo")
        yield running


class Told:
    """The lines of a live answer."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.aiter_lines()

    async def line(self) -> str:
        async with asyncio.timeout(30):
            return await anext(self._lines)

    async def row(self) -> Any:
        """The next line that is not a heartbeat."""
        while not (line := await self.line()):
            pass
        return msgspec.json.decode(line)

    async def event(self) -> dict[str, str]:
        """The next server-sent event that has data."""
        event: dict[str, str] = {}
        while True:
            line = await self.line()
            if line:
                name, _, value = line.partition(": ")
                event[name] = value
            elif "data" in event:
                return event
            else:
                event = {}

    async def rest(self) -> list[str]:
        async with asyncio.timeout(30):
            return [line async for line in self._lines]


@asynccontextmanager
async def following(web: Served, headers: dict[str, str] | None = None, **options: Any) -> AsyncIterator[Told]:
    params = {key: str(value) for key, value in options.items()}
    async with web.client.stream("GET", CHANGES, params=params, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        yield Told(answer)


def streams(web: Served) -> int:
    found = web.streams.stats()["streams"]
    assert isinstance(found, list)
    return len(found)


# Continuous


async def test_a_row_a_line_past_and_future(web: Served) -> None:
    barrel = web.store.barrel("geo")
    fill(barrel, 2)
    async with following(web, feed="continuous") as told:
        assert told.answer.headers["content-type"] == "application/x-ndjson"
        assert told.answer.headers["spile-position"] == f"0-{barrel.epoch}"
        assert [(await told.row())["id"] for _ in range(2)] == ["d0", "d1"]
        fill(barrel, 1, start=2)
        row = await told.row()
        assert (row["seq"], row["id"]) == (3, "d2")
    await eventually(lambda: streams(web) == 0)


async def test_patterns_and_documents_come_through_the_stream(web: Served) -> None:
    fill(web.store.barrel("geo"), 6)
    async with following(web, feed="continuous", pattern="region/north", docs="true") as told:
        rows = [await told.row() for _ in range(2)]
        assert [row["doc"]["number"] for row in rows] == [0, 3]
        assert rows[0]["paths"] == ["region/north"]
        web.store.barrel("geo").put({"region": "west"}, id="d0", update=True)
        assert (await told.row())["removed"] is True


async def test_now_tells_only_what_comes(web: Served) -> None:
    fill(web.store.barrel("geo"), 3)
    async with following(web, feed="continuous", since="now") as told:
        fill(web.store.barrel("geo"), 1, start=9)
        assert (await told.row())["id"] == "d9"


async def test_a_limit_ends_the_answer_with_its_position(web: Served) -> None:
    fill(web.store.barrel("geo"), 5)
    async with following(web, feed="continuous", limit=3) as told:
        lines = [msgspec.json.decode(line) for line in await told.rest()]
    assert [row["id"] for row in lines[:3]] == ["d0", "d1", "d2"]
    assert lines[3] == {"last_seq": f"3-{web.store.barrel('geo').epoch}", "pending": 2}


async def test_a_timeout_ends_a_silent_answer(web: Served) -> None:
    fill(web.store.barrel("geo"), 1)
    async with following(web, feed="continuous", timeout=1_000) as told:
        lines = await told.rest()
    assert msgspec.json.decode(lines[-1])["pending"] == 0
    assert len(lines) == 2


async def test_a_heartbeat_is_a_blank_line(web: Served) -> None:
    async with following(web, feed="continuous", heartbeat=100) as told:
        assert [await told.line(), await told.line()] == ["", ""]


async def test_a_position_of_another_life_is_answered_with_a_snapshot(web: Served) -> None:
    barrel = web.store.barrel("geo")
    fill(barrel, 2)
    async with following(web, feed="continuous", since="1-other") as told:
        rows = [await told.row() for _ in range(4)]
        assert rows[0]["snapshot"] == "start"
        assert [row["id"] for row in rows[1:3]] == ["d0", "d1"]
        assert rows[3] == {"snapshot": "end", "seq": f"2-{barrel.epoch}"}
        fill(barrel, 1, start=7)
        assert (await told.row())["id"] == "d7"


async def test_a_limit_within_a_snapshot_moves_nobody(web: Served) -> None:
    fill(web.store.barrel("geo"), 5)
    async with following(web, feed="continuous", since="1-other", limit=2) as told:
        lines = [msgspec.json.decode(line) for line in await told.rest()]
    assert [line.get("id") for line in lines] == [None, "d0", "d1", None]
    assert lines[-1]["error"] == "epoch_changed"


async def test_a_dropped_barrel_ends_the_answer_with_a_word(web: Served) -> None:
    async with following(web, feed="continuous") as told:
        await web.client.delete("/barrels/geo")
        last = await told.row()
        assert last["error"] == "not_found"
        assert await told.rest() == []


@pytest.mark.parametrize("feed", ["continuous", "eventsource", "longpoll"])
async def test_what_refuses_a_feed_has_its_status(web: Served, feed: str) -> None:
    missing = await web.client.get("/barrels/none/changes", params={"feed": feed})
    assert missing.status_code == 404
    backwards = await web.client.get(CHANGES, params={"feed": feed, "descending": "true"})
    assert backwards.status_code == 400


async def test_thousands_of_rows_come_in_order_without_a_gap(web: Served) -> None:
    barrel = web.store.barrel("geo")
    fill(barrel, 3000)
    async with following(web, feed="continuous", limit=6000, docs="true") as told:
        writing = asyncio.create_task(asyncio.to_thread(fill, barrel, 3000, 3000))
        rows = [msgspec.json.decode(line) for line in await told.rest() if line]
        await writing
    assert [row["seq"] for row in rows[:-1]] == list(range(1, 6001))


# Server-sent events


async def test_an_event_carries_its_position_and_a_reconnect_goes_on_from_it(web: Served) -> None:
    barrel = web.store.barrel("geo")
    fill(barrel, 3)
    async with following(web, feed="eventsource") as told:
        assert told.answer.headers["content-type"] == "text/event-stream"
        first = await told.event()
        second = await told.event()
    assert first["id"] == f"1-{barrel.epoch}"
    assert msgspec.json.decode(second["data"])["id"] == "d1"
    async with following(web, {"Last-Event-ID": second["id"]}, feed="eventsource", since="now") as told:
        assert msgspec.json.decode((await told.event())["data"])["id"] == "d2"


async def test_a_snapshot_gives_no_position_before_its_end(web: Served) -> None:
    barrel = web.store.barrel("geo")
    fill(barrel, 1)
    async with following(web, {"Last-Event-ID": "5-other"}, feed="eventsource") as told:
        start, row, end = [await told.event() for _ in range(3)]
    assert (start["event"], "id" in start) == ("snapshot", False)
    assert "id" not in row
    assert (end["event"], end["id"]) == ("snapshot", f"1-{barrel.epoch}")


async def test_a_silent_event_source_still_moves_on(web: Served) -> None:
    barrel = web.store.barrel("geo")
    fill(barrel, 3)
    async with following(web, feed="eventsource", pattern="nowhere", heartbeat=100) as told:
        async with asyncio.timeout(30):
            while await told.line() != f"id: 3-{barrel.epoch}":
                pass


async def test_an_event_source_that_times_out_says_where_it_stands(web: Served) -> None:
    async with following(web, feed="eventsource", timeout=100) as told:
        event = await told.event()
    assert event["event"] == "end"
    assert msgspec.json.decode(event["data"])["pending"] == 0


# Long-poll


async def test_a_long_poll_answers_at_once_what_is_there(web: Served) -> None:
    fill(web.store.barrel("geo"), 2)
    answer = await web.client.get(CHANGES, params={"feed": "longpoll"})
    assert [row["id"] for row in answer.json()["results"]] == ["d0", "d1"]


async def test_a_long_poll_waits_for_the_next_change(web: Served) -> None:
    barrel = web.store.barrel("geo")
    fill(barrel, 2)
    asking = asyncio.create_task(
        web.client.get(CHANGES, params={"feed": "longpoll", "since": "now", "docs": "true", "heartbeat": "100"})
    )
    await eventually(lambda: web.at_the_head == 1)
    barrel.put({"number": 9}, id="new")
    told = (await asking).json()
    assert [row["doc"]["number"] for row in told["results"]] == [9]
    assert told["last_seq"] == f"3-{barrel.epoch}"
    await eventually(lambda: streams(web) == 0)


async def test_a_long_poll_with_patterns_sleeps_through_the_rest(web: Served) -> None:
    barrel = web.store.barrel("geo")
    asking = asyncio.create_task(web.client.get(CHANGES, params={"feed": "longpoll", "pattern": "region/north"}))
    await eventually(lambda: streams(web) == 1)
    barrel.put({"region": "south"}, id="s")
    barrel.put({"region": "north"}, id="n")
    assert [row["id"] for row in (await asking).json()["results"]] == ["n"]


async def test_a_long_poll_ends_in_time(web: Served) -> None:
    fill(web.store.barrel("geo"), 1)
    answer = await web.client.get(
        CHANGES, params={"feed": "longpoll", "since": "now", "timeout": "150", "heartbeat": "100"}
    )
    assert answer.text.startswith("\n")
    assert answer.json()["results"] == []
    assert answer.json()["last_seq"].startswith("1-")


async def test_a_long_poll_on_a_barrel_that_is_dropped_says_so(web: Served) -> None:
    asking = asyncio.create_task(web.client.get(CHANGES, params={"feed": "longpoll"}))
    await eventually(lambda: streams(web) == 1)
    web.store.drop("geo")
    assert (await asking).json()["error"] == "not_found"


# Clients that leave, or do not read


async def test_a_client_that_leaves_is_noticed(web: Served) -> None:
    reader, writer = await web.connect()
    writer.write(f"GET {CHANGES}?feed=continuous&heartbeat=false HTTP/1.1\r\nHost: t\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    await eventually(lambda: streams(web) == 1)
    writer.transport.abort()
    await eventually(lambda: streams(web) == web.app.admission.live.used == 0)


async def test_a_client_behind_a_pipelined_request_is_noticed_too(web: Served) -> None:
    reader, writer = await web.connect()
    request = f"GET {CHANGES}?feed=continuous&heartbeat=false HTTP/1.1\r\nHost: t\r\n\r\n".encode()
    writer.write(request + request)
    await reader.readuntil(b"\r\n\r\n")
    await eventually(lambda: streams(web) == 1)
    writer.transport.abort()
    await eventually(lambda: streams(web) == 0)


async def test_a_client_that_does_not_read_is_cut_off_and_slows_nobody(tmp_path: Path) -> None:
    text = "x" * 100_000
    async with served(tmp_path, limits=HttpLimits(send_s_max=2.5)) as web:
        barrel = web.store.create("geo")
        barrel.bulk([{"_id": f"big{number}", "text": text} for number in range(120)])
        _, writer = await web.connect()
        transport = writer.transport
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        writer.write(f"GET {CHANGES}?feed=continuous&docs=true HTTP/1.1\r\nHost: t\r\n\r\n".encode())
        await eventually(lambda: streams(web) == 1)
        async with following(web, feed="continuous", docs="true", limit=120) as told:
            assert len(await told.rest()) == 121
        await eventually(lambda: streams(web) == web.app.admission.live.used == 0)
        writer.close()


async def test_live_feeds_are_bounded(web: Served) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(following(web, feed="continuous"))
        answer = await web.client.get(CHANGES, params={"feed": "continuous"})
        assert (answer.status_code, answer.json()["error"]) == (503, "overloaded")
        assert "http_live_feeds" in answer.json()["reason"]
        assert answer.headers["retry-after"] == "1"
    await eventually(lambda: streams(web) == web.app.admission.live.used == 0)


@pytest.mark.alone
async def test_live_answers_end_when_the_service_stops(web: Served) -> None:
    async with following(web, feed="continuous") as told, following(web, feed="eventsource") as events:
        stopping = asyncio.create_task(web.server.stop())
        assert await told.rest() == []
        await events.rest()
        async with asyncio.timeout(2):
            await stopping
