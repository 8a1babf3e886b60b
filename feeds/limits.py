"""How much of everything one store may hold and do."""

from __future__ import annotations

from dataclasses import dataclass

from feeds.body import DOCUMENT_BYTES_MAX

WAITING_MAX = 20_000  # writes in the queue; beyond it callers are told at once rather than made to wait
BLOBS_KEPT = 3600.0  # seconds: time enough to write the document that an upload was for


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Limits of one store."""

    document_bytes_max: int = DOCUMENT_BYTES_MAX
    publish_backlog_max: int = 1_000_000
    """Changes that a publisher may lag before compaction stops to spare bodies for it."""
    write_queue_max: int = WAITING_MAX
    """Writes that may wait for the writer; further ones are refused as overloaded."""
    blobs_kept: float = BLOBS_KEPT
    """Seconds that the content of an attachment is kept which no document names, from when it was stored last."""
