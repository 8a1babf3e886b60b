"""Five times the load that the service can take: what it still does, for whom, and how fast.

The service has one core to itself and those who press it another, for the best throughput too. Meanwhile an unrelated
client, from another address, reads a document, writes one of its own, and waits for that change.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import random
import time
from collections.abc import Callable, Coroutine, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
import msgspec
import uvloop

from benchmarks.measuring import document, percentile, report
from benchmarks.pressing import Tally, http_closed, http_open, mqtt_load
from benchmarks.service import RunningService, service

TIMES = 5
DEVICES, DEVICE_WINDOW = 32, 5
OPEN_WINDOW = 100  # of a device that does not wait for what it asked
READER = ("127.0.0.2", 0)
READER_PAUSE_S = 0.02
SETTLED_S = 1.0
ASKED = {
    "http_closed": {"kept": 0.8, "p99_ms": 250},
    "http_open": {"kept": 0.8, "p99_ms": 250},
    "mqtt_closed": {"kept": 0.8, "p99_ms": 250},
    "mqtt_open": {"kept": 0.8, "p99_ms": 250},
}

Load = Callable[[Tally], Coroutine[Any, Any, float]]


def pin(pid: int, core: int) -> None:
    """Keep a process, with all threads that it has, to one core."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), {core})


def puts(run: str) -> Callable[[int], Iterator[bytes]]:
    """The requests of each HTTP connection: new documents of about 200 bytes."""
    bodies = bodies_of_run()

    def of(client: int) -> Iterator[bytes]:
        number = 0
        while True:
            number += 1
            body = bodies[number % len(bodies)]
            yield (
                b"PUT /barrels/bench/docs/%b-%d-%d HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n%b"
                % (run.encode(), client, number, len(body), body)
            )

    return of


def bodies_of_run() -> list[bytes]:
    chance = random.Random(1)
    made = []
    for number in range(1_000):
        body = document(number, chance)
        del body["_id"]
        made.append(msgspec.json.encode(body))
    return made


class Reader:
    """A process that reads now and then, and tells how long that took."""

    def __init__(self, url: str, core: int) -> None:
        self._here, there = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=read_on, args=(url, core, there))
        self._process.start()
        assert self._here.poll(30), "the reader did not begin"
        self._here.recv()

    def end(self) -> dict[str, float]:
        self._here.send(None)
        told: dict[str, float] = self._here.recv()
        self._process.join()
        return told


def read_on(url: str, core: int, parent: Connection) -> None:
    """By turns read a document, write one, and wait for that change, until told to end."""
    os.sched_setaffinity(0, {core})
    host, _, port = url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30, source_address=READER)
    times: dict[str, list[float]] = {"get": [], "put": [], "longpoll": []}
    refused = 0

    def asked(name: str, method: str, path: str, body: bytes | None = None) -> Any:
        nonlocal refused
        began = time.perf_counter()
        connection.request(method, path, body)
        answer = connection.getresponse()
        told = json.loads(answer.read())
        if answer.status // 100 != 2:
            refused += 1
            return None
        times[name].append(time.perf_counter() - began)
        return told

    parent.send("ready")
    since = "first"
    while not parent.poll(READER_PAUSE_S):
        asked("get", "GET", "/barrels/bench/docs/known")
        if asked("put", "PUT", "/barrels/quiet/docs/mine?update=true", b'{"at":%d}' % time.time_ns()):
            told = asked("longpoll", "GET", f"/barrels/quiet/changes?feed=longpoll&timeout=5000&since={since}")
            since = since if told is None else told["last_seq"]
    connection.close()
    figures: dict[str, float] = {"rounds": len(times["get"]), "refused": refused}
    for name, taken in times.items():
        if taken:
            figures[f"{name}_p50_ms"] = percentile(taken, 0.5) * 1000
            figures[f"{name}_p99_ms"] = percentile(taken, 0.99) * 1000
    parent.send(figures)


def pressed(running: RunningService, load: Load, core: int) -> dict[str, Any]:
    """What the service does under this load, and what a reader sees of it."""
    reader = Reader(running.url, core)
    before = running.memory_mib()
    figures = loaded(running, load)
    figures["reader"] = {name: round(value, 2) for name, value in reader.end().items()}
    figures["memory_mib"] = [round(before, 1), round(running.memory_mib(), 1)]
    settle(running)
    return figures


def cpu_s(running: RunningService) -> float:
    """The processor time that the service has used: what its figures are to be seen beside, on a busy machine."""
    fields = Path(f"/proc/{running.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def loaded(running: RunningService, load: Load) -> dict[str, Any]:
    """The figures of one load."""
    tally = Tally()
    before = cpu_s(running)
    seconds = uvloop.run(load(tally))
    used_s = cpu_s(running) - before
    figures = {**tally.figures(seconds), "core_used": used_s / seconds}
    figures["accepted_per_core_s"] = tally.outcomes["accepted"] / used_s
    return {name: round(value, 2) for name, value in figures.items()}


def settle(running: RunningService) -> None:
    """Wait until nothing of a load is left."""
    while httpx.get(f"{running.url}/health").json()["parts"]["store"]["writer_waiting"]:
        time.sleep(0.1)
    time.sleep(SETTLED_S)


def measure(running: RunningService, options: argparse.Namespace) -> dict[str, Any]:
    """The best throughput, and then five times as much of it, over HTTP and over MQTT."""
    core = options.cores[1]
    port, mqtt_port = int(running.url.rsplit(":", 1)[1]), running.mqtt_port
    bodies = bodies_of_run()
    seconds, many = options.seconds, options.connections

    def alone(load: Load) -> dict[str, Any]:
        figures = loaded(running, load)
        settle(running)
        return figures

    def closed(count: int, run: str) -> Load:
        return lambda tally: http_closed(port, count, puts(run), tally, seconds)

    def devices(run: str, window: int, rate: float | None = None) -> Load:
        return lambda tally: mqtt_load(
            mqtt_port, DEVICES, lambda n: bodies[n % 1000], tally, seconds, run=run, window=window, rate=rate
        )

    found: dict[str, Any] = {}
    if "http" in options.over:
        best = max((alone(closed(count, f"best{count}")) for count in (many // 2, many, many * 2)), key=_rate)
        rate = _rate(best) * TIMES
        found["http_best"] = best
        found["http_closed"] = pressed(running, closed(many * TIMES, "closed"), core)
        found["http_open"] = pressed(
            running, lambda tally: http_open(port, options.users, puts("open"), tally, seconds, rate), core
        )
        for name in ("http_closed", "http_open"):
            found[name]["kept"] = round(_rate(found[name]) / _rate(best), 3)
    if "mqtt" in options.over:
        best = alone(devices("best", DEVICE_WINDOW))
        rate = _rate(best) * TIMES
        found["mqtt_best"] = best
        found["mqtt_closed"] = pressed(running, devices("closed", DEVICE_WINDOW * TIMES), core)
        found["mqtt_open"] = pressed(running, devices("open", OPEN_WINDOW, rate), core)
        for name in ("mqtt_closed", "mqtt_open"):
            found[name]["kept"] = round(_rate(found[name]) / _rate(best), 3)
    return found


def _rate(figures: dict[str, float]) -> float:
    return figures["accepted_per_s"]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--connections", type=int, default=64, help="that reach the best throughput")
    parser.add_argument("--users", type=int, default=1_000, help="connections that the open load asks on")
    parser.add_argument("--over", nargs="+", default=["http", "mqtt"], choices=["http", "mqtt"])
    options = parser.parse_args()
    options.cores = sorted(os.sched_getaffinity(0))[:2]
    if len(options.cores) < 2:
        raise SystemExit("this wants two cores: one for the service, one for those who press it")
    with service() as running:
        running.create("bench", publish=["_id/#"])
        running.create("quiet")
        httpx.put(f"{running.url}/barrels/bench/docs/known", json={"known": True}).raise_for_status()
        pin(running.process.pid, options.cores[0])
        os.sched_setaffinity(0, {options.cores[1]})
        report("overload", measure(running, options), ASKED)


if __name__ == "__main__":
    main()
