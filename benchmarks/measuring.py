"""What every benchmark shares: documents, the machine, medians, and how a result is printed."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec


def document(number: int, chance: random.Random) -> dict[str, Any]:
    """A reading of about 200 bytes with 8 paths."""
    return {
        "_id": f"reading-{number:09d}",
        "sensor": f"temperature-{number % 997}",
        "at": f"2011-07-{1 + number % 28:02d}T{number % 24:02d}:{number % 60:02d}:01Z",
        "value": round(chance.uniform(-40, 60), 3),
        "unit": "celsius",
        "site": {"name": f"field-{number % 50}", "row": number % 1000},
        "ok": number % 2 == 0,
        "note": "calibrated in spring",
    }


def documents(count: int, seed: int = 1) -> list[bytes]:
    """That many documents as JSON."""
    chance = random.Random(seed)
    return [msgspec.json.encode(document(number, chance)) for number in range(count)]


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    model = ""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        model = platform.processor()
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": f"{platform.system()} {platform.release()}",
    }


@contextmanager
def folder() -> Iterator[Path]:
    """A folder on the disk where benchmarks run (SPILE_BENCH_DIR, or the temporary one)."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("SPILE_BENCH_DIR")) as name:
        yield Path(name)


def median_of(runs: int, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """The median of each figure over several runs."""
    found = [measure() for _ in range(runs)]
    return {name: statistics.median(each[name] for each in found) for name in found[0]}


def syncs_per_second(place: Path, count: int = 300) -> float:
    """How often 4 KiB can be written and synced here in a second: what bounds single commits."""
    descriptor = os.open(place / "sync.probe", os.O_RDWR | os.O_CREAT)
    began = time.perf_counter()
    for at in range(count):
        os.pwrite(descriptor, b"x" * 4096, at % 64 * 4096)
        os.fdatasync(descriptor)
    os.close(descriptor)
    return count / (time.perf_counter() - began)


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def report(name: str, figures: dict[str, Any], asked: dict[str, Any]) -> None:
    """Print one benchmark's result as a line of JSON."""
    rounded = {
        key: round(value, 4 if abs(value) < 10 else 1) if isinstance(value, float) else value
        for key, value in figures.items()
    }
    json.dump({"benchmark": name, "figures": rounded, "asked": asked, "machine": machine()}, sys.stdout)
    print(flush=True)


def arguments(description: str, **defaults: int) -> argparse.Namespace:
    """Command-line options `--name N` with their defaults."""
    parser = argparse.ArgumentParser(description=description)
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()
