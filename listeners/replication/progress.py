"""What a replication has done, how it is, and up to where everything before is done.

Pure but for the clock, which comes in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from feeds.errors import SpileError

REFUSALS_MAX = 100
_NAME_MAX = 512  # characters of an id or a revision, which a peer may give as long as it likes
_REASON_MAX = 2_000
_RATE_S = 10.0

State = Literal["starting", "running", "idle", "waiting", "stopped", "done", "failed"]
"""`idle` is caught up, `waiting` tries again after an error, `stopped` was told to, `done` came to its end."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A document, or one revision of it, that did not go over."""

    id: str
    rev: str
    error: str
    reason: str


@dataclass(slots=True)
class Progress:
    """The counts of one replicator since it was made; `stats` tells all of it as plain values."""

    clock: Callable[[], float]
    read: int = 0
    """Changes that the source told."""
    missing: int = 0
    """Revisions that the target did not have."""
    fetched: int = 0
    sent: int = 0
    """Revisions that the target was asked to write, whatever came of it; not those for which it was not reached."""
    written: int = 0
    refused: int = 0
    gone: int = 0
    """Revisions that were not at the source any more when they were fetched."""
    left: int = 0
    """Documents that left the filter."""
    purged: int = 0
    """Of these, such as were purged at the target."""
    bytes: int = 0
    """Of documents written."""
    blobs: int = 0
    blob_bytes: int = 0
    retries: int = 0
    checkpoints: int = 0
    behind: int | None = None
    caught_up: bool = False
    state: State = "starting"
    reason: str | None = None
    code: str | None = None
    since: float = 0.0
    """When it came into its state."""
    session: str | None = None
    """The newest session."""
    began: str | None = None
    """The position at which it began; None at the first change."""
    position: str | None = None
    """Up to where everything is at the target."""
    refusals: deque[Refusal] = field(default_factory=lambda: deque(maxlen=REFUSALS_MAX))
    _marks: deque[tuple[float, int]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.since = self.clock()

    def become(self, state: State, error: SpileError | None = None) -> None:
        """It is in this state now, for this reason."""
        if state != self.state:
            self.since = self.clock()
        self.state = state
        self.reason = None if error is None else error.reason[:_REASON_MAX]
        self.code = None if error is None else error.code

    def refuse(self, id: str, rev: str, error: SpileError) -> None:
        """This revision does not go over."""
        self.refused += 1
        self.refusals.append(Refusal(id[:_NAME_MAX], rev[:_NAME_MAX], error.code, error.reason[:_REASON_MAX]))

    def wrote(self, count: int, size: int) -> None:
        """These are at the target."""
        now = self.clock()
        self.written += count
        self.bytes += size
        self._marks.append((now, self.written))
        while len(self._marks) > 2 and self._marks[1][0] < now - _RATE_S:
            self._marks.popleft()

    @property
    def rate(self) -> float:
        """Documents written per second, over the last seconds."""
        if not self._marks:
            return 0.0
        at, count = self._marks[0]
        seconds = self.clock() - at
        if seconds > 2 * _RATE_S or seconds <= 0:
            return 0.0
        return (self.written - count) / seconds

    def stats(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "state": self.state,
            "since": self.since,
            "reason": self.reason,
            "error": self.code,
            **{name: getattr(self, name) for name in _COUNTS},
            "rate": round(self.rate, 1),
            "session": self.session,
            "began": self.began,
            "position": self.position,
            "refusals": [
                {"id": each.id, "rev": each.rev, "error": each.error, "reason": each.reason} for each in self.refusals
            ],
        }


_COUNTS = (
    *("read", "missing", "fetched", "written", "refused", "gone", "left", "purged", "bytes", "blobs", "blob_bytes"),
    *("retries", "checkpoints", "behind", "caught_up"),
)


class Prefix:
    """Batches in the order they were read, done in any order: where the first one that is not done begins."""

    def __init__(self, position: str | None) -> None:
        self.position = position
        """Everything up to here is done; None where nothing was known."""
        self._open: deque[tuple[int, str]] = deque()
        self._done: set[int] = set()
        self._next = 0

    def begin(self, position: str) -> int:
        """A batch that ends at this position; the number to tell of it by."""
        number, self._next = self._next, self._next + 1
        self._open.append((number, position))
        return number

    def done(self, number: int) -> None:
        """This batch is at the target."""
        self._done.add(number)
        while self._open and self._open[0][0] in self._done:
            first, self.position = self._open.popleft()
            self._done.discard(first)

    @property
    def is_all_done(self) -> bool:
        """Whether no batch is on its way."""
        return not self._open
