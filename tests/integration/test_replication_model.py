"""Random edits, deletions, conflicts and replications among four barrels, against a model of trees and unions."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from replication_tools import alike, brought
from store_tools import careless

from feeds import Barrel, Store
from listeners.replication import LocalPeer

BARRELS = 4
IDS = ["x", "y", "z/1"]

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

    def learn(self, other: Model) -> None:
        """Everything that another one knows."""
        for id, tree in other.trees.items():
            self.trees.setdefault(id, {}).update(tree)


class World:
    """Four barrels in two stores, each with its model."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.barrels: list[Barrel] = []
        self.models = [Model() for _ in range(BARRELS)]
        for number in range(2):
            store = stack.enter_context(Store.open(folder / str(number)))
            careless(store)
            self.barrels += [store.create("one"), store.create("other")]

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

    def agrees(self, at: int) -> None:
        """The barrel has the leaves of its model, in their order."""
        told = {row.id: row.changes for row in self.barrels[at].changes().results}
        assert told == {id: self.models[at].leaves(id) for id in self.models[at].trees}


numbers = st.integers(0, BARRELS - 1)
steps = st.one_of(
    st.tuples(st.just("edit"), numbers, st.sampled_from(IDS), st.integers(0, 3), st.integers(0, 2), st.booleans()),
    st.tuples(st.just("replicate"), numbers, numbers),
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(steps, max_size=25))
def test_whatever_happens_all_come_to_know_the_same(history: list[tuple[object, ...]]) -> None:
    with TemporaryDirectory() as folder, ExitStack() as stack:
        world = World(Path(folder), stack)
        asyncio.run(lived(world, history))


async def lived(world: World, history: list[tuple[object, ...]]) -> None:
    async with AsyncExitStack() as stack:
        peers = [LocalPeer(barrel.store, barrel.name) for barrel in world.barrels]
        for peer in peers:
            stack.push_async_callback(peer.close)

        async def replicate(one: int, other: int) -> None:
            if one != other:
                await brought(peers[one], peers[other])
                world.models[other].learn(world.models[one])
                world.agrees(other)

        for what, *given_ in history:
            if what == "edit":
                world.edit(*given_)  # type: ignore[arg-type]
            else:
                await replicate(*given_)  # type: ignore[arg-type]
        for _ in range(2):
            for at in range(BARRELS):
                await replicate(at, (at + 1) % BARRELS)
        alike(*world.barrels)
        heads = [barrel.head() for barrel in world.barrels]
        for at in range(BARRELS):
            await replicate(at, (at + 1) % BARRELS)
        assert heads == [barrel.head() for barrel in world.barrels]
