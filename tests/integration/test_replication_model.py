"""Random edits, deletions, conflicts, attachments and replications among four barrels, whole ones and of parts.

The model is trees and unions. Where barrels have a merge rule it would have to be a model of the rule: there only the
end is looked at.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from replication_tools import alike, brought
from store_tools import careless

from feeds import Barrel, Store
from listeners.replication import Filter, LocalPeer

BARRELS = 4
IDS = ["x", "y", "z/1"]
FILTERS = {
    "pattern": Filter.of(patterns=["value/1"]),
    "ids": Filter.of(ids=["y", "never"]),
    "selector": Filter.of(selector={"value": 1}),
    "another selector": Filter.of(selector={"value": {"$gt": 0}, "_attachments": {"$exists": False}}),
}
RULES: list[dict[str, str]] = [{"rule": "fields"}, {"rule": "newest", "field": "value"}]

Tree = dict[str, tuple[str | None, bool]]
"""By revision: its parent, and whether it is a deletion."""


class Model:
    """What one barrel knows, document by document."""

    def __init__(self) -> None:
        self.trees: dict[str, Tree] = {}

    def leaves(self, id: str) -> list[str]:
        """The leaves, winner first: live before deleted, then the greater generation, then the greater text."""
        tree = self.trees.get(id, {})
        parents = {parent for parent, _ in tree.values()}

        def order(rev: str) -> tuple[bool, int, str]:
            generation, _, digest = rev.partition("-")
            return not tree[rev][1], int(generation), digest

        return sorted((rev for rev in tree if rev not in parents), key=order, reverse=True)

    def learn(self, other: Model, id: str) -> None:
        """Everything that another one knows of a document."""
        if id in other.trees:
            self.trees.setdefault(id, {}).update(other.trees[id])


class World:
    """Four barrels in two stores, each with its model."""

    def __init__(self, folder: Path, stack: ExitStack, rule: dict[str, str] | None = None) -> None:
        self.barrels: list[Barrel] = []
        self.models = [Model() for _ in range(BARRELS)]
        for number in range(2):
            store = stack.enter_context(Store.open(folder / str(number)))
            careless(store)
            self.barrels += [store.create(name, {"merge": rule}) for name in ("one", "other")]

    def edit(self, at: int, id: str, leaf: int, value: int, deletes: bool) -> None:
        """Extend one of the leaves, or begin the document."""
        model, barrel = self.models[at], self.barrels[at]
        known = model.leaves(id)
        parent = known[leaf % len(known)] if known else None
        if deletes and (parent is None or model.trees[id][parent][1]):
            return
        doc = {"_id": id, "value": value, **({} if parent is None else {"_rev": parent})}
        written = barrel.delete(id, rev=parent) if deletes else barrel.put(doc)
        model.trees.setdefault(id, {})[written.rev] = (parent, deletes)

    def attach(self, at: int, id: str, leaf: int, name: str, content: bytes) -> None:
        """Attach something to one of the live leaves, or begin the document with it."""
        model, barrel = self.models[at], self.barrels[at]
        known = [rev for rev in model.leaves(id) if not model.trees[id][rev][1]]
        if not known and model.leaves(id):
            return
        parent = known[leaf % len(known)] if known else None
        written = barrel.attach(id, name, content, rev=parent)
        if not written.unchanged:
            model.trees.setdefault(id, {})[written.rev] = (parent, False)

    def agrees(self, at: int) -> None:
        """The barrel has the leaves of its model, in their order."""
        told = {row.id: row.changes for row in self.barrels[at].changes().results}
        assert told == {id: self.models[at].leaves(id) for id in self.models[at].trees}

    def learned_a_part(self, one: int, other: int, filter: Filter) -> None:
        """What is meant is all there; of what is not, everything or nothing is, and nothing new unless deleted."""
        source, target = self.models[one], self.models[other]
        rows = {row.id: row for row in self.barrels[other].changes().results}
        for id in source.trees:
            winner = source.leaves(id)[0]
            deleted = source.trees[id][winner][1]
            before = target.leaves(id)
            told = rows[id].changes if id in rows else []
            is_meant = not deleted and means(self.barrels[one], id, filter)
            if is_meant or told != before:
                target.learn(source, id)
            assert is_meant or deleted or told == before, (id, told, before)
        self.agrees(other)


def means(barrel: Barrel, id: str, filter: Filter) -> bool:
    """Whether a filter means a document as it is now."""
    if filter.ids is not None:
        return id in filter.ids
    doc = barrel.get(id)
    return doc.data.get("value") == 1 if filter.patterns else filter.fits(doc.json())


numbers = st.integers(0, BARRELS - 1)
edits = st.tuples(st.just("edit"), numbers, st.sampled_from(IDS), st.integers(0, 3), st.integers(0, 2), st.booleans())
attachments = st.tuples(
    *(st.just("attach"), numbers, st.sampled_from(IDS), st.integers(0, 3)),
    *(st.sampled_from("ab"), st.sampled_from([b"x", b"y"])),
)
replications = st.tuples(st.just("replicate"), numbers, numbers)
parts = st.tuples(st.just("part"), numbers, numbers, st.sampled_from(list(FILTERS)))
histories = st.lists(st.one_of(edits, attachments, replications, parts), max_size=25)
careful = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))


@careful
@given(histories)
def test_whatever_happens_all_come_to_know_the_same(history: list[tuple[Any, ...]]) -> None:
    with TemporaryDirectory() as folder, ExitStack() as stack:
        asyncio.run(lived(World(Path(folder), stack), history))


async def lived(world: World, history: list[tuple[Any, ...]]) -> None:
    async with AsyncExitStack() as stack:
        peers = await opened(world, stack)

        async def replicate(one: int, other: int) -> None:
            if one != other:
                await brought(peers[one], peers[other])
                for id in world.models[one].trees:
                    world.models[other].learn(world.models[one], id)
                world.agrees(other)

        for what, *given_ in history:
            if what == "edit":
                world.edit(*given_)
            elif what == "attach":
                world.attach(*given_)
            elif what == "replicate":
                await replicate(*given_)
            elif given_[0] != given_[1]:
                one, other, name = given_
                await brought(peers[one], peers[other], filter=FILTERS[name])
                world.learned_a_part(one, other, FILTERS[name])
        for _ in range(2):
            for at in range(BARRELS):
                await replicate(at, (at + 1) % BARRELS)
        alike(*world.barrels)
        heads = [barrel.head() for barrel in world.barrels]
        for at in range(BARRELS):
            await replicate(at, (at + 1) % BARRELS)
        assert heads == [barrel.head() for barrel in world.barrels]


async def opened(world: World, stack: AsyncExitStack) -> list[LocalPeer]:
    peers = [LocalPeer(barrel.store, barrel.name) for barrel in world.barrels]
    for peer in peers:
        stack.push_async_callback(peer.close)
    return peers


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["rule"])
def test_barrels_with_a_merge_rule_come_to_the_same_without_conflicts(rule: dict[str, str]) -> None:
    @careful
    @given(histories)
    def check(history: list[tuple[Any, ...]]) -> None:
        with TemporaryDirectory() as folder, ExitStack() as stack:
            asyncio.run(settled(World(Path(folder), stack, rule), history))

    check()


async def settled(world: World, history: list[tuple[Any, ...]]) -> None:
    async with AsyncExitStack() as stack:
        peers = await opened(world, stack)

        def edit(at: int, id: str, leaf: int, value: int, deletes: bool) -> None:
            known = {row.id: row for row in world.barrels[at].changes().results}.get(id)
            if deletes and known is not None and not known.deleted:
                world.barrels[at].delete(id, rev=known.rev)
            elif not deletes:
                world.barrels[at].put({"_id": id, "value": value, f"key-{leaf}": value}, update=True)

        async def around() -> int:
            done = [await brought(peers[at], peers[(at + 1) % BARRELS]) for at in range(BARRELS)]
            return sum(each["written"] for each in done)

        for what, *given_ in history:
            if what == "edit":
                edit(*given_)
            elif what == "attach":
                at, id, _, name, content = given_
                world.barrels[at].attach(id, name, content)
            elif given_[0] != given_[1]:
                filter = FILTERS[given_[2]] if what == "part" else Filter()
                await brought(peers[given_[0]], peers[given_[1]], filter=filter)
        for _ in range(10):
            if not await around():
                break
        else:
            pytest.fail("they exchange for ever")
        alike(*world.barrels)
        assert [barrel.conflicts.page().results for barrel in world.barrels] == [[]] * BARRELS
