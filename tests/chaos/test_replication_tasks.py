"""Replications that services keep, while processes die: exactly one runs each, and another goes on with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from databases import Databases
from running import Running, until

COUNT = 3_000


def fill(service: Running, count: int, start: int = 0) -> None:
    docs = [{"_id": f"d{number:06}", "n": number} for number in range(start, start + count)]
    path = "/barrels/geo/docs/_bulk"  # refused for a moment where a process took over, and the same when repeated
    until(lambda: service.http.post(path, json={"docs": docs}).is_success, "the documents to be stored")


def count(service: Running, barrel: str = "geo") -> int:
    return int(service.http.get(f"/barrels/{barrel}").json().get("doc_count", -1))


def begin(service: Running, target: Running) -> str:
    body = {"source": "geo", "target": f"{target.url}/geo", "continuous": True}
    answer = service.http.post("/replications", json=body)
    answer.raise_for_status()
    return str(answer.json()["id"])


def stands(service: Running, id: str) -> dict[str, Any]:
    told: dict[str, Any] = service.http.get(f"/replications/{id}").json()
    return told


def describe(service: Running, id: str, **how: Any) -> None:
    """Have a document describe a replication into a barrel of its name."""
    body = {"source": "geo", "target": id, "create_target": True, **how}
    service.http.put(f"/couch/_replicator/{id}", json=body).raise_for_status()


def document(service: Running, id: str) -> dict[str, Any]:
    told: dict[str, Any] = service.http.get(f"/couch/_replicator/{id}").json()
    return told


def runs_them(service: Running) -> bool:
    """Whether a process says that it is the one."""
    part = service.http.get("/health").json()["parts"]["replications"]
    return bool(part["role"] == "holder")


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path / "target")
    made.http.post("/barrels/geo").raise_for_status()
    yield made
    made.http.close()
    made.kill()


@pytest.fixture
def both(databases: Databases, tmp_path: Path) -> Iterator[list[Running]]:
    """Two processes on one database."""
    with databases.lent() as url, ExitStack() as stack:
        made = []
        for name in "ab":
            made.append(Running(tmp_path / name, "--database", url))
            stack.callback(made[-1].kill)
            stack.callback(made[-1].http.close)
        made[0].http.post("/barrels/geo").raise_for_status()
        yield made


def holder_and_other(both: list[Running]) -> tuple[Running, Running]:
    """The one that runs replications, and the one that does not; waited for."""

    def found() -> list[Running]:
        holders = [each for each in both if runs_them(each)]
        return holders if len(holders) == 1 else []

    holder = until(found, "one that runs replications")[0]
    return holder, both[1] if holder is both[0] else both[0]


def test_a_service_that_is_killed_goes_on_with_its_replications(tmp_path: Path, target: Running) -> None:
    service = Running(tmp_path / "one")
    try:
        service.http.post("/barrels/geo").raise_for_status()
        fill(service, COUNT)
        describe(service, "once", doc_ids=["d000001"])
        describe(service, "on", continuous=True)
        once = until(
            lambda: document(service, "once").get("_replication_state") and document(service, "once"), "an end"
        )
        id = begin(service, target)
        until(lambda: count(target) > 0, "the first documents")
        service.kill()
        service.http.close()
        service = Running(tmp_path / "one")
        fill(service, 100, start=COUNT)
        until(lambda: count(target) == count(service, "on") == COUNT + 100, "all documents")
        assert (document(service, "once"), once["_replication_state"]) == (once, "completed")
        assert "_replication_state" not in document(service, "on")
        told = until(lambda: (told := stands(service, id))["state"] == "idle" and told, "rest")
        assert told["progress"]["refused"] == 0
    finally:
        service.http.close()
        service.kill()


def test_whoever_is_asked_one_of_them_runs_it_and_both_can_tell(both: list[Running], target: Running) -> None:
    holder, other = holder_and_other(both)
    fill(other, COUNT)
    describe(other, "copy", doc_ids=["d000001"])
    id = begin(other, target)
    until(lambda: count(target) == COUNT, "all documents")
    for each in both:
        until(lambda each=each: document(each, "copy").get("_replication_state") == "completed", "an end")
    for each in both:
        told = until(lambda each=each: (told := stands(each, id))["progress"]["written"] == COUNT and told, "a word")
        assert told["runs_at"].endswith(f":{holder.pid}")
    figures = [each.http.get("/metrics").text for each in both]
    assert [text.count("spile_replications_at_work 1.0") for text in figures].count(1) == 1
    other.http.post(f"/replications/{id}/pause").raise_for_status()
    until(lambda: "spile_replications_at_work 0.0" in holder.http.get("/metrics").text, "its rest")
    fill(holder, 10, start=COUNT)
    other.http.post(f"/replications/{id}/resume").raise_for_status()
    until(lambda: count(target) == COUNT + 10, "what came meanwhile")
    other.http.delete(f"/replications/{id}").raise_for_status()
    until(lambda: "spile_replications_at_work 0.0" in holder.http.get("/metrics").text, "its end")


def test_the_other_process_goes_on_when_the_one_that_runs_them_is_killed(
    both: list[Running], target: Running
) -> None:
    holder, other = holder_and_other(both)
    fill(holder, COUNT)
    id = begin(holder, target)
    until(lambda: count(target) > 0, "the first documents")
    holder.kill()
    fill(other, 100, start=COUNT)
    until(lambda: count(target) == COUNT + 100, "all documents")
    told = until(lambda: (told := stands(other, id))["state"] == "idle" and told, "rest")
    assert told["runs_at"].endswith(f":{other.pid}")
    until(lambda: runs_them(other), "the other one's turn")


def test_a_process_that_hung_lets_go_and_does_no_harm(both: list[Running], target: Running) -> None:
    holder, other = holder_and_other(both)
    fill(holder, COUNT)
    id = begin(holder, target)
    until(lambda: count(target) == COUNT, "all documents")
    os.kill(holder.pid, signal.SIGSTOP)
    try:
        fill(other, 100, start=COUNT)
        until(lambda: count(target) == COUNT + 100, "what came while it hung")
        until(lambda: runs_them(other), "the other one's turn")
    finally:
        os.kill(holder.pid, signal.SIGCONT)
    until(lambda: not runs_them(holder), "the one that woke to know that its turn is over")
    fill(other, 100, start=COUNT + 100)
    until(lambda: count(target) == COUNT + 200, "what came afterwards")
    told = until(lambda: (told := stands(other, id))["state"] == "idle" and told, "rest")
    assert told["runs_at"].endswith(f":{other.pid}")


def test_a_process_that_stops_in_order_hands_over(both: list[Running], target: Running) -> None:
    holder, other = holder_and_other(both)
    fill(holder, COUNT)
    id = begin(holder, target)
    until(lambda: stands(holder, id)["state"] == "idle", "rest")
    assert holder.stop() == 0, holder.output
    fill(other, 100, start=COUNT)
    until(lambda: count(target) == COUNT + 100, "all documents")
    told = until(lambda: (told := stands(other, id))["progress"]["written"] >= COUNT + 100 and told, "its counts")
    assert told["progress"]["written"] == COUNT + 100
