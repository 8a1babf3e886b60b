"""Random runs of writers, listeners, restarts and faults against the model of the promises, in both worlds.

Each run is a world of its own with real processes; what happens in it is drawn step by step. The small form takes
part of a minute; `python -m tests.chaos.long` runs it, and every other trial, for as long as one likes.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from nursery import Nursery
from postgres import Cluster
from running import until
from trials import Trial
from worlds import make_world
from writers import Writer

LISTENERS_MAX = 5
PATTERNS = [
    *([], ["region/Europe"], ["region/+"], ["tags/#"], ["tags/+/b.c", "region/Asia"], ["by/writer/http0"]),
    *(["_id/#"], ["_id/mqtt1/#"], ["_id/http0/1", "tags/0/d e"], ["by/n/+"], ["none/#"]),
]

kinds = st.sampled_from(["http", "mqtt"])
few = st.integers(1, 6)
some = st.integers(5, 40)
bytes_ = st.integers(1, 5_000)
ways = st.sampled_from(["up", "down"])


class Run(RuleBasedStateMachine):
    """One world, and what happens in it."""

    make: Callable[[], Trial]

    def __init__(self) -> None:
        super().__init__()
        self.trial = self.make()
        self.world = self.trial.world

    @initialize(luck=st.integers(0, 2**32))
    def begins(self, luck: int) -> None:
        """Two writers and a plain subscriber are there from the beginning."""
        self.trial.luck.seed(luck)
        self.trial.subscribes()
        self.http = self.trial.over_http()
        self.mqtt = self.trial.over_mqtt()
        self.loader = self.trial.over_http()
        self._threads: list[threading.Thread] = []

    # Writers

    @rule(kind=kinds, count=few)
    def writes(self, kind: str, count: int) -> None:
        writer: Writer = self.http if kind == "http" else self.mqtt
        for _ in range(count):
            writer.step()

    @rule()
    def is_refused(self) -> None:
        assert self.http.write_over_something_newer()

    # Listeners

    @precondition(lambda self: len(self.trial.listeners) < LISTENERS_MAX)
    @rule(kind=kinds, patterns=st.sampled_from(PATTERNS), named=st.booleans(), meddled=st.booleans())
    def listens_from_the_beginning(self, kind: str, patterns: list[str], named: bool, meddled: bool) -> None:
        cursor = f"cursor{len(self.trial.listeners)}" if named else None
        self.trial.listens_over(kind, *patterns, cursor=cursor, meddled=meddled and kind == "mqtt")

    @precondition(lambda self: len(self.trial.listeners) < LISTENERS_MAX)
    @rule(kind=kinds, patterns=st.sampled_from(PATTERNS), back=st.integers(0, 30))
    def listens_from_a_position(self, kind: str, patterns: list[str], back: int) -> None:
        info = self.world.direct("GET", "/barrels/geo").json()
        self.trial.listens_over(kind, *patterns, since=f"{max(0, info['seq'] - back)}-{info['epoch']}")

    @precondition(lambda self: any(each.cursor for each in self.trial.listeners))
    @rule(which=st.integers(0, LISTENERS_MAX))
    def listens_again(self, which: int) -> None:
        named = [each for each in self.trial.listeners if each.cursor]
        named[which % len(named)].again()

    # Faults under load

    @rule(count=some, after=few, loaded=st.sampled_from([0, 300]))
    def service_is_killed(self, count: int, after: int, loaded: int) -> None:
        def fault() -> None:
            if loaded:
                self.loader.load(loaded)
            self.world.kill()
            self.world.start()

        self._under_load(count, after, fault)

    @rule(count=some, after=few)
    def service_is_restarted(self, count: int, after: int) -> None:
        def fault() -> None:
            self.world.stop()
            self.world.start()

        self._under_load(count, after, fault)

    @rule(count=some, after=few)
    def links_are_broken(self, count: int, after: int) -> None:
        self._under_load(count, after, lambda: [door.reset() for door in self._links()])

    @rule(count=some, after=few, cut=bytes_, way=ways)
    def links_are_cut(self, count: int, after: int, cut: int, way: Any) -> None:
        self._under_load(count, after, lambda: [door.cut_after(cut, way) for door in self._links()])
        self.trial.heals()

    @rule(count=some, after=few, refused=st.booleans())
    def clients_are_kept_away(self, count: int, after: int, refused: bool) -> None:
        def fault() -> None:
            for door in self.trial.doors:
                if refused:
                    door.refuse()
                    door.reset()
                else:
                    door.freeze()
            for number in range(3):
                self._past_all_doors(f"past/{number}", count + number)
            self.trial.heals()

        self._under_load(count, after, fault)

    @rule(count=some, after=few)
    def service_hangs(self, count: int, after: int) -> None:
        def fault() -> None:
            self.world.pause()
            self._until_repeated()
            self.world.go_on()

        self._under_load(count + after + 10, after, fault)

    @precondition(lambda self: self.world.kind == "external")
    @rule(count=some, after=few)
    def database_is_killed(self, count: int, after: int) -> None:
        def fault() -> None:
            with self.world.database_away():
                self._until_repeated()

        self._under_load(count + after + 10, after, fault)

    @precondition(lambda self: self.world.kind == "external")
    @rule(count=some, after=few)
    def broker_is_killed(self, count: int, after: int) -> None:
        self._under_load(count, after, self.world.kill_broker)
        until(lambda: all(plain.listening for plain in self.trial.subscribers), "the subscribers to be back")

    # What holds

    @rule()
    def everyone_is_told(self) -> None:
        self.trial.is_told()

    @property
    def writing(self) -> bool:
        """Whether the writers are at work."""
        return any(thread.is_alive() for thread in self._threads)

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:  # else what went wrong is being told already
                self.trial.holds()
        finally:
            self.trial.close()

    def _past_all_doors(self, id: str, number: int) -> None:
        """A write that nothing is between."""
        body = {"region": "Europe", "tags": ["a"], "by": {"writer": "past", "n": [number, len(self.trial.ledger)]}}
        attempt = self.trial.ledger.begin(id, body)
        told = self.world.direct("PUT", f"/barrels/geo/docs/{id}?update=true", json=body).json()
        self.trial.ledger.accepted(attempt, told["rev"], told["seq"])

    def _until_repeated(self) -> None:
        """A writer has asked again, since it was not answered, or both are through with what they had to write."""
        repeats = self.http.repeats + self.mqtt.repeats
        until(lambda: self.http.repeats + self.mqtt.repeats > repeats or not self.writing, "a request repeated")

    def _links(self) -> list[Any]:
        return [*self.trial.doors, *self.world.links]

    def _under_load(self, count: int, after: int, fault: Callable[[], object]) -> None:
        """Both writers write, and when some of it is accepted, something happens."""
        writers: list[Writer] = [self.http, self.mqtt]
        failures: list[BaseException] = []

        def write(writer: Writer) -> None:
            try:
                for _ in range(count):
                    writer.step()
            except BaseException as error:  # noqa: BLE001 - it is raised below
                failures.append(error)

        threads = self._threads = [threading.Thread(target=write, args=(writer,)) for writer in writers]
        for thread in threads:
            thread.start()
        try:
            self.trial.goes_on(min(after, count))
            fault()
        finally:
            for thread in threads:
                thread.join()
        if failures:
            raise failures[0]


@pytest.mark.timeout(3_600)
@pytest.mark.usefixtures("attentive")
def test_whatever_happens_what_is_promised_holds(
    kind: str, cluster: Cluster | None, nursery: Nursery, tmp_path: Path, seed: int
) -> None:
    runs = itertools.count()

    class Here(Run):
        def make(self) -> Trial:
            return Trial(make_world(kind, tmp_path / f"run{next(runs)}", nursery, cluster), seed)

    plan = settings(
        max_examples=int(os.environ.get("SPILE_RUNS") or (3 if kind == "embedded" else 2)),
        stateful_step_count=int(os.environ.get("SPILE_STEPS") or 12),
        deadline=None,
        database=None,
        # Chance also lies in the processes: what failed once need not fail again, and cannot be made smaller.
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    run_state_machine_as_test(seeded(seed)(Here), settings=plan)
