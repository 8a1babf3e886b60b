"""Replication between services that are reached through a Mosquitto alone: whoever is killed, all comes over."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from brokers import Mosquitto
from proxy import Proxy
from replicas import alike, attach, begun, fill, level, replicating
from running import Running, until

COUNT = 4_000
NAMES = ("one", "other")


class Site:
    """Two services with one broker, each under a prefix of its own, and a door to the broker for the replicator."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self.broker = Mosquitto(folder / "broker")
        stack.callback(self.broker.kill)
        self.services = [self._start(name) for name in NAMES]
        stack.callback(self._end)
        for each in self.services:
            # What nobody hears is not published, so that the broker has time for what is tested here.
            each.http.post("/barrels/geo", json={"publish": []}).raise_for_status()
        self.door = stack.enter_context(Proxy(lambda: self.broker.port))

    def _start(self, name: str) -> Running:
        return Running(self._folder / name, "--broker", self.broker.url, embedded=False, SPILE_BROKER_PREFIX=name)

    def kill(self, which: int) -> None:
        self.services[which].kill()
        self.services[which].http.close()

    def start_again(self, which: int) -> None:
        self.services[which] = self._start(NAMES[which])

    def ends(self) -> list[str]:
        return [f"mqtt://127.0.0.1:{self.door.port}/{name}/geo" for name in NAMES]

    def _end(self) -> None:
        for each in self.services:
            each.http.close()
            each.kill()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(tmp_path, stack)


@pytest.mark.parametrize("which", [0, 1], ids=["source", "target"])
def test_a_service_that_is_killed_and_comes_back_is_gone_on_with(site: Site, which: int) -> None:
    fill(site.services[0], COUNT)
    attach(site.services[0], 1)
    site.door.slow(1_000_000)
    with replicating(*site.ends(), continuous=True) as process:
        begun(process)
        site.kill(which)
        site.start_again(which)
        fill(site.services[0], 1_000, start=COUNT)
        site.door.heal()
        level(*site.services, seconds=90)
    alike(*site.services)


def test_links_that_are_cut_again_and_again_bring_all_in_both_directions(site: Site) -> None:
    fill(site.services[0], COUNT)
    attach(site.services[0], 2)
    fill(site.services[1], 1_000, start=2 * COUNT)
    chance = random.Random(2)
    there, back = site.ends()
    with replicating(there, back, back, there, continuous=True) as process:
        for number in range(6):
            cuts = site.door.cuts
            site.door.cut_after(chance.randrange(10_000, 200_000), chance.choice(["up", "down"]))  # type: ignore[arg-type]
            fill(site.services[number % 2], 1_000, start=(3 + number) * COUNT)
            until(lambda cuts=cuts: site.door.cuts > cuts, "a cut", 60)  # type: ignore[misc]
        site.door.heal()
        level(*site.services, seconds=90)
        assert not any(link["refused"] for link in process.links)
    alike(*site.services)


def test_a_broker_that_is_killed_and_comes_back_is_gone_on_with(site: Site) -> None:
    fill(site.services[0], COUNT)
    attach(site.services[0], 3)
    site.door.slow(1_000_000)
    with replicating(*site.ends(), continuous=True) as process:
        begun(process)
        site.broker.kill()
        site.door.reset()
        until(lambda: process.told["state"] == "waiting", "a word of it")
        fill(site.services[0], 1_000, start=COUNT)
        site.broker.start()
        site.door.heal()
        level(*site.services, seconds=90)
    alike(*site.services)


def test_a_replicator_that_is_killed_goes_on_where_it_was(site: Site) -> None:
    fill(site.services[0], COUNT)
    site.door.slow(500_000)
    with replicating(*site.ends()) as first:
        until(lambda: first.told.get("checkpoints", 0) >= 1, "a checkpoint")
        first.kill()
    assert first.told["written"] < COUNT, "it was done before it could be killed"
    site.door.heal()
    with replicating(*site.ends()) as second:
        done = second.ends()
    assert done["read"] < COUNT
    level(*site.services)
