"""A Spile service as a process, for benchmarks, with its memory."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.measuring import folder

START_S = 30


class RunningService:
    """Where a service listens, and what it takes."""

    def __init__(self, process: subprocess.Popen[str], url: str, mqtt_port: int, data: Path) -> None:
        self.process = process
        self.url = url
        self.mqtt_port = mqtt_port
        self.data = data

    def create(self, barrel: str, **settings: object) -> None:
        """Make a barrel."""
        httpx.post(f"{self.url}/barrels/{barrel}", json=settings).raise_for_status()

    def memory_mib(self, field: str = "VmRSS") -> float:
        """Resident memory in MiB now, or at its highest (`VmHWM`)."""
        found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found is not None
        return int(found[1]) / 1024


@contextmanager
def service(*arguments: str, broker: str | None = None, **variables: str) -> Iterator[RunningService]:
    """A service on free ports in a folder of its own, for the length of the block; `broker` is one to use, and
    `variables` are settings as the environment has them."""
    mqtt = ("--mqtt", "127.0.0.1:0") if broker is None else ("--broker", broker)
    with folder() as place:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "broker.cli.main", "serve", "--data", str(place)),
                *("--http", "127.0.0.1:0", *mqtt, "--log-level", "warning", *arguments),
            ],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **variables},
        )
        assert process.stdout is not None
        told = ""
        deadline = time.monotonic() + START_S
        while "mqtt://" not in told:
            line = process.stdout.readline()
            if not line or time.monotonic() > deadline:
                raise SystemExit(f"the service did not start: {told}")
            told += line
        url, port = re.search(r"http://\S+", told), re.search(r"mqtt://[^:]+:(\d+)", told)
        assert url is not None
        assert port is not None
        try:
            yield RunningService(process, url[0], int(port[1]), place)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            process.stdout.close()
