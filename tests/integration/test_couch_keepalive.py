"""Small requests and answers, one after the other on one connection: nothing waits for a delayed acknowledgement."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .http_tools import Served, served
from .store_tools import careless

DELAYED_S = 0.02  # half of the 40 ms that Linux holds an acknowledgement back


def quick(seconds: list[float]) -> float:
    """What a quarter of them took at most: a machine that is busy slows some, delayed acknowledgements slow all."""
    return statistics.quantiles(seconds, n=4)[0]


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as running:
        careless(running.store)  # what is measured is not the disk
        running.store.create("db")
        running.store.barrel("db").put({"_id": "doc", "n": 1})
        yield running


def request(method: str, path: str, body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def read_answer(reader: asyncio.StreamReader) -> bytes:
    """Head and body of one answer, whole or in chunks."""
    head = await reader.readuntil(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head:
        return head + await reader.readuntil(b"0\r\n\r\n")
    length = int(head.partition(b"content-length: ")[2].partition(b"\r")[0])
    return head + await reader.readexactly(length)


async def test_small_requests_on_one_connection_are_answered_without_steps(web: Served) -> None:
    asked = [
        request("GET", "/couch/db"),
        request("GET", "/couch/db/doc"),
        request("GET", "/couch/db/_changes"),
        request("GET", "/couch/db/_local/none"),
        request("POST", "/couch/db/_revs_diff", b'{"doc": ["9-x"]}'),
    ]
    reader, writer = await web.connect()
    seconds: list[float] = []
    async with asyncio.timeout(30):
        for each in asked * 10:
            began = time.perf_counter()
            # Head and body by themselves, as many clients send them: the body must not wait for an acknowledgement.
            head, end, body = each.partition(b"\r\n\r\n")
            writer.write(head + end)
            if body:
                await asyncio.sleep(0)
                writer.write(body)
            answer = await read_answer(reader)
            seconds.append(time.perf_counter() - began)
            assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 404")), answer
    writer.close()
    assert len(seconds) == 50
    assert quick(seconds) < DELAYED_S


async def test_a_change_arrives_without_waiting_for_the_line_before_it_to_be_acknowledged(web: Served) -> None:
    """Lines that come in quick succession are what is held back where small packets wait for each other."""
    reader, writer = await web.connect()
    writer.write(request("GET", "/couch/db/_changes?feed=continuous&since=now&heartbeat=60000"))
    seconds: list[float] = []
    async with asyncio.timeout(30):
        await reader.readuntil(b"\r\n\r\n")
        for number in range(30):
            began = time.perf_counter()
            put = asyncio.ensure_future(web.client.put(f"/couch/db/new{number}", json={}))
            await reader.readuntil(b'"id":"new%d"' % number)
            seconds.append(time.perf_counter() - began)
            await put
    writer.close()
    assert quick(seconds) < DELAYED_S
