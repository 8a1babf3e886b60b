"""The numbers of key paths: each distinct shape of a barrel is stored once, and named by an integer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from feeds.storage.work import BarrelWork

REMEMBERED_MAX = 50_000  # shapes; keys that are data (ids as keys) must not fill the memory


class ShapeNumbers:
    """Looks shapes up, makes new ones, and remembers those that are committed."""

    def __init__(self) -> None:
        self._known: dict[int, dict[str, int]] = {}
        self._fresh: dict[tuple[int, str], int] = {}  # of the running transaction
        self._count = 0

    def known(self, barrel: int) -> Mapping[str, int]:
        """The committed numbers that are remembered of a barrel."""
        return self._known.setdefault(barrel, {})

    def number(self, work: BarrelWork, path: str) -> int:
        """The number in the barrel of `work` of a shape that is not remembered; made where it is missing."""
        key = (work.barrel, path)
        found = self._fresh.get(key)
        if found is None:
            rows = work.run(work.statements.find_shape, *key) or work.run(work.statements.insert_shape, *key)
            found = self._fresh[key] = int(rows[0][0])
        return found

    def committed(self) -> None:
        """What this transaction looked up or made holds from now on."""
        if not self._fresh:
            return
        if self._count + len(self._fresh) > REMEMBERED_MAX:
            self._known.clear()
            self._count = 0
        for (barrel, path), number in self._fresh.items():
            self._known.setdefault(barrel, {})[path] = number
        self._count += len(self._fresh)
        self._fresh.clear()

    def rolled_back(self) -> None:
        """What this transaction made is not there."""
        self._fresh.clear()

    def forget(self, barrel: int) -> None:
        """The barrel was dropped."""
        self._count -= len(self._known.pop(barrel, {}))
