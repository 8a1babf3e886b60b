"""How the parts of the service are: the state of each, since when it is so, and what to do about it.

Parts tell their present state; here it is noted when a state began. HTTP shows it at `/health`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from broker.perseverance import Obstacle

LOOK_S = 1.0  # a state that begins and ends in between is not seen

State = Literal["running", "waiting", "failing"]
"""At work; at a standstill that will end by itself, while requests are served; refusing what it is there for."""


@dataclass(frozen=True, slots=True)
class PartHealth:
    """A part's state, why it is not at work, what an operator can do, and figures that say more.

    `since` is in seconds since 1970, and None where the part does not know it itself.
    """

    state: State
    reason: str | None = None
    hint: str | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)
    since: float | None = None

    @property
    def ok(self) -> bool:
        """Whether requests are served as far as this part is concerned."""
        return self.state != "failing"

    def as_dict(self) -> dict[str, Any]:
        """The part as `/health` shows it."""
        since = None if self.since is None else moment(self.since)
        told = {"ok": self.ok, "state": self.state, "since": since, "failure": self.reason, "hint": self.hint}
        return {**told, **self.figures}


Parts = Mapping[str, PartHealth]


class Health:
    """Looks at every part now and then, so that it can be told since when each is as it is."""

    def __init__(
        self, parts: Mapping[str, Callable[[], PartHealth]], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._parts = parts
        self._clock = clock
        self._since: dict[str, tuple[State, float]] = {}
        self.look()
        self.task = asyncio.create_task(self._watch(), name="spile-health")

    def look(self) -> dict[str, PartHealth]:
        """The state of every part now."""
        return {name: self._told(name, part()) for name, part in self._parts.items()}

    def stats(self) -> dict[str, Any]:
        """For each part whether it serves, and whether it waits: 1 or 0."""
        parts = self.look()
        return {
            "ok": {name: part.ok for name, part in parts.items()},
            "waiting": {name: part.state == "waiting" for name, part in parts.items()},
        }

    async def stop(self) -> None:
        """Look no more."""
        self.task.cancel()
        await asyncio.wait([self.task])

    def _told(self, name: str, part: PartHealth) -> PartHealth:
        state, since = self._since.get(name, (None, 0.0))
        if state != part.state:
            since = self._clock()
            self._since[name] = part.state, since
        return part if part.since is not None else replace(part, since=since)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()


def worst(parts: Mapping[str, PartHealth]) -> State:
    """The state of the whole: that of the part which is worst off."""
    states = {part.state for part in parts.values()}
    return "failing" if "failing" in states else "waiting" if "waiting" in states else "running"


def told_of(task: asyncio.Task[Any], obstacle: Obstacle | None, figures: Mapping[str, Any]) -> PartHealth:
    """The state of a part that is a task, and perseveres."""
    if task.done():
        return PartHealth("failing", "its task has ended", "Restart the service; its log says why.", figures)
    if obstacle is None:
        return PartHealth("running", figures=figures)
    doing = {"doing": obstacle.undertaking.name, "tries": obstacle.tries, "next_try": moment(obstacle.next_try)}
    hint = obstacle.undertaking.hint
    return PartHealth("waiting", obstacle.reason, hint, {**figures, **doing}, since=obstacle.since)


def moment(seconds: float) -> str:
    """A time as RFC 3339, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
