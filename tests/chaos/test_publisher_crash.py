"""A crash between commit and publish loses nothing: the process is killed exactly there."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import paho.mqtt.client as paho
import pytest
from running import ROOT, Running, serve, until

DYING = (str(ROOT / "tests" / "tools" / "dying_service.py"),)


class Persistent:
    """A paho client with a session that the broker keeps; it collects what it hears."""

    def __init__(self, port: int, *filters: str) -> None:
        self.heard: list[tuple[str, dict[str, object]]] = []
        self.ready = False
        self._filters = filters
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="keeper", clean_session=False)
        self.client.on_message = lambda _client, _data, message: self.heard.append(
            (message.topic, json.loads(message.payload))
        )
        self.client.on_connect = self._connected
        self.client.on_subscribe = lambda *_: setattr(self, "ready", True)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def _connected(self, client: paho.Client, *_: object) -> None:
        client.subscribe([(each, 1) for each in self._filters])

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def test_what_was_committed_before_the_crash_is_published_after_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serve(data) as spile:
        spile.http.post("/barrels/geo", json={})
        keeper = Persistent(spile.mqtt_port, "barrels/geo/_id/#", "barrels/geo/region/+")
        until(lambda: keeper.ready, "the subscription")
        keeper.close()

    dying = Running(data, program=DYING)
    with pytest.raises(httpx.HTTPError):
        # The answer to the write may come before the kill; asking until it is gone makes sure of the kill.
        for number in range(100):
            dying.http.put(f"/barrels/geo/docs/d{number}", json={"region": "Europe"})
    assert dying.process.wait(30) == -9
    dying.kill()

    with serve(data) as spile:
        seq = spile.http.get("/barrels/geo").json()["seq"]
        assert seq >= 1
        keeper = Persistent(spile.mqtt_port, "barrels/geo/_id/#", "barrels/geo/region/+")

        def told() -> set[object]:
            return {body["seq"] for topic, body in keeper.heard if "/_id/" in topic}

        until(lambda: told() == set(range(1, seq + 1)), "every committed change on _id")
        until(lambda: sum("/region/Europe" in topic for topic, _ in keeper.heard) >= seq, "and on its path")
        keeper.close()
