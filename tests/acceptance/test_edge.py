"""The example of a box at the edge: it writes offline, is killed, and is brought together with its hub in the end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from proxy import Proxy
from running import ROOT, Running, clean_environment, until

from feeds import Store

EDGE = ROOT / "examples" / "edge"
READINGS = [json.loads(line) for line in (EDGE / "readings.ndjson").read_text().splitlines()]


class Box:
    """The example as a process, in a folder of its own; what it says goes into a file."""

    def __init__(self, folder: Path, hub: str) -> None:
        self.folder = folder
        self._hub = hub
        self._log = folder.with_suffix(".log")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> None:
        command = [sys.executable, str(EDGE / "box.py"), "--data", str(self.folder), "--hub", self._hub, *arguments]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, env=clean_environment(), cwd=ROOT)

    @property
    def said(self) -> str:
        return self._log.read_text()

    def ends(self, code: int = 0) -> None:
        assert self.process is not None
        assert self.process.wait(60) == code, self.said

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.ends()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def has(self) -> dict[str, dict[str, Any]]:
        """What its store holds, while it does not run."""
        with Store.open(self.folder) as store:
            rows = store.barrel("readings").changes(docs=True).results
            return {row.id: json.loads(bytes(row.doc)) for row in rows}  # type: ignore[arg-type]


@pytest.fixture(params=["http", "mqtt"])
def door(request: pytest.FixtureRequest, spile: Running) -> Iterator[Proxy]:
    """The link between box and hub: HTTP, or only the broker."""
    port = spile.mqtt_port if request.param == "mqtt" else int(spile.url.rsplit(":", 1)[1])
    with Proxy(lambda: port) as made:
        yield made


@pytest.fixture
def box(request: pytest.FixtureRequest, door: Proxy, tmp_path: Path) -> Iterator[Box]:
    kind = request.node.callspec.params["door"]
    made = Box(tmp_path / "box", f"{kind}://127.0.0.1:{door.port}/readings")
    yield made
    made.close()


def at_hub(spile: Running) -> dict[str, dict[str, Any]]:
    told = spile.http.get("/barrels/readings/changes", params={"docs": "true"}).raise_for_status().json()
    return {row["id"]: row["doc"] for row in told["results"]}


def of_box(documents: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {id: document for id, document in documents.items() if id.startswith("box-1/")}


def test_a_box_works_without_its_hub_and_catches_up_in_both_directions(spile: Running, door: Proxy, box: Box) -> None:
    spile.http.post("/barrels/readings").raise_for_status()
    spile.http.put("/barrels/readings/docs/settings/box-1", json={"low": 30, "high": 100}).raise_for_status()
    spile.http.put("/barrels/readings/docs/settings/box-2", json={"low": 0}).raise_for_status()

    door.refuse()
    box.start("--every", "0", "--count", "100")
    until(lambda: "100 readings are taken" in box.said, "the readings")
    until(lambda: "up: waiting" in box.said and "down: waiting" in box.said, "a word of the link")
    assert of_box(at_hub(spile)) == {}
    assert box.process is not None
    box.process.kill()  # as when the power goes
    box.process.wait()
    assert len(of_box(box.has())) == 100

    door.heal()
    box.start("--once", "--count", "100")
    box.ends()
    assert len(of_box(at_hub(spile))) == 100
    assert box.has()["settings/box-1"]["low"] == 30

    box.start("--every", "0.01")
    until(lambda: len(of_box(at_hub(spile))) > 150, "more readings", every_s=0.2)
    door.refuse()
    door.reset()
    spile.http.put(
        "/barrels/readings/docs/settings/box-1?update=true", json={"low": 60, "high": 90}
    ).raise_for_status()
    until(lambda: "400 readings are taken" in box.said, "all readings")
    door.heal()
    until(lambda: len(of_box(at_hub(spile))) == len(READINGS), "all readings at the hub", 60, every_s=0.2)
    box.stop()

    box.start("--once")
    box.ends()
    here, there = box.has(), at_hub(spile)
    assert [id for id in there if id.startswith("box-1/") and here.get(id) != there[id]] == []
    assert here["settings/box-1"] == there["settings/box-1"]
    assert "settings/box-2" not in here
    values = {document["at"]: document["value"] for document in of_box(here).values()}
    assert values == {reading["at"]: reading["value"] for reading in READINGS}
    assert any(document.get("alarm") for document in of_box(there).values())


def test_a_box_says_what_keeps_it_from_its_hub(spile: Running, door: Proxy, box: Box) -> None:
    box.start("--every", "0", "--count", "1")
    until(lambda: "There is no barrel 'readings'" in box.said, "the reason")
    box.stop()
    assert len(box.has()) == 1
