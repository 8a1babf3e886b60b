"""A Spile service as a process, for tests: started on free ports, waited for, stopped or killed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
START_S = 30.0
WAIT_S = 30.0


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without settings of the machine that the tests run on."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SPILE_")}
    return {**kept, "COLUMNS": "120", **more}


class Running:
    """A service process and how to reach it."""

    def __init__(
        self,
        data: Path,
        *arguments: str,
        program: tuple[str, ...] = ("-m", "broker.cli.main"),
        embedded: bool = True,
        **variables: str,
    ) -> None:
        self.data = data
        self._lines: list[str] = []
        self.process = subprocess.Popen(
            [
                *(sys.executable, *program, "serve", "--data", str(data)),
                *("--http", "127.0.0.1:0", *(("--mqtt", "127.0.0.1:0") if embedded else ()), *arguments),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=clean_environment(**variables),
            cwd=ROOT,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = self._told(r"(http://127\.0\.0\.1:\d+)")
        self.mqtt_port = int(self._told(r"mqtt://127\.0\.0\.1:(\d+)"))
        self.http = httpx.Client(base_url=self.url, timeout=60)

    @property
    def output(self) -> str:
        """What the process has written so far."""
        return "".join(self._lines)

    @property
    def pid(self) -> int:
        return self.process.pid

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.append(line)

    def _told(self, pattern: str) -> str:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            found = re.search(pattern, self.output)
            if found:
                return found[1]
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        self.kill()
        raise AssertionError(f"the service did not start:\n{self.output}")

    def run(self, *arguments: str, stdin: bytes = b"", code: int = 0) -> str:
        """Run `spile` against this service and give back what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "broker.cli.main", *arguments],
            input=stdin,
            capture_output=True,
            timeout=300,
            env=clean_environment(SPILE_URL=self.url),
            cwd=ROOT,
            check=False,
        )
        assert done.returncode == code, (done.returncode, done.stdout[-2000:], done.stderr[-2000:])
        return done.stdout.decode()

    def memory_mib(self) -> float:
        """The process's resident memory."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) / 1024

    def stop(self) -> int:
        """Ask it to stop and wait; its exit code."""
        self.http.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        finally:
            self.kill()

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(5)
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextmanager
def serve(data: Path, *arguments: str, **variables: str) -> Iterator[Running]:
    """A service for the length of the block, which stops it and expects it to stop cleanly."""
    running = Running(data, *arguments, **variables)
    try:
        yield running
        if running.process.poll() is None:
            assert running.stop() == 0, running.output
    finally:
        running.kill()


def until(
    holds: Callable[[], Any], what: str = "the state waited for", seconds: float = WAIT_S, every_s: float = 0.01
) -> Any:
    """What `holds()` gives once it gives something true; fails after a while with what was waited for."""
    deadline = time.monotonic() + seconds
    while True:
        found = holds()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come about within {seconds} s; last: {found!r}")
        time.sleep(every_s)


class MosquittoSub:
    """Debian's mosquitto_sub as a process, listening; the test reads its lines."""

    def __init__(self, port: int, *arguments: str) -> None:
        if shutil.which("mosquitto_sub") is None:
            pytest.skip("mosquitto_sub is not installed (Debian: mosquitto-clients)")
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            ["stdbuf", "-oL", "mosquitto_sub", "-h", "127.0.0.1", "-p", str(port), "-d", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._debug: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        until(lambda: any("Subscribed" in line for line in self._debug), "mosquitto_sub's subscription")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            told = line.startswith(("Client ", "Subscribed"))
            (self._debug if told else self.lines).append(line.rstrip("\n"))

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait()
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def __enter__(self) -> MosquittoSub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def shared(name: str) -> Path:
    """A file of the real data beside the project; the test is skipped where a user has none."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"the real data file {name} is not beside this checkout")
    return path
