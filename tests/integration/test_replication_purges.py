"""Documents that left the filter and are purged at the target: what is taken, what stays, and what is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from http_tools import eventually
from replication_tools import KINDS, QUICK, Subject, brought, leaves, subject
from store_tools import replicate, revisions

from feeds.errors import Forbidden, NotFound, Overloaded, SpileError, Unavailable
from listeners.replication import Filter, Options, Replicator
from listeners.replication.peer import Differences

IN = Filter.of(patterns=["n/1"])


@pytest.fixture(params=KINDS)
async def ends(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Subject, Subject]]:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(subject("local", tmp_path / "a"))
        other = await stack.enter_async_context(subject(request.param, tmp_path / "b"))
        yield one, other


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[tuple[Subject, Subject]]:
    async with subject("local", tmp_path / "a") as one, subject("local", tmp_path / "b") as other:
        yield one, other


class Purging:
    """A target that does something of its own before a purge, or instead of it."""

    def __init__(self, peer: Any, before: Any) -> None:
        self._peer = peer
        self._before = before
        self.asked: list[dict[str, list[str]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._peer, name)

    async def purge(self, revs: Mapping[str, Sequence[str]]) -> Mapping[str, SpileError]:
        self.asked.append({id: list(each) for id, each in revs.items()})
        told: Mapping[str, SpileError] | None = self._before(revs)
        return await self._peer.purge(revs) if told is None else told


async def filled(one: Subject, other: Subject) -> None:
    """Two documents that went over, and left the filter then."""
    one.barrel.bulk([{"_id": "a", "n": 1}, {"_id": "b", "n": 1}])
    await brought(one.peer, other.peer, filter=IN)
    for id in "ab":
        one.barrel.put({"_id": id, "n": 2}, update=True)


async def test_what_left_is_purged_and_counted(ends: tuple[Subject, Subject]) -> None:
    one, other = ends
    await filled(one, other)
    done = await brought(one.peer, other.peer, filter=IN, leaves="purge")
    assert (done["left"], done["purged"], done["refused"]) == (2, 2, 0)
    assert leaves(other.barrel) == {}


async def test_what_never_was_at_the_target_is_no_purge(ends: tuple[Subject, Subject]) -> None:
    one, other = ends
    await brought(one.peer, other.peer, filter=IN)
    one.barrel.put({"_id": "a", "n": 1})
    one.barrel.put({"_id": "a", "n": 2}, update=True)
    done = await brought(one.peer, other.peer, filter=IN, leaves="purge")
    assert (done["left"], done["purged"], done["refused"]) == (1, 0, 0)


async def test_beside_what_others_wrote_only_ours_is_taken(ends: tuple[Subject, Subject]) -> None:
    """What stands upon one of the source's revisions by now stays with it; a leaf of the source's goes."""
    one, other = ends
    for end in one, other:
        replicate(end.barrel, revisions("a", "bb", n=1), revisions("a", "cc", n=1))
    other.barrel.put({"_id": "a", "_rev": "1-bb", "mine": True})
    await brought(one.peer, other.peer, filter=IN)
    one.barrel.put({"_id": "a", "n": 2}, update=True)
    one.barrel.delete("a", rev="1-bb")
    done = await brought(one.peer, other.peer, filter=IN, leaves="purge")
    assert (done["purged"], done["refused"]) == (1, 0)
    assert [data.get("mine") for _, _, data in leaves(other.barrel)["a"]] == [True]


async def test_a_leaf_that_is_none_any_more_is_followed_by_what_is_there_now(local: tuple[Subject, Subject]) -> None:
    """Another replicator brings the source's newest revision between the question and the purge."""
    one, other = local
    await filled(one, other)
    newest = one.barrel.get("a").rev

    def brings(revs: Mapping[str, Sequence[str]]) -> None:
        if newest not in revs.get("a", ()):
            first = one.barrel.get("a", revs=True)
            other.barrel.bulk([first.data], new_edits=False)

    target = Purging(other.peer, brings)
    done = await brought(one.peer, target, filter=IN, leaves="purge")  # type: ignore[arg-type]
    assert [each.get("a") for each in target.asked][-1] == [newest]
    assert (done["purged"], done["refused"]) == (2, 0)
    assert leaves(other.barrel) == {}


async def test_one_that_changes_whenever_it_is_purged_is_named(local: tuple[Subject, Subject]) -> None:
    one, other = local
    await filled(one, other)
    number = 0

    def hurries(revs: Mapping[str, Sequence[str]]) -> None:
        nonlocal number
        number += 1
        rev = revs["a"][0]
        other.barrel.put({"_id": "a", "_rev": rev, "again": number})
        one.barrel.bulk([other.barrel.get("a", revs=True).data], new_edits=False)  # which is the source's by now

    target = Purging(other.peer, hurries)
    done = await brought(one.peer, target, filter=IN, leaves="purge")  # type: ignore[arg-type]
    assert (done["purged"], done["refused"], number) == (1, 1, 3)
    assert [(each["id"], each["error"]) for each in done["refusals"]] == [("a", "conflict")]
    assert set(leaves(other.barrel)) == {"a"}


async def test_one_that_may_not_be_purged_is_named_and_the_others_go(local: tuple[Subject, Subject]) -> None:
    one, other = local
    await filled(one, other)

    def forbids(revs: Mapping[str, Sequence[str]]) -> Mapping[str, SpileError] | None:
        if "a" not in revs:
            return None
        other.barrel.purge("b")
        return {"a": Forbidden("Not this one")}

    done = await brought(one.peer, Purging(other.peer, forbids), filter=IN, leaves="purge")  # type: ignore[arg-type]
    assert (done["purged"], done["refused"]) == (1, 1)
    assert [(each["id"], each["reason"]) for each in done["refusals"]] == [("a", "Not this one")]


async def test_a_purge_of_which_the_answer_was_lost_counts_all_the_same(local: tuple[Subject, Subject]) -> None:
    one, other = local
    await filled(one, other)
    lost = [Unavailable("The link is cut")]

    def loses(revs: Mapping[str, Sequence[str]]) -> None:
        if lost:
            other.barrel.purge("a")
            raise lost.pop()

    done = await brought(one.peer, Purging(other.peer, loses), filter=IN, leaves="purge")  # type: ignore[arg-type]
    assert (done["purged"], done["refused"], done["retries"]) == (2, 0, 1)


async def test_what_is_still_there_after_it_was_purged_is_named(local: tuple[Subject, Subject]) -> None:
    """A target that says so without having done it, or says that nothing is there, is not asked for ever."""
    one, other = local
    await filled(one, other)
    target = Purging(other.peer, lambda revs: {"b": NotFound("Nothing there")} if "b" in revs else {})
    done = await brought(one.peer, target, filter=IN, leaves="purge")  # type: ignore[arg-type]
    assert (done["purged"], done["refused"], len(target.asked)) == (0, 2, 1)
    assert {each["id"]: "still there" in each["reason"] for each in done["refusals"]} == {"a": True, "b": True}


async def test_a_target_that_answers_about_other_documents_is_not_listened_to(local: tuple[Subject, Subject]) -> None:
    one, other = local
    await filled(one, other)

    class Rambling(Purging):
        async def revs_diff(self, asked: Mapping[str, Sequence[str]]) -> Differences:
            return {**await self._peer.revs_diff(asked), "other": (["1-a"], ["1-b"])}

    target = Rambling(other.peer, lambda revs: None)
    done = await brought(one.peer, target, filter=IN, leaves="purge")  # type: ignore[arg-type]
    assert (done["purged"], done["refused"]) == (2, 0)


async def test_what_comes_back_into_the_filter_is_there_afterwards(local: tuple[Subject, Subject]) -> None:
    """It comes while its leaving is still seen to: what is told later is not overtaken by the purge."""
    one, other = local
    one.barrel.put({"_id": "a", "n": 1})
    await brought(one.peer, other.peer, filter=IN)
    came_back = asyncio.Event()

    class Slow(Purging):
        async def revs_diff(self, asked: Mapping[str, Sequence[str]]) -> Differences:
            if not came_back.is_set():
                came_back.set()
                one.barrel.put({"_id": "a", "n": 1, "back": True}, update=True)
                with suppress(TimeoutError):  # it must not get there, and would at once
                    await eventually(lambda: "back" in leaves(other.barrel)["a"][0][2], 0.7)
            return await self._peer.revs_diff(asked)

    one.barrel.put({"_id": "a", "n": 2}, update=True)
    options = Options(filter=IN, leaves="purge", continuous=True, patience=QUICK)
    replicator = Replicator(one.peer, Slow(other.peer, lambda revs: None), options)  # type: ignore[arg-type]
    running = asyncio.create_task(replicator.run())
    try:
        await eventually(lambda: came_back.is_set() and replicator.stats()["position"] == one.barrel.position(3))
        assert [data.get("back") for _, _, data in leaves(other.barrel)["a"]] == [True]
    finally:
        replicator.stop()
        await running


async def test_many_that_left_are_purged(ends: tuple[Subject, Subject]) -> None:
    one, other = ends
    one.barrel.bulk([{"_id": f"d{number}", "n": 1} for number in range(250)])
    await brought(one.peer, other.peer, filter=IN)
    one.barrel.bulk([{"_id": f"d{number}", "n": 2} for number in range(249)], update=True)
    done = await brought(one.peer, other.peer, filter=IN, leaves="purge")
    assert (done["purged"], done["refused"]) == (249, 0)
    assert set(leaves(other.barrel)) == {"d249"}


async def test_a_purge_that_cannot_be_done_now_is_tried_again(local: tuple[Subject, Subject]) -> None:
    one, other = local
    await filled(one, other)
    busy: list[SpileError] = [Overloaded("Later")]
    target = Purging(other.peer, lambda revs: {"a": busy.pop()} if busy else None)
    done = await brought(one.peer, target, filter=IN, leaves="purge")  # type: ignore[arg-type]
    assert (done["purged"], done["refused"], done["retries"]) == (2, 0, 1)
    assert leaves(other.barrel) == {}
