"""The barrels of a store by their names, as one process knows them, and what others made of them meanwhile."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from feeds.barrel import Barrel
from feeds.barrels import settings_of
from feeds.errors import NotFound, SpileError, Unavailable

if TYPE_CHECKING:
    from feeds.store import Store

NEWS_S = 5.0  # writes that were on their way when a drop was noticed are told to come again for so long
Listed = Sequence[tuple[str, int, str, int, str]]  # name, key, epoch, head, settings of every barrel


class Known(NamedTuple):
    """A barrel as it was when it was last looked at."""

    key: int
    epoch: str
    head: int
    settings: str

    @property
    def life(self) -> tuple[int, str]:
        """What another life of the barrel has not."""
        return self.key, self.epoch


class Directory:
    """Barrels by name. Thread-safe.

    A `Barrel` is one life of a barrel, named by its key, which is never given again; only which life has a name can
    change. A write is sure of it, since it finds out under the lock of the barrel's row. Readers in other processes
    are told by the next look. A key with another epoch is another life too: the store began anew, which nobody does
    while it is open, save between the restart of a database and the first look at it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: dict[str, Barrel] = {}
        self._drops = 0
        self._leaving: str | None = None
        self._guard = threading.Lock()
        self._known: dict[str, Known] = {}
        self._lost: dict[int, float] = {}  # barrels that others dropped, and when that was noticed
        self.changing = threading.RLock()
        """Held while barrels are made, configured or dropped here, so that no look sees half of it."""

    def begin(self) -> None:
        """Take over how the barrels stand, of which nobody has to be told."""
        with self._store.database.reading() as connection:
            rows = connection.exec_driver_sql(self._store.queries.directory).all()
        self.look(lambda: [(name, key, epoch, head, settings) for name, key, epoch, head, settings in rows])

    def barrel(self, name: str) -> Barrel:
        """The barrel of this name; NotFound if there is none."""
        found = self._held.get(name)
        if found is not None:
            return found
        drops = self._drops
        row = self._row(name)
        barrel = Barrel(self._store, row[0], row[1], row[2], settings_of(row[9]))
        with self._guard:
            if drops != self._drops or name == self._leaving:
                return barrel  # it may be gone again: not to be remembered
            return self._held.setdefault(name, barrel)

    def has_at_hand(self, name: str) -> bool:
        """Whether `barrel` of this name asks the database nothing, and so may be called where nothing may block."""
        return name in self._held

    def bring(self, name: str) -> None:
        """See that it is at hand, if there is one."""
        with suppress(NotFound):
            self.barrel(name)

    def forget(self, name: str) -> None:
        """The name may mean another barrel, or none."""
        with self._guard:
            self._drops += 1
            self._held.pop(name, None)
        self._known.pop(name, None)

    @contextmanager
    def leaving(self, name: str) -> Iterator[None]:
        """While a barrel is dropped here: who looks it up until that is committed keeps nothing of it."""
        self._leaving = name
        self.forget(name)
        try:
            yield
        finally:
            self.forget(name)
            self._leaving = None

    def stands(self, barrel: Barrel, settings: str) -> None:
        """A barrel was made or configured here."""
        barrel.settings = settings_of(settings)
        known = self._known.get(barrel.name)
        head = known.head if known is not None else 0
        self._known[barrel.name] = Known(barrel.key, barrel.epoch, head, settings)

    def committed(self, name: str, seq: int) -> None:
        """This process wrote to a barrel: its own hooks are told already."""
        known = self._known.get(name)
        if known is not None and seq > known.head:
            self._known[name] = known._replace(head=seq)

    def gone(self, key: int, name: str) -> SpileError | None:
        """A write found its barrel gone: if that is news, another process dropped it, and may have made it anew."""
        with self._guard:
            held = self._held.get(name)
            if held is not None and held.key == key:
                self._lose(name, key)
            elif time.monotonic() - self._lost.get(key, -math.inf) > NEWS_S:
                return None
        return Unavailable(f"The barrel {name!r} was dropped by another process just now", hint="Send it again.")

    def look(self, read: Callable[[], Listed]) -> tuple[list[tuple[str, str]], list[tuple[str, int]]]:
        """Take over how the barrels stand; what others did as (what, name), and new heads as (name, seq)."""
        told: list[tuple[str, str]] = []
        heads: list[tuple[str, int]] = []
        with self.changing:
            before, now = self._known, {row[0]: Known(*row[1:]) for row in read()}
            self._known = now
            for name, was in before.items():
                if name not in now or now[name].life != was.life:
                    with self._guard:
                        self._lose(name, was.key)
                    told.append(("dropped", name))
            for name, known in now.items():
                old = before.get(name)
                if old is None or old.life != known.life:
                    told.append(("created", name))
                    old = None
                elif old.settings != known.settings:
                    self._settle(name, known)
                    told.append(("configured", name))
                if known.head > (0 if old is None else old.head):
                    heads.append((name, known.head))
        return told, heads

    def _lose(self, name: str, key: int) -> None:
        """Another process dropped a barrel; the guard is held."""
        now = time.monotonic()
        self._lost = {each: at for each, at in self._lost.items() if now - at <= NEWS_S}
        self._lost[key] = now
        self._drops += 1
        held = self._held.get(name)
        if held is not None and held.key == key:
            del self._held[name]

    def _settle(self, name: str, known: Known) -> None:
        with self._guard:
            held = self._held.get(name)
            if held is not None and held.key == known.key:
                held.settings = settings_of(known.settings)

    def _row(self, name: str) -> Any:
        with self._store.database.reading() as connection:
            row = connection.exec_driver_sql(self._store.queries.barrel, (name,)).first()
        if row is None:
            raise NotFound(f"There is no barrel {name!r}", hint="Create it first, or check the name.")
        return row
