"""How far listeners are behind, as an operator sees it: on the command line, over HTTP, in figures and on a topic."""

from __future__ import annotations

import json
import re
from typing import Any

from running import MosquittoSub, Running, until


def lag(heard: MosquittoSub) -> dict[str, Any]:
    """The newest message on the topic."""
    found: dict[str, Any] = json.loads(heard.lines[-1]) if heard.lines else {}
    return found


def test_a_listener_that_is_away_falls_behind_and_catches_up(spile: Running) -> None:
    spile.http.post("/barrels/geo", json={})
    spile.http.put("/barrels/geo/docs/a", json={})
    spile.run("listen", "geo", "--once", "--name", "archive")
    for name in ("b", "c"):
        spile.http.put(f"/barrels/geo/docs/{name}", json={})

    def shown() -> dict[str, Any]:
        found: list[dict[str, Any]] = spile.http.get("/barrels/geo/listeners").json()["listeners"]
        return found[0] if found else {}

    with MosquittoSub(spile.mqtt_port, "-t", "barrels/geo/_lag", "-F", "%p") as heard:
        until(lambda: shown().get("seq_behind") == 2, "two changes behind, over HTTP")
        until(lambda: lag(heard).get("listeners", {}).get("archive", {}).get("seq") == 2, "the same on the topic")
        told = json.loads(spile.run("listeners", "geo").splitlines()[0])
        assert (told["name"], told["seq_behind"], told["connected"]) == ("archive", 2, False)
        assert told["seconds_behind"] > 0
        figure = re.compile(r'^spile_listener_seq_behind\{barrel="geo",listener="archive"\} 2\.0$', re.MULTILINE)
        until(lambda: figure.search(spile.http.get("/metrics").text), "the same in the metrics")
        spile.run("listen", "geo", "--once", "--name", "archive")
        until(lambda: lag(heard)["listeners"]["archive"]["seq"] == 0, "level again")
        assert lag(heard)["publisher"] == {"seq": 0, "seconds": 0.0}
