"""Replicating between barrels: all of it, once or for as long as it runs, from where it was."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from http_tools import eventually
from replication_tools import KINDS, QUICK, Subject, alike, brought, edit, leaves, subject
from store_tools import revisions

from feeds import Store
from feeds.errors import BadRequest, Conflict, Forbidden, NotFound, SpileError, StorageFull, Unavailable
from listeners.replication import Filter, LocalPeer, Options, Pair, PeerChanged, Replicator, replicate


class Ends:
    """A source and a target."""

    def __init__(self, source: Subject, target: Subject) -> None:
        self.source, self.target = source, target
        self.one, self.other = source.barrel, target.barrel

    async def bring(self, **options: Any) -> dict[str, Any]:
        return await brought(self.source.peer, self.target.peer, **options)

    async def back(self, **options: Any) -> dict[str, Any]:
        return await brought(self.target.peer, self.source.peer, **options)


@pytest.fixture(params=[("local", "local"), ("local", "http"), ("http", "local")], ids="-".join)
async def ends(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ends]:
    async with AsyncExitStack() as stack:
        source, target = [
            await stack.enter_async_context(subject(kind, tmp_path / str(number)))
            for number, kind in enumerate(request.param)
        ]
        yield Ends(source, target)


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Ends]:
    async with subject("local", tmp_path / "a") as source, subject("local", tmp_path / "b") as target:
        yield Ends(source, target)


# -- what goes over


async def test_every_leaf_deletion_and_attachment_goes_over(ends: Ends) -> None:
    ends.one.bulk([{"_id": f"d{number}", "n": number} for number in range(1_200)])
    ends.one.bulk([revisions("c", "bb", "aa", n=1), revisions("c", "cc", "aa", n=2)], new_edits=False)
    ends.one.put({"_id": "d1", "n": "changed"}, update=True)
    ends.one.delete("d2", rev=ends.one.get("d2").rev)
    for id in ("d3", "d4", "with/slash"):
        ends.one.attach(id, "file/name.bin", b"the same bytes" * 1000)
    done = await ends.bring()
    alike(ends.one, ends.other)
    assert (done["state"], done["refused"], done["written"]) == ("done", 0, 1_203)
    assert (done["blobs"], done["blob_bytes"]) == (1, 14_000)


async def test_twice_changes_nothing_and_reads_nothing(ends: Ends) -> None:
    ends.one.bulk([{"_id": f"d{number}"} for number in range(10)])
    await ends.bring()
    seq = ends.other.head()
    again = await ends.bring()
    assert ends.other.head() == seq
    assert (again["read"], again["written"]) == (0, 0)


async def test_there_and_back_comes_to_rest(ends: Ends) -> None:
    ends.one.put({"_id": "a", "from": "one"})
    ends.other.put({"_id": "b", "from": "other"})
    ends.one.put({"_id": "c", "from": "one"})
    ends.other.put({"_id": "c", "from": "other"})
    pair = Pair(ends.source.peer, ends.target.peer, Options(patience=QUICK))
    await pair.run()
    alike(ends.one, ends.other)
    assert len(leaves(ends.one)["c"]) == 2
    seqs = ends.one.head(), ends.other.head()
    told = await pair.run()
    assert (ends.one.head(), ends.other.head()) == seqs
    assert told["there"]["missing"] + told["back"]["missing"] <= 4


async def test_large_documents_go_over_in_bounded_parts(ends: Ends) -> None:
    for number in range(12):
        ends.one.put({"_id": f"d{number}", "text": "x" * (6 << 20)})
        ends.one.put({"_id": f"d{number}", "text": "y" * (6 << 20)}, update=True)
    done = await ends.bring()
    alike(ends.one, ends.other)
    assert done["refused"] == 0


async def test_deletions_by_expiry_stay_unless_the_barrel_says_otherwise(local: Ends) -> None:
    local.source.store.configure("geo", {"ttl_field": "until"})
    local.one = local.source.store.barrel("geo")
    local.one.bulk([{"_id": "old", "until": "2000-01-01T00:00:00Z"}, {"_id": "new"}])
    local.source.store.expire()
    await local.bring()
    assert list(leaves(local.other)) == ["new"]
    local.source.store.configure("geo", {"replicate_expiry": True})
    await local.bring(filter=Filter.of(patterns=["#"]))
    assert leaves(local.other)["old"][0][1]


async def test_a_content_that_went_over_is_named_by_itself_from_then_on(ends: Ends) -> None:
    replicator = Replicator(ends.source.peer, ends.target.peer, Options(continuous=True, patience=QUICK))
    task = asyncio.create_task(replicator.run())
    ends.one.attach("first", "f", b"the same")
    await eventually(lambda: ends.other.head() == 1)
    ends.target.store.writer.call(lambda transaction: transaction.execute("DELETE FROM uploads"))
    ends.one.attach("second", "f", b"the same")
    await eventually(lambda: ends.other.head() == 2)
    replicator.stop()
    assert (await task)["blobs"] == 1
    alike(ends.one, ends.other)


async def test_many_contents_go_over(ends: Ends) -> None:
    for number in range(30):
        ends.one.attach(f"d{number}", "f", bytes([number]) * 1000)
    ends.one.attach("large", "f", random.Random(1).randbytes(7 << 20))
    assert (await ends.bring())["blobs"] == 31
    alike(ends.one, ends.other)


async def test_each_batch_counts_its_own_though_several_are_on_their_way(local: Ends) -> None:
    local.one.put({"_id": "alone"})
    peer, second = local.target.peer, asyncio.Event()

    async def write(docs: Any, handles: Any) -> Any:
        if docs[0].id == "alone":
            await second.wait()
            return await peer.write(docs, handles)
        done = await peer.write(docs, handles)
        second.set()
        return done

    target = Meddled(peer, write=write)
    replicator = Replicator(local.source.peer, target, Options(continuous=True, patience=QUICK))  # type: ignore[arg-type]
    task = asyncio.create_task(replicator.run())
    await eventually(lambda: replicator.stats()["read"] == 1)
    local.one.bulk([{"_id": f"d{number}"} for number in range(100)])
    await eventually(lambda: local.other.head() == 101)
    await eventually(lambda: replicator.stats()["state"] == "idle")
    replicator.stop()
    told = await task
    assert (told["missing"], told["written"]) == (101, 101)


# -- going on


async def test_only_what_is_new_is_read(ends: Ends) -> None:
    ends.one.bulk([{"_id": f"d{number}"} for number in range(100)])
    await ends.bring()
    ends.one.put({"_id": "new"})
    assert (await ends.bring())["read"] == 1


async def test_continuous_goes_on_until_it_is_stopped_and_then_from_there(ends: Ends) -> None:
    replicator = Replicator(ends.source.peer, ends.target.peer, Options(continuous=True, patience=QUICK))
    task = asyncio.create_task(replicator.run())
    for number in range(5):
        await asyncio.to_thread(ends.one.put, {"_id": f"d{number}"})
        await eventually(lambda number=number: ends.other.head() > number)  # type: ignore[misc]
    await eventually(lambda: replicator.stats()["state"] == "idle")
    replicator.stop()
    assert (await task)["state"] == "stopped"
    ends.one.put({"_id": "later"})
    assert (await ends.bring())["read"] == 1
    alike(ends.one, ends.other)


async def test_it_runs_once_at_a_time(local: Ends) -> None:
    replicator = Replicator(local.source.peer, local.target.peer, Options(continuous=True))
    task = asyncio.create_task(replicator.run())
    await eventually(lambda: replicator.stats()["state"] == "idle")
    with pytest.raises(BadRequest, match="running already"):
        await replicator.run()
    replicator.stop()
    await task


async def test_another_filter_is_another_replication(local: Ends) -> None:
    local.one.bulk([{"_id": "a", "n": 1}, {"_id": "b", "n": 2}])
    assert (await local.bring(filter=Filter.of(patterns=["n/1"])))["written"] == 1
    assert (await local.bring())["written"] == 1
    alike(local.one, local.other)


async def test_a_barrel_is_not_replicated_into_itself(local: Ends) -> None:
    with pytest.raises(BadRequest, match="same barrel"):
        await brought(local.source.peer, LocalPeer(local.source.store, "geo"))


async def test_two_at_once_do_not_disturb_each_other(local: Ends) -> None:
    local.one.bulk([{"_id": f"d{number}"} for number in range(2_000)])
    await asyncio.gather(*(local.bring() for _ in range(3)))
    alike(local.one, local.other)
    assert (await local.bring())["read"] == 0


# -- a part of it


async def test_patterns_bring_what_stands_under_them_and_deletions_of_it(ends: Ends) -> None:
    ends.one.bulk([{"_id": f"d{number}", "n": number % 10} for number in range(100)])
    ends.one.delete("d3", rev=ends.one.get("d3").rev)
    ends.one.delete("d4", rev=ends.one.get("d4").rev)
    filter = Filter.of(patterns=["n/3"])
    done = await ends.bring(filter=filter)
    assert set(leaves(ends.other)) == {f"d{number}" for number in range(3, 100, 10)}
    assert done["read"] == 10
    ends.one.delete("d13", rev=ends.one.get("d13").rev)
    ends.one.delete("d14", rev=ends.one.get("d14").rev)
    assert (await ends.bring(filter=filter))["written"] == 1
    assert leaves(ends.other)["d13"][0][1]


async def test_ids_bring_these_documents(ends: Ends) -> None:
    ends.one.bulk([{"_id": id} for id in ("a", "a/b", "b")])
    done = await ends.bring(filter=Filter.of(ids=["a", "never"]))
    assert (set(leaves(ends.other)), done["read"]) == ({"a"}, 1)


async def test_a_selector_brings_what_it_means(ends: Ends) -> None:
    ends.one.bulk([{"_id": f"d{number}", "n": number, "kind": "ab"[number % 2]} for number in range(40)])
    ends.one.put({"_id": "d39", "n": 39, "kind": "b", "again": True}, update=True)
    await ends.bring(filter=Filter.of(selector={"kind": "b", "n": {"$gte": 30}}))
    assert set(leaves(ends.other)) == {"d31", "d33", "d35", "d37", "d39"}


async def test_a_selector_brings_deletions_of_what_it_meant(ends: Ends) -> None:
    ends.one.bulk([{"_id": f"d{number}", "n": number} for number in range(4)])
    filter = Filter.of(selector={"n": {"$gt": 1}})
    await ends.bring(filter=filter)
    for number in range(4):
        ends.one.delete(f"d{number}", rev=ends.one.get(f"d{number}").rev)
    await ends.bring(filter=filter)
    assert {id: told[0][1] for id, told in leaves(ends.other).items()} == {"d2": True, "d3": True}


async def test_a_deletion_goes_over_where_nobody_knows_what_was_deleted(local: Ends) -> None:
    local.one.put({"_id": "a", "n": 1})
    local.one.delete("a", rev=local.one.get("a").rev)
    local.source.store.compact("geo")
    await local.bring(filter=Filter.of(selector={"n": {"$gt": 5}}))
    assert list(leaves(local.other)) == ["a"]


async def test_leaves_are_told_and_purged_where_asked_for(ends: Ends) -> None:
    ends.one.bulk([{"_id": "goes", "n": 1}, {"_id": "stays", "n": 1}])
    filter = Filter.of(patterns=["n/1"])
    await ends.bring(filter=filter)
    ends.one.put({"_id": "goes", "n": 2}, update=True)
    left: list[str] = []
    done = await ends.bring(filter=filter, leaves="tell", on_leave=lambda row: left.append(row.id))
    assert (left, done["left"], set(leaves(ends.other))) == (["goes"], 1, {"goes", "stays"})
    ends.one.put({"_id": "stays", "n": 2}, update=True)
    await ends.bring(filter=filter, leaves="purge")
    assert set(leaves(ends.other)) == {"goes"}


async def test_what_others_wrote_is_not_purged(local: Ends) -> None:
    local.one.put({"_id": "a", "n": 1})
    filter = Filter.of(patterns=["n/1"])
    await local.bring(filter=filter)
    local.other.put({"_id": "a", "mine": True}, update=True)
    local.one.put({"_id": "a", "n": 2}, update=True)
    local.one.put({"_id": "a", "n": 3}, update=True)
    await local.bring(filter=filter, leaves="purge")
    assert local.other.get("a").data["mine"]


# -- refusals and ends


class Meddled:
    """A peer of which some calls are somebody else's."""

    def __init__(self, peer: Any, **calls: Any) -> None:
        self._peer = peer
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        return self._calls.get(name) or getattr(self._peer, name)


def failing(peer: Any, name: str, *errors: SpileError, after: bool = False) -> Meddled:
    """A peer whose call fails with these errors first; `after` it was done all the same."""
    left = list(errors)

    async def call(*given: Any, **named: Any) -> Any:
        if left and not after:
            raise left.pop(0)
        result = await getattr(peer, name)(*given, **named)
        if left:
            raise left.pop(0)
        return result

    return Meddled(peer, **{name: call})


@pytest.mark.parametrize("name", ["identity", "revs_diff", "write", "checkpoint", "save_checkpoint"])
@pytest.mark.parametrize("after", [False, True])
async def test_what_passes_is_tried_again(local: Ends, name: str, after: bool) -> None:
    local.one.bulk([{"_id": f"d{number}"} for number in range(50)])
    target = failing(local.target.peer, name, Unavailable("away"), StorageFull("full"), after=after)
    done = await brought(local.source.peer, target)  # type: ignore[arg-type]
    assert (done["state"], done["retries"]) == ("done", 2)
    alike(local.one, local.other)
    assert (await local.bring())["read"] == 0


async def test_what_does_not_pass_ends_it_by_name(local: Ends) -> None:
    local.one.put({"_id": "a"})
    target = failing(local.target.peer, "write", *[StorageFull("The disk is full")] * 100)
    replicator = Replicator(local.source.peer, target, Options(patience=QUICK))  # type: ignore[arg-type]
    with pytest.raises(StorageFull):
        await replicator.run()
    told = replicator.stats()
    assert (told["state"], told["error"], told["reason"]) == ("failed", "storage_full", "The disk is full")
    assert (await local.bring())["read"] == 1


@pytest.mark.parametrize("name", ["identity", "write", "save_checkpoint"])
async def test_it_stops_although_the_target_is_away(local: Ends, name: str) -> None:
    local.one.put({"_id": "a"})
    target = failing(local.target.peer, name, *[Unavailable("away")] * 1000)
    replicator = Replicator(local.source.peer, target, Options(continuous=True))  # type: ignore[arg-type]
    task = asyncio.create_task(replicator.run())
    await eventually(lambda: replicator.stats()["state"] == "waiting")
    replicator.stop()
    async with asyncio.timeout(30):
        assert (await task)["state"] == "stopped"
    assert (await local.bring())["read"] == 1


async def test_credentials_that_end_stop_it_even_where_it_is_continuous(local: Ends) -> None:
    target = failing(local.target.peer, "write", Forbidden("No more"))
    local.one.put({"_id": "a"})
    with pytest.raises(Forbidden):
        await brought(local.source.peer, target, continuous=True)  # type: ignore[arg-type]


async def test_the_checkpoint_never_runs_ahead_of_the_target(local: Ends) -> None:
    local.one.bulk([{"_id": f"d{number}"} for number in range(3_000)])
    written = 0

    async def write(docs: Any, handles: Any) -> Any:
        nonlocal written
        written += 1
        if written == 3:
            raise Forbidden("Not this one")
        return await local.target.peer.write(docs, handles)

    target = Meddled(local.target.peer, write=write)
    with pytest.raises(Forbidden):
        await brought(local.source.peer, target)  # type: ignore[arg-type]
    assert (await local.bring())["state"] == "done"
    alike(local.one, local.other)


async def test_a_refused_document_is_counted_and_named_and_stops_nothing(tmp_path: Path) -> None:
    from feeds import StoreSettings

    with Store.open(tmp_path / "a") as a, Store.open(tmp_path / "b", StoreSettings(document_bytes_max=1000)) as b:
        one, other = a.create("geo"), b.create("geo")
        one.bulk([{"_id": f"d{number}", "text": "x" * (2000 if number == 7 else 10)} for number in range(20)])
        done = await replicate(one, other)
        assert (done["written"], done["refused"]) == (19, 1)
        assert [(each["id"], each["error"]) for each in done["refusals"]] == [("d7", "too_large")]
        assert (await replicate(one, other))["read"] == 0


async def test_a_source_without_checkpoints_is_gone_on_with_by_the_target_s(local: Ends) -> None:
    local.one.put({"_id": "a"})
    source = failing(local.source.peer, "save_checkpoint", *[Forbidden("read only")] * 9)
    for read in (1, 0):
        assert (await brought(source, local.target.peer))["read"] == read  # type: ignore[arg-type]


async def test_a_target_that_was_created_again_is_filled_again(ends: Ends) -> None:
    ends.one.bulk([{"_id": f"d{number}"} for number in range(10)])
    await ends.bring()
    ends.target.store.drop("geo")
    ends.other = ends.target.store.create("geo")
    assert (await ends.bring())["written"] == 10
    alike(ends.one, ends.other)


async def test_a_target_that_is_created_again_while_it_is_written_to_is_noticed(ends: Ends) -> None:
    ends.one.bulk([{"_id": f"d{number}"} for number in range(2_000)])
    peer, again = ends.target.peer, False

    async def write(docs: Any, handles: Any) -> Any:
        nonlocal again
        done = await peer.write(docs, handles)
        if not again:
            again = True
            ends.target.store.drop("geo")
            ends.other = ends.target.store.create("geo")
        return done

    done = await brought(ends.source.peer, Meddled(peer, write=write))  # type: ignore[arg-type]
    assert done["retries"] == 1
    alike(ends.one, ends.other)


@pytest.mark.parametrize("side", ["both", "target only"])
async def test_a_target_that_is_created_again_between_two_checkpoints_is_filled_again(local: Ends, side: str) -> None:
    """What the new life is told by a session of the old one is not where that session's earlier records went on."""
    local.one.bulk([{"_id": f"d{number}"} for number in range(1_000)])
    peer, written = local.target.peer, 0

    async def write(docs: Any, handles: Any) -> Any:
        nonlocal written
        written += len(docs)
        if written == 1_000:
            await eventually(lambda: replicator.stats()["checkpoints"] == 1)
            local.target.store.drop("geo")
            local.other = local.target.store.create("geo")
        return await peer.write(docs, handles)

    source = local.source.peer
    if side == "target only":
        source = failing(source, "save_checkpoint", *[Forbidden("read only")] * 9)  # type: ignore[assignment]
    options = Options(in_flight=1, checkpoint_s=0.01, patience=QUICK)
    replicator = Replicator(source, Meddled(peer, write=write), options)  # type: ignore[arg-type]
    assert (await replicator.run())["state"] == "done"
    alike(local.one, local.other)


async def test_a_target_that_vanishes_is_waited_for_where_it_is_continuous(local: Ends) -> None:
    local.one.put({"_id": "a"})
    replicator = Replicator(local.source.peer, local.target.peer, Options(continuous=True, patience=QUICK))
    task = asyncio.create_task(replicator.run())
    await eventually(lambda: replicator.stats()["state"] == "idle")
    local.target.store.drop("geo")
    local.one.put({"_id": "b"})
    await eventually(lambda: replicator.stats()["state"] == "waiting")
    assert "geo" in replicator.stats()["reason"]
    other = local.target.store.create("geo")
    await eventually(lambda: other.head() == 2)
    replicator.stop()
    await task
    alike(local.one, other)


@pytest.mark.parametrize("side", ["source", "target"])
async def test_a_barrel_that_vanishes_while_a_content_goes_over_refuses_no_document(ends: Ends, side: str) -> None:
    ends.one.attach("a", "f", b"content")
    lost, peer = (ends.source, ends.source.peer) if side == "source" else (ends.target, ends.target.peer)

    async def write_blob(blob: Any, read: Any) -> str:
        lost.store.drop("geo")
        await peer.identity()
        raise AssertionError("it is there")

    replicator = Replicator(
        ends.source.peer,
        Meddled(ends.target.peer, write_blob=write_blob),
        Options(patience=QUICK),  # type: ignore[arg-type]
    )
    with pytest.raises(NotFound):
        await replicator.run()
    assert (replicator.stats()["state"], replicator.stats()["refused"]) == ("failed", 0)


async def test_a_source_that_was_created_again_is_told_whole_and_drops_nothing(ends: Ends) -> None:
    ends.one.put({"_id": "old"})
    await ends.bring()
    ends.source.store.drop("geo")
    ends.source.store.create("geo").put({"_id": "new"})
    await ends.bring()
    assert set(leaves(ends.other)) == {"old", "new"}


async def test_without_a_barrel_at_either_end_it_says_so(local: Ends) -> None:
    with pytest.raises(NotFound):
        await brought(LocalPeer(local.source.store, "never"), local.target.peer)
    with pytest.raises(NotFound):
        await brought(local.source.peer, LocalPeer(local.target.store, "never"), continuous=True)


async def test_a_checkpoint_that_others_write_all_the_time_ends_it(local: Ends) -> None:
    local.one.put({"_id": "a"})
    target = failing(local.target.peer, "save_checkpoint", *[Conflict()] * 50)
    with pytest.raises(Conflict):
        await brought(local.source.peer, target)  # type: ignore[arg-type]


async def test_changing_under_it_all_the_time_ends_it_in_the_end(local: Ends) -> None:
    local.one.put({"_id": "a"})
    target = failing(local.target.peer, "save_checkpoint", *[PeerChanged("again")] * 500)
    with pytest.raises(PeerChanged):
        await brought(local.source.peer, target)  # type: ignore[arg-type]


# -- many


@pytest.mark.parametrize("shape", ["ring", "star", "chain"])
async def test_whatever_the_shape_all_come_to_rest_alike(tmp_path: Path, shape: str) -> None:
    ways = {
        "ring": [(0, 1), (1, 2), (2, 0)],
        "star": [(0, 1), (1, 0), (0, 2), (2, 0)],
        "chain": [(0, 1), (1, 0), (1, 2), (2, 1)],
    }[shape]
    async with AsyncExitStack() as stack:
        all_ = [
            await stack.enter_async_context(subject(kind, tmp_path / str(number)))
            for number, kind in enumerate(KINDS)
        ]
        barrels = [each.barrel for each in all_]
        options = Options(continuous=True, patience=QUICK)
        made = [Replicator(all_[one].peer, all_[other].peer, options) for one, other in ways]
        tasks = [asyncio.create_task(each.run()) for each in made]
        chance = random.Random(7)
        for _ in range(60):
            await asyncio.to_thread(edit, chance, barrels, ["a", "b", "c/d"])

        async def at_rest() -> bool:
            heads = [barrel.head() for barrel in barrels]
            await asyncio.sleep(0.3)
            idle = all(each.stats()["state"] == "idle" for each in made)
            return idle and heads == [barrel.head() for barrel in barrels] and same()

        def same() -> bool:
            first = leaves(barrels[0])
            return all(leaves(other) == first for other in barrels[1:])

        await eventually(at_rest, 30)
        for each in made:
            each.stop()
        await asyncio.gather(*tasks)
        alike(*barrels)
