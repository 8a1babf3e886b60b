"""What HTTP costs: single writes and reads over 32 connections, bulk writes, and reading the changes.

The service runs in a process of its own on a store in a new directory; the client speaks over raw sockets, so that
it costs little itself. Prints one JSON object: the machine, and the median of several runs of everything.

    python benchmarks/http_requests.py [--seconds 3] [--runs 3] [--connections 32]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

BULK_DOCS = 500
CHANGES_DOCS = 100_000


def document(number: int) -> bytes:
    """About 200 bytes with eight leaves, like a sensor's reading."""
    reading = {
        "sensor": f"s-{number % 500}",
        "kind": "temperature",
        "place": {"site": f"site-{number % 20}", "room": number % 100},
        "value": number * 0.25,
        "unit": "C",
        "ok": True,
        "note": "x" * 60,
    }
    return json.dumps(reading, separators=(",", ":")).encode()


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


async def measure(port: int, connections: int, seconds: float, runs: int) -> dict[str, object]:
    """Every figure, as the median of its runs."""
    results: dict[str, object] = {}

    async def several(name: str, make: Callable[[int, int], Iterator[bytes]], connections: int) -> None:
        figures = [await load(port, connections, seconds, partial(make, run)) for run in range(runs)]
        results[name] = {key: round(statistics.median(figure[key] for figure in figures), 2) for key in figures[0]}

    def puts(run: int, client: int) -> Iterator[bytes]:
        for number in range(1 << 30):
            yield request("PUT", f"/barrels/bench/docs/{run}-{client}-{number}", document(number))

    def gets(run: int, client: int) -> Iterator[bytes]:
        for number in range(1 << 30):
            yield request("GET", f"/barrels/bench/docs/0-{client}-{number % 50}")

    def bulks(run: int, client: int) -> Iterator[bytes]:
        body = b'{"docs":[' + b",".join(document(number) for number in range(BULK_DOCS)) + b"]}"
        while True:
            yield request("POST", "/barrels/bench/docs/_bulk", body)

    def nothing(run: int, client: int) -> Iterator[bytes]:
        while True:
            yield request("GET", "/")

    await several("welcome", nothing, connections)
    await several("put_new", puts, connections)
    await several("get", gets, connections)
    await several("bulk_500", bulks, 4)
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


async def serve(directory: str) -> None:
    """The service, until its standard input closes."""
    from prometheus_client import CollectorRegistry

    from broker.http import OpenAccess, Services, create_app, serve_http
    from feeds import Store
    from listeners.stream.service import StreamService

    with Store.open(directory) as store, ThreadPoolExecutor(8) as readers:
        store.create("bench")
        barrel = store.create("changes")
        for start in range(0, CHANGES_DOCS, 1000):
            barrel.bulk([document(number) for number in range(start, start + 1000)])
        streams = StreamService(store, readers)
        services = Services(
            store=store,
            streams=streams,
            readers=readers,
            access=OpenAccess(),
            health=lambda: {"store": {"ok": True}},
            registry=CollectorRegistry(),
            version="bench",
        )
        server = await serve_http(create_app(services), "127.0.0.1", 0)
        print(server.port, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await server.stop()
        await streams.stop()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", metavar="DIR")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32)
    options = parser.parse_args()
    import uvloop

    if options.serve:
        uvloop.run(serve(options.serve))
        return
    with tempfile.TemporaryDirectory() as directory:
        service = subprocess.Popen(
            [sys.executable, __file__, "--serve", directory], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert service.stdout is not None
        port = int(service.stdout.readline())
        try:
            results = uvloop.run(measure(port, options.connections, options.seconds, options.runs))
        finally:
            service.communicate()
    machine = {"python": platform.python_version(), "cpus": os.cpu_count(), "system": platform.platform()}
    print(json.dumps({"machine": machine, "connections": options.connections, "results": results}, indent=2))


if __name__ == "__main__":
    main()
