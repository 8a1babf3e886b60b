"""Spile in its surroundings, to be hurt: a service, its database and its broker, and doors for everyone outside.

There are two worlds: `embedded` (SQLite, the broker in the process) and `external` (PostgreSQL and Mosquitto). What a
test does to a world is written once; what a world cannot have it says itself, by skipping. Everyone reaches the world
through doors, proxies that keep their port while what stands behind them is killed and started again.
"""

from __future__ import annotations

import os
import re
import signal
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from brokers import Mosquitto
from nursery import Child, Nursery
from postgres import Cluster, installed
from proxy import Proxy
from running import until

BARREL = "geo"
WORLDS = ("embedded", "external")

# A subscriber whose session is kept may be away for as long as a trial takes.
_ROOM = {"SPILE_SESSION_MESSAGES_MAX": "30000", "SPILE_SESSION_BYTES_MAX": str(32 << 20)}


LONG = os.environ.get("SPILE_CHAOS") == "long"


def in_worlds(*kinds: str, long: Sequence[str] = ()) -> pytest.MarkDecorator:
    """The worlds that a test takes place in; and those that it has time for only in the long form."""
    return pytest.mark.parametrize("kind", [*kinds, *(long if LONG else ())], indirect=True)


class World:
    """A service process and what it leans on. `kind` names the world."""

    kind = ""

    def __init__(self, folder: Path, nursery: Nursery) -> None:
        self.folder = folder
        self.nursery = nursery
        self.http_port = 0
        self.mqtt_port = 0
        self.starts = 0
        self.variables = dict(_ROOM)  # of the service's environment
        self.program: str | Path = "spile"
        self._service: Child | None = None
        self._stack = ExitStack()
        self._doors: list[Proxy] = []
        folder.mkdir(parents=True, exist_ok=True)

    # What a world has of its own

    @property
    def database(self) -> str:
        """The URL under which the store is opened beside the service."""
        raise NotImplementedError

    def arguments(self) -> list[str]:
        """What `spile serve` is told of its database and broker."""
        raise NotImplementedError

    def kill_broker(self, away: Callable[[], None] = lambda: None) -> None:
        """End the broker as a power cut would, and start it again when `away` is done."""
        raise NotImplementedError

    @contextmanager
    def database_away(self) -> Iterator[None]:
        """Nothing can be written for the length of the block."""
        raise NotImplementedError
        yield

    # The service

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def start(self) -> None:
        """Start the service, and return when it serves."""
        self.starts += 1
        output = self.folder / f"service-{self.starts}.log"
        arguments = ["serve", "--data", str(self.data), "--http", "127.0.0.1:0", *self.arguments()]
        service = self._service = self.nursery.fork(self.program, arguments, output, **self.variables)
        http = until(lambda: self._said(service, r"http://127\.0\.0\.1:(\d+)"), "the service")
        self.http_port, self.mqtt_port = http, self._said(service, r"mqtt://127\.0\.0\.1:(\d+)")

    def kill(self) -> None:
        """End the service as a power cut would."""
        assert self._service is not None
        self._service.kill()
        self._gone()

    def pause(self) -> None:
        """Let the service hang."""
        assert self._service is not None
        self._service.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it run again."""
        assert self._service is not None
        self._service.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ask the service to end, and expect that it does so in order."""
        assert self._service is not None
        self._service.send_signal(signal.SIGTERM)
        code = self._service.wait()
        self._gone()
        assert code == 0, self.said

    def _gone(self) -> None:
        """Nobody is behind the doors: the ports of a process that has ended may be another's by now."""
        self.http_port = 0

    @property
    def said(self) -> str:
        """What the service has written, over all its lives."""
        logs = sorted(self.folder.glob("service-*.log"), key=lambda path: path.stat().st_mtime_ns)
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')}" for path in logs)

    def direct(self, method: str, path: str, **request: Any) -> httpx.Response:
        """A request to the service, past every door."""
        return httpx.request(method, f"http://127.0.0.1:{self.http_port}{path}", timeout=30, **request)

    def _said(self, service: Child, pattern: str) -> int:
        found = re.search(pattern, service.said)
        if found is not None:
            return int(found[1])
        assert service.poll() is None, f"the service did not start:\n{service.said}"
        return 0

    # Doors

    def door(self, kind: str) -> Proxy:
        """A new way in, for `http` or for `mqtt`."""
        made = Proxy(lambda: self.http_port if kind == "http" else self.mqtt_port)
        self._doors.append(made)
        return made

    # Its life

    @property
    def links(self) -> list[Proxy]:
        """The doors that the service itself goes through."""
        return []

    def close(self) -> None:
        """End all that is left."""
        if self._service is not None and self._service.poll() is None:
            self._service.kill()
        while self._doors:
            self._doors.pop().close()
        self._stack.close()


class Embedded(World):
    """One process with everything in it: SQLite, amqtt."""

    kind = "embedded"

    @property
    def database(self) -> str:
        return f"sqlite:///{self.data / 'spile.db'}"

    def arguments(self) -> list[str]:
        return ["--mqtt", "127.0.0.1:0"]

    def _gone(self) -> None:
        super()._gone()
        self.mqtt_port = 0

    def kill_broker(self, away: Callable[[], None] = lambda: None) -> None:
        self.kill()
        away()
        self.start()

    @contextmanager
    def database_away(self) -> Iterator[None]:
        with closing(sqlite3.connect(self.data / "spile.db", isolation_level=None, timeout=30)) as other:
            other.execute("BEGIN EXCLUSIVE")
            try:
                yield
            finally:
                other.execute("ROLLBACK")


class External(World):
    """PostgreSQL and Mosquitto beside it, each reached by the service through a door of its own."""

    kind = "external"

    def __init__(self, folder: Path, nursery: Nursery, cluster: Cluster) -> None:
        super().__init__(folder, nursery)
        self.cluster = cluster
        self.name = cluster.database()
        self._stack.callback(cluster.drop, self.name)
        # What Mosquitto would keep on a disk is older than what it acknowledged: when it is killed, subscribers had
        # better learn that their sessions are gone.
        self.mosquitto = Mosquitto(folder / "mosquitto", "max_queued_messages 0", "persistence false")
        self._stack.callback(self.mosquitto.kill)
        self.database_door = Proxy(lambda: cluster.port)
        self.broker_door = Proxy(lambda: self.mosquitto.port)
        self._stack.callback(self.database_door.close)
        self._stack.callback(self.broker_door.close)

    def start(self) -> None:
        super().start()
        self.mqtt_port = self.mosquitto.port

    @property
    def links(self) -> list[Proxy]:
        return [self.database_door, self.broker_door]

    @property
    def database(self) -> str:
        return self.cluster.url(self.name)

    def arguments(self) -> list[str]:
        through = self.cluster.url(self.name, port=self.database_door.port)
        return ["--database", through, "--broker", f"mqtt://127.0.0.1:{self.broker_door.port}"]

    def kill_broker(self, away: Callable[[], None] = lambda: None) -> None:
        self.mosquitto.kill()
        away()
        self.mosquitto.start()

    @contextmanager
    def database_away(self) -> Iterator[None]:
        self.cluster.kill()
        try:
            yield
        finally:
            self.cluster.start()


def missing(kind: str) -> str | None:
    """Why there can be no such world here; None if there can."""
    if kind == "embedded":
        return None
    if not installed():
        return "PostgreSQL is not installed: apt-get install postgresql"
    if Mosquitto.program() is None:
        return "Mosquitto is not installed: apt-get install mosquitto"
    return None


def make_world(kind: str, folder: Path, nursery: Nursery, cluster: Cluster | None) -> World:
    """A world of this kind; nothing of the service runs yet."""
    if (why := missing(kind)) is not None:
        pytest.skip(why)
    if kind == "embedded":
        return Embedded(folder, nursery)
    assert cluster is not None
    return External(folder, nursery, cluster)
