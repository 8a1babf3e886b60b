"""Telling a broker that several processes share: each has its turn as long as it is the holder of the lock.

A turn begins at the stored position, never at one that this process remembers. It ends as soon as the lock is lost:
the connection first, then the publisher, which stores nothing any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from broker.election import Election
from broker.external import ExternalBroker
from broker.health import PartHealth
from broker.mqtt.contract import Message, Publisher
from broker.publishing.publisher import LogPublisher
from feeds.errors import Unavailable
from feeds.storage.locks import Fence, LockLost

log = logging.getLogger("spile.publisher")

_AWAY = "Which process publishes is known again once the database answers; see the part store, and PostgreSQL's log."

Make = Callable[[Publisher, Fence, Callable[[], int]], LogPublisher]


class Turns:
    """The publisher of a shared broker. `task` runs for as long as the service."""

    def __init__(self, election: Election, broker: ExternalBroker, make: Make) -> None:
        """`make` makes the publisher of one turn, with what is to be told of it and how connections are counted."""
        self._election = election
        self._broker = broker
        self._make = make
        self._now: LogPublisher | None = None
        self._stopping = False
        self._published = 0
        self._set_aside = 0
        election.on_lost = broker.let_go
        self.task = asyncio.create_task(self._run(), name="spile-publisher-turns")

    async def stop(self) -> None:
        """Tell what is committed, if it is this process's turn, and end."""
        self._stopping = True
        if self._now is not None:
            await self._now.stop()
        self.task.cancel()
        await asyncio.wait([self.task])

    @property
    def failure(self) -> str | None:
        """Why nothing is told at present though it is this process's turn; None otherwise."""
        return None if self._now is None else self._now.failure

    def stats(self) -> dict[str, Any]:
        """What was done in all turns, and whose turn it is."""
        told = {"published": 0, "set_aside": 0, "waiting_seconds": 0.0} if self._now is None else self._now.stats()
        fence = self._election.fence
        return {
            **told,
            "published": self._published + told["published"],
            "set_aside": self._set_aside + told["set_aside"],
            "holder": fence is not None,
            "term": 0 if fence is None else fence.term,
            "terms": self._election.terms,
        }

    def health(self) -> PartHealth:
        """Holder or follower, since when, and what the publisher says."""
        fence, other = self._election.fence, self._election.other
        if fence is not None and self._now is not None:
            health = self._now.health()
            figures: dict[str, Any] = {"role": "holder", "term": fence.term, "turns": self._election.terms}
            return replace(health, figures={**health.figures, **figures})
        figures = {"role": "follower", "turns": self._election.terms}
        if other is not None:
            figures |= {"holder": other.holder or None, "term": other.term}
        if self.task.done():
            return PartHealth("failing", "its task has ended", "Restart the service; its log says why.", figures)
        if self._election.failure is not None:
            return PartHealth("waiting", self._election.failure, _AWAY, figures, self._election.since)
        return PartHealth("running", figures=figures, since=self._election.since)

    def broker_health(self) -> PartHealth:
        """The connection's state: that a follower has none is as it should be."""
        health = self._broker.health()
        if self._election.fence is not None or self._election.failure is not None:
            return health
        return PartHealth("running", figures={**health.figures, "standby": True}, since=self._election.since)

    async def _run(self) -> None:
        fence: Fence | None = None
        while not self._stopping:
            fence = await self._election.turn(fence)
            if fence is not None:
                await self._tell(fence)

    async def _tell(self, fence: Fence) -> None:
        """One turn, until the lock is lost."""
        self._broker.wake()
        publisher = self._now = self._make(
            _Fenced(self._broker, self._election, fence), fence, lambda: self._broker.connects
        )
        turn = asyncio.create_task(self._election.turn(fence), name="spile-publisher-turn")
        try:
            await asyncio.wait({turn, publisher.task}, return_when=asyncio.FIRST_COMPLETED)
            if publisher.task.done() and not self._stopping:
                await self._ended(publisher)
                await turn
        finally:
            turn.cancel()
            await publisher.abandon()
            told = publisher.stats()
            self._published += told["published"]
            self._set_aside += told["set_aside"]
            self._now = None

    async def _ended(self, publisher: LogPublisher) -> None:
        """It does not end by itself, save where the store says that the lock is another's."""
        try:
            await publisher.task
        except LockLost:
            self._election.doubt()


class _Fenced:
    """The broker for one turn: takes nothing more once that is over."""

    def __init__(self, broker: ExternalBroker, election: Election, fence: Fence) -> None:
        self._broker = broker
        self._election = election
        self._fence = fence

    async def publish(self, batch: Sequence[Message]) -> None:
        """See `Publisher`."""
        if self._election.fence != self._fence:
            raise Unavailable("Another process may publish by now.", hint="Nothing is to be done.")
        await self._broker.publish(batch)

    def wants(self, prefix: str) -> bool:
        """See `Publisher`."""
        return self._broker.wants(prefix)

    def levels(self, prefix: str) -> frozenset[str] | None:
        """See `Publisher`."""
        return self._broker.levels(prefix)
