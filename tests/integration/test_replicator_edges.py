"""A replicator at its edges: stopped as it begins, with large documents all at once, and with a target that has lost
what it had taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from http_tools import eventually
from replication_tools import QUICK, Subject, alike, subject

from listeners.replication import Options, Pair, Replicator, local
from listeners.replication.peer import Fetched, Wanted


@pytest.fixture
async def ends(tmp_path: Path) -> AsyncIterator[tuple[Subject, Subject]]:
    async with subject("local", tmp_path / "a") as source, subject("local", tmp_path / "b") as target:
        yield source, target


# -- stopping


async def test_one_that_is_stopped_before_it_has_begun_ends_at_once(ends: tuple[Subject, Subject]) -> None:
    replicator = Replicator(ends[0].peer, ends[1].peer, Options(continuous=True))
    task = asyncio.create_task(replicator.run())
    replicator.stop()
    async with asyncio.timeout(30):
        assert (await task)["state"] == "stopped"


async def test_it_runs_again_though_it_was_stopped_meanwhile(ends: tuple[Subject, Subject]) -> None:
    replicator = Replicator(ends[0].peer, ends[1].peer, Options())
    replicator.stop()
    assert (await replicator.run())["state"] == "done"


@pytest.mark.parametrize("continuous", [False, True], ids=["once", "continuous"])
async def test_both_directions_end_where_they_are_stopped(ends: tuple[Subject, Subject], continuous: bool) -> None:
    one, other = ends
    one.barrel.put({"_id": "a"})
    other.barrel.put({"_id": "b"})
    pair = Pair(one.peer, other.peer, Options(continuous=continuous))
    task = asyncio.create_task(pair.run())
    await asyncio.sleep(0)  # it has begun its first direction
    pair.stop()
    async with asyncio.timeout(30):
        told = await task
    assert told["there"]["state"] == "stopped"
    assert [row.id for row in one.barrel.changes().results] == ["a"]


# -- memory


async def test_documents_that_are_large_together_are_written_before_more_are_fetched(
    ends: tuple[Subject, Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = ends
    monkeypatch.setattr(local, "TOGETHER_BYTES", 200_000, raising=False)
    target.barrel.put({"_id": "so that rows come without documents"})
    docs: list[dict[str, Any]] = [{"_id": f"a{number:03}"} for number in range(300)]
    docs += [{"_id": f"b{number:03}", "text": "x" * 20_000} for number in range(300)]
    source.barrel.bulk(docs)
    held = most = 0
    fetch, write = source.peer.fetch, target.peer.write

    async def fetching(wanted: list[Wanted]) -> Any:
        nonlocal held, most
        found = await fetch(wanted)
        held += sum(len(each.json) for each in found if isinstance(each, Fetched))
        most = max(most, held)
        return found

    async def writing(docs: list[Fetched], handles: Any) -> Any:
        nonlocal held
        done = await write(docs, handles)
        held -= sum(len(each.json) for each in docs)
        return done

    monkeypatch.setattr(source.peer, "fetch", fetching)
    monkeypatch.setattr(target.peer, "write", writing)
    done = await Replicator(source.peer, target.peer, Options(in_flight=1)).run()
    assert (done["missing"], done["fetched"], done["written"], done["gone"]) == (600, 600, 600, 0)
    assert most < 1_000_000


# -- a target that has lost something


async def test_a_target_that_was_put_back_while_it_was_written_to_is_filled_again(
    ends: tuple[Subject, Subject],
) -> None:
    source, target = ends
    source.barrel.bulk([{"_id": f"d{number}"} for number in range(10)])
    options = Options(continuous=True, patience=QUICK, checkpoint_s=0.05)
    replicator = Replicator(source.peer, target.peer, options)
    task = asyncio.create_task(replicator.run())

    async def recorded() -> None:
        head = source.barrel.position(source.barrel.head())
        await eventually(lambda: replicator.stats()["position"] == head)

    try:
        await recorded()
        assert replicator.id is not None
        before = target.barrel.local_get(replicator.id).data
        source.barrel.put({"_id": "lost"})
        await recorded()
        # As a standby that was behind and took over: the newest writes are gone, and nothing says so.
        rev = target.barrel.local_get(replicator.id).rev
        target.barrel.purge("lost", [target.barrel.get("lost").rev])
        target.barrel.local_put(replicator.id, {key: each for key, each in before.items() if key[0] != "_"}, rev=rev)
        source.barrel.put({"_id": "new"})
        await eventually(lambda: {"lost", "new"} <= {row.id for row in target.barrel.changes().results})
        alike(source.barrel, target.barrel)
    finally:
        replicator.stop()
        await task
