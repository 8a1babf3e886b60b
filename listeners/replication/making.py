"""Making the barrel that is replicated to, where that is asked for."""

from __future__ import annotations

import asyncio

from feeds.errors import NotFound
from listeners.replication.peer import Peer, Told
from listeners.replication.retrying import Patience, persistently


async def make_sure_of(target: Peer, patience: Patience, told: Told, stop: asyncio.Event | None = None) -> None:
    """Make the barrel if it is not there; a target that is away is waited for."""

    async def once() -> None:
        try:
            await target.identity()
        except NotFound:
            await target.create()

    await persistently(once, patience, told, stop)
