"""Whether the store takes writes, as far as is known: after a failure only a trial says that it does again.

A small write that finds room on a full disk proves nothing, and where `/health` says 503 nobody may write at all.
"""

from __future__ import annotations

from broker.health import PartHealth
from feeds import Store
from feeds.errors import SpileError

TRIAL_BYTES = 256 << 10  # more than the corner of a full disk that a small document would still find
_NOTE = "trial of writing"
_UNKNOWN = "A write failed; whether others do is being tried."
_HINT = "Writes are refused, reads go on. Where the disk is full, free some space; it is tried again by itself."


class StoreTrial:
    """Remembers that writes failed until `run` has written something."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._passed = self._failures()
        self._reason = _UNKNOWN

    @property
    def due(self) -> bool:
        """Whether writes failed since the last trial that went through."""
        return self._store.failure is not None or self._failures() != self._passed

    def run(self) -> None:
        """Write something; raises what that raises. Blocks."""
        failures = self._failures()
        try:
            self._store.set_note(_NOTE, "x" * TRIAL_BYTES)
            self._store.set_note(_NOTE, None)
        except SpileError as error:
            self._reason = error.reason
            raise
        self._passed, self._reason = failures, _UNKNOWN

    def health(self) -> PartHealth:
        """What is known now."""
        figures = self._store.stats()
        if not self.due:
            return PartHealth("running", figures=figures)
        return PartHealth("failing", self._store.failure or self._reason, _HINT, figures)

    def _failures(self) -> int:
        return self._store.stats()["writer_failures"]
