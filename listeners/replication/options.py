"""How a replication is done: what of the barrel, for how long, and how hard it tries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from feeds.rows import Row
from listeners.replication.filters import EVERYTHING, Filter
from listeners.replication.retrying import Patience

FOREVER = Patience(attempts=None, max_s=60.0)
A_WHILE = Patience(attempts=8, max_s=15.0)


@dataclass(frozen=True, slots=True)
class Options:
    """How a replication is done. Only the filter is part of what it is called, and so of its checkpoints."""

    filter: Filter = EVERYTHING
    continuous: bool = False
    """Whether it goes on with what comes, until it is stopped."""
    leaves: Literal["ignore", "tell", "purge"] = "ignore"
    """What is done about a document that left the filter: nothing, `on_leave` is called, or also its leaves, as far
    as the source knows them, are purged at the target."""
    on_leave: Callable[[Row], None] | None = None
    in_flight: int = 4
    """Batches on their way at once; the reading waits for the first of them. One where leaves are purged."""
    checkpoint_s: float = 5.0
    """Seconds between checkpoints while it is busy; what is lost by a crash is asked for again, and found there."""
    patience: Patience | None = None
    """How often calls are made again; by default for ever where it is continuous, else for about a minute."""

    @property
    def patient(self) -> Patience:
        """How long to try."""
        return self.patience or (FOREVER if self.continuous else A_WHILE)
