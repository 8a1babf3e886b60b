"""Loading readings with `spile load`: one document each, and all onto 47 documents; and the memory of the service.

Reads the real readings where their file is given (`--file`, or beside the checkout); makes up as many otherwise.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.measuring import folder, median_of, report
from benchmarks.service import RunningService, service

READINGS = Path(__file__).resolve().parents[2] / "shared" / "data" / "sensor-readings.ndjson.xz"
COUNT, SENSORS = 321_206, 47
ASKED = {
    "updates_per_s": 4_000,
    "idle_mib": 120,
    "after_loading_mib": 250,
}


def made_up(place: Path) -> Path:
    """As many readings of as many sensors as the real file has."""
    chance = random.Random(1)
    path = place / "readings.ndjson"
    with path.open("w") as file:
        for number in range(COUNT):
            reading = {
                "sensor": f"made-up/sensor-{chance.randrange(SENSORS)}",
                "at": f"2011-07-{1 + number % 28:02d}T00:{number // 60 % 60:02d}:{number % 60:02d}Z",
                "value": round(chance.gauss(20, 5), 6),
            }
            file.write(json.dumps(reading) + "\n")
    return path


def load(running: RunningService, *arguments: str) -> float:
    """Documents a second of one `spile load`, its start included."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "broker.cli.main", "load", *arguments, "--url", running.url],
        check=True,
        capture_output=True,
    )
    return float(json.loads(done.stdout.splitlines()[-1])["stored"] / (time.perf_counter() - began))


def measure(readings: str) -> dict[str, float]:
    """All figures once."""
    with service() as running:
        running.create("warm")
        time.sleep(1)
        found = {"idle_mib": running.memory_mib()}
        found["documents_per_s"] = load(running, "readings", readings)
        found["after_loading_mib"] = running.memory_mib("VmHWM")
        found["updates_per_s"] = load(running, "sensors", readings, "--id", "sensor", "--update")
        found["after_both_mib"] = running.memory_mib("VmHWM")
        return found


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, default=READINGS)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with folder() as place:
        readings = options.file if options.file.exists() else made_up(place)
        figures: dict[str, object] = dict(median_of(options.runs, lambda: measure(str(readings))))
    figures["real_data"] = options.file.exists()
    report("loading", figures, ASKED)


if __name__ == "__main__":
    main()
