"""Whether the database can be reached: known to all who use a store, and found out by one.

Whoever loses a connection says so; from then on the others fail at once instead of each waiting for itself, until the
one who looks (`watch`) has been through.
"""

from __future__ import annotations

from collections.abc import Callable

from feeds.errors import Unavailable

_HINT = "It is tried again by itself; the request may be repeated. See /health and PostgreSQL's log."


class Reach:
    """The state of the way to one database. Thread-safe: every field is replaced as a whole."""

    def __init__(self) -> None:
        self.away: str | None = None
        """Why the database cannot be reached at present; None while it can."""
        self.on_lost: Callable[[], None] = lambda: None

    def lost(self, reason: str) -> None:
        """A connection was lost, or could not be made."""
        if self.away is None:
            self.away = reason
        self.on_lost()

    def back(self) -> None:
        """It was reached."""
        self.away = None

    def check(self) -> None:
        """Unavailable while the database is away."""
        reason = self.away
        if reason is not None:
            raise Unavailable(reason, hint=_HINT)
