"""Cursors: how far listeners with a name have acknowledged.

While a service runs, what it holds in memory is the truth; it is written to the store a little later, many in one
commit. What is lost with a crash is told again.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor

from feeds.errors import SpileError
from feeds.positions import Position
from feeds.store import Store

log = logging.getLogger("spile.cursors")

# Each time that cursors are written is a commit; what is saved by waiting is worth repeating some rows.
FLUSH_S = 0.5

_Key = tuple[str, str]  # the barrel's name, the listener's name


class Cursors:
    """The cursors of one service. `read` may block; `move` never does."""

    def __init__(self, store: Store, executor: Executor, *, flush_s: float = FLUSH_S) -> None:
        self._stored = store.cursors
        self._executor = executor
        self._flush_s = flush_s
        self._moved: dict[_Key, Position] = {}  # and not written yet
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._flushing = asyncio.Lock()
        self._refused: str | None = None  # why they could not be written the last time

    def read(self, barrel: str, name: str) -> Position | None:
        """Where the listener of this name stands; None if it never was here."""
        return self._moved.get((barrel, name)) or self._stored.get(barrel, name)

    def move(self, barrel: str, name: str, position: Position) -> None:
        """The listener acknowledged up to here."""
        self._moved[barrel, name] = position
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="spile cursors")
        self._wake.set()

    def moved(self) -> dict[tuple[str, str], Position]:
        """Where listeners stand who moved and are not written yet, by barrel and name."""
        return dict(self._moved)

    async def forget(self, barrel: str, name: str) -> bool:
        """Forget where this listener stands; whether it had a cursor."""
        async with self._flushing:  # what is on its way must not bring it back
            moved = self._moved.pop((barrel, name), None)
            loop = asyncio.get_running_loop()
            stored = await loop.run_in_executor(self._executor, self._stored.forget, barrel, name)
        return stored or moved is not None

    async def flush(self) -> None:
        """Write what moved since the last time. What cannot be written stays to be written."""
        async with self._flushing:
            moved = dict(self._moved)
            if not moved:
                return
            rows = [(*key, position) for key, position in moved.items()]
            try:
                await asyncio.get_running_loop().run_in_executor(self._executor, self._stored.put, rows)
            except SpileError as error:
                if error.reason != self._refused:  # else it is known, and would be told twice a second
                    log.warning("%d cursors are not stored yet, and are tried again: %s", len(rows), error.reason)
                self._refused = error.reason
                return
            self._refused = None
            for key, position in moved.items():
                if self._moved.get(key) is position:  # else it has moved on meanwhile
                    del self._moved[key]

    async def stop(self) -> None:
        """Write what moved, and end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self.flush()

    @property
    def waiting(self) -> int:
        """How many cursors moved and are not written yet."""
        return len(self._moved)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(self._flush_s)
            self._wake.clear()
            try:
                await asyncio.shield(self.flush())
            except Exception:
                log.exception("Cursors are not stored yet, and are tried again")
            if self._moved:
                self._wake.set()
