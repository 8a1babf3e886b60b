"""A write that is passed on: to one's own peers first, then by them to theirs, until enough have it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import msgspec

from feeds.errors import SpileError, StorageFull, Timeout, Unavailable
from listeners.nested.bringing import brought, is_small, persistent, written
from listeners.nested.messages import (
    HERE,
    SEEN_MAX,
    TOLD_MAX,
    Holder,
    Miss,
    WriteAsked,
    WriteTold,
    below,
    key_of,
    missed_below,
    read_told,
)
from listeners.nested.moving import carry_out
from listeners.nested.neighbours import Neighbour, Neighbours
from listeners.nested.planning import Move, Plan
from listeners.nested.reach import Reach
from listeners.replication.peer import Fetched, Peer, Wanted
from listeners.replication.progress import Progress

PASSED_ON = 0.9
"""Of the time that is left: the rest is for the answer, so that it comes before nobody waits for it any more."""

_encode = msgspec.json.Encoder().encode


class Passing:
    """One revision on its way."""

    def __init__(
        self, here: Holder, source: Peer, neighbours: Neighbours, id: str, rev: str, reach: Reach, seen: Sequence[str]
    ) -> None:
        self._source = source
        self._neighbours = neighbours
        self._id = id
        self._rev = rev
        self._reach = reach
        self._seen = set(seen)
        self._here = here
        self._holders = {here.key: here}
        self._failed: list[Miss] = []
        self._small: Fetched | None = None
        self._progress: dict[str, Progress] = {}
        self._deadline = asyncio.get_running_loop().time() + reach.seconds

    async def run(self, plan: Plan) -> WriteTold:
        """Pass it on as planned; what came of it, however little."""
        self._plan = plan
        if plan.waiting and self._missing:
            (found,) = await self._source.fetch([Wanted(self._id, self._rev)])
            self._small = found if isinstance(found, Fetched) and is_small(found) else None
        await carry_out(plan, self._make, self._room, self._deadline)
        if self._missing:
            for move in plan.in_flight:
                self._fail(move, Timeout("No answer came in the time that was given."))
            for move in plan.waiting:
                self._fail(move, Timeout("There was no time left to ask."))
        return WriteTold(
            self._reach.wanted,
            len(self._holders),
            not self._missing,
            list(self._holders.values())[:TOLD_MAX],
            self._failed[:TOLD_MAX],
        )

    @property
    def _missing(self) -> int:
        return max(0, self._reach.wanted - len(self._holders))

    def _room(self) -> tuple[int, int]:
        """One far one at a time: each is told who has it by then, so that no barrel is counted on twice."""
        return self._missing, min(1, self._missing)

    async def _make(self, move: Move) -> None:
        try:
            async with self._neighbours.at(move.peer, self._here.barrel) as neighbour:
                await (self._spread(neighbour) if move.beyond else self._send(neighbour))
        except SpileError as error:
            self._fail(move, error)

    async def _send(self, neighbour: Neighbour) -> None:
        """Write it there."""
        name = neighbour.name
        who = await persistent(neighbour.identity)
        holder = Holder(name, who.store, who.barrel)
        if holder.key in self._seen or holder.key in self._holders:
            return
        if self._small is not None:
            refusal = await written(neighbour.peer, self._small, self._begun(name))
        else:
            refusal = await brought(self._source, neighbour.peer, self._id, self._rev, self._begun(name))
        if refusal is not None:
            self._failed.append(Miss(name, "write", *refusal))
            return
        self._holders.setdefault(holder.key, holder)
        if self._reach.depth > 1 and neighbour.asking is not None:
            self._plan.go_beyond(name)

    async def _spread(self, neighbour: Neighbour) -> None:
        """Have it passed on from there."""
        asking = neighbour.asking
        who = await persistent(neighbour.identity)
        seen = self._seen | self._holders.keys() - {key_of(who.store, who.barrel)}
        left_s = self._deadline - asyncio.get_running_loop().time()
        if asking is None or left_s <= 0:
            return
        asked = WriteAsked(
            self._id,
            self._rev,
            self._missing + 1,
            self._reach.depth - 1,
            int(left_s * PASSED_ON * 1000),
            sorted(seen)[:SEEN_MAX],
        )
        told = read_told(await persistent(lambda: asking.ask("p2p_write", _encode(asked))), WriteTold, neighbour.name)
        for holder in told.holders[:TOLD_MAX]:
            if holder.peer != HERE and holder.key not in self._seen:
                self._holders.setdefault(holder.key, below(neighbour.name, holder))
        self._failed += [missed_below(neighbour.name, miss) for miss in told.failed[:TOLD_MAX]]

    def _begun(self, name: str) -> Progress:
        return self._progress.setdefault(name, Progress(time.monotonic))

    def _fail(self, move: Move, error: SpileError) -> None:
        progress = self._progress.get(move.peer)
        was_sent = not move.beyond and progress is not None and progress.sent > 0
        unknown = was_sent and isinstance(error, (Timeout, Unavailable)) and not isinstance(error, StorageFull)
        step = "pass_on" if move.beyond else "write"
        self._failed.append(Miss(move.peer, step, error.code, error.reason, unknown))
