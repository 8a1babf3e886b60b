"""Attachments through a service: a large file in and out, many small ones, and everyone at once for a minute.

Memory is that of the service beyond what it has when idle; its disk is where benchmarks run (SPILE_BENCH_DIR).
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx

from benchmarks.measuring import arguments, folder, percentile, report
from benchmarks.service import RunningService, service

MIB = 1 << 20
SMALL_BYTES = 4096
DOCUMENTS, NAMES = 50, ("a", "b", "c", "d")
SIZES = (100, 4096, 70_000, MIB, 4 * MIB)
ASKED_LARGE = {"peak_in_mib": 64, "peak_out_mib": 64, "same": True}
ASKED_SMALL = {"documents": 100_000, "same": True}
ASKED_EVERYONE = {"faults": 0, "problems": 0}
ALLOWED = {"write": {200, 201, 404, 409}, "read": {200, 206, 404}}


@contextmanager
def peak(of: RunningService) -> Iterator[list[float]]:
    """The highest memory of a service in a block, in MiB."""
    found, ended = [of.memory_mib()], threading.Event()

    def look() -> None:
        while not ended.wait(0.01):
            found[0] = max(found[0], of.memory_mib())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def spile(running: RunningService, *command: str) -> float:
    """Run a command against the service; the seconds that it took."""
    began = time.perf_counter()
    program = [sys.executable, "-m", "broker.cli.main", *command, "--url", running.url]
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def random_file(path: Path, mib: int) -> str:
    """A file without repetition; its sha256."""
    digest = sha256()
    with path.open("wb") as file:
        for _ in range(mib):
            piece = os.urandom(MIB)
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def large(mib: int) -> dict[str, Any]:
    """One file in and out by `spile attach` and `spile fetch`."""
    with service() as running, folder() as place:
        running.create("geo")
        random_file(place / "warm", 16)
        spile(running, "attach", "geo", "warm", str(place / "warm"))
        spile(running, "fetch", "geo", "warm", "warm", "-o", str(place / "out"))
        digest = random_file(place / "film", mib)
        idle = running.memory_mib()
        with peak(running) as going_in:
            in_s = spile(running, "attach", "geo", "d", str(place / "film"))
        with peak(running) as going_out:
            out_s = spile(running, "fetch", "geo", "d", "film", "-o", str(place / "out"))
        found = sha256()
        with (place / "out").open("rb") as file:
            while piece := file.read(MIB):
                found.update(piece)
        return {
            "mib": mib,
            "in_mib_per_s": mib / in_s,
            "out_mib_per_s": mib / out_s,
            "idle_mib": idle,
            "peak_in_mib": going_in[0] - idle,
            "peak_out_mib": going_out[0] - idle,
            "same": found.hexdigest() == digest,
        }


def small(count: int, writers: int) -> dict[str, Any]:
    """Attachments of 4 KiB, each by a request of its own onto a document of its own."""
    with service() as running:
        running.create("geo")
        idle = running.memory_mib()

        def attach(writer: int) -> None:
            with httpx.Client(base_url=running.url, trust_env=False, timeout=60) as client:
                for number in range(writer, count, writers):
                    content = number.to_bytes(8, "big") * (SMALL_BYTES // 8)
                    client.put(f"/barrels/geo/attachments/d{number}/note", content=content).raise_for_status()

        threads = [threading.Thread(target=attach, args=(writer,)) for writer in range(writers)]
        began = time.perf_counter()
        with peak(running) as highest:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            seconds = time.perf_counter() - began
        wrong = 0
        with httpx.Client(base_url=running.url, trust_env=False, timeout=60) as client:
            for number in random.Random(1).sample(range(count), min(count, 2_000)):
                content = number.to_bytes(8, "big") * (SMALL_BYTES // 8)
                wrong += client.get(f"/barrels/geo/attachments/d{number}/note").content != content
            documents = client.get("/barrels/geo").json()["doc_count"]
        return {
            "count": count,
            "documents": documents,
            "per_s": count / seconds,
            "peak_mib": highest[0] - idle,
            "same": wrong == 0,
        }


class Everyone:
    """Writers and readers on one barrel, who look at every answer."""

    def __init__(self, url: str, seconds: float) -> None:
        self.faults: list[str] = []
        self.done: Counter[str] = Counter()
        self.read_ms: list[float] = []
        self._url = url
        self._until = time.monotonic() + seconds
        self._contents = [random.Random(f"{seed} {size}").randbytes(size) for seed in range(8) for size in SIZES]

    def run(self, writers: int, readers: int) -> None:
        """Let all of them work until the time is over."""
        threads = [threading.Thread(target=self._work, args=(True, seed)) for seed in range(writers)]
        threads += [threading.Thread(target=self._work, args=(False, seed)) for seed in range(readers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _work(self, writes: bool, seed: int) -> None:
        chance = random.Random(f"{writes} {seed}")
        with httpx.Client(base_url=self._url, trust_env=False, timeout=60) as client:
            while time.monotonic() < self._until:
                place = f"/barrels/geo/attachments/d{chance.randrange(DOCUMENTS)}/{chance.choice(NAMES)}"
                try:
                    (self._write if writes else self._read)(client, place, chance)
                except httpx.HTTPError as error:
                    self.faults.append(repr(error))

    def _write(self, client: httpx.Client, place: str, chance: random.Random) -> None:
        if chance.random() < 0.8:
            self._took("put", client.put(place, content=chance.choice(self._contents)), "write")
        else:
            self._took("detach", client.delete(place), "write")

    def _read(self, client: httpx.Client, place: str, chance: random.Random) -> None:
        began = time.perf_counter()
        answer = client.get(place)
        self._took("read", answer, "read")
        if answer.status_code == 200:
            self.read_ms.append((time.perf_counter() - began) * 1000)
            if answer.headers["etag"] != f'"sha256-{sha256(answer.content).hexdigest()}"':
                self.faults.append(f"{place}: other bytes than its digest")

    def _took(self, what: str, answer: httpx.Response, kind: str) -> None:
        self.done[f"{what}_{answer.status_code}"] += 1
        if answer.status_code not in ALLOWED[kind]:
            self.faults.append(f"{what}: {answer.status_code} {answer.text[:200]}")


def everyone(seconds: int) -> dict[str, Any]:
    """Ten writers and fifty readers, with a round of collecting and scrubbing each second; then a check."""
    with folder() as place:
        config = place / "spile.toml"
        config.write_text("maintain_every = 1.0\nblobs_kept = 5.0\n")
        data = place / "data"
        with service("--config", str(config), "--data", str(data)) as running:
            running.create("geo", log_kept=1.0)
            idle = running.memory_mib()
            work = Everyone(running.url, seconds)
            with peak(running) as highest:
                work.run(10, 50)
            metrics = httpx.get(f"{running.url}/metrics").text
        scrubbed = [
            line.split()[1] for line in metrics.splitlines() if line.startswith("spile_blobs_scrubbed_bytes ")
        ]
        check = subprocess.run(
            [sys.executable, "-m", "broker.cli.main", "check", "--data", str(data)], capture_output=True, check=False
        )
        told = json.loads(check.stdout)
        for fault in [*work.faults[:5], *told["problems"][:5]]:
            print(fault, file=sys.stderr)
        return {
            "seconds": seconds,
            **work.done,
            "read_p50_ms": percentile(work.read_ms, 0.5),
            "read_p99_ms": percentile(work.read_ms, 0.99),
            "faults": len(work.faults),
            "problems": len(told["problems"]),
            "scrubbed_mib": float(scrubbed[0]) / MIB if scrubbed else 0.0,
            "peak_mib": highest[0] - idle,
        }


def main() -> None:
    """Measure all three, and print each."""
    asked = arguments(__doc__ or "", mib=2048, small=100_000, writers=16, seconds=60)
    report("attachments: a large file", large(asked.mib), ASKED_LARGE)
    report("attachments: many small ones", small(asked.small, asked.writers), ASKED_SMALL)
    report("attachments: everyone at once", everyone(asked.seconds), ASKED_EVERYONE)


if __name__ == "__main__":
    main()
