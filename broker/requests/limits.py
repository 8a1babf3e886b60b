"""The limits of requests over MQTT, each with the reason for its value."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Every bound that requests keep. Sizes in bytes, times in seconds."""

    requests_max: int = 1_000
    """Requests of all clients in work: a quarter of a second of writing. What comes beyond is overloaded."""
    bytes_max: int = 64 * MIB
    """Payloads of requests in work: eight of the largest documents."""
    answer_bytes_max: int = 256 * KIB
    """Of one answer. Small devices and hosted brokers take no more; what is larger is read in ranges."""
    publish_bytes_max: int = 256 * KIB
    """Of a document in a stream; a larger one is told as `doc_omitted`."""
    inline_bytes_max: int = 32 * KIB
    """Bodies up to this are read on the event loop (a third of a millisecond), larger ones on a thread."""
    recognised_bytes_max: int = 256 * KIB
    """Of a payload whose token is looked for on the event loop when it is refused (a quarter of a millisecond)."""
    bulk_documents_max: int = 2_000
    """Documents of one bulk request: a group of the writer, whose answer still fits into a message."""
    upload_s: float = 600.0
    """How long an upload is kept after its last range, and the answer of a finished one."""
    uploads_per_client: int = 8
    upload_bytes_per_client: int = 16 * MIB
    """Of documents that one client has begun to send in ranges: two of the largest."""
    upload_bytes_max: int = 64 * MIB
    """The same of all clients."""
    upload_pieces_max: int = 1_000
    """Ranges of one upload with gaps between them; a client that sends in order has one."""
    blob_bytes_max: int = 1 << 40
    """Of the content of one attachment."""
    uploads_remembered: int = 4_096
    """Finished uploads whose answer is kept, for ranges that come again."""
