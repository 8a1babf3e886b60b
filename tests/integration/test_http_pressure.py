"""The service over HTTP while writes wait for long, while a client exceeds its rate, and with many connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event

import httpx
import msgspec

from broker.http import HttpLimits
from broker.regulation import Regulation, Regulator
from broker.regulation.regulator import FLOOR_UNITS

from .http_tools import Served, eventually, served

DOC = "/barrels/geo/docs"
PUT = b"PUT /barrels/geo/docs/x HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n"


@asynccontextmanager
async def pressed(folder: Path, regulator: Regulator | None = None) -> AsyncIterator[Served]:
    """A service whose writer stands still under as many writes of one client as are let in."""
    held = Event()
    async with served(folder, limits=HttpLimits(requests_max=2_000), regulator=regulator) as web:
        web.store.create("geo")
        loop = asyncio.get_running_loop()
        standing = loop.run_in_executor(None, web.store.writer.call, lambda _: held.wait())
        greedy = [await web.connect() for _ in range(FLOOR_UNITS + 40)]
        for _, writer in greedy:
            writer.write(PUT % 2 + b"{}")
        try:
            regulating = web.app.admission.regulator
            await eventually(lambda: regulating.stats()["units"] >= FLOOR_UNITS and regulating.stats()["window"] > 0)
            assert regulating.stats()["units"] <= FLOOR_UNITS + 40
            yield web
        finally:
            held.set()
            await standing
            for reader, writer in greedy:
                assert (await answer_to(reader))[0] in (201, 409, 503)
                writer.close()


async def connect_from(web: Served, host: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", web.server.port, local_addr=(host, 0))


async def answer_to(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the next answer on a connection."""
    async with asyncio.timeout(60):
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        return int(first.split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


async def test_a_write_is_refused_before_its_body_has_come_and_the_connection_goes_on(tmp_path: Path) -> None:
    async with pressed(tmp_path) as web:
        reader, writer = await web.connect()
        writer.write(PUT % 10)
        status, headers, body = await answer_to(reader)
        assert (status, headers["retry-after"]) == (503, "1")
        assert msgspec.json.decode(body)["error"] == "overloaded"
        assert "connection" not in headers
        writer.write(b'{"a":1234}GET /barrels/geo HTTP/1.1\r\nHost: t\r\n\r\n')
        assert (await answer_to(reader))[0] == 200
        writer.close()


async def test_what_is_sent_behind_a_refused_write_is_answered_after_it(tmp_path: Path) -> None:
    async with pressed(tmp_path) as web:
        reader, writer = await web.connect()
        writer.write((PUT % 2 + b"{}") * 2 + b"GET /barrels/geo HTTP/1.1\r\nHost: t\r\n\r\n")
        assert [(await answer_to(reader))[0] for _ in range(3)] == [503, 503, 200]
        writer.close()


async def test_who_asks_whether_to_send_its_body_is_told_at_once_and_cut(tmp_path: Path) -> None:
    async with pressed(tmp_path) as web:
        reader, writer = await web.connect()
        writer.write((PUT % 10).replace(b"Host", b"Expect: 100-continue\r\nHost"))
        status, headers, _ = await answer_to(reader)
        assert (status, headers["connection"]) == (503, "close")
        assert await reader.read() == b""
        writer.close()


async def test_another_client_writes_and_reads_while_the_greedy_one_is_refused(tmp_path: Path) -> None:
    async with pressed(tmp_path) as web:
        assert (await web.client.put(f"{DOC}/refused", json={})).status_code == 503
        assert (await web.client.get("/barrels/geo")).status_code == 200
        reader, writer = await connect_from(web, "127.0.0.2")
        writer.write((PUT % 2 + b"{}").replace(b"docs/x", b"docs/another"))
        regulating = web.app.admission.regulator
        await eventually(lambda: regulating.stats()["clients"] == 2)
    assert (await answer_to(reader))[0] == 201
    writer.close()


async def test_what_is_in_work_is_shown_and_gone_again(tmp_path: Path) -> None:
    async with pressed(tmp_path) as web:
        await web.client.put(f"{DOC}/refused", json={})
        health = web.app.admission.regulator.health().figures
        assert health["pressed"] is True
        assert health["queues"]["http_requests"]["depth"] > FLOOR_UNITS
        assert health["queues"]["http_held"]["limit"] == 10_000
        shown = (await web.client.get("/metrics")).text
        assert 'status="503"' in shown
    regulating = web.app.admission.regulator
    await eventually(lambda: regulating.stats()["units"] == web.app.admission.requests.used == 0)


async def test_a_client_that_leaves_while_its_refusal_is_held_leaves_nothing_behind(tmp_path: Path) -> None:
    async with pressed(tmp_path) as web:
        for _ in range(20):
            _, writer = await web.connect()
            writer.write(PUT % 10)
            await writer.drain()
            writer.transport.abort()
        await eventually(lambda: len(web.app.admission.held) == 0)
        assert web.app.admission.connections.used < FLOOR_UNITS + 60


async def test_a_client_has_a_rate_of_units_and_is_told_when_to_come_again(tmp_path: Path) -> None:
    regulator = Regulator(Regulation(units_per_s=0.05, units_burst=6))
    async with served(tmp_path, regulator=regulator) as web:
        web.store.create("geo")
        assert (await web.client.put(f"{DOC}/a", content=b'{"a":"%b"}' % (b"x" * 3_000))).status_code == 201
        assert (await web.client.get(f"{DOC}/a")).status_code == 200
        answer = await web.client.put(f"{DOC}/b", content=b'{"a":"%b"}' % (b"x" * 3_000))
        assert (answer.status_code, answer.json()["error"]) == (429, "rate_limited")
        assert answer.headers["retry-after"] == str(answer.json()["retry_after"])
        assert 20 <= answer.json()["retry_after"] <= 60
        async with httpx.AsyncClient(
            base_url=web.url, transport=httpx.AsyncHTTPTransport(local_address="127.0.0.2"), timeout=60
        ) as other:
            assert (await other.get(f"{DOC}/a")).status_code == 200


async def test_what_was_read_is_paid_for_afterwards(tmp_path: Path) -> None:
    regulator = Regulator(Regulation(units_per_s=0.1, units_burst=10))
    async with served(tmp_path, regulator=regulator) as web:
        web.store.create("geo").put({"text": "x" * 200_000}, id="large")
        assert (await web.client.get(f"{DOC}/large")).status_code == 200
        answer = await web.client.get(f"{DOC}/large")
        assert (answer.status_code, answer.json()["retry_after"] >= 20) == (429, True)


async def test_connections_are_bounded_and_one_address_does_not_have_them_all(tmp_path: Path) -> None:
    async with served(tmp_path, limits=HttpLimits(connections_max=20)) as web:
        opened = [await web.connect() for _ in range(18)]
        reader, writer = await web.connect()
        status, headers, body = await answer_to(reader)
        assert (status, headers["connection"]) == (503, "close")
        assert "http_connections" in msgspec.json.decode(body)["reason"]
        other, their = await connect_from(web, "127.0.0.3")
        their.write(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        assert (await answer_to(other))[0] == 200
        for _, each in (*opened, (reader, writer), (other, their)):
            each.close()
        await eventually(lambda: web.app.admission.connections.used == 0)
