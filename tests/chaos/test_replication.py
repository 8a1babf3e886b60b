"""Replication between services in processes: whoever is killed, however bad the link, all comes over in the end."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from disks import Ballast, small_disk
from proxy import Proxy
from running import ROOT, Running, clean_environment, until

PROGRAM = Path(__file__).parents[1] / "tools" / "replicating.py"
COUNT = 6_000


class Replicating:
    """The process of `replicating.py`, and what it told last."""

    def __init__(self, source: str, target: str, *more: str) -> None:
        self.told: dict[str, Any] = {}
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), source, target, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=clean_environment(),
            cwd=ROOT,
        )
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                self.told = json.loads(line)
            else:
                self.said.append(line)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.close()

    def close(self) -> None:
        self.process.wait()
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def ends(self) -> dict[str, Any]:
        """Wait for its end; what it has done."""
        self.process.wait(90)
        self.close()
        assert self.process.returncode == 0, "".join(self.said[-30:])
        return self.told


@contextmanager
def replicating(source: str, target: str, *more: str) -> Iterator[Replicating]:
    made = Replicating(source, target, *more)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.kill()


@pytest.fixture
def services(tmp_path: Path) -> Iterator[list[Running]]:
    """Two services; what stands in the list is stopped in the end, also where a test put another one there."""
    made = [Running(tmp_path / name) for name in "ab"]
    for each in made:
        each.http.post("/barrels/geo").raise_for_status()
    yield made
    for each in made:
        each.http.close()
        each.kill()


def fill(service: Running, count: int, start: int = 0) -> None:
    for begin in range(start, start + count, 1_000):
        docs = [{"_id": f"d{number:06}", "n": number, "text": "x" * 100} for number in range(begin, begin + 1_000)]
        service.http.post("/barrels/geo/docs/_bulk", json={"docs": docs}).raise_for_status()


def attach(service: Running, seed: int, count: int = 5) -> None:
    chance = random.Random(seed)
    for number in range(count):
        service.http.put(
            f"/barrels/geo/attachments/d{number:06}/f", content=chance.randbytes(300_000)
        ).raise_for_status()


def leaves(service: Running) -> dict[str, list[str]]:
    told = service.http.get("/barrels/geo/changes").raise_for_status().json()
    return {row["id"]: row["changes"] for row in told["results"]}


def differing(one: dict[str, list[str]], other: dict[str, list[str]]) -> list[str]:
    """Some of the documents whose leaves differ; the whole lists are too long to be compared in words."""
    return sorted(id for id in one.keys() | other.keys() if one.get(id) != other.get(id))[:20]


def level(one: Running, other: Running, seconds: float = 60) -> None:
    """Wait until both hold the same leaves."""
    until(lambda: not differing(leaves(one), leaves(other)), "the same leaves at both", seconds)


def alike(*services: Running) -> None:
    """The same leaves, and the same bytes of attachments."""
    first = leaves(services[0])
    for other in services[1:]:
        assert not differing(first, leaves(other))
    for number in range(5):
        path = f"/barrels/geo/attachments/{quote(f'd{number:06}')}/f"
        told = [each.http.get(path) for each in services]
        assert len({(answer.status_code, answer.content) for answer in told}) == 1


def barrel(service: Running) -> str:
    return f"{service.url}/geo"


def begun(process: Replicating, written: int = 500) -> None:
    until(lambda: process.told.get("written", 0) >= written, "something that was written")


def test_a_replicator_that_is_killed_goes_on_where_it_was(services: list[Running]) -> None:
    one, other = services
    fill(one, COUNT)
    attach(one, 1)
    with Proxy(lambda: int(other.url.rsplit(":", 1)[1])) as door:
        door.slow(500_000)
        with replicating(barrel(one), f"http://127.0.0.1:{door.port}/geo") as first:
            until(lambda: first.told.get("checkpoints", 0) >= 1, "a checkpoint")
            first.kill()
    assert first.told["written"] < COUNT, "it was done before it could be killed"
    with replicating(barrel(one), barrel(other)) as second:
        done = second.ends()
    assert done["read"] < COUNT
    alike(one, other)


@pytest.mark.parametrize("which", [0, 1], ids=["source", "target"])
def test_a_service_that_is_killed_and_comes_back_is_gone_on_with(
    services: list[Running], which: int, tmp_path: Path
) -> None:
    fill(services[0], COUNT)
    attach(services[0], 2)
    with ExitStack() as stack:
        doors = []
        for number in range(2):
            port = lambda number=number: int(services[number].url.rsplit(":", 1)[1])
            doors.append(stack.enter_context(Proxy(port)))
        ends = [f"http://127.0.0.1:{door.port}/geo" for door in doors]
        process = stack.enter_context(replicating(*ends, "continuous"))
        begun(process)
        services[which].kill()
        services[which].http.close()
        until(lambda: process.told["state"] == "waiting" or process.told["written"] >= COUNT, "a word of it")
        services[which] = Running(services[which].data)
        fill(services[0], 1_000, start=COUNT)
        until(lambda: leaves(services[1]) == leaves(services[0]), "the same at both", 60)
    alike(*services)


def test_a_link_that_is_cut_again_and_again_brings_all(services: list[Running]) -> None:
    one, other = services
    fill(one, COUNT)
    attach(one, 3)
    chance = random.Random(3)
    with Proxy(lambda: int(one.url.rsplit(":", 1)[1])) as up, Proxy(lambda: int(other.url.rsplit(":", 1)[1])) as down:
        ends = [f"http://127.0.0.1:{door.port}/geo" for door in (up, down)]
        with replicating(*ends) as process:
            for _ in range(6):
                for door in (up, down):
                    door.cut_after(chance.randrange(10_000, 200_000), chance.choice(["up", "down"]))  # type: ignore[arg-type]
                cuts = up.cuts + down.cuts
                until(
                    lambda cuts=cuts: up.cuts + down.cuts > cuts or process.process.poll() is not None,  # type: ignore[misc]
                    "a cut",
                )
            up.heal()
            down.heal()
            done = process.ends()
            assert up.cuts + down.cuts > 3
    assert done["refused"] == 0
    alike(one, other)


def test_a_slow_target_slows_the_reading_and_nothing_else(services: list[Running]) -> None:
    one, other = services
    fill(one, COUNT)
    with Proxy(lambda: int(other.url.rsplit(":", 1)[1])) as door:
        door.slow(100_000, 0.002)
        with replicating(barrel(one), f"http://127.0.0.1:{door.port}/geo", "continuous") as process:
            begun(process, 1)
            # What is on its way is bounded: not all of the source is read ahead.
            assert process.told["read"] < COUNT
            one.http.put("/barrels/geo/docs/meanwhile", json={}).raise_for_status()
            door.heal()
            # Some batches are on their way at once: the newest document may be there before others are.
            level(one, other)
            assert "meanwhile" in leaves(other)


def test_a_target_without_space_is_waited_for(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", mib=24) as disk:
        one, other = Running(tmp_path / "a"), Running(disk)
        try:
            for each in (one, other):
                each.http.post("/barrels/geo").raise_for_status()
            fill(one, COUNT)
            ballast = Ballast(disk)
            with replicating(barrel(one), barrel(other), "continuous") as process:
                begun(process)
                ballast.grow()
                until(lambda: process.told["state"] == "waiting" and process.told["error"], "a word of it", 60)
                ballast.drop()
                level(one, other, seconds=90)
        finally:
            for each in (one, other):
                each.http.close()
                each.kill()
