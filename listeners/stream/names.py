"""Who listens under a name: one stream of a barrel in a process, whichever stream service it belongs to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from feeds.store import Store

Replaced = Callable[[], None]
"""Tells a stream that another one has its name now; from any thread."""

_Name = tuple[str, str]  # barrel, name


class Names:
    """The holders of the names of one store's listeners. From any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[_Name, Replaced] = {}

    def take(self, name: _Name, replaced: Replaced) -> None:
        """Have the name, in place of whoever has it: two would move one cursor back and forth."""
        with self._lock:
            before = self._held.get(name)
            self._held[name] = replaced
        if before is not None:
            before()

    def leave(self, name: _Name, replaced: Replaced) -> None:
        """Give it back, unless another one has it by now."""
        with self._lock:
            if self._held.get(name) is replaced:
                del self._held[name]


_names: WeakKeyDictionary[Store, Names] = WeakKeyDictionary()
_names_lock = threading.Lock()


def names_of(store: Store) -> Names:
    """Those of this store; every service that serves it has the same."""
    with _names_lock:
        return _names.setdefault(store, Names())
