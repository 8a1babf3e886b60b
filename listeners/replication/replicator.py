"""Replicating one barrel into another: in one direction, once or for as long as it runs.

A run is a session: it finds out where both sides stand, reads the source's changes, brings them over in batches of
which some are on their way at once, and records how far it is on both sides. What ends a session by an error that
passes is followed by another one, which goes on from there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from feeds.errors import BadRequest, EpochChanged, NotFound, SpileError
from listeners.backoff import Backoff
from listeners.replication.errors import PeerChanged
from listeners.replication.identifying import replication_id
from listeners.replication.options import Options
from listeners.replication.peer import Identity, Peer
from listeners.replication.progress import Progress
from listeners.replication.session import Session, first_error

log = logging.getLogger("spile.replication")

_SESSIONS_MAX = 5  # of a replication that is to end by itself, when its target changes under it
_RESTS_S = (0.5, 60.0)


class Replicator:
    """Brings what is in `source` to `target`. The peers stay the caller's to close."""

    def __init__(
        self,
        source: Peer,
        target: Peer,
        options: Options | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Nothing happens before `run`."""
        self.source = source
        self.target = target
        self.options = options or Options()
        self.progress = Progress(clock)
        self.id: str | None = None
        """What it is called, once both ends were asked who they are."""
        self._stop = asyncio.Event()
        self._running = False
        self._met = False  # both ends were there as the session began

    def run(self) -> Coroutine[Any, Any, dict[str, Any]]:
        """Replicate to the end: of what there is, or until `stop`; `stats` in the end.

        Raises the error that ends it, after which it may be run again; stopped, it goes on where it was.
        """
        if not self._running:
            self._stop.clear()  # now: it may be stopped before the task that runs it has begun
        return self._run()

    async def _run(self) -> dict[str, Any]:
        if self._running:
            raise BadRequest("This replicator is running already", hint="Make another one, or wait for its end.")
        self._running = True
        try:
            await self._sessions()
        except SpileError as error:
            self.progress.become("failed", error)
            raise
        except asyncio.CancelledError:
            self.progress.become("stopped")
            raise
        finally:
            self._running = False
        self.progress.become("stopped" if self._stop.is_set() else "done")
        return self.stats()

    def stop(self) -> None:
        """Let it end soon: what is on its way arrives, and is recorded."""
        self._stop.set()

    def stats(self) -> dict[str, Any]:
        """What was done, and how it is, as plain values."""
        return {
            "id": self.id,
            "source": self.source.name,
            "target": self.target.name,
            "continuous": self.options.continuous,
            **self.progress.stats(),
        }

    async def _sessions(self) -> None:
        backoff = Backoff(*_RESTS_S)
        count = 0
        while not self._stop.is_set():
            before = self.progress.written
            try:
                await self._session()
                return
            except SpileError as error:
                if self._stop.is_set():
                    log.info("%s -> %s: stopped, and %s", self.source.name, self.target.name, error.reason)
                    return
                count += 1
                if not self._goes_on(error, count):
                    raise
                if self.progress.written > before:
                    backoff.reset()
                log.warning("%s -> %s: %s", self.source.name, self.target.name, error.reason)
                self.progress.become("waiting", error)
                self.progress.retries += 1
                await self._rest(backoff.next())

    def _goes_on(self, error: SpileError, count: int) -> bool:
        """Whether another session may get further. A barrel that is not there may be created again."""
        anew = isinstance(error, (PeerChanged, EpochChanged)) or (isinstance(error, NotFound) and self._met)
        if self.options.continuous:
            return anew or error.retryable or (isinstance(error, NotFound) and self.id is not None)
        return anew and count < _SESSIONS_MAX

    async def _session(self) -> None:
        session = Session(self.source, self.target, self.options, self.progress, self._stop)
        self._met = False
        ends = await session.identities()
        self._met = True
        self._check(*ends)
        self.id = replication_id(*ends, self.options.filter)
        await session.run(self.id, *ends)

    def _check(self, source: Identity, target: Identity) -> None:
        if (source.store, source.barrel) == (target.store, target.barrel):
            raise BadRequest("Source and target are the same barrel", hint="Name two barrels.")

    async def _rest(self, seconds: float) -> None:
        """Wait before the next session, unless it is to stop."""
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return


class Pair:
    """Two barrels that are replicated into each other, at the same time."""

    def __init__(self, one: Peer, other: Peer, options: Options | None = None) -> None:
        """The options are of both directions."""
        self.there = Replicator(one, other, options)
        self.back = Replicator(other, one, options)

    async def run(self) -> dict[str, Any]:
        """As `Replicator.run`. What is not continuous goes there first, so that one run brings both together."""
        if not self.there.options.continuous:
            if (await self.there.run())["state"] != "stopped":
                await self.back.run()
            return self.stats()
        try:
            async with asyncio.TaskGroup() as group:
                for each in (self.there, self.back):
                    group.create_task(each.run(), name=f"spile replication {each.source.name}")
        except BaseExceptionGroup as failed:
            raise first_error(failed) from None
        return self.stats()

    def stop(self) -> None:
        """As `Replicator.stop`."""
        self.there.stop()
        self.back.stop()

    def stats(self) -> dict[str, Any]:
        """Of each direction."""
        return {"there": self.there.stats(), "back": self.back.stats()}
