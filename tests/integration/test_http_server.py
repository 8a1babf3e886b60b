"""Starting, telling about itself, and stopping."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from databases import Databases
from proxy import Proxy
from starlette.responses import PlainTextResponse
from websockets.asyncio.client import connect

from broker.health import PartHealth
from broker.http import serve_http
from feeds.errors import Unavailable

from .http_tools import Served, eventually, fill, served


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as running:
        running.store.create("geo")
        yield running


async def test_it_says_who_it_is(web: Served) -> None:
    welcome = (await web.client.get("/")).json()
    assert welcome == {"service": "spile", "version": "0.test", "store": web.store.id, "you": "anonymous"}


@pytest.mark.parametrize("path", ["/", "/nothing", "/couch/nothing"])
async def test_an_answer_does_not_wait_for_a_delayed_acknowledgement(web: Served, path: str) -> None:
    took: list[float] = []
    for _ in range(21):
        begun = time.perf_counter()
        await web.client.get(path)
        took.append(time.perf_counter() - begun)
    assert sorted(took)[5] < 0.03, took  # a delay is of 40 ms, and slows all; a machine that is busy slows some


async def test_health_is_the_state_of_every_part(tmp_path: Path) -> None:
    parts = {"store": PartHealth("running", figures={"queued": 3}), "mqtt": PartHealth("running")}
    async with served(tmp_path, health=lambda: parts) as web:
        answer = await web.client.get("/health")
        assert (answer.status_code, answer.json()["ok"], answer.json()["state"]) == (200, True, "running")
        assert answer.json()["parts"]["store"]["queued"] == 3
        parts["mqtt"] = PartHealth("waiting", "the broker is away", "See that it runs.", since=1_700_000_000)
        answer = await web.client.get("/health")
        assert (answer.status_code, answer.json()["ok"], answer.json()["state"]) == (200, True, "waiting")
        assert answer.json()["parts"]["mqtt"] == {
            "ok": True,
            "state": "waiting",
            "since": "2023-11-14T22:13:20.000Z",
            "failure": "the broker is away",
            "hint": "See that it runs.",
        }
        parts["store"] = PartHealth("failing", "the disk is full", "Free some space.")
        answer = await web.client.get("/health")
        assert (answer.status_code, answer.json()["ok"], answer.json()["state"]) == (503, False, "failing")


async def test_metrics_count_requests_and_show_every_part(web: Served) -> None:
    await web.client.put("/barrels/geo/docs/a", json={})
    await web.client.get("/barrels/geo/docs/none")
    await web.client.get("/nothing")
    text = (await web.client.get("/metrics")).text
    route = 'route="/barrels/{barrel}/docs/{id...}"'
    assert f'spile_http_requests_total{{method="PUT",{route},status="201"}} 1.0' in text
    assert f'spile_http_requests_total{{method="GET",{route},status="404"}} 1.0' in text
    assert 'spile_http_requests_total{method="GET",route="unknown",status="404"} 1.0' in text
    assert f'spile_http_request_seconds_count{{method="PUT",{route}}} 1.0' in text
    assert 'spile_http_limit{name="http_requests"} 512.0' in text
    assert "spile_store_" in text
    assert "spile_streams_replays_waiting 0.0" in text


async def test_named_listeners_are_shown_with_how_far_they_are(web: Served) -> None:
    fill(web.store.barrel("geo"), 3)
    url = f"ws://127.0.0.1:{web.server.port}/barrels/geo/feed"
    async with connect(url, proxy=None) as socket:
        await socket.send('{"run":"r","name":"mirror","since":"first","window":1}')
        await eventually(lambda: shown(web, 'spile_listener_seq_behind{barrel="geo",listener="mirror"} 3.0'))
        assert await shown(web, "spile_streams_streams 1.0")
        assert await shown(web, 'spile_http_depth{name="http_live_feeds"} 1.0')


async def shown(web: Served, line: str) -> bool:
    return line in (await web.client.get("/metrics")).text.splitlines()


async def test_what_is_mounted_stands_beside_the_routes(web: Served) -> None:
    web.app.mount("/console", PlainTextResponse("the console"))
    assert (await web.client.get("/console/x")).text == "the console"
    assert (await web.client.get("/barrels")).status_code == 200
    assert (await web.client.get("/nothing")).json()["error"] == "not_found"


async def test_an_unknown_method_does_not_make_new_series(web: Served) -> None:
    await web.raw(b"PROPFIND /barrels HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
    text = (await web.client.get("/metrics")).text
    assert "PROPFIND" not in text


async def test_a_port_in_use_is_named(web: Served) -> None:
    with pytest.raises(Unavailable) as refused:
        await serve_http(web.app, "127.0.0.1", web.server.port)
    assert f"127.0.0.1:{web.server.port}" in refused.value.reason
    with pytest.raises(Unavailable):
        await serve_http(web.app, "no-such-host.invalid", 0)


async def test_stopping_lets_a_request_in_work_finish(tmp_path: Path) -> None:
    async with served(tmp_path, stop_s_max=30) as web:
        web.store.create("geo")
        reader, writer = await web.connect()
        writer.write(b"PUT /barrels/geo/docs/a HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n{")
        await eventually(lambda: web.app.admission.requests.used == 1)
        stopping = asyncio.create_task(web.server.stop())
        await eventually(lambda: web.app.closing.is_set())
        writer.write(b"}")
        async with asyncio.timeout(30):
            answer = await reader.read()
            await stopping
        assert b" 201 " in answer.splitlines()[0]
        writer.close()


async def test_stopping_is_bounded_by_whatever_clients_do(web: Served) -> None:
    fill(web.store.barrel("geo"), 2)
    idle = [await web.connect() for _ in range(3)]
    idle[0][1].write(b"PUT /barrels/geo/docs/a HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n{")
    idle[1][1].write(b"GET /barrels/geo/changes?feed=continuous HTTP/1.1\r\nHost: t\r\n\r\n")
    await eventually(lambda: web.app.admission.live.used == 1)
    async with asyncio.timeout(30):
        await web.server.stop()
    assert web.server.finished.done()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", web.server.port), 1)
    for _, writer in idle:
        writer.close()


async def test_connections_are_kept_and_pipelined_requests_answered_in_order(web: Served) -> None:
    reader, writer = await web.connect()
    for number in range(3):
        writer.write(b"PUT /barrels/geo/docs/p%d HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n{}" % number)
    found = []
    async with asyncio.timeout(30):
        for _ in range(3):
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            found.append(await reader.readexactly(size))
    assert [b'"p%d"' % number in body for number, body in enumerate(found)] == [True] * 3
    writer.close()


@pytest.mark.parametrize("place", ["barrels", "couch"])
async def test_while_a_barrel_is_looked_for_others_are_served(databases: Databases, place: str) -> None:
    """A database that does not answer holds up who asks it, and nobody else."""
    url = databases.fresh()
    with Proxy(lambda: int(urlsplit(url).port or 0)) as door:
        async with served(urlunsplit(urlsplit(url)._replace(netloc=_behind(url, door.port)))) as web:
            door.freeze()
            asked = asyncio.create_task(web.client.get(f"/{place}/nowhere"))
            await eventually(lambda: web.app.admission.requests.used == 1)
            assert (await web.client.get("/health")).status_code == 200
            assert not asked.done()
            door.heal()
            assert (await asked).status_code == 404


def _behind(url: str, port: int) -> str:
    """The same place and login at another port."""
    return f"{urlsplit(url).netloc.rpartition(':')[0]}:{port}"
