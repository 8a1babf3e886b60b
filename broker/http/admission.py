"""How much may be in work at once: requests, bytes of their bodies, live feeds.

Every limit has a name and shows its depth; what is beyond it is refused at once, never queued.
"""

from __future__ import annotations

from feeds.errors import Overloaded


class Limit:
    """A bounded count, kept on the event loop's thread."""

    __slots__ = ("most", "name", "refused", "used")

    def __init__(self, name: str, most: int) -> None:
        self.name = name
        self.most = most
        self.used = 0
        self.refused = 0

    def take(self, amount: int = 1) -> None:
        """Take `amount`, to be given back; Overloaded names the limit when there is no room.

        Something larger than the whole limit still passes when nothing else is in work.
        """
        if self.used and self.used + amount > self.most:
            self.refused += 1
            raise Overloaded(f"The limit `{self.name}` is reached: {self.used} of {self.most} are in use.")
        self.used += amount

    def give(self, amount: int = 1) -> None:
        """Give back what was taken."""
        self.used -= amount


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
