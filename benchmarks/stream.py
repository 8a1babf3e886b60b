"""How fast streams tell: the past, the present to many, and what a listener in process makes of it.

Prints one JSON object. Rates are medians of `--runs`; memory is of this process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from feeds import Barrel, Store
from listeners import listen
from listeners.stream.messages import Credit, Open, encode
from listeners.stream.service import ServiceLimits, StreamService

DOC = {"region": "Europe", "kind": "sensor", "value": 21.5, "unit": "C", "text": "x" * 110}


class Sink:
    """Takes arrays and gives credit at once; counts."""

    def __init__(self, service: StreamService, owner: str, **asked: object) -> None:
        self.service, self.owner, self.asked = service, owner, asked
        self.rows = self.bytes = self.arrays = 0
        self.told = asyncio.Event()
        self.until = 0

    async def open(self) -> None:
        message = encode(Open(run=self.owner, window=5_000, bytes=4 << 20, **self.asked))  # type: ignore[arg-type]
        await self.service.open(self.owner, "bench", "s", message, self.receive)

    async def receive(self, data: bytes) -> None:
        # The tail of an array is looked at, and not its rows: what decodes them is another process.
        self.rows += data.count(b'{"seq":')
        self.bytes += len(data)
        self.arrays += 1
        head, _, _ = data[:200].partition(b',"rows"')
        seq = json.loads(head + b"}")["seq"]
        self.service.credit(
            self.owner, "bench", "s", encode(Credit(run=self.owner, ack=seq, window=5_000, bytes=4 << 20))
        )
        if self.rows >= self.until:
            self.told.set()


def fill(barrel: Barrel, count: int) -> None:
    for begin in range(0, count, 1_000):
        barrel.bulk([{"_id": f"d{number:07}", "n": number, **DOC} for number in range(begin, begin + 1_000)])


async def past(service: StreamService, count: int, **asked: object) -> float:
    sink = Sink(service, f"past{time.monotonic_ns()}", since="first", **asked)
    sink.until = count
    begin = time.perf_counter()
    await sink.open()
    await sink.told.wait()
    took = time.perf_counter() - begin
    service.gone(sink.owner)
    return count / took


async def present(service: StreamService, barrel: Barrel, streams: int, changes: int, rate: int) -> dict[str, float]:
    """Streams with patterns of their own hear `rate` changes a second; the CPU that costs beside the writing."""
    sinks = [Sink(service, f"live{n}", since="now", patterns=[f"sensor/s{n}/#"], docs=True) for n in range(streams)]
    for sink in sinks:
        await sink.open()
    while any(not sink.arrays for sink in sinks):
        await asyncio.sleep(0.01)
    before = [sink.rows for sink in sinks]
    begin, cpu = time.perf_counter(), time.process_time()
    step = max(1, rate // 50)
    for at in range(0, changes, step):
        docs = [{"_id": f"p{n}", "sensor": f"s{n % max(streams, 1)}", **DOC} for n in range(at, at + step)]
        await asyncio.to_thread(barrel.bulk, docs, update=True)
        await asyncio.sleep(max(0.0, begin + (at + step) / rate - time.perf_counter()))
    while sum(sink.rows for sink in sinks) - sum(before) < (changes if streams else 0):
        await asyncio.sleep(0.005)
    took = time.perf_counter() - begin
    for sink in sinks:
        service.gone(sink.owner)
    return {"changes_per_s": changes / took, "cpu_share": (time.process_time() - cpu) / took}


def median(call: Callable[[], float], runs: int) -> float:
    return round(statistics.median(call() for _ in range(runs)))


def in_process(barrel: Barrel, count: int) -> float:
    begin = time.perf_counter()
    told = sum(1 for _ in listen(barrel, since=0, follow=False, window=5_000, bytes=4 << 20))
    assert told >= count
    return told / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--docs", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--streams", type=int, default=500)
    options = parser.parse_args()
    process = psutil.Process(os.getpid())
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder)) as store:
        barrel = store.create("bench")
        fill(barrel, options.docs)
        count = barrel.head()

        async def measure() -> dict[str, object]:
            with ThreadPoolExecutor(8) as pool:
                service = StreamService(store, pool, limits=ServiceLimits(streams_per_owner=10_000))
                found: dict[str, object] = {}
                kinds: dict[str, dict[str, object]] = {
                    "past_docs": {"docs": True},
                    "past_rows": {"docs": False},
                    "past_pattern_docs": {"docs": True, "patterns": ["region/Europe"]},
                }
                for name, asked in kinds.items():
                    before = process.memory_info().rss
                    rates = [await past(service, count, **asked) for _ in range(options.runs)]
                    found[f"{name}_rows_per_s"] = round(statistics.median(rates))
                    found[f"{name}_memory_grew_mib"] = round((process.memory_info().rss - before) / 2**20, 1)
                found["writing_alone"] = await present(service, barrel, 0, 5_000, 1_000)
                found[f"present_{options.streams}_streams"] = await present(
                    service, barrel, options.streams, 5_000, 1_000
                )
                await service.stop()
                return found

        result = asyncio.run(measure())
        result["in_process_listener_rows_per_s"] = median(lambda: in_process(barrel, count), options.runs)
        result["machine"] = f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
        print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
