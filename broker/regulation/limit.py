"""Limits on what is in work: each has a name, shows how much of it is used, and refuses early rather than queue."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from feeds.errors import Overloaded

SHARE: Final = 8
"""How many times what is left free one client may hold: alone eight ninths of a limit, two of them each eight
seventeenths, and always something is left for one that holds nothing."""


class Limit:
    """A bounded count, shared between clients, kept on the event loop's thread."""

    __slots__ = ("_held", "most", "name", "refused", "used")

    def __init__(self, name: str, most: int) -> None:
        self.name = name
        self.most = most
        self.used = 0
        self.refused = 0
        self._held: dict[str, int] = {}

    def take(self, amount: int = 1, client: str = "") -> None:
        """Take `amount`, to be given back; Overloaded names the limit when there is no room, or none for this client.

        Something larger than the whole limit still passes when nothing else is in work. Without a client's name
        it is not shared out.
        """
        held = self._held.get(client, 0)
        if self.used:
            if self.used + amount > self.most:
                self.refused += 1
                raise Overloaded(f"The limit `{self.name}` is reached: {self.used} of {self.most} are in use.")
            if client and held + amount > max(1, SHARE * (self.most - self.used)):
                self.refused += 1
                raise Overloaded(
                    f"Your share of the limit `{self.name}` is used up: you hold {held}, and others want some too."
                )
        self.used += amount
        if client and amount:
            self._held[client] = held + amount

    def give(self, amount: int = 1, client: str = "") -> None:
        """Give back what was taken."""
        self.used -= amount
        if client and amount:
            left = self._held[client] - amount
            if left:
                self._held[client] = left
            else:
                del self._held[client]


def shown(limits: Iterable[Limit]) -> dict[str, dict[str, int]]:
    """Depth, bound and refusals of each limit by its name, as figures."""
    limits = tuple(limits)
    return {
        "depth": {limit.name: limit.used for limit in limits},
        "limit": {limit.name: limit.most for limit in limits},
        "refused": {limit.name: limit.refused for limit in limits},
    }
