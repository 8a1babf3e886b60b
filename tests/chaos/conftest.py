"""Faults are drawn by chance: every test has a seed, which is shown when it fails and can be given again."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from nursery import Nursery
from postgres import Cluster
from trials import Trial
from worlds import LONG, WORLDS, World, make_world, missing

from listeners import following
from listeners.stream.actions import ReceiverLimits
from listeners.stream.receiver import Receiver

SEED = "SPILE_SEED"


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """What chance is drawn from: `SPILE_SEED` if it is set."""
    drawn = int(os.environ.get(SEED) or random.SystemRandom().getrandbits(32))
    request.node.add_report_section("setup", "seed", f"to repeat it: {SEED}={drawn}")
    return drawn


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """What services and listeners are forked from."""
    made = Nursery()
    yield made
    made.close()


@pytest.fixture(scope="session", params=WORLDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which world a trial takes place in."""
    named: str = request.param
    if (why := missing(named)) is not None:
        pytest.skip(why)
    return named


@pytest.fixture(scope="session")
def durable() -> Iterator[Cluster]:
    """A database server that syncs as in production, since it is killed."""
    made = Cluster(durable=True)
    yield made
    made.close()


@pytest.fixture(scope="session")
def cluster(kind: str, request: pytest.FixtureRequest) -> Cluster | None:
    """The database server of the worlds of this kind."""
    return None if kind == "embedded" else request.getfixturevalue("durable")


@pytest.fixture
def world(
    kind: str, cluster: Cluster | None, nursery: Nursery, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[World]:
    """A world in which nothing runs yet. What its service said is shown when the test fails."""
    made = make_world(kind, tmp_path / "world", nursery, cluster)
    yield made
    made.close()
    request.node.add_report_section("teardown", "service", made.said[-20_000:])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """paho leaves a socket open that is cut while it connects, and only these tests cut there."""
    for item in items:
        if "chaos" in item.path.parts:
            item.add_marker(
                pytest.mark.filterwarnings("ignore:.*<socket.socket:pytest.PytestUnraisableExceptionWarning")
            )


@pytest.fixture
def attentive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Listeners that give credit often, and so learn soon that a service has forgotten their stream.

    Over a broker of its own nothing else tells them that the service was killed, and 20 s are long for a test.
    """
    if not LONG:
        often = partial(Receiver, limits=ReceiverLimits(credit_s=1.0, silence_s=12.0, start_s=2.0))
        monkeypatch.setattr(following, "Receiver", often)


@pytest.fixture
def trial(world: World, seed: int) -> Iterator[Trial]:
    """A world that runs, with an empty barrel and nobody there yet."""
    made = Trial(world, seed)
    yield made
    made.close()
