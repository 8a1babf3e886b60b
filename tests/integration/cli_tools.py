"""Running the command line as a user does: as a process of its own."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from ports import free_port

from broker.cli.main import run

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "broker.cli.main")
TIMEOUT_S = 60.0
DATA = ROOT.parent / "shared" / "data"
"""Files that are not the project's own; a test that reads them skips where they are missing."""


def environment(**more: str) -> dict[str, str]:
    """The environment without settings of the machine that the tests run on."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SPILE_")}
    return {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "120", **more}


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it wrote."""

    code: int
    out: bytes
    err: str

    @property
    def values(self) -> list[Any]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def value(self) -> Any:
        """The one JSON line on standard output."""
        (value,) = self.values
        return value


def spile(*arguments: str, stdin: bytes = b"") -> Ended:
    """Run a command in this process, which spares the start of another, as if it stood in a pipe."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    before = (sys.stdin, sys.stdout, sys.stderr)
    sys.stdin, sys.stdout, sys.stderr = io.TextIOWrapper(io.BytesIO(stdin), "utf-8"), out, err
    try:
        code = run(arguments)
    finally:
        sys.stdin, sys.stdout, sys.stderr = before
    out.flush()
    assert isinstance(out.buffer, io.BytesIO)
    return Ended(code, out.buffer.getvalue(), err.getvalue())


def spile_process(*arguments: str, stdin: bytes = b"", **variables: str) -> Ended:
    """Run a command as a process of its own, in a pipe, and wait for its end."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        timeout=TIMEOUT_S,
        env=environment(**variables),
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr.decode())


def begun(*arguments: str, **variables: str) -> subprocess.Popen[bytes]:
    """Start a command and leave it running; the caller ends it."""
    return subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(**variables),
    )


def on_terminal(*arguments: str, **variables: str) -> tuple[int, str]:
    """Run a command on a terminal of its own; its exit code and all that the terminal showed."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env=environment(TERM="xterm", **variables),
    ) as process:
        os.close(theirs)
        shown = bytearray()
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:
                # Linux answers so when the other end was closed.
                break
            if not data:
                break
            shown += data
        os.close(ours)
        return process.wait(TIMEOUT_S), shown.decode()


class Service:
    """`spile serve` as a process, which can be killed and started again on the same data and ports."""

    def __init__(self, data: Path, **variables: str) -> None:
        self._data = data
        self._variables = variables
        self.http, self.mqtt = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.http}"
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        addresses = ("--http", f"127.0.0.1:{self.http}", "--mqtt", f"127.0.0.1:{self.mqtt}")
        process = begun("serve", "--data", str(self._data), *addresses, "--log-level", "warning", **self._variables)
        ends_at = time.monotonic() + TIMEOUT_S
        while time.monotonic() < ends_at:
            if process.poll() is not None:
                raise AssertionError(process.communicate()[1].decode())
            try:
                if httpx.get(f"{self.url}/health", trust_env=False).status_code == 200:
                    return process
            except httpx.TransportError:
                time.sleep(0.02)
        process.kill()
        raise AssertionError(f"the service did not come up: {process.communicate()[1].decode()}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        code = self.process.wait(TIMEOUT_S)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        return code

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.stop() == 0

    def restart(self, how: signal.Signals) -> None:
        self.stop(how)
        self.process = self._start()
