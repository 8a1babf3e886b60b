"""From what somebody names to a peer, with what it needs while it lasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

from feeds.barrel import Barrel
from feeds.store import Store
from listeners.links.address import Address, StorePlace, parse_address
from listeners.replication.detecting import DetectingPeer
from listeners.replication.local import LocalPeer
from listeners.replication.options import Options
from listeners.replication.over_mqtt import MqttPeer
from listeners.replication.peer import Peer
from listeners.replication.replicator import Pair, Replicator

Place: TypeAlias = "str | Path | Barrel"


@asynccontextmanager
async def opened_peer(place: Place, *, token: str | None = None) -> AsyncIterator[Peer]:
    """The peer at `http(s)://HOST:PORT/[PATH/]BARREL` (a Spile or a CouchDB) or `mqtt(s)://HOST:PORT/[PREFIX/]BARREL`,
    of a `Barrel`, or of a store that is opened for it (`FOLDER#BARREL`, `sqlite:///…#BARREL`). BadRequest for what
    names none."""
    peer: Peer
    if isinstance(place, Barrel):
        peer = LocalPeer(place.store, place.name)
        try:
            yield peer
        finally:
            await peer.close()
        return
    parsed = parse_address(str(place))
    if isinstance(parsed, StorePlace):
        loop = asyncio.get_running_loop()
        target = parsed
        store = await loop.run_in_executor(None, lambda: Store.open(target.store, create=False))
        try:
            async with opened_peer(store.barrel(parsed.barrel)) as peer:
                yield peer
        finally:
            await loop.run_in_executor(None, store.close)
        return
    peer = _elsewhere(parsed, token)
    try:
        yield peer
    finally:
        await peer.close()


def _elsewhere(address: Address, token: str | None) -> Peer:
    if address.kind == "mqtt":
        return MqttPeer(address, token=token)
    return DetectingPeer(address, token=token)


async def replicate(
    source: Place,
    target: Place,
    options: Options | None = None,
    *,
    both: bool = False,
    source_token: str | None = None,
    target_token: str | None = None,
) -> dict[str, Any]:
    """Replicate, and give `stats` in the end; with `both` there and back."""
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(opened_peer(source, token=source_token))
        other = await stack.enter_async_context(opened_peer(target, token=target_token))
        return await (Pair if both else Replicator)(one, other, options).run()
