"""Who holds how much of a window that moves, and who may have more of it.

Pure. Each client is sure of an equal part; what others leave of theirs is lent to those who want more, as long as
something is left over.
"""

from __future__ import annotations

from typing import Final

LENT: Final = 8
"""How many times what is left free one client may hold beyond its part."""


class Shares:
    """What clients have in work, in units."""

    __slots__ = ("_held", "total")

    def __init__(self) -> None:
        self.total = 0
        self._held: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._held)

    def held_by(self, client: str) -> int:
        """What one client holds."""
        return self._held.get(client, 0)

    def may(self, client: str, units: int, window: float) -> bool:
        """Whether the client may have these units in work besides what it holds.

        Yes, if that leaves it within an equal part of the window, whatever others hold of it; or within what is
        lent out of the free rest. Who is alone may have all; what is larger than everything passes alone.
        """
        held = self._held.get(client, 0)
        if not self.total:
            return True
        others = len(self._held) - (1 if held else 0)
        return held + units <= max(window / (others + 1), LENT * (window - self.total - units))

    def take(self, client: str, units: int) -> None:
        """The client has these units in work."""
        self.total += units
        self._held[client] = self._held.get(client, 0) + units

    def give(self, client: str, units: int) -> None:
        """It has them no more."""
        self.total -= units
        left = self._held[client] - units
        if left:
            self._held[client] = left
        else:
            del self._held[client]
