"""500 live streams with patterns of their own on one service: what each write costs it, and how fast it is told.

Each write is for exactly two of the streams. The same writes without streams are what the service's CPU is compared
with. In the end 200 streams are told of 1,000 writes a second, ten in a request. The streams come over a few MQTT
connections, then over a WebSocket each; who listens is a process of its own, and follows as any listener does,
acknowledgements included.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import multiprocessing
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from urllib.parse import urlsplit

import psutil  # type: ignore[import-untyped]
import uvloop

from benchmarks.measuring import arguments, median_of, percentile, report
from benchmarks.service import RunningService, service
from benchmarks.shared_link import SharedConnection
from feeds.errors import Unavailable
from feeds.positions import parse_since
from listeners.following import Following, Link
from listeners.inbox import Inbox
from listeners.links.address import parse_address
from listeners.links.websocket import WebSocketLink
from listeners.stream.actions import Wanted

PER_CONNECTION = 100  # streams; what the service allows one client by default
BARREL = "bench"
READY_S = 60.0
TOLD_S = 20.0
ASKED = {
    "mqtt_p50_ms": 5,
    "mqtt_p99_ms": 25,
    "missing": 0,
    "strange": 0,
    "cpu_share_added": None,
    "busy_mqtt_max_ms": 2_000,
}
BUSY = {"streams": 200, "rate": 1_000, "together": 10}


def pattern(stream: int, streams: int) -> str:
    """The first half of the streams wait for a sensor, the others for a row of some site."""
    half = streams // 2
    return f"sensor/s{stream}" if stream < half else f"sites/+/row/{stream - half}"


def concerned(number: int, streams: int) -> tuple[int, int]:
    """The two streams that a write is for."""
    half = streams // 2
    return number % half, half + number * 7 % half


def document(number: int, streams: int) -> bytes:
    """A reading that two streams wait for, with the time at which it was made."""
    sensor, row = concerned(number, streams)
    return json.dumps(
        {
            "sensor": f"s{sensor}",
            "sites": [{"name": f"field-{number % 50}", "row": row - streams // 2}],
            "sent": time.perf_counter(),
            "value": number,
            "unit": "celsius",
            "note": "calibrated in spring",
        }
    ).encode()


class Ear:
    """One stream's listener: what it heard, and how long after the write."""

    def __init__(self, stream: int, streams: int, dial: Callable[[], Link]) -> None:
        self.stream, self.streams = stream, streams
        self.numbers: set[int] = set()
        self.strange = 0
        self.late_ms: list[float] = []
        self.inbox = Inbox(self.hear)
        wanted = Wanted(patterns=(pattern(stream, streams),), since=parse_since("now"))
        self.following = Following(wanted, dial, self.inbox, patience_s=READY_S)

    def hear(self) -> None:
        """Look at what came, and say that it is done."""
        now = time.perf_counter()
        while (item := self.inbox.take()) is not None:
            assert item.row is not None
            told = json.loads(bytes(item.row.doc))  # type: ignore[arg-type]
            if told["value"] not in self.numbers:
                self.late_ms.append((now - told["sent"]) * 1e3)
            self.numbers.add(told["value"])
            self.strange += self.stream not in concerned(told["value"], self.streams)
            self.following.acknowledged(item)


async def listen(running: tuple[str, int], transport: str, streams: int, writes: int, pipe: Connection) -> None:
    """Open the streams, say so, and tell in the end what they heard."""
    url, port = running
    shared = [SharedConnection("127.0.0.1", port, f"ears{at}") for at in range(0, streams, PER_CONNECTION)]
    address = parse_address(f"{url}/{BARREL}")

    def dial(stream: int) -> Link:
        if transport == "mqtt":
            return shared[stream // PER_CONNECTION].link(BARREL, f"s{stream}")
        return WebSocketLink(address)  # type: ignore[arg-type]

    ears = [Ear(stream, streams, partial(dial, stream)) for stream in range(streams)]
    if transport == "mqtt":
        for connection in shared:
            await connection.open()
    tasks = [asyncio.create_task(ear.following.run()) for ear in ears]
    with suppress(TimeoutError):
        async with asyncio.timeout(READY_S):
            while not all(ear.inbox.begun for ear in ears):
                await asyncio.sleep(0.05)
    pipe.send(sum(ear.inbox.begun for ear in ears))
    while not pipe.poll():  # until the last write is answered
        await asyncio.sleep(0.05)
    with suppress(TimeoutError):
        async with asyncio.timeout(TOLD_S):
            while sum(len(ear.numbers) for ear in ears) < 2 * writes:
                await asyncio.sleep(0.05)
    pipe.send(
        {
            "missing": 2 * writes - sum(len(ear.numbers) for ear in ears),
            "strange": sum(ear.strange for ear in ears),
            "late_ms": [late for ear in ears for late in ear.late_ms],
        }
    )
    for ear in ears:
        ear.following.close()
    await asyncio.wait(tasks, timeout=10)
    for connection in shared:
        connection.close()


def listen_in_process(running: tuple[str, int], transport: str, streams: int, writes: int, pipe: Connection) -> None:
    """As `listen`, from a process of its own."""
    uvloop.run(listen(running, transport, streams, writes, pipe))


def write_at_rate(url: str, writes: int, rate: int, streams: int, together: int = 1) -> float:
    """Store documents at an even rate, so many in a request; how many seconds it took."""
    client = http.client.HTTPConnection(urlsplit(url).netloc)
    began = time.perf_counter()
    for number in range(0, writes, together):
        time.sleep(max(0.0, began + number / rate - time.perf_counter()))
        if together == 1:
            client.request("PUT", f"/barrels/{BARREL}/docs/d{number}", document(number, streams))
        else:
            docs = b",".join(document(each, streams) for each in range(number, number + together))
            client.request("POST", f"/barrels/{BARREL}/docs/_bulk", b'{"docs":[%b]}' % docs)
        answer = client.getresponse()
        answer.read()
        if answer.status not in (200, 201):
            raise Unavailable(f"write {number} was answered {answer.status}")
    client.close()
    return time.perf_counter() - began


def cpu_s(running: RunningService) -> float:
    """Seconds of CPU that the service has taken."""
    times = psutil.Process(running.process.pid).cpu_times()
    return float(times.user + times.system)


def written(running: RunningService, writes: int, rate: int, streams: int, together: int = 1) -> float:
    """Write at this rate; the share of one core that the service takes meanwhile."""
    before = cpu_s(running)
    took = write_at_rate(running.url, writes, rate, streams, together)
    return (cpu_s(running) - before) / took


def alone(streams: int, rate: int, seconds: int) -> dict[str, float]:
    """The writes without streams."""
    with service() as running:
        running.create(BARREL)
        share = written(running, rate * seconds, rate, streams)
        return {"alone_cpu_share": share, "alone_mib": running.memory_mib()}


def streamed(
    transport: str, streams: int, rate: int, seconds: int, idle_s: float = 3.0, together: int = 1
) -> dict[str, float]:
    """The writes, with the streams told of them, after so long without any."""
    processes = multiprocessing.get_context("spawn")
    writes = rate * seconds
    with service() as running:
        running.create(BARREL, publish=["_id/#"])
        here, there = processes.Pipe()
        place = (running.url, running.mqtt_port)
        ears = processes.Process(target=listen_in_process, args=(place, transport, streams, writes, there))
        ears.start()
        try:
            if (open_now := here.recv()) != streams:
                raise SystemExit(f"only {open_now} of {streams} streams were opened")
            before = cpu_s(running)
            time.sleep(idle_s)
            idle = (cpu_s(running) - before) / idle_s
            share = written(running, writes, rate, streams, together)
            here.send("that was all")
            told = here.recv()
            memory = running.memory_mib()
        finally:
            ears.join(20)
            if ears.is_alive():
                ears.kill()
    return {
        f"{transport}_cpu_share": share,
        f"{transport}_idle_cpu_share": idle,
        f"{transport}_p50_ms": percentile(told["late_ms"], 0.5),
        f"{transport}_p99_ms": percentile(told["late_ms"], 0.99),
        f"{transport}_max_ms": max(told["late_ms"], default=0.0),
        f"{transport}_missing": told["missing"],
        f"{transport}_strange": told["strange"],
        f"{transport}_mib": memory,
    }


def main() -> None:
    """Run it."""
    options = arguments(__doc__ or "", runs=1, streams=500, rate=300, seconds=15)
    asked = (options.streams, options.rate, options.seconds)
    figures = median_of(options.runs, lambda: alone(*asked))
    for transport in ("mqtt", "ws"):
        figures |= median_of(options.runs, lambda: streamed(transport, *asked))  # noqa: B023 - called at once
    busy = median_of(options.runs, lambda: streamed("mqtt", seconds=options.seconds, **BUSY))
    figures |= {f"busy_{name}": value for name, value in busy.items()}
    report("many_streams", figures, ASKED)


if __name__ == "__main__":
    main()
