"""The peers that a service knows by name: opened when they are asked for, kept open, closed when others need room."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol, runtime_checkable

from feeds.errors import NotFound
from listeners.nested.places import PeerPlace
from listeners.replication.opening import opened_peer
from listeners.replication.peer import Identity, Peer

OPEN_MAX = 128
"""Peers kept open, one for each barrel and name: each has some connections at most."""
IDENTITY_S = 30.0
"""Who a peer is, is asked again after that; what depends on it is only whom a call goes to, and how it is named."""


@runtime_checkable
class Asking(Protocol):
    """A peer that can be asked for more than replication needs."""

    async def ask(self, call: str, body: bytes) -> bytes:
        """The JSON that a call by name is answered with."""
        ...


class Neighbour:
    """A named peer before one barrel."""

    def __init__(self, name: str, peer: Peer) -> None:
        self.name = name
        self.peer = peer
        self._identity: tuple[float, Identity] | None = None

    async def identity(self) -> Identity:
        """Who it is, as of the last half minute."""
        now = asyncio.get_running_loop().time()
        if self._identity is None or self._identity[0] < now - IDENTITY_S:
            self._identity = now, await self.peer.identity()
        return self._identity[1]

    @property
    def asking(self) -> Asking | None:
        """The peer, if it can be asked for nested calls."""
        return self.peer if isinstance(self.peer, Asking) else None


class _Held:
    """An open one, and how many use it."""

    def __init__(self) -> None:
        self.neighbour: Neighbour | None = None
        self.stack = AsyncExitStack()
        self.opening = asyncio.Lock()
        self.users = 0


class Neighbours:
    """All of them. To be used on one event loop."""

    def __init__(self, places: Mapping[str, PeerPlace | Peer]) -> None:
        """By name, in the order in which they are asked. Peers that are given as they are stay the caller's."""
        self._places = dict(places)
        self._held: OrderedDict[tuple[str, str], _Held] = OrderedDict()

    @classmethod
    def of(cls, texts: Iterable[str]) -> Neighbours:
        """From `NAME=URL` each; BadRequest for what names none."""
        return cls({place.name: place for place in map(PeerPlace.parse, texts)})

    def names(self, chosen: Iterable[str] | None) -> list[str]:
        """Those of a barrel: the ones it chose, else all; each once."""
        return list(dict.fromkeys(self._places if chosen is None else chosen))

    @asynccontextmanager
    async def at(self, name: str, barrel: str) -> AsyncIterator[Neighbour]:
        """The peer of this name before a barrel; NotFound where the service knows none."""
        place = self._places.get(name)
        if place is None:
            raise NotFound(f"No peer is called {name!r}", hint="Name it in the service's setting `peers`.")
        if not isinstance(place, PeerPlace):
            yield Neighbour(name, place)
            return
        key = (name, barrel)
        held = self._held.setdefault(key, _Held())
        self._held.move_to_end(key)
        held.users += 1
        try:
            async with held.opening:
                if held.neighbour is None:
                    peer = await held.stack.enter_async_context(opened_peer(place.at(barrel), token=place.token))
                    held.neighbour = Neighbour(name, peer)
            yield held.neighbour
        finally:
            held.users -= 1
            await self._make_room()

    async def close(self) -> None:
        """Close all of them."""
        while self._held:
            await self._held.popitem()[1].stack.aclose()

    async def _make_room(self) -> None:
        while len(self._held) > OPEN_MAX:
            # Looked up each time: while one is closed, others are taken into use, and closed by others.
            idle = next((key for key, held in self._held.items() if not held.users), None)
            if idle is None:
                return
            await self._held.pop(idle).stack.aclose()
