"""Streams in one process: the past at full speed, the present to many, what a commit's way to a listener takes.

The sink takes arrays as a transport would and gives credit at once; only the last figure decodes the rows.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import msgspec
import psutil  # type: ignore[import-untyped]

from benchmarks.measuring import arguments, documents, folder, median_of, percentile, report
from feeds import Barrel, Store
from listeners import listen
from listeners.stream.messages import Array, Credit, Open, encode
from listeners.stream.service import ServiceLimits, StreamService

BATCH = 1_000
WINDOW = 5_000
WINDOW_BYTES = 4 << 20
RATE = 1_000

ASKED = {
    "past_docs_rows_per_s": 30_000,
    "past_docs_memory_grew_mib": None,
    "live_cpu_share": None,
    "listener_rows_per_s": None,
}

_decode = msgspec.json.Decoder(Array[msgspec.Raw]).decode


class Sink:
    """One stream's other end: counts, and acknowledges each array."""

    def __init__(self, service: StreamService, owner: str, **asked: object) -> None:
        self.service, self.owner, self.asked = service, owner, asked
        self.rows = 0
        self.wanted = 1 << 62
        self.begun = asyncio.Event()
        self.told = asyncio.Event()

    async def open(self) -> None:
        message = Open(run=self.owner, window=WINDOW, bytes=WINDOW_BYTES, **self.asked)  # type: ignore[arg-type]
        await self.service.open(self.owner, "bench", "s", encode(message), self.receive)

    async def receive(self, data: bytes) -> None:
        array = _decode(data)
        self.rows += len(array.rows)
        word = Credit(run=self.owner, ack=array.seq, window=WINDOW, bytes=WINDOW_BYTES)
        self.service.credit(self.owner, "bench", "s", encode(word))
        self.begun.set()
        if self.rows >= self.wanted:
            self.told.set()

    def close(self) -> None:
        self.service.gone(self.owner)


async def past(service: StreamService, count: int, **asked: object) -> float:
    """Rows a second of everything that a barrel holds."""
    sink = Sink(service, "past", since="first", **asked)
    sink.wanted = count
    began = time.perf_counter()
    await sink.open()
    await sink.told.wait()
    elapsed = time.perf_counter() - began
    sink.close()
    return count / elapsed


async def present(service: StreamService, barrel: Barrel, streams: int, seconds: int) -> float:
    """The share of one core that it takes to write 1,000 changes a second and tell each to one of many streams."""
    sinks = [
        Sink(service, f"live{n}", since="now", patterns=[f"sensor/live-{n}/#"], docs=True) for n in range(streams)
    ]
    for sink in sinks:
        await sink.open()
    for sink in sinks:
        await sink.begun.wait()
    began, cpu, step = time.perf_counter(), time.process_time(), RATE // 50
    for at in range(0, seconds * RATE, step):
        docs = [{"_id": f"p{n}", "sensor": f"live-{n % max(1, streams)}", "value": n} for n in range(at, at + step)]
        await asyncio.to_thread(barrel.bulk, docs, update=True)
        await asyncio.sleep(max(0.0, began + (at + step) / RATE - time.perf_counter()))
    while streams and sum(sink.rows for sink in sinks) < seconds * RATE:
        await asyncio.sleep(0.005)
    share = (time.process_time() - cpu) / (time.perf_counter() - began)
    for sink in sinks:
        sink.close()
    return share


def latency(barrel: Barrel, changes: int) -> dict[str, float]:
    """Milliseconds from before a put until a listening thread holds the change, at 200 puts a second."""
    sent: dict[str, float] = {}
    with listen(barrel, ["late/#"], since="now") as heard:

        def write() -> None:
            for number in range(changes):
                sent[f"late{number}"] = time.perf_counter()
                barrel.put({"late": number}, id=f"late{number}")
                time.sleep(0.005)

        writer = threading.Thread(target=write)
        writer.start()
        took = []
        for change in heard:
            took.append((time.perf_counter() - sent[change.id]) * 1e3)
            if len(took) == changes:
                break
        writer.join()
    return {"latency_ms_p50": percentile(took, 0.5), "latency_ms_p99": percentile(took, 0.99)}


def listener(barrel: Barrel, count: int) -> float:
    """Rows a second that a loop in a thread of its own sees, documents included."""
    began = time.perf_counter()
    told = sum(1 for _ in listen(barrel, since=0, follow=False, window=WINDOW, bytes=WINDOW_BYTES))
    elapsed = time.perf_counter() - began
    assert told == count
    return told / elapsed


async def streamed(store: Store, barrel: Barrel, count: int, streams: int) -> dict[str, float]:
    """What the service does, without a listener's work."""
    process = psutil.Process(os.getpid())
    with ThreadPoolExecutor(8) as pool:
        service = StreamService(store, pool, limits=ServiceLimits(streams_per_owner=1_000))
        before = process.memory_info().rss
        figures = {"past_docs_rows_per_s": await past(service, count, docs=True)}
        figures["past_docs_memory_grew_mib"] = (process.memory_info().rss - before) / (1 << 20)
        figures["past_rows_per_s"] = await past(service, count)
        figures["past_pattern_docs_rows_per_s"] = await past(service, count, docs=True, patterns=["unit/celsius"])
        alone = await present(service, barrel, 0, 4)
        figures["live_cpu_share"] = await present(service, barrel, streams, 4) - alone
        await service.stop()
    return figures


def measure(count: int, streams: int) -> dict[str, float]:
    """All figures once."""
    docs = documents(count)
    with folder() as place, Store.open(place) as store:
        barrel = store.create("bench")
        for at in range(0, count, BATCH):
            barrel.bulk(docs[at : at + BATCH])
        del docs
        figures = {"listener_rows_per_s": listener(barrel, count)}
        figures |= asyncio.run(streamed(store, barrel, count, streams))
        return figures | latency(barrel, 400)


def main() -> None:
    """Run it."""
    options = arguments(__doc__ or "", runs=3, documents=50_000, streams=500)
    report("stream", median_of(options.runs, lambda: measure(options.documents, options.streams)), ASKED)


if __name__ == "__main__":
    main()
