"""The WebSocket feed: the stream protocol over a socket."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from broker.http import HttpLimits, OpenAccess
from broker.http.services import Verb
from feeds.errors import Forbidden

from .http_tools import Served, eventually, fill, served


class NorthOnly(OpenAccess):
    """Nobody may listen to anything but the north."""

    def decide(self, who: str, verb: Verb, barrel: str, path: str) -> None:
        if path not in ("region/north", "#") or (path == "#" and barrel):
            raise Forbidden(f"Not {path}.")


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path, limits=HttpLimits(live_max=2)) as running:
        running.store.create("geo")
        running.store.create("a/b")
        yield running


def feed(web: Served, barrel: str = "geo", **options: Any) -> connect:
    return connect(f"ws://127.0.0.1:{web.server.port}/barrels/{barrel}/feed", proxy=None, **options)


async def say(socket: ClientConnection, **message: Any) -> None:
    await socket.send(msgspec.json.encode(message).decode())


async def hear(socket: ClientConnection) -> Any:
    async with asyncio.timeout(30):
        return msgspec.json.decode(await socket.recv())


async def rows(socket: ClientConnection, count: int) -> list[Any]:
    found: list[Any] = []
    while len(found) < count:
        found += (await hear(socket))["rows"]
    return found


def streams(web: Served) -> int:
    found = web.streams.stats()["streams"]
    assert isinstance(found, list)
    return len(found)


async def test_an_open_is_answered_with_the_start_and_then_rows(web: Served) -> None:
    barrel = web.store.barrel("geo")
    fill(barrel, 2)
    async with feed(web) as socket:
        await say(socket, run="r", since="first")
        start = await hear(socket)
        assert (start["start"], start["seq"], start["run"]) == (True, f"0-{barrel.epoch}", "r")
        assert [row["id"] for row in await rows(socket, 2)] == ["d0", "d1"]
        fill(barrel, 1, start=5)
        assert (await rows(socket, 1))[0]["id"] == "d5"
    await eventually(lambda: streams(web) == web.app.admission.live.used == 0)


async def test_credit_lets_the_stream_go_on(web: Served) -> None:
    barrel = web.store.barrel("geo")
    fill(barrel, 5)
    async with feed(web) as socket:
        await say(socket, run="r", since="first", window=2, docs=True)
        assert len(await rows(socket, 2)) == 2
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await socket.recv()
        await say(socket, run="r", ack=f"2-{barrel.epoch}", window=10, bytes=10000)
        assert [row["doc"]["number"] for row in await rows(socket, 3)] == [2, 3, 4]


async def test_a_socket_can_be_opened_again(web: Served) -> None:
    fill(web.store.barrel("geo"), 3)
    async with feed(web) as socket:
        await say(socket, run="one", since="first")
        assert (await hear(socket))["run"] == "one"
        await say(socket, run="two", since="now")
        while (array := await hear(socket))["run"] != "two":
            pass
        assert array["start"] is True
        assert streams(web) == 1


async def test_a_wrong_open_is_answered_with_its_reason(web: Served) -> None:
    async with feed(web) as socket:
        await say(socket, run="r", patterns=["a+"])
        end = (await hear(socket))["end"]
        assert (end["code"], "a+" in end["reason"]) == ("bad_request", True)
        await say(socket, run="r2", since="first")
        assert (await hear(socket))["start"] is True


async def test_a_credit_without_a_stream_is_answered_as_closed(web: Served) -> None:
    async with feed(web) as socket:
        await say(socket, run="gone", ack="0-a", window=1, bytes=1)
        assert (await hear(socket))["end"]["code"] == "closed"


@pytest.mark.parametrize("message", ["", "x", "[]", "{}", '{"run":5}', '{"ack":1}', b"\xff", "[" * 100_000])
async def test_what_is_no_message_closes_the_socket(web: Served, message: str | bytes) -> None:
    async with feed(web) as socket:
        await socket.send(message)
        with pytest.raises(ConnectionClosed) as closed:
            await hear(socket)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code in (1007, 1008)


async def test_a_name_with_a_slash_is_encoded(web: Served) -> None:
    web.store.barrel("a/b").put({}, id="x")
    async with feed(web, "a%2Fb") as socket:
        await say(socket, run="r", since="first")
        assert (await rows(socket, 1))[0]["id"] == "x"


@pytest.mark.parametrize(("barrel", "status"), [("none", 404), ("geo/x", 404), ("%zz", 400)])
async def test_a_feed_of_nothing_is_refused_in_the_handshake(web: Served, barrel: str, status: int) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with feed(web, barrel):
            pass
    assert refused.value.response.status_code == status
    assert b'"reason"' in (refused.value.response.body or b"")


async def test_who_is_refused_in_the_handshake_is_no_error_of_the_service(
    web: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InvalidStatus):
        async with feed(web, "nothing"):
            pass
    async with feed(web) as socket:  # by whose answer the log has been written
        await say(socket, run="r")
        await hear(socket)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_page_of_another_origin_is_refused(web: Served) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with feed(web, origin="http://evil.example"):
            pass
    assert refused.value.response.status_code == 403
    async with feed(web, origin=f"http://127.0.0.1:{web.server.port}") as socket:
        await say(socket, run="r")
        assert (await hear(socket))["start"] is True


async def test_feeds_are_bounded(web: Served) -> None:
    async with feed(web), feed(web):
        with pytest.raises(InvalidStatus) as refused:
            async with feed(web):
                pass
        assert refused.value.response.status_code == 503
        assert refused.value.response.headers["retry-after"] == "1"
    await eventually(lambda: web.app.admission.live.used == 0)


async def test_access_is_asked_for_every_pattern(tmp_path: Path) -> None:
    async with served(tmp_path, access=NorthOnly()) as web:
        web.store.create("geo")
        async with feed(web) as socket:
            for patterns in (["region/south"], ["region/north", "#"], []):
                await say(socket, run="r", patterns=patterns)
                assert (await hear(socket))["end"]["code"] == "forbidden"
            await say(socket, run="r", patterns=["/region/north"])
            assert (await hear(socket))["start"] is True


async def test_a_feed_over_plain_http_is_told_how(web: Served) -> None:
    answer = await web.client.get("/barrels/geo/feed")
    assert answer.status_code == 400
    assert "ws://" in answer.json()["hint"]


async def test_a_client_that_does_not_read_is_cut_off(tmp_path: Path) -> None:
    text = "x" * 100_000
    async with served(tmp_path, limits=HttpLimits(send_s_max=1.0)) as web:
        barrel = web.store.create("geo")
        barrel.bulk([{"_id": f"big{number}", "text": text} for number in range(150)])
        async with feed(web, max_queue=1, close_timeout=0.2) as socket:
            await say(socket, run="r", since="first", docs=True, window=1000, bytes=60 << 20)
            await eventually(lambda: streams(web) == 1)
            await eventually(lambda: streams(web) == 0)
            await eventually(lambda: web.app.admission.live.used == 0)


async def test_sockets_are_closed_when_the_service_stops(web: Served) -> None:
    async with feed(web) as socket:
        await say(socket, run="r")
        await hear(socket)
        async with asyncio.timeout(30):
            await web.server.stop()
        async with asyncio.timeout(30):
            await socket.wait_closed()
