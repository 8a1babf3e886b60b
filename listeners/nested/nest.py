"""Nested calls of one store: the documents here, the peers around, and a bound on how many calls are in work."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from feeds.barrel import Barrel
from feeds.errors import Deleted, NotFound, Overloaded
from feeds.store import Store
from feeds.writes import Token, Written
from listeners.nested.messages import HERE, Holder, ReadTold, WriteTold
from listeners.nested.neighbours import Neighbours
from listeners.nested.passing import Passing
from listeners.nested.planning import HESITATES_S, Plan
from listeners.nested.reach import Reach, Search
from listeners.nested.seeking import Seeking, not_found
from listeners.replication.local import LocalPeer

IN_WORK_MAX = 64
"""Nested calls at once: each may hold a document, and wait for others for as long as its time lasts."""


class WrittenOn(msgspec.Struct, frozen=True):
    """What was written here, and whoever else has it."""

    written: Written
    told: WriteTold


class Nest:
    """To be used on one event loop. What blocks runs on threads."""

    def __init__(
        self,
        store: Store,
        neighbours: Neighbours | None = None,
        *,
        in_work_max: int = IN_WORK_MAX,
        hesitates_s: float = HESITATES_S,
    ) -> None:
        """The store stays the caller's; the neighbours are closed with the nest."""
        self._store = store
        self._neighbours = neighbours or Neighbours({})
        self._in_work_max = in_work_max
        self._hesitates_s = hesitates_s
        self._in_work = 0
        self._refused = 0
        self._counts = {"writes": 0, "complete": 0, "reads": 0, "found": 0, "kept": 0}

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place among the calls in work, taken before anything is done; Overloaded where there is none."""
        if self._in_work >= self._in_work_max:
            self._refused += 1
            raise Overloaded(f"{self._in_work} nested calls are in work, as many as may be.")
        self._in_work += 1
        try:
            yield
        finally:
            self._in_work -= 1

    # -- for programs

    async def write(
        self,
        barrel: str,
        doc: bytes | str | Mapping[str, Any],
        reach: Reach,
        *,
        id: str | None = None,
        rev: str | None = None,
        update: bool = False,
        token: Token | None = None,
    ) -> WrittenOn:
        """Write a document here as `Barrel.put` does, and pass it on. Raises only what refuses it here."""
        with self.place():
            held = self._store.barrel(barrel)
            written = await asyncio.to_thread(held.put, doc, id=id, rev=rev, update=update, token=token)
            return WrittenOn(written, await self.pass_on(held, written.id, written.rev, reach))

    async def read(self, barrel: str, id: str, search: Search, *, rev: str | None = None) -> tuple[bytes, ReadTold]:
        """A document as JSON, and whose it is. Missing and Deleted tell in `p2p` who was asked."""
        held = self._store.barrel(barrel)
        with self.place():
            told = await self.look(held, id, rev, search)
        if not isinstance(told.doc, msgspec.Raw):
            raise not_found(id, told)
        return bytes(told.doc), told

    # -- for whoever took a place

    async def pass_on(self, barrel: Barrel, id: str, rev: str, reach: Reach, seen: Sequence[str] = ()) -> WriteTold:
        """Bring a revision that is here to as many as are wanted; `seen` are those that are not to be asked."""
        here = self._holder(barrel)
        self._counts["writes"] += 1
        if here.key in seen:  # it went through here already
            return WriteTold(reach.wanted, 1, reach.wanted <= 1, [here], [])
        source = LocalPeer(self._store, barrel.name)
        try:
            passing = Passing(here, source, self._neighbours, id, rev, reach, seen)
            told = await passing.run(self._plan(barrel))
        finally:
            await source.close()
        self._counts["complete"] += told.complete
        return told

    async def look(
        self, barrel: Barrel, id: str, rev: str | None, search: Search, seen: Sequence[str] = ()
    ) -> ReadTold:
        """A document from here, else from the peers; whether there is one or not, what came of it."""
        try:
            document = await asyncio.to_thread(lambda: barrel.get(id, rev=rev, revs=True))
        except NotFound as error:
            here = self._holder(barrel)
            is_deleted = isinstance(error, Deleted)
            if is_deleted or search.depth == 0 or here.key in seen:
                return ReadTold([], [], deleted=is_deleted, peer=HERE)
            return await self.look_further(barrel, id, rev, search, seen)
        return ReadTold([], [], msgspec.Raw(document.json()), peer=HERE)

    async def look_further(
        self, barrel: Barrel, id: str, rev: str | None, search: Search, seen: Sequence[str] = ()
    ) -> ReadTold:
        """A document that is not here, from the peers."""
        self._counts["reads"] += 1
        into = LocalPeer(self._store, barrel.name)
        try:
            seeking = Seeking(self._holder(barrel), self._neighbours, id, rev, search, seen)
            told = await seeking.run(self._plan(barrel), into)
        finally:
            await into.close()
        self._counts["found"] += told.is_found
        self._counts["kept"] += bool(told.kept)
        return told

    def stats(self) -> dict[str, Any]:
        """Calls in work, and what was done since the start."""
        depth = {"nested_calls": self._in_work}
        return {
            "depth": depth,
            "limit": {"nested_calls": self._in_work_max},
            "refused": {"nested_calls": self._refused},
            **self._counts,
        }

    async def close(self) -> None:
        """Let go of the peers."""
        await self._neighbours.close()

    def _plan(self, barrel: Barrel) -> Plan:
        return Plan(self._neighbours.names(barrel.settings.peers), self._hesitates_s)

    def _holder(self, barrel: Barrel) -> Holder:
        return Holder(HERE, self._store.id, barrel.name)
