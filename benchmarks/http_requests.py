"""What HTTP costs: single writes and reads over 32 connections, bulk writes, and reading the changes.

The service is a process of its own on a new store; the client speaks over raw sockets, and so costs little itself.
Beside it stands what a store in process takes in the same run, and how often the disk syncs.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from typing import cast

import httpx
import msgspec
import uvloop

from benchmarks import measuring
from benchmarks.embedded import bulk as bulk_in_process
from benchmarks.embedded import singles
from benchmarks.measuring import arguments, documents, folder, report, syncs_per_second
from benchmarks.service import RunningService, service
from feeds import Store

BULK_DOCS = 500
BULK_DIFFERENT = 30_000  # before the same come again, under other ids
CHANGES_DOCS = 100_000
FILL = 1_000

ASKED = {
    "put_1_connection": 800,
    "put": 2_600,
    "bulk_docs_per_s": 10_000,
    "changes": 80_000,
}

_chance = random.Random(1)


def document(number: int) -> bytes:
    """About 200 bytes with eight leaves; the service makes the id."""
    made = measuring.document(number, _chance)
    del made["_id"]
    return msgspec.json.encode(made)


class Client(asyncio.Protocol):
    """One connection that sends the next request when the last one is answered."""

    def __init__(self, requests: Iterator[bytes], ends_at: float, done: asyncio.Future[None]) -> None:
        self.requests, self.ends_at, self.done = requests, ends_at, done
        self.seconds: list[float] = []
        self.failed = 0
        self.sent_at = 0.0
        self.held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self.send()

    def send(self) -> None:
        self.sent_at = time.perf_counter()
        request = next(self.requests, None) if self.sent_at < self.ends_at else None
        if request is None:
            self.transport.close()
            self.done.set_result(None)
            return
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.held += data
        head, found, body = self.held.partition(b"\r\n\r\n")
        if not found:
            return
        size = int(head.partition(b"content-length: ")[2].partition(b"\r")[0])
        if len(body) < size:
            return
        self.held = b""
        if head[9:10] != b"2":
            self.failed += 1
            print((head + b" " + body)[:300], file=sys.stderr)
        self.seconds.append(time.perf_counter() - self.sent_at)
        self.send()


async def load(
    port: int, connections: int, seconds: float, make: Callable[[int], Iterator[bytes]]
) -> dict[str, float]:
    """Answers per second and latencies of so many connections."""
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    clients = [Client(make(number), began + seconds, loop.create_future()) for number in range(connections)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.gather(*(client.done for client in clients))
    took = time.perf_counter() - began
    times = sorted(second for client in clients for second in client.seconds)
    return {
        "per_s": len(times) / took,
        "p50_ms": times[len(times) // 2] * 1000,
        "p99_ms": times[len(times) * 99 // 100] * 1000,
        "failed": sum(client.failed for client in clients),
    }


def request(method: str, path: str, body: bytes = b"") -> bytes:
    return b"%b %b HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n%b" % (
        method.encode(),
        path.encode(),
        len(body),
        body,
    )


async def read_all(port: int, path: str) -> tuple[float, int]:
    """Seconds and bytes of one chunked answer, not decoded."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(request("GET", path).replace(b"Host", b"Connection: close\r\nHost"))
    size = 0
    while data := await reader.read(1 << 18):
        size += len(data)
    writer.close()
    return time.perf_counter() - began, size


def medians(figures: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure."""
    return {key: round(statistics.median(each[key] for each in figures), 2) for key in figures[0]}


def bulk_writes(seconds: float, runs: int) -> dict[str, float]:
    """Bulk writes of one connection, each run into a new store, as in process."""
    bodies = [
        b'{"docs":[' + b",".join(document(number) for number in range(at, at + BULK_DOCS)) + b"]}"
        for at in range(0, BULK_DIFFERENT, BULK_DOCS)
    ]

    def bulks(client: int) -> Iterator[bytes]:
        for body in cycle(bodies):
            yield request("POST", "/barrels/bench/docs/_bulk", body)

    figures = []
    for _ in range(runs):
        with service() as running:
            running.create("bench")
            figures.append(uvloop.run(load(int(running.url.rsplit(":", 1)[1]), 1, seconds, bulks)))
    return medians(figures)


async def measure(
    port: int, connections: int, seconds: float, runs: int, bulk: dict[str, float]
) -> dict[str, object]:
    """Every other figure, as the median of its runs."""
    results: dict[str, object] = {"connections": connections}

    async def several(name: str, make: Callable[[int, int], Iterator[bytes]], connections: int) -> None:
        results[name] = medians([await load(port, connections, seconds, partial(make, run)) for run in range(runs)])

    def puts(run: int, client: int) -> Iterator[bytes]:
        for number in range(1 << 30):
            yield request("PUT", f"/barrels/bench/docs/{run}-{client}-{number}", document(number))

    def alone(run: int, client: int) -> Iterator[bytes]:
        for number in range(1 << 30):
            yield request("PUT", f"/barrels/bench/docs/alone-{run}-{number}", document(number))

    def gets(run: int, client: int) -> Iterator[bytes]:
        for number in range(1 << 30):
            yield request("GET", f"/barrels/bench/docs/0-{client}-{number % 50}")

    def nothing(run: int, client: int) -> Iterator[bytes]:
        while True:
            yield request("GET", "/")

    await several("welcome", nothing, connections)
    await several("put", puts, connections)
    await several("get", gets, connections)
    await several("put_1_connection", alone, 1)
    results["bulk_500"] = bulk
    put_rate = cast(dict[str, float], results["put_1_connection"])["per_s"]
    bulk_rate = BULK_DOCS * bulk["per_s"]
    own = await asyncio.to_thread(in_process)
    results["bulk_docs_per_s"] = bulk_rate
    results["put_1_connection_to_in_process"] = put_rate / own["in_process_put_per_s"]
    results["bulk_to_in_process"] = bulk_rate / own["in_process_bulk_docs_per_s"]
    results |= own
    for name, query in (
        ("changes", "docs=false"),
        ("changes_with_docs", "docs=true"),
        ("continuous", f"feed=continuous&limit={CHANGES_DOCS}"),
        ("continuous_with_docs", f"feed=continuous&docs=true&limit={CHANGES_DOCS}"),
    ):
        took = [await read_all(port, f"/barrels/changes/changes?{query}") for _ in range(runs)]
        results[name] = {
            "rows": CHANGES_DOCS,
            "rows_per_s": round(statistics.median(CHANGES_DOCS / seconds for seconds, _ in took)),
            "mib_per_s": round(statistics.median(size / seconds for seconds, size in took) / 2**20, 1),
        }
    return results


def in_process() -> dict[str, float]:
    """What a store takes without a service before it, and its disk without a store."""
    docs = documents(30_000)
    with folder() as place, Store.open(place) as store:
        barrel = store.create("bench")
        return {
            "in_process_bulk_docs_per_s": bulk_in_process(barrel, docs[:28_000]),
            "in_process_put_per_s": singles(barrel, docs[28_000:]),
            "syncs_per_s": syncs_per_second(place),
        }


def fill(running: RunningService) -> None:
    """The barrels that are written to and read from."""
    running.create("bench")
    running.create("changes")
    with httpx.Client(base_url=running.url, timeout=60) as client:
        for start in range(0, CHANGES_DOCS, FILL):
            body = b'{"docs":[' + b",".join(document(number) for number in range(start, start + FILL)) + b"]}"
            client.post("/barrels/changes/docs/_bulk", content=body).raise_for_status()


def main() -> None:
    """Run it."""
    options = arguments(__doc__ or "", seconds=3, runs=3, connections=32)
    bulk = bulk_writes(options.seconds, options.runs)
    with service() as running:
        fill(running)
        port = int(running.url.rsplit(":", 1)[1])
        figures = uvloop.run(measure(port, options.connections, options.seconds, options.runs, bulk))
        report("http_requests", figures, ASKED)


if __name__ == "__main__":
    main()
