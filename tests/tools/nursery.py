"""Processes of Spile without the second that importing it takes: forked from one that has imported everything.

A child is a process like any other: of its own, to be killed, with its output in a file. Run as a program this is
the parent, which is told by lines of JSON what to fork, and tells which children have ended.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timepiece

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(__file__).resolve().parent
END_S = 30.0
LOOK_S = 0.02  # between looks for children that have ended


class Child:
    """A forked process, as far as tests need `subprocess.Popen`."""

    def __init__(self, pid: int, output: Path) -> None:
        self.pid = pid
        self.output = output
        self.returncode: int | None = None
        self._ended = threading.Event()

    def ended(self, code: int) -> None:
        """The parent saw it end; a signal is told as a negative number."""
        self.returncode = code
        self._ended.set()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, seconds: float = END_S) -> int:
        """Its exit code, once it has ended."""
        if not self._ended.wait(seconds):
            raise TimeoutError(f"process {self.pid} did not end within {seconds} s:\n{self.said}")
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once, as a power cut would, and wait until it is gone."""
        self.send_signal(signal.SIGKILL)
        self.wait()

    @property
    def said(self) -> str:
        """What it has written so far."""
        return self.output.read_text(errors="replace")


class Nursery:
    """The parent of such processes; `close` ends it and whoever is left."""

    def __init__(self) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SPILE_")}
        self._children: dict[int, Child] = {}
        self._born = threading.Condition()
        self._output = Path()  # of the next one that is born
        self._last: Child | None = None
        self._parent = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**kept, "COLUMNS": "120"},
            cwd=ROOT,
        )
        self._reader = threading.Thread(target=self._read, name="nursery", daemon=True)
        self._reader.start()

    def fork(self, program: str | Path, arguments: Sequence[str], output: Path, **variables: str) -> Child:
        """A process that runs a program by its path, or `spile` itself."""
        told = {"program": str(program), "arguments": list(arguments), "output": str(output), "variables": variables}
        assert self._parent.stdin is not None
        output.touch()
        with self._born:
            self._last, self._output = None, output
            self._parent.stdin.write(json.dumps(told) + "\n")
            self._parent.stdin.flush()
            if not self._born.wait_for(lambda: self._last is not None, END_S):
                raise TimeoutError("the nursery does not answer")
            assert self._last is not None
            return self._last

    def close(self) -> None:
        """Kill every child that still runs, and end."""
        for child in list(self._children.values()):
            if child.returncode is None:
                child.kill()
        assert self._parent.stdin is not None
        self._parent.stdin.close()
        self._parent.wait(END_S)
        self._reader.join(END_S)
        assert self._parent.stdout is not None
        self._parent.stdout.close()

    def _read(self) -> None:
        assert self._parent.stdout is not None
        for line in self._parent.stdout:
            told: dict[str, Any] = json.loads(line)
            with self._born:
                if "born" in told:
                    # Known before its end is read, which may be in the next line.
                    self._last = self._children[told["born"]] = Child(told["born"], self._output)
                    self._born.notify_all()
            if "ended" in told:
                self._children[told["ended"]].ended(told["code"])


def _parent() -> None:
    """Fork what standard input says, until it is closed."""
    sys.path[:0] = [str(ROOT), str(TOOLS)]
    timepiece.install()
    for name in ("broker.cli.main", "broker.serve", "listeners.links.mqtt", "listeners.links.websocket"):
        importlib.import_module(name)

    waiting = b""
    while True:
        ready, _, _ = select.select([0], [], [], LOOK_S)
        if ready:
            more = os.read(0, 1 << 16)
            if not more:
                return
            *lines, waiting = (waiting + more).split(b"\n")
            for line in lines:
                told = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    _become(told)
                print(json.dumps({"born": pid}), flush=True)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            print(json.dumps({"ended": pid, "code": os.waitstatus_to_exitcode(status)}), flush=True)


def _become(told: dict[str, Any]) -> None:
    """Be the program; does not return."""
    output = os.open(told["output"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for place, source in ((0, nothing), (1, output), (2, output)):
        os.dup2(source, place)
    os.environ.update(told["variables"])
    sys.argv = [told["program"], *told["arguments"]]
    code = 0
    try:
        if told["program"] == "spile":
            from broker.cli.main import main

            main()
        else:
            runpy.run_path(told["program"], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - it is told, and the process ends as Python would
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _parent()
