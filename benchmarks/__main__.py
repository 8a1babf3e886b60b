"""Run every benchmark, one after the other: `python -m benchmarks [NAME…]`. Each prints JSON. Takes many minutes.

With `--record FILE` what was found takes the place of what stood there of the same benchmarks; the page of figures in
the docs is made from such a file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

NAMES = (
    "embedded",
    "replay",
    "http_requests",
    "latency",
    "loading",
    "stalled",
    "publishing",
    "broker_stream",
    "stream",
    "many_streams",
    "embedded_routing",
    "overload",
    "blobs",
    "attachments",
    "replication",
    "couch",
    "postgres",
    "mosquitto",
)


def main() -> None:
    """Run those that are named, or all; the exit code is 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; all without")
    parser.add_argument("--record", type=Path, metavar="FILE", help="where results are kept, a line of JSON each")
    options = parser.parse_args()
    asked = tuple(options.names) or NAMES
    unknown = [name for name in asked if name not in NAMES]
    if unknown:
        raise SystemExit(f"there is no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
    failed = [name for name in asked if not _ran(name, options.record)]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def _ran(name: str, record: Path | None) -> bool:
    """Whether the benchmark ran to its end; its results are told, and kept where they are recorded."""
    with subprocess.Popen([sys.executable, "-m", f"benchmarks.{name}"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if record is not None and line.startswith('{"benchmark":'):
                _keep(record, {**json.loads(line), "module": name})
    return process.returncode == 0


def _keep(record: Path, result: dict[str, Any]) -> None:
    result["at"] = datetime.now(UTC).date().isoformat()
    lines = record.read_text().splitlines() if record.exists() else []
    kept = [line for line in lines if json.loads(line)["benchmark"] != result["benchmark"]]
    record.write_text("\n".join([*kept, json.dumps(result)]) + "\n")


if __name__ == "__main__":
    main()
