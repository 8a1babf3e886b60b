"""The limits of the embedded broker, each with the reason for its value."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class BrokerLimits:
    """Every bound the embedded broker keeps. Sizes in bytes, times in seconds."""

    packet_bytes: int = 8 * MIB + 64 * KIB
    """Of one packet from a client: the largest document, and its topic."""
    receiving_bytes: int = 64 * MIB
    """Of all large packets that are still arriving, over all clients."""
    connections: int = 10_000
    connect_s: float = 10.0
    """From a new connection to its CONNECT."""
    queue_messages: int = 1_000
    queue_bytes: int = MIB
    """A session's queue, and what is kept for a persistent session while it is away."""
    window: int = 100
    """Deliveries of QoS 1 and 2 under way to one client, unacknowledged."""
    requests: int = 128
    """Publications of one client under way, unacknowledged; then its socket is not read."""
    stall_s: float = 1.0
    """How long a publisher waits for a full session that takes nothing; see `pressure`."""
    qos0_patience_s: float = 0.1
    """How long a publisher waits for a full session at QoS 0, before messages are dropped."""
    requests_in_all: int = 4_096
    """Requests of all clients under way; then no further ones are read."""
    slowed: int = 16_384
    """Refused requests that are told, and not acknowledged yet; then too no further ones are read."""
    filters: int = 1_000
    """Of one session."""
    levels: int = 128
    """Of a client's topic or filter; paths have 64 and their barrel before them."""
    sessions: int = 10_000
    """Persistent ones."""
    session_kept_s: float = 14 * 86_400.0
    """A persistent session that nobody came back to is discarded after that."""
    received_ids: int = 1_000
    """QoS 2 publications of one client that wait for its PUBREL."""
    retained: int = 1_000_000
    """Retained messages beyond which clients (not the service) may add no new ones."""
    stop_s: float = 5.0
    """What requests under way are given to finish when the broker stops."""


WRITE_BYTES = 64 * KIB  # joined into one write, and the transport's high-water mark
SLICE_DELIVERIES = 500  # about 1 ms of work; then the loop is given back
SLICE_WRITES = 200  # system calls in a row
RECEIVE_BUFFER_BYTES = 256 * KIB  # one for all connections, as each read is consumed at once
CONNECT_BYTES = 5 * 65_537 + 16  # five texts of 64 KiB are the most a CONNECT can hold
