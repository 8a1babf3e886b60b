"""Limits on what is in work: each has a name, shows how much of it is used, and refuses early rather than queue."""

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
