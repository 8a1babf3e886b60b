"""What the embedded broker tells about itself."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class BrokerStats:
    """A look at the broker: present numbers, and counts since it started. `queues` has depths by name."""

    connections: int
    sessions: int
    persistent_sessions: int
    subscriptions: int
    received: int
    """Publications that came from clients."""
    delivered: int
    """Messages handed to clients' sockets."""
    dropped: int
    """Messages of QoS 0 lost by full sessions."""
    disconnected_slow: int
    """Clients cut since they did not read."""
    discarded_sessions: int
    """Persistent sessions ended since too much was kept for them."""
    refused: int
    """Publications that the gate denied."""
    request_failures: int
    """Requests that ended with an error their server did not tell itself."""
    bytes_in: int
    bytes_out: int
    failure: str | None
    """Why the state cannot be written at present."""
    queues: dict[str, int] = field(default_factory=dict)
