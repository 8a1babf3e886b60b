"""Run every benchmark, one after the other: `python -m benchmarks [NAME…]`. Each prints JSON. Takes many minutes."""

from __future__ import annotations

import subprocess
import sys

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
    "couch",
    "postgres",
)


def main() -> None:
    """Run those that are named, or all; the exit code is 1 if one failed."""
    asked = tuple(sys.argv[1:]) or NAMES
    unknown = [name for name in asked if name not in NAMES]
    if unknown:
        raise SystemExit(f"there is no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
    failed = [
        name for name in asked if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode
    ]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
