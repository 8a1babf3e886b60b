"""Replicating in a command: where its ends are, and how it runs until it is done or interrupted."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from broker.cli.direct import open_store
from broker.cli.progress import ShownProgress
from broker.cli.urls import barrel_url, service_url
from broker.replication.reports import Direction, direction, summed
from feeds import Store
from feeds.barrels import check_barrel_name
from feeds.errors import SpileError
from listeners.links.address import Address, StorePlace, parse_address
from listeners.replication import LocalPeer, Options, Pair, Peer, Replicator, opened_peer
from listeners.replication.making import make_sure_of

SHOW_S = 0.2


@dataclass(frozen=True, slots=True)
class End:
    """Where an end is: a URL, or a barrel of a store that is opened for it."""

    place: str | StorePlace
    token: str | None = None

    def __str__(self) -> str:
        """The end as it may be shown."""
        if isinstance(self.place, StorePlace):
            return f"{_without_login(self.place.store)}#{self.place.barrel}"
        return _without_login(self.place)


def end_of(place: str, token: str | None, url: str | None, database: str | None) -> End:
    """The end that somebody names: a URL, `FOLDER#BARREL`, or a barrel of the service or store that the command is
    about. BadRequest for what names none."""
    if "://" in place or "#" in place:
        parsed = parse_address(place)
        if isinstance(parsed, Address):
            return End(place, token or _own_token(place, url))
        return End(parsed)
    check_barrel_name(place)
    if database is not None:
        return End(StorePlace(database, place))
    return End(barrel_url(service_url(url), place), token or os.environ.get("SPILE_TOKEN"))


@dataclass(slots=True)
class Replicating:
    """A replication in this process, from its making to its end."""

    source: End
    target: End
    options: Options
    both: bool
    create_target: bool
    work: Replicator | Pair | None = None
    interrupted: bool = False
    began: float = field(default_factory=time.monotonic)
    _reason: str | None = field(default=None)

    async def run(self, shown: ShownProgress) -> None:
        """Until it is done, or interrupted: what is on its way arrives then, and is recorded. The second
        interruption ends it at once. Raises what it ends by."""
        async with opened_ends(self.source, self.target, create=self.create_target) as (source, target):
            task = asyncio.create_task(self._run(source, target), name="spile-replicate")
            with _interrupting(lambda: self._interrupt(task)):
                while not task.done():
                    self._show(shown)
                    await asyncio.wait([task], timeout=SHOW_S)
            self._show(shown)
            if not (self.interrupted and task.cancelled()):
                await task

    @property
    def done(self) -> dict[str, Any]:
        """What was done in all, as it is printed."""
        sums = summed(self.directions)
        seconds = time.monotonic() - self.began
        sums["rate"] = round(sums["written"] / seconds)
        return {"source": str(self.source), "target": str(self.target), **sums, "seconds": round(seconds, 3)}

    @property
    def directions(self) -> list[Direction]:
        """What was done in each direction."""
        if self.work is None:
            return []
        if isinstance(self.work, Replicator):
            return [direction(str(self.source), str(self.target), self.work.stats(), None)]
        return [
            direction(str(self.source), str(self.target), self.work.there.stats(), None),
            direction(str(self.target), str(self.source), self.work.back.stats(), None),
        ]

    async def _run(self, source: Peer, target: Peer) -> None:
        if self.create_target:
            await make_sure_of(target, self.options.patient, self._hear)
        self.work = (Pair if self.both else Replicator)(source, target, self.options)
        await self.work.run()

    def _interrupt(self, task: asyncio.Task[None]) -> None:
        if self.interrupted or self.work is None:
            task.cancel()
        else:
            self.work.stop()
        self.interrupted = True

    def _hear(self, error: SpileError | None) -> None:
        self._tell(None if error is None else error.reason)

    def _show(self, shown: ShownProgress) -> None:
        directions = self.directions
        if not directions:
            return
        waiting = next((each for each in directions if each.state == "waiting"), None)
        self._tell(None if waiting is None else waiting.reason)
        sums = summed(directions)
        behind = sums["behind"]
        told = f"{sums['written']:,} documents, {sums['rate']:,.0f}/s"
        if behind is not None:
            told += f", {behind:,} behind"
        if sums["refused"]:
            told += f", {sums['refused']:,} refused"
        if waiting is not None:
            told += ", waiting"
        shown.show(sums["read"], None if behind is None else sums["read"] + behind, told)

    def _tell(self, reason: str | None) -> None:
        """Say why it waits, once for each reason."""
        if reason is not None and reason != self._reason:
            print(f"spile: waiting: {reason}", file=sys.stderr, flush=True)
        self._reason = reason


@asynccontextmanager
async def opened_ends(source: End, target: End, *, create: bool) -> AsyncIterator[tuple[Peer, Peer]]:
    """Peers at both ends; a store that has both is opened once. With `create` the target's is made if needed."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        stores: dict[str, Store] = {}

        async def opened(end: End, make: bool) -> Peer:
            if isinstance(end.place, str):
                return await stack.enter_async_context(opened_peer(end.place, token=end.token))
            location, barrel = end.place.store, end.place.barrel
            key = _store_key(location)
            if key not in stores:
                stores[key] = await loop.run_in_executor(None, lambda: open_store(location, create=make))
                stack.push_async_callback(loop.run_in_executor, None, stores[key].close)
            peer = LocalPeer(stores[key], barrel)
            stack.push_async_callback(peer.close)
            return peer

        yield await opened(source, False), await opened(target, create)


@contextmanager
def _interrupting(handle: Callable[[], None]) -> Iterator[None]:
    """Call `handle` on SIGINT and SIGTERM while the block runs."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, handle)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _store_key(location: str) -> str:
    """One text for one store, however its folder is written."""
    return location if "://" in location else str(Path(location).resolve())


def _own_token(place: str, url: str | None) -> str | None:
    """SPILE_TOKEN is for the service that commands speak to, and is sent to no other."""
    here, there = urlsplit(service_url(url)), urlsplit(place)
    same = (here.scheme, here.hostname, here.port) == (there.scheme, there.hostname, there.port)
    return os.environ.get("SPILE_TOKEN") if same else None


def _without_login(url: str) -> str:
    if "://" not in url:
        return url
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
