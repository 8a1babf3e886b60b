"""Mosquitto and NATS as processes, for tests and benchmarks: on free ports, killed at the end of a block."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest
from ports import free_port

START_S = 30.0


class BrokerProcess:
    """A broker that listens on `port`; what it writes goes to a file in `place`."""

    name = ""
    package = ""

    def __init__(self, place: Path, *lines: str) -> None:
        """`lines` are added to the configuration."""
        if self.program() is None:
            pytest.skip(f"{self.name} is not installed (Debian: {self.package})")
        self.place = place
        self.port = free_port()
        place.mkdir(parents=True, exist_ok=True)
        self.configuration = place / f"{self.name}.conf"
        self.configuration.write_text("\n".join([*self.lines(), *lines, ""]))
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @classmethod
    def program(cls) -> str | None:
        """Where the program is, if it is installed."""
        return shutil.which(cls.name) or shutil.which(cls.name, path="/usr/sbin:/usr/local/sbin")

    def lines(self) -> list[str]:
        """The configuration."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """What follows the program."""
        return ["-c", str(self.configuration)]

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def said(self) -> str:
        """What it has written."""
        return (self.place / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start it, and return when it takes connections."""
        program = self.program()
        assert program is not None
        with (self.place / "log").open("ab") as output:
            self._process = subprocess.Popen([program, *self.command()], stdout=output, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + START_S
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"{self.name} did not start:\n{self.said}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end, and wait."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Let it hang."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it run again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _end(self, by: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(by)
        try:
            process.wait(START_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Mosquitto(BrokerProcess):
    """Debian's mosquitto; open to everyone unless `lines` bring a listener of their own."""

    name = "mosquitto"
    package = "mosquitto"

    def __init__(self, place: Path, *lines: str, anyone: bool = True) -> None:
        self._anyone = anyone
        super().__init__(place, *lines)

    def lines(self) -> list[str]:
        """One listener; it stays the user that it was started by."""
        return [
            f"listener {self.port} 127.0.0.1",
            *(["allow_anonymous true"] if self._anyone else []),
            "user root",
            "persistence true",
            f"persistence_location {self.place}/",
        ]


class Nats(BrokerProcess):
    """Debian's nats-server with JetStream and MQTT."""

    name = "nats-server"
    package = "nats-server"

    def lines(self) -> list[str]:
        """MQTT on the port; the protocol of NATS itself on another, since it cannot be switched off."""
        return [
            "server_name: spile_test",
            f'listen: "127.0.0.1:{free_port()}"',
            f'jetstream {{ store_dir: "{self.place}/jetstream" }}',
            f'mqtt {{ listen: "127.0.0.1:{self.port}" }}',
        ]
