"""PouchDB in a Node process, for tests that speak to it in its own words."""

from __future__ import annotations

import itertools
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DRIVER = ROOT / "tests" / "couch" / "driver.cjs"
ANSWER_S = 60.0


class PouchError(AssertionError):
    """What PouchDB raised: its `name`, its `status`, its message."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__("{name} {status} {message}: {text}".format_map({"status": "", "message": "", **told}))
        self.name: str | None = told.get("name")
        self.status: int | None = told.get("status")


@cache
def modules() -> Path:
    """Where PouchDB is installed; the test is skipped where it cannot be."""
    done = subprocess.run([ROOT / "setup" / "clients"], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode == 3:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


class Pouch:
    """One Node process. Databases in memory live as long as it does."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            # What PouchDB leaves uncaught when a service is killed ends Node; a browser says it and goes on.
            ["node", "--unhandled-rejections=warn", str(DRIVER), str(modules())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._numbers = itertools.count(1)
        self._answers: Queue[dict[str, Any]] = Queue()
        self._said: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_answers, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def run(self, code: str, seconds: float = ANSWER_S, **given: Any) -> Any:
        """What the body of an async function gives back; PouchError with what it throws."""
        number = next(self._numbers)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": number, "code": code, "given": given}) + "\n")
        self._process.stdin.flush()
        try:
            told = self._answers.get(timeout=seconds)
        except Empty:
            raise AssertionError(f"PouchDB gave no answer within {seconds} s: {''.join(self._said)}") from None
        assert told["id"] == number, told
        if "error" in told:
            raise PouchError(told["error"])
        return told["value"]

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join(5)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()

    def _read_answers(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(json.loads(line))

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said.append(line)


@contextmanager
def pouch() -> Iterator[Pouch]:
    """A PouchDB for the length of the block."""
    running = Pouch()
    try:
        yield running
    finally:
        running.close()
