"""How much may be in work at once: connections, requests, bytes of their bodies, live feeds.

Every limit has a name and shows its depth; what is beyond it is refused at once, never queued. A refusal is held for
a moment before it is told.
"""

from __future__ import annotations

from broker.http.services import HttpLimits
from broker.http.transfers import Transfers
from broker.regulation import Limit, Regulator, Ticket
from broker.regulation.holding import Holding
from broker.regulation.limit import shown


class Admission:
    """The limits of one HTTP face, and the regulator that it shares with the other ways in."""

    def __init__(self, limits: HttpLimits, regulator: Regulator) -> None:
        self.regulator = regulator
        self.connections = Limit("http_connections", limits.connections_max)
        self.requests = Limit("http_requests", limits.requests_max)
        self.bytes = Limit("http_body_bytes", limits.bytes_max)
        self.live = Limit("http_live_feeds", limits.live_max)
        self.held = Holding(limits.connections_max, regulator.room)
        self.transfers = Transfers(limits)
        """Contents on their way in and out."""
        ways = (self.transfers.uploads, self.transfers.downloads)
        self._limits = (self.connections, self.requests, self.bytes, self.live, *ways)
        regulator.watch(self._limits)
        regulator.watch_queue("http_held", lambda: (len(self.held), self.held.places))

    def enter(self, client: str, size: int, *, writes: bool) -> Entry:
        """Let a request in that says its body has `size` bytes; Overloaded and RateLimited say why not."""
        self.requests.take(1, client)
        try:
            return Entry(self.requests, self.regulator.admit(client, size, writes=writes))
        except BaseException:
            self.requests.give(1, client)
            raise

    def stats(self) -> dict[str, dict[str, int]]:
        """Depth, bound and refusals of each limit by its name."""
        told = shown(self._limits)
        told["depth"]["http_held"] = len(self.held)
        told["limit"]["http_held"] = self.held.places
        return told


class Entry:
    """A request that is in work, until it is released."""

    __slots__ = ("_requests", "_ticket", "client")

    def __init__(self, requests: Limit, ticket: Ticket) -> None:
        self._requests: Limit | None = requests
        self._ticket = ticket
        self.client = ticket.client

    @property
    def began(self) -> float:
        """Since when it waits."""
        return self._ticket.began

    def release(self) -> None:
        """It is answered, or goes on among the live feeds."""
        if self._requests is not None:
            self._requests.give(1, self.client)
            self._requests = None
            self._ticket.release()
