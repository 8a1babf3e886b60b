"""Services replicated in a ring, a star and a chain, which are killed and whose links are bad: all become alike."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from brokers import Mosquitto
from proxy import Proxy
from replicas import Replicating, alike_in_all, http_port, leaves, level, place
from running import Running, until

SHAPES = {
    "two": [(0, 1), (1, 0)],
    "ring": [(0, 1), (1, 2), (2, 0)],
    "star": [(0, 1), (1, 0), (0, 2), (2, 0)],
    "chain": [(0, 1), (1, 0), (1, 2), (2, 1)],
}
IDS = [f"m{number}" for number in range(20)] + ["with/levels/1", "with/levels/2"]
BULK = 300  # documents that come at once, so that a fault finds something on its way


class Mesh:
    """Services, each reached through a door of its own over HTTP, and the process that replicates between them."""

    def __init__(
        self, folder: Path, ways: Sequence[tuple[int, int]], chance: random.Random, stack: ExitStack
    ) -> None:
        self._folder = folder
        self._chance = chance
        self._number = 0
        self._dead: int | None = None
        self._begin(stack)
        self.services: list[Running] = []
        stack.callback(self._end)
        count = 1 + max(max(way) for way in ways)
        for number in range(count):
            self.services.append(self._start(number))
            # What nobody hears need not be published.
            self.services[-1].http.post("/barrels/geo", json={"publish": []}).raise_for_status()
        self.doors = [stack.enter_context(Proxy(partial(self._port, number))) for number in range(count)]
        self._ends = [self._place(end) for way in ways for end in way]
        self.process = Replicating(*self._ends, continuous=True)
        stack.callback(lambda: self.process.kill())

    def _begin(self, stack: ExitStack) -> None:
        """What is there before the services."""

    def _start(self, number: int) -> Running:
        return Running(self._folder / str(number))

    def _port(self, number: int) -> int:
        """What is behind a service's door."""
        return http_port(self.services[number])

    def _place(self, number: int) -> str:
        return place(self.doors[number])

    def _end(self) -> None:
        for each in self.services:
            each.http.close()
            each.kill()

    @property
    def faults(self) -> list[Callable[[], None]]:
        """What can go wrong."""
        return [self.kill_a_service, self.kill_the_replicators, self.cut_links, self.slow_links, self.break_links]

    # -- what happens

    def edits(self, count: int) -> None:
        """Random edits at random services: each sees only what it has."""
        for _ in range(count):
            self._edit(self._anyone(), self._chance.choice(IDS))

    def _edit(self, http: httpx.Client, id: str) -> None:
        self._number += 1
        body = {"number": self._number, "color": self._chance.choice(["red", "green"])}
        path, what = f"/barrels/geo/docs/{quote(id, safe='')}", self._chance.random()
        if what < 0.4:
            taken(http.put(path, params={"update": "true"}, json=body))
            return
        if what < 0.6:
            name, data = (
                self._chance.choice(["one", "two"]),
                self._chance.randbytes(self._chance.choice([10, 100_000])),
            )
            taken(http.put(f"/barrels/geo/attachments/{quote(id, safe='')}/{name}", content=data), conflicts=True)
            return
        found = http.get(path, params={"conflicts": "true"})
        if found.status_code != 200:
            return
        rev = self._chance.choice([found.json()["_rev"], *found.json().get("_conflicts", [])])
        # A replicated revision may come in between: then the leaf is none any more.
        if what < 0.8:
            taken(http.put(path, json={**body, "_rev": rev}), conflicts=True)
        else:
            taken(http.delete(path, params={"rev": rev}), conflicts=True)

    def _anyone(self) -> httpx.Client:
        """One of the services that live."""
        alive = [number for number in range(len(self.services)) if number != self._dead]
        return self.services[self._chance.choice(alive)].http

    def bulk(self) -> None:
        """Many new documents at one service."""
        self._number += 1
        docs = [{"_id": f"b{self._number}-{number}", "text": "x" * 200} for number in range(BULK)]
        self._anyone().post("/barrels/geo/docs/_bulk", json={"docs": docs}).raise_for_status()

    # -- what goes wrong

    def kill_a_service(self) -> None:
        which = self._chance.randrange(len(self.services))
        self.services[which].kill()
        self.services[which].http.close()
        self._dead = which
        self.edits(10)
        self.services[which] = self._start(which)
        self._dead = None

    def kill_the_replicators(self) -> None:
        self.process.kill()
        self.edits(10)
        self.process = Replicating(*self._ends, continuous=True)

    def cut_links(self) -> None:
        for door in self.doors:
            door.cut_after(self._chance.randrange(1, 50_000), self._chance.choice(["up", "down"]))

    def slow_links(self) -> None:
        self._chance.choice(self.doors).slow(100_000, 0.002)

    def break_links(self) -> None:
        door = self._chance.choice(self.doors)
        door.refuse()
        door.reset()

    def heal(self) -> None:
        for door in self.doors:
            door.heal()

    # -- what holds in the end

    def comes_to_rest(self) -> None:
        """Wait until all have the same leaves, and nothing is written any more."""
        level(*self.services, seconds=90)
        heads: list[int] = []

        def rests() -> bool:
            before, heads[:] = list(heads), [each.http.get("/barrels/geo").json()["seq"] for each in self.services]
            return before == heads and self.process.is_idle

        try:
            until(rests, "a rest", 60, every_s=0.3)
        except AssertionError as error:
            error.add_note(f"{heads} {self.process.links} {self.process.said[-20:]}")
            raise


class MeshOverMosquitto(Mesh):
    """Services that share a broker, each under a prefix of its own, and are reached through it alone."""

    def _begin(self, stack: ExitStack) -> None:
        self._broker = Mosquitto(self._folder / "broker")
        stack.callback(self._broker.kill)

    def _start(self, number: int) -> Running:
        reach = ("--broker", self._broker.url)
        return Running(self._folder / str(number), *reach, embedded=False, SPILE_BROKER_PREFIX=f"site{number}")

    def _port(self, number: int) -> int:
        return self._broker.port

    def _place(self, number: int) -> str:
        return f"mqtt://127.0.0.1:{self.doors[number].port}/site{number}/geo"

    @property
    def faults(self) -> list[Callable[[], None]]:
        return [*super().faults, self.kill_the_broker]

    def kill_the_broker(self) -> None:
        self._broker.kill()
        self.edits(10)
        self._broker.start()


def taken(answer: httpx.Response, *, conflicts: bool = False) -> None:
    """It was written, or lost against another edit where that may be."""
    assert answer.is_success or (conflicts and answer.status_code == 409), (answer.status_code, answer.text[:500])


@pytest.fixture
def chance(seed: int) -> random.Random:
    return random.Random(seed)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.mark.timeout(300)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [Mesh, MeshOverMosquitto], ids=["http", "mosquitto"])
def test_whatever_happens_all_become_alike_and_rest(
    tmp_path: Path, kind: type[Mesh], shape: str, chance: random.Random, stack: ExitStack
) -> None:
    mesh = kind(tmp_path, SHAPES[shape], chance, stack)
    faults = mesh.faults
    chance.shuffle(faults)
    for fault in faults:
        mesh.bulk()
        mesh.edits(20)
        fault()
        mesh.edits(20)
        if chance.random() < 0.5:
            mesh.heal()
    mesh.heal()
    mesh.comes_to_rest()
    alike_in_all(*mesh.services)
    assert len(leaves(mesh.services[0])) >= BULK * len(faults)
    refused = [refusal for link in mesh.process.links for refusal in link["refusals"]]
    assert refused == []
