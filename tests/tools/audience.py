"""Who listens during a fault: listeners in threads and processes, and plain subscribers; each keeps what it hears."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from nursery import Child, Nursery
from paho.mqtt.enums import CallbackAPIVersion
from promises import Heard, Journal, Messages, Told
from proxy import Proxy
from running import until
from worlds import BARREL

from listeners import Change, Snapshot, listen

LISTENING = Path(__file__).with_name("listening.py")


def told_of(change: Change) -> Told:
    """A change as the journal keeps it."""
    body = None if change.doc is None else {key: each for key, each in change.doc.items() if key[:1] != "_"}
    return Told(
        change.seq,
        change.position.partition("-")[2],
        change.id,
        change.rev,
        frozenset(change.paths),
        change.removed,
        change.deleted,
        body,
    )


class Listener:
    """A listener in a thread, through whatever happens to its connection."""

    def __init__(
        self,
        name: str,
        kind: str,
        door: Proxy,
        *patterns: str,
        since: str | int = "first",
        cursor: str | None = None,
    ) -> None:
        self.door = door
        self.cursor = cursor
        self.journal = Journal(name, patterns)
        if since != "first":
            self.journal.since, self.journal.first = int(str(since).partition("-")[0]), False
        self._source = f"{kind}://127.0.0.1:{door.port}/{BARREL}"
        self._since = since
        self._failure: BaseException | None = None
        self._begin()

    def _begin(self) -> None:
        self._changes = listen(
            self._source,
            self.journal.patterns,
            since=self._since,
            name=self.cursor,
            window=50,
            patience_s=None,
            on_snapshot_start=self._snapshot,
            on_snapshot_end=self._snapshot,
        )
        self._thread = threading.Thread(target=self._follow, name=f"listener {self.journal.name}", daemon=True)
        self._thread.start()

    def again(self) -> None:
        """End it, and begin again at its cursor."""
        self.stop()
        self.journal.lives.append([])
        self._begin()

    def look(self) -> Journal:
        """What it was told so far. Raises what it failed with."""
        if self._failure is not None:
            raise self._failure
        return self.journal

    def stop(self) -> None:
        """End it. Raises what it failed with."""
        self.close()
        self.look()

    def close(self) -> None:
        """End it, whatever it failed with."""
        self._changes.stop_soon()
        self._thread.join(30)
        self._changes.close()

    def _follow(self) -> None:
        try:
            for change in self._changes:
                self.journal.lives[-1].append(told_of(change))
        except BaseException as error:  # noqa: BLE001 - `stop` raises it
            self._failure = error

    def _snapshot(self, snapshot: Snapshot) -> None:
        raise AssertionError(f"{self.journal.name} is sent a snapshot at {snapshot.position}, but its position holds")


class ListeningProcess:
    """A listener that is a process: its state is a file, and the place is a cursor in the service or in that file."""

    def __init__(
        self, nursery: Nursery, state: Path, name: str, kind: str, door: Proxy, *patterns: str, cursor: bool
    ) -> None:
        self.door = door
        self.journal = Journal(name, patterns, lives=[])
        self.state = state
        self.starts = 0
        self._nursery = nursery
        source = f"{kind}://127.0.0.1:{door.port}/{BARREL}"
        self._arguments = [source, name if cursor else "-", str(state), *patterns]
        self._child: Child | None = None
        self.start()

    def start(self) -> None:
        """Begin, or begin again."""
        self.starts += 1
        output = self.state.with_suffix(".log")
        self._child = self._nursery.fork(LISTENING, self._arguments, output)

    def kill(self) -> None:
        """End it in the middle of whatever it does."""
        assert self._child is not None
        self._child.kill()

    def stop(self) -> None:
        """End it; it has nothing to say at its end."""
        self.kill()
        assert self._child is not None
        assert self._child.returncode == -9, self._child.said

    @property
    def at_work(self) -> bool:
        """Whether it was told something since it was started."""
        lives = self.look().lives
        return len(lives) == self.starts and bool(lives[-1])

    def look(self) -> Journal:
        """Read the file into the journal."""
        assert self._child is not None
        assert self._child.poll() in (None, -9), self._child.said
        lives: list[list[Told]] = []
        for line in self.state.read_text().splitlines(keepends=True) if self.state.exists() else ():
            if not line.endswith("\n"):
                break  # it is being written
            row: dict[str, Any] = json.loads(line)
            if "life" in row:
                lives.append([])
                continue
            row["paths"] = frozenset(row["paths"])
            lives[-1].append(Told(**row))
        self.journal.lives = lives
        return self.journal


class Plain:
    """A plain MQTT client with a session that the broker keeps, so that it misses nothing by being away."""

    def __init__(self, name: str, door: Proxy, *, paths: bool = True) -> None:
        self.door = door
        self.messages = Messages(name, paths=paths)
        self.sessions_lost = 0
        self._subscribed = threading.Event()
        self._known = False
        self._topics = ["barrels/geo/#"] if paths else ["barrels/geo/_id/#"]
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"plain-{name}", clean_session=False)
        self._client.on_connect = self._connected
        self._client.on_subscribe = self._listening
        self._client.on_message = self._heard
        self._client.reconnect_delay_set(0.1, 0.5)  # type: ignore[arg-type]
        self._client.connect_async("127.0.0.1", door.port, keepalive=5)
        self._client.loop_start()
        until(self._subscribed.is_set, f"the subscription of {name}")
        self._known = True

    @property
    def listening(self) -> bool:
        """Whether the broker knows what it wants to hear."""
        return self._subscribed.is_set()

    def stop(self) -> None:
        """End it. The broker keeps its session."""
        self._client.disconnect()
        self._client.loop_stop()

    close = stop

    def _connected(self, client: paho.Client, _data: Any, flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            return
        if flags.session_present:
            return
        self.sessions_lost += self._known
        self._subscribed.clear()
        client.subscribe([(topic, 1) for topic in self._topics])

    def _listening(self, *_: Any) -> None:
        self.messages.since_at = time.monotonic()
        self._subscribed.set()

    def _heard(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        path = message.topic.removeprefix("barrels/geo/")
        if message.payload and (path[:1] != "_" or path.startswith("_id/")):
            self.messages.heard.append(Heard(path, json.loads(message.payload)))
