"""How the connection to an external broker is, for people and for figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from broker.health import PartHealth, moment

_AWAY = "Nothing is lost: what is committed is told once the broker is back. See that it runs, and what its log says."


@dataclass(slots=True)
class Link:
    """What is known of the connection. Times are seconds since 1970."""

    connected: bool = False
    since: float = 0.0
    reason: str = "not connected yet"
    hint: str = _AWAY
    tries: int = 0
    next_try: float | None = None
    connects: int = 0

    def up(self, now: float) -> None:
        """It stands."""
        self.connected, self.since, self.tries, self.next_try = True, now, 0, None
        self.connects += 1

    def down(self, now: float, reason: str, hint: str | None = None) -> None:
        """It was lost, or could not be made."""
        if self.connected or not self.since:
            self.since = now
        self.connected, self.reason, self.hint = False, reason, hint or _AWAY

    def waits(self, tries: int, next_try: float) -> None:
        """When it is tried again."""
        self.tries, self.next_try = tries, next_try

    def health(self, figures: Mapping[str, Any], hint: str | None = None) -> PartHealth:
        """The state as `/health` shows it; `hint` is for a connection that stands and is not as it should be."""
        told = {"connected": self.connected, **figures}
        if self.connected:
            return PartHealth("running", hint=hint, figures=told, since=self.since)
        if self.tries:
            told["tries"] = self.tries
        if self.next_try is not None:
            told["next_try"] = moment(self.next_try)
        return PartHealth("waiting", self.reason, self.hint, told, self.since or None)


@dataclass(frozen=True, slots=True)
class ExternalStats:
    """A look at an external broker's connection, for metrics. Counts are since the start."""

    connected: bool
    connects: int
    acknowledged: int
    received: int
    set_aside: int
    requests_dropped: int
    request_failures: int
    unheard: int
    queues: Mapping[str, int] = field(default_factory=dict)
