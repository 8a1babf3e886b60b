"""The limits of what goes to and comes from an external broker, each with the reason for its value."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ExternalLimits:
    """Every bound of the connection to an external broker. Sizes in bytes, times in seconds."""

    window: int = 1_000
    """Changes that are sent and not yet acknowledged. Past a few hundred more makes nothing faster."""
    window_bytes: int = 4 * MIB
    answers: int = 500
    """Answers and arrays of streams that are sent and not yet acknowledged."""
    answers_bytes: int = 4 * MIB
    packet_bytes: int = MIB
    """Of one message with its topic: what NATS takes where nobody changed it; Mosquitto takes any."""
    connect_s: float = 10.0
    """For a connection to stand, from the name's look-up to the broker's CONNACK."""
    ack_s: float = 30.0
    """For the broker to acknowledge a message, while it answers pings; one that never does is set aside."""
    wait_s: float = 60.0
    """How long a publication waits for a broker that is away before it says so again."""
    retry_first_s: float = 0.2
    retry_max_s: float = 15.0
    """Between attempts to connect, doubling and spread out. After hours away it is back within half a minute."""
    settled_s: float = 5.0
    """A connection that lasted so long has worked: the next attempt after it begins with the shortest wait."""
    refused_s: float = 600.0
    """For how long a topic that was set aside is not tried again."""
    refused_topics: int = 10_000
    """How many of these are remembered."""
    requests: int = 4_000
    """Requests in work, refusals included: four times what the service of requests takes. More are not answered."""
    requests_bytes: int = 128 * MIB
    """Payloads of these: twice what the service of requests takes. A lone one may be larger."""
    unacknowledged: int = 16
    """Requests whose PUBACK waits until they are answered. Beyond, the oldest is acknowledged early, so that the
    broker's own window (Mosquitto's is 20) never makes it park requests that a refusal should answer."""
    stop_s: float = 5.0
    """For requests in work when the service stops."""
