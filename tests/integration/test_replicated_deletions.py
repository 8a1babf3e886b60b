"""A deletion goes over where what was deleted is meant, or where nobody can tell any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from http_tools import eventually
from replication_tools import KINDS, QUICK, Subject, alike, brought, leaves, subject
from store_tools import change, replicate, revisions

from feeds import Barrel
from listeners.replication import Filter, Options, Replicator

FILTERS = {
    "patterns": Filter.of(patterns=["part/yes"]),
    "selector": Filter.of(selector={"part": "yes"}),
    "both": Filter.of(patterns=["part/#"], selector={"part": "yes"}),
    "unbounded selector": Filter.of(selector={"part": {"$ne": "no"}}),
}
LONG_AGO = "UPDATE log SET at = 0"


@pytest.fixture(params=KINDS)
async def source(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    async with subject(request.param, tmp_path / "a") as made:
        yield made


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Subject]:
    async with subject("local", tmp_path / "b") as made:
        yield made


@pytest.fixture(params=FILTERS)
def chosen(request: pytest.FixtureRequest) -> Filter:
    return FILTERS[request.param]


def fill(barrel: Barrel) -> None:
    barrel.bulk([{"_id": f"{part}-{number}", "part": part} for part in ("yes", "no") for number in range(3)])


def delete(barrel: Barrel, *ids: str) -> None:
    for id in ids:
        barrel.delete(id, rev=barrel.get(id).rev)


def forget(subject: Subject) -> None:
    """As if all that is in the log had happened long ago."""
    change(subject.store, LONG_AGO)
    subject.store.maintain()
    assert subject.barrel.forgotten() == subject.barrel.head()


def deleted(barrel: Barrel) -> set[str]:
    return {id for id, told in leaves(barrel).items() if told[0][1]}


async def test_a_new_filter_brings_deletions_of_what_was_meant(
    source: Subject, target: Subject, chosen: Filter
) -> None:
    fill(source.barrel)
    delete(source.barrel, "yes-1", "no-1")
    await brought(source.peer, target.peer, filter=chosen)
    there = set(leaves(target.barrel))
    assert {"yes-0", "yes-2"} <= there and not there & {"no-0", "no-1", "no-2"}


async def test_a_new_filter_brings_deletions_that_the_log_has_forgotten(
    source: Subject, target: Subject, chosen: Filter
) -> None:
    fill(source.barrel)
    await brought(source.peer, target.peer)
    delete(source.barrel, "yes-1", "no-1")
    forget(source)
    delete(source.barrel, "yes-2", "no-2")
    await brought(source.peer, target.peer, filter=chosen)
    # What was not meant goes too where its body is gone, and nobody can tell any more.
    assert deleted(target.barrel) == {"yes-1", "no-1", "yes-2"}
    assert source.barrel.get("no-0").rev == target.barrel.get("no-0").rev


async def test_who_was_away_for_longer_than_the_log_is_kept_hears_of_deletions_all_the_same(
    source: Subject, target: Subject, chosen: Filter
) -> None:
    fill(source.barrel)
    await brought(source.peer, target.peer, filter=chosen)
    delete(source.barrel, "yes-1", "no-1")
    source.barrel.put({"_id": "yes-3", "part": "yes"})
    forget(source)
    await brought(source.peer, target.peer, filter=chosen)
    assert deleted(target.barrel) == {"yes-1", "no-1"}
    assert target.barrel.get("yes-3").data["part"] == "yes"
    again = await brought(source.peer, target.peer, filter=chosen)
    assert (again["read"], again["written"]) == (0, 0)


async def test_a_deletion_of_what_was_never_here_is_passed_on(
    source: Subject, target: Subject, chosen: Filter
) -> None:
    fill(source.barrel)
    replicator = Replicator(source.peer, target.peer, Options(continuous=True, patience=QUICK, filter=chosen))
    task = asyncio.create_task(replicator.run())
    await eventually(lambda: replicator.stats()["state"] == "idle")
    replicate(source.barrel, {**revisions("never", "b", "a"), "_deleted": True})
    delete(source.barrel, "no-1", "yes-1")
    await eventually(lambda: {"never", "yes-1"} <= deleted(target.barrel))
    replicator.stop()
    await task
    assert "no-1" not in leaves(target.barrel)


async def test_a_deletion_upon_a_deletion_is_judged_by_what_was_deleted(
    source: Subject, target: Subject, chosen: Filter
) -> None:
    for part in ("yes", "no"):
        replicate(source.barrel, revisions(part, "a", part=part))
        for digests in (["b", "a"], ["c", "b", "a"]):
            replicate(source.barrel, {**revisions(part, *digests), "_deleted": True})
    await brought(source.peer, target.peer, filter=chosen)
    assert {id: [rev for rev, _, _ in told] for id, told in leaves(target.barrel).items()} == {"yes": ["3-c"]}


async def test_everything_needs_no_such_questions(source: Subject, target: Subject) -> None:
    fill(source.barrel)
    delete(source.barrel, "yes-1")
    forget(source)
    await brought(source.peer, target.peer)
    alike(source.barrel, target.barrel)
