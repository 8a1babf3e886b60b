"""The one place that says whether more is let in, for all ways into the service.

Writes are let in as long as what is let in does not wait for long; when it does, those who hold more than their share
are refused first. Reads do not wait for the writer and are not refused for it. A rate for each client is beside that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from broker.health import PartHealth
from broker.regulation.limit import Limit
from broker.regulation.rates import Rates, units_read, units_written
from broker.regulation.shares import Shares
from broker.regulation.sojourn import Sojourn
from feeds.errors import Overloaded, RateLimited

T = TypeVar("T")

FLOOR_UNITS: Final = 128
"""In work, below which nothing is refused for waiting: the disk is slow then, and to do less makes nothing faster. It
is what one MQTT client may have unacknowledged, so that one alone is slowed by its window and never refused."""
FLOOR_REQUESTS: Final = 4
"""The same in requests: bulk writes are large, and a loader sends the next one while the last is committed."""
PAY_S_MAX: Final = 5.0
"""How long a client waits at a time that owes units: listeners take a longer silence for a lost connection."""
RETRY_S_MAX: Final = 10
RETRY_GROWS_S: Final = 10.0
"""A second more is asked for with each of these that the pressure lasts."""


@dataclass(frozen=True, slots=True)
class Regulation:
    """What an operator can set."""

    target_s: float = 0.05
    """How long writes may wait, from when they have come to when they are told."""
    units_per_s: float | None = None
    """Request units that one client may use; None: as many as it likes."""
    units_burst: float | None = None
    """How many of them it may use at once; None: those of ten seconds."""


class Ticket:
    """One request that was let in. To be released once, when it is answered."""

    __slots__ = ("_regulator", "began", "client", "units")

    def __init__(self, regulator: Regulator | None, client: str, units: int, began: float) -> None:
        self._regulator = regulator
        self.client = client
        self.units = units
        self.began = began
        """Since when it waits for the service, by the regulator's clock."""

    def release(self) -> None:
        """It is answered, or its client has gone."""
        regulator, self._regulator = self._regulator, None
        if regulator is not None:
            regulator.leave(self)


class Regulator:
    """Lets requests in. To be used on one event loop."""

    def __init__(
        self,
        regulation: Regulation = Regulation(),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._sojourn = Sojourn(regulation.target_s, floor=FLOOR_UNITS)
        self._shares = Shares()
        self._rates: Rates | None = None
        if regulation.units_per_s is not None:
            burst = regulation.units_burst
            self._rates = Rates(regulation.units_per_s, regulation.units_per_s * 10 if burst is None else burst)
        self._requests = 0
        self._waiting = 0
        self._busy_since = 0.0
        self._refused = {"queue_ms_target": 0, "units_per_second": 0}
        self._queues: dict[str, Callable[[], tuple[int, int]]] = {}

    # Letting in

    def admit(self, client: str, size: int, *, writes: bool) -> Ticket:
        """Let a request in whose body has `size` bytes; Overloaded and RateLimited say `retry_after`."""
        now = self._clock()
        units = units_written(size) if writes else 0
        if writes:
            window = self._look(now)
            if (
                window is not None
                and self._requests >= FLOOR_REQUESTS
                and not self._shares.may(client, units, window)
            ):
                self._sojourn.turned_away()
                self._refused["queue_ms_target"] += 1
                raise self._overloaded(now)
        if self._rates is not None:
            seconds = self._rates.take(client, units or 1, now)
            if seconds:
                self._refused["units_per_second"] += 1
                raise RateLimited(retry_after=_whole(seconds))
        if writes:
            self._requests += 1
            self._shares.take(client, units)
        return Ticket(self, client, units, now)

    def room(self) -> int:
        """How many units more can be in work without waiting for long."""
        window = self._sojourn.window
        return max(0, int((self._sojourn.within_target if window is None else window) - self._shares.total))

    def leave(self, ticket: Ticket) -> None:
        """A request is done; its ticket calls this."""
        if ticket.units:
            self._requests -= 1
            self._shares.give(ticket.client, ticket.units)
            self._sojourn.done(ticket.units)

    def has_read(self, client: str, size: int) -> float:
        """So many bytes were read by the client; for how many seconds it owes them. The first unit is paid."""
        if self._rates is None:
            return 0.0
        return self._rates.charge(client, units_read(size) - 1, self._clock())

    async def paid(self, owing_s: float) -> None:
        """What is sent or taken piece by piece goes on when the client owes nothing, or after a while."""
        if owing_s:
            await asyncio.sleep(min(owing_s, PAY_S_MAX))

    def has_written(self, client: str, size: int) -> float:
        """So many bytes came from the client in a body that is taken piece by piece; for how many seconds it owes
        them. They are not in work: they wait for a disk, and not for the writer."""
        if self._rates is None or not size:
            return 0.0
        return self._rates.charge(client, units_written(size), self._clock())

    # How long writes wait

    def now(self) -> float:
        """The time from which waiting is counted."""
        return self._clock()

    async def wait_for(self, outcome: Awaitable[T], began: float) -> T:
        """Wait for what the writer makes of something that waits for the service since `began`."""
        if not self._waiting:
            self._busy_since = self._clock()
        self._waiting += 1
        try:
            told = await outcome
        finally:
            self._waiting -= 1
        now = self._clock()
        self._busy_since = now
        self._sojourn.waited(now - began)
        return told

    # What is shown

    def watch(self, limits: Iterable[Limit]) -> None:
        """Show these limits among the queues."""
        for limit in limits:
            self._queues[limit.name] = lambda limit=limit: (limit.used, limit.most)  # type: ignore[misc]

    def watch_queue(self, name: str, look: Callable[[], tuple[int, int]]) -> None:
        """Show another queue; `look` gives its depth and its limit."""
        self._queues[name] = look

    def stats(self) -> dict[str, Any]:
        """What is in work, the window that it has to fit in (0: none), waiting, and what was refused."""
        window = self._look(self._clock())
        return {
            "units": self._shares.total,
            "window": int(window or 0),
            "clients": len(self._shares),
            "waited_ms": round(self._sojourn.least_s * 1000, 3),
            "refused": dict(self._refused),
            "rated_clients": 0 if self._rates is None else len(self._rates),
        }

    def health(self) -> PartHealth:
        """Always at work: to refuse is what it is there for. The figures say whether it does, and of every queue."""
        stats = self.stats()
        queues = {}
        for name, look in self._queues.items():
            depth, limit = look()
            queues[name] = {"depth": depth, "limit": limit}
        figures = {"pressed": bool(stats["window"]), "waited_ms": stats["waited_ms"], "queues": queues}
        return PartHealth("running", figures=figures)

    def _look(self, now: float) -> float | None:
        stalled_s = now - self._busy_since if self._waiting else 0.0
        return self._sojourn.look(now, self._shares.total, stalled_s)

    def _overloaded(self, now: float) -> Overloaded:
        lasted_s = now - (self._sojourn.since or now)
        return Overloaded(
            "Writes wait longer than they should, and you have as many in work as your share allows.",
            retry_after=min(RETRY_S_MAX, 1 + int(lasted_s / RETRY_GROWS_S)),
        )


def _whole(seconds: float) -> int:
    return max(1, -int(-seconds // 1))
