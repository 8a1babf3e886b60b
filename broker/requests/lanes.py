"""Order within one client: its writes reach the writer as they came, its reads see what it wrote before.

A large body is read on a thread; what the same client sends meanwhile waits for it here, and nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager

from feeds import Outcome


class Lane:
    """One client's requests in work. `turn` is fair: it goes round in order of arrival."""

    __slots__ = ("last", "turn", "users")

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.users = 0
        self.last: Future[list[Outcome]] | None = None


class Lanes:
    """The lanes of all clients that have requests in work."""

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}

    def __len__(self) -> int:
        return len(self._lanes)

    @contextmanager
    def lane(self, name: str) -> Iterator[Lane]:
        """The client's lane, to be held for as long as its request is in work.

        Whoever takes its `turn` before anything else is awaited has it in order of arrival.
        """
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane()
        lane.users += 1
        try:
            yield lane
        finally:
            lane.users -= 1
            if not lane.users:
                del self._lanes[name]

    @asynccontextmanager
    async def after_writes(self, name: str) -> AsyncIterator[None]:
        """Enter when all that the client wrote before is committed or refused."""
        with self.lane(name) as lane:
            async with lane.turn:
                last = lane.last
            if last is not None and not last.done():
                settled = asyncio.wrap_future(last)
                settled.add_done_callback(_look_at)
                await asyncio.wait([settled])
            yield


async def outcomes_of(future: Future[list[Outcome]]) -> list[Outcome]:
    """Wait for the writer. Who is cancelled meanwhile leaves the write alone: it is on its way to disk."""
    return await asyncio.shield(asyncio.wrap_future(future))


def _look_at(settled: asyncio.Future[list[Outcome]]) -> None:
    """How the write ended is told to whoever wrote."""
    if not settled.cancelled():
        settled.exception()
