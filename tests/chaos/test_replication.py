"""Replication between services in processes: whoever is killed, however bad the link, all comes over in the end."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from disks import Ballast, small_disk
from proxy import Proxy
from replicas import alike, attach, begun, fill, http_port, leaves, level, place, replicating
from running import Running, until

COUNT = 6_000


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


def test_a_replicator_that_is_killed_goes_on_where_it_was(services: list[Running]) -> None:
    one, other = services
    fill(one, COUNT)
    attach(one, 1)
    with Proxy(lambda: http_port(other)) as door:
        door.slow(500_000)
        with replicating(place(one), place(door)) as first:
            until(lambda: first.told.get("checkpoints", 0) >= 1, "a checkpoint")
            first.kill()
    assert first.told["written"] < COUNT, "it was done before it could be killed"
    with replicating(place(one), place(other)) as second:
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
            port = lambda number=number: http_port(services[number])
            doors.append(stack.enter_context(Proxy(port)))
        ends = [place(door) for door in doors]
        process = stack.enter_context(replicating(*ends, continuous=True))
        begun(process)
        services[which].kill()
        services[which].http.close()
        until(lambda: process.told["state"] == "waiting" or process.told["written"] >= COUNT, "a word of it")
        services[which] = Running(services[which].data)
        fill(services[0], 1_000, start=COUNT)
        level(*services)
    alike(*services)


def test_a_link_that_is_cut_again_and_again_brings_all(services: list[Running]) -> None:
    one, other = services
    fill(one, COUNT)
    attach(one, 3)
    chance = random.Random(3)
    with Proxy(lambda: http_port(one)) as up, Proxy(lambda: http_port(other)) as down:
        ends = [place(door) for door in (up, down)]
        with replicating(*ends) as process:
            for _ in range(6):
                for door in (up, down):
                    door.cut_after(chance.randrange(10_000, 200_000), chance.choice(["up", "down"]))
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
    with Proxy(lambda: http_port(other)) as door:
        door.slow(100_000, 0.002)
        with replicating(place(one), place(door), continuous=True) as process:
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
            with replicating(place(one), place(other), continuous=True) as process:
                begun(process)
                ballast.grow()
                until(lambda: process.told["state"] == "waiting" and process.told["error"], "a word of it", 60)
                ballast.drop()
                level(one, other, seconds=90)
        finally:
            for each in (one, other):
                each.http.close()
                each.kill()
