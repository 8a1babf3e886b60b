"""Running the command line as a user does: as a process of its own."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "broker.cli.main")
TIMEOUT_S = 60.0


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


def spile(*arguments: str, stdin: bytes = b"", cwd: Path | None = None, **variables: str) -> Ended:
    """Run a command in a pipe and wait for its end."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        timeout=TIMEOUT_S,
        env=environment(**variables),
        cwd=cwd,
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
