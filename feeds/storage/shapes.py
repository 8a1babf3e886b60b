"""The numbers of key paths: each distinct shape of a barrel is stored once, and named by an integer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from feeds.storage.work import BarrelWork

REMEMBERED_MAX = 50_000  # shapes; keys that are data (ids as keys) must not fill the memory


class ShapeNumbers:
    """Looks shapes up, makes new ones, and remembers those that are committed."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], int] = {}
        self._fresh: dict[tuple[int, str], int] = {}  # of the running transaction

    def number(self, work: BarrelWork, path: str) -> int:
        """The shape's number in the barrel of `work`; made where it is missing."""
        key = (work.barrel, path)
        found = self._known.get(key) or self._fresh.get(key)
        if found is None:
            rows = work.run(work.statements.find_shape, *key) or work.run(work.statements.insert_shape, *key)
            found = self._fresh[key] = int(rows[0][0])
        return found

    def committed(self) -> None:
        """What this transaction looked up or made holds from now on."""
        if self._fresh:
            if len(self._known) + len(self._fresh) > REMEMBERED_MAX:
                self._known.clear()
            self._known.update(self._fresh)
            self._fresh.clear()

    def rolled_back(self) -> None:
        """What this transaction made is not there."""
        self._fresh.clear()

    def forget(self, barrel: int) -> None:
        """The barrel was dropped."""
        self._known = {key: number for key, number in self._known.items() if key[0] != barrel}
