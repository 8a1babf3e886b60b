"""Cursors: how far listeners with a name have acknowledged, kept with the barrel they listen to.

While a service runs, what it holds in memory is the truth; it is written to the barrel's `_local/listener/<name>` a
little later. What is lost with a crash is told again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor

from feeds.barrel import Barrel
from feeds.errors import Missing, NotFound, SpileError
from feeds.positions import Position
from listeners.stream.messages import check_listener_name

log = logging.getLogger("spile.cursors")

PREFIX = "listener/"
# Each write of a cursor is a commit of its own; what is saved by waiting is worth repeating some rows.
FLUSH_S = 0.5
# Kept in memory beside those that wait to be written; what is forgotten is read again from the store.
KNOWN_MAX = 10_000

_Key = tuple[str, str, str]  # barrel, its epoch, the listener's name


class Cursors:
    """The cursors of one service. `read` may block; `move` never does."""

    def __init__(self, executor: Executor, *, flush_s: float = FLUSH_S) -> None:
        self._executor = executor
        self._flush_s = flush_s
        self._known: dict[_Key, Position] = {}
        self._dirty: dict[_Key, Barrel] = {}
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._flushing = asyncio.Lock()

    def read(self, barrel: Barrel, name: str) -> Position | None:
        """Where the listener of this name stands; None if it never was here."""
        found = self._known.get((barrel.name, barrel.epoch, name))
        if found is None:
            found = stored_cursor(barrel, name)
        return found

    def move(self, barrel: Barrel, name: str, position: Position) -> None:
        """The listener acknowledged up to here."""
        key = (barrel.name, barrel.epoch, name)
        if self._known.get(key) == position:
            return
        self._known[key] = position
        self._dirty[key] = barrel
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="spile cursors")
        self._moved.set()

    def forget(self, barrel: str, name: str | None = None) -> None:
        """The barrel is gone, or this listener's cursor."""
        for key in [key for key in self._known if key[0] == barrel and name in (None, key[2])]:
            del self._known[key]
            self._dirty.pop(key, None)

    async def flush(self) -> None:
        """Write what moved since the last time. What cannot be written stays to be written."""
        async with self._flushing:
            loop = asyncio.get_running_loop()
            moved = [(key, barrel, self._known[key]) for key, barrel in self._dirty.items()]
            self._dirty.clear()
            if moved:
                failed = await loop.run_in_executor(self._executor, _write, moved)
                for key, barrel in failed:
                    if key in self._known:
                        self._dirty.setdefault(key, barrel)
            if len(self._known) > KNOWN_MAX:
                self._known = {key: self._known[key] for key in self._dirty if key in self._known}

    async def stop(self) -> None:
        """Write what moved, and end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self.flush()

    @property
    def waiting(self) -> int:
        """How many cursors moved and are not written yet."""
        return len(self._dirty)

    async def _run(self) -> None:
        while True:
            await self._moved.wait()
            await asyncio.sleep(self._flush_s)
            self._moved.clear()
            await asyncio.shield(self.flush())
            if self._dirty:
                self._moved.set()


def stored_cursor(barrel: Barrel, name: str) -> Position | None:
    """The cursor as it is stored with the barrel; None if there is none."""
    try:
        document = barrel.local_get(PREFIX + check_listener_name(name))
    except Missing:
        return None
    return Position.parse(document.data.get("position"))


def stored_cursors(barrel: Barrel) -> dict[str, Position]:
    """Every listener's cursor as it is stored with the barrel, by name."""
    names = [key.removeprefix(PREFIX) for key in barrel.local_ids(PREFIX)]
    found = {name: stored_cursor(barrel, name) for name in names}
    return {name: position for name, position in found.items() if position is not None}


def delete_cursor(barrel: Barrel, name: str, forget: Callable[[str, str], None] | None = None) -> None:
    """Forget where a listener stands; Missing if it has no cursor. A running service is told by its `forget`."""
    if forget is not None:
        forget(barrel.name, name)
    barrel.local_delete(PREFIX + check_listener_name(name))


def _write(moved: list[tuple[_Key, Barrel, Position]]) -> list[tuple[_Key, Barrel]]:
    """Write the cursors, each by itself; returns those to try again."""
    failed = []
    for key, barrel, position in moved:
        try:
            barrel.local_put(PREFIX + key[2], {"position": str(position)})
        except NotFound:
            continue  # the barrel was dropped, and its cursors with it
        except SpileError as error:
            log.warning("The cursor of %s in %s is not stored yet: %s", key[2], key[0], error.reason)
            failed.append((key, barrel))
    return failed
