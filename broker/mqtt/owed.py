"""Acknowledgements that are owed to one client: each when its publication is done, all in order of arrival."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial


class _Item:
    __slots__ = ("done", "reply")

    def __init__(self, reply: bytes, done: bool) -> None:
        self.reply = reply
        self.done = done


class Owed:
    """A line of acknowledgements.

    `settled` is given those that may be sent now, and how many are left; `failed` why a publication was not
    done, after which none behind it is acknowledged.
    """

    __slots__ = ("_failed", "_line", "_settled")

    def __init__(self, settled: Callable[[list[bytes], int], None], failed: Callable[[BaseException], None]) -> None:
        self._line: deque[_Item] = deque()
        self._settled = settled
        self._failed = failed

    def __len__(self) -> int:
        return len(self._line)

    def add(self, reply: bytes, outcome: asyncio.Future[None] | None) -> None:
        """Owe `reply` (nothing if empty) for a publication that is done with `outcome`, or already."""
        item = _Item(reply, outcome is None)
        self._line.append(item)
        if outcome is not None:
            outcome.add_done_callback(partial(self._done, item))

    def _done(self, item: _Item, outcome: asyncio.Future[None]) -> None:
        if outcome.cancelled():
            self._failed(asyncio.CancelledError())
            return
        fault = outcome.exception()
        if fault is not None:
            self._failed(fault)
            return
        item.done = True
        line = self._line
        replies: list[bytes] = []
        while line and line[0].done:
            reply = line.popleft().reply
            if reply:
                replies.append(reply)
        self._settled(replies, len(line))
