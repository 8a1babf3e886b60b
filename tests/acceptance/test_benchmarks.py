"""The short form of the benchmarks: each that ends soon runs, and tells every figure that something is asked of."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import NAMES

ROOT = Path(__file__).parents[2]
SHORT = {
    "blobs": "--runs 1 --mib 8 --appends 500",
    "embedded": "--runs 1 --documents 2000 --updates 200",
    "mosquitto": "--runs 1 --changes 500 --rate 50 --seconds 1 --rows 1000",
    "publishing": "--runs 1 --changes 1000",
    "replay": "--runs 1 --changes 2000",
    "replication": "--docs 1000 --seconds 1 --many 0 --mqtt 0",
}
"""The others take longer whatever is asked of them, or are a part of these; `python -m benchmarks NAME` runs each."""
NOT_ASKED = {"part_s", "mqtt_docs_per_s"}  # of the short form of replication


def test_every_benchmark_is_listed() -> None:
    found = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if re.search(r"\bdef main\b", path.read_text())}
    assert found - {"__main__"} == set(NAMES)


@pytest.mark.parametrize("name", SHORT)
def test_a_benchmark_tells_what_is_asked(name: str, tmp_path: Path) -> None:
    if name == "mosquitto" and shutil.which("mosquitto") is None:
        pytest.skip("Mosquitto is not installed")
    ended = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *SHORT[name].split()],
        cwd=ROOT,
        env={"PATH": "/usr/sbin:/usr/bin:/bin", "SPILE_BENCH_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["benchmark"] == name
    assert set(told["asked"]) - NOT_ASKED <= set(told["figures"])
