"""`spile serve --broker` as a process, beside a broker that is one: real data, requests, listening, restarts."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from brokers import BrokerProcess
from external_tools import KINDS
from running import MosquittoSub, Running, shared, until

from listeners import listen


class Service(Running):
    """A service that uses the broker."""

    def __init__(self, data: Path, process: BrokerProcess, *arguments: str, **variables: str) -> None:
        super().__init__(data, "--broker", process.url, *arguments, embedded=False, **variables)


@pytest.fixture(params=list(KINDS))
def process(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BrokerProcess]:
    with KINDS[request.param](tmp_path / "broker") as started:
        yield started


@pytest.fixture
def spile(process: BrokerProcess, tmp_path: Path) -> Iterator[Service]:
    running = Service(tmp_path / "data", process)
    try:
        yield running
        assert running.stop() == 0, running.output
    finally:
        running.kill()


def ids(lines: list[str]) -> list[str]:
    return [json.loads(line)["id"] for line in lines]


def test_countries_are_heard_by_a_plain_client(spile: Service, process: BrokerProcess) -> None:
    assert spile.mqtt_port == process.port
    spile.run("create", "geo")
    with MosquittoSub(process.port, "-q", "1", "-t", "barrels/geo/_id/#", "-F", "%p") as every:
        with MosquittoSub(process.port, "-q", "1", "-t", "barrels/geo/region/Europe", "-F", "%p") as europe:
            spile.run("load", "geo", str(shared("countries.json")), "--id", "cca3")
            until(lambda: len(every.lines) >= 250 and len(europe.lines) >= 53, "250 and 53 messages")
    assert [json.loads(line)["seq"] for line in every.lines] == list(range(1, 251))
    health = spile.http.get("/health").json()
    assert health["parts"]["mqtt"]["connected"] is True
    metrics = spile.http.get("/metrics").text
    assert "spile_mqtt_connected 1.0" in metrics


def test_a_load_goes_on_while_the_broker_is_killed_and_everything_is_told(
    spile: Service, process: BrokerProcess, tmp_path: Path
) -> None:
    count = 6_000
    spile.http.post("/barrels/geo", json={"publish": ["_id/#"]})
    lines = tmp_path / "lines.ndjson"
    lines.write_text("".join(f'{{"_id": "{at:05}", "at": {at}}}\n' for at in range(count)))
    heard: dict[str, int] = {}

    def hear() -> None:
        with listen(f"{process.url}/geo", since="first", docs=False) as feed:
            for change in feed:
                heard[change.id] = change.seq
                if len(heard) == count:
                    return

    listening = threading.Thread(target=hear)
    listening.start()
    loading = threading.Thread(target=lambda: spile.run("load", "geo", str(lines), "--batch", "100"))
    loading.start()
    for at in (1_000, 3_000):
        until(lambda at=at: spile.http.get("/barrels/geo").json()["seq"] >= at, f"{at} documents")  # type: ignore[misc]
        process.kill()
        process.start()
    loading.join()
    listening.join(60)
    assert len(heard) == count

    def publisher() -> dict[str, object]:
        return dict(spile.http.get("/health").json()["parts"]["publisher"])

    until(lambda: publisher()["behind"] == 0 and publisher()["state"] == "running", "the publisher's catching up", 60)
    assert publisher()["set_aside"] == 0


def test_who_subscribes_after_a_restart_of_the_broker_has_the_newest_states(
    spile: Service, process: BrokerProcess
) -> None:
    spile.http.post("/barrels/geo", json={"publish": ["_id/#"], "retain": True})
    docs = [{"_id": f"{at:05}"} for at in range(500)]  # Mosquitto keeps 1,000 messages for one subscriber
    spile.http.post("/barrels/geo/docs/_bulk", json={"docs": docs}).raise_for_status()
    until(lambda: spile.http.get("/health").json()["parts"]["publisher"]["behind"] == 0, "the publisher")
    process.stop()
    spile.http.post("/barrels/geo/docs/_bulk", json={"docs": [{"_id": "late"}]}).raise_for_status()
    process.start()
    topic = "barrels/geo/_id/#" if process.name == "mosquitto" else "barrels/geo/_id/late"
    with MosquittoSub(process.port, "-q", "1", "-t", topic, "-F", "%p") as again:
        until(lambda: "late" in ids(again.lines), "the newest state")
        if process.name == "mosquitto":
            until(lambda: len(set(ids(again.lines))) == 501, "every retained document")


def test_a_subscriber_that_stays_hears_every_document_while_the_service_is_killed(
    process: BrokerProcess, tmp_path: Path
) -> None:
    count = 3_000
    first = Service(tmp_path / "data", process)
    first.http.post("/barrels/geo", json={"publish": ["_id/#"]})
    docs = [{"_id": f"{at:05}"} for at in range(count)]
    with MosquittoSub(process.port, "-q", "1", "-t", "barrels/geo/_id/#", "-F", "%p") as heard:
        for at in range(0, count, 500):
            first.http.post("/barrels/geo/docs/_bulk", json={"docs": docs[at : at + 500]}).raise_for_status()
        first.kill()
        first.http.close()
        second = Service(tmp_path / "data", process)
        try:
            until(lambda: len(set(ids(heard.lines))) == count, "every document")
            assert second.stop() == 0
        finally:
            second.kill()


def test_health_tells_of_a_broker_that_is_away_and_the_service_stops_all_the_same(
    spile: Service, process: BrokerProcess
) -> None:
    spile.http.post("/barrels/geo", json={})
    process.kill()
    spile.http.put("/barrels/geo/docs/a", json={"x": 1}).raise_for_status()

    def mqtt() -> dict[str, object]:
        return dict(spile.http.get("/health").json()["parts"]["mqtt"])

    until(lambda: "nothing listens there" in str(mqtt()["failure"]), "the broker shown as away")
    told = mqtt()
    assert told["state"] == "waiting"
    assert told["next_try"]
    assert spile.http.get("/barrels/geo/docs/a").json()["x"] == 1
