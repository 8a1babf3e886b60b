"""How much may be in work at once: requests, bytes of their bodies, live feeds.

Every limit has a name and shows its depth; what is beyond it is refused at once, never queued.
"""

from __future__ import annotations

from broker.regulation import Limit


class Admission:
    """The limits of one HTTP face."""

    def __init__(self, *, requests_max: int, bytes_max: int, live_max: int) -> None:
        self.requests = Limit("http_requests", requests_max)
        self.bytes = Limit("http_body_bytes", bytes_max)
        self.live = Limit("http_live_feeds", live_max)

    def stats(self) -> dict[str, dict[str, int]]:
        """Depth, bound and refusals of each limit by its name."""
        limits = (self.requests, self.bytes, self.live)
        return {
            "depth": {limit.name: limit.used for limit in limits},
            "limit": {limit.name: limit.most for limit in limits},
            "refused": {limit.name: limit.refused for limit in limits},
        }
