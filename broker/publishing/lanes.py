"""One barrel on its way to a broker: how far it was told, and the page of its log that is read ahead."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from broker.publishing.topics import BarrelTopics
from feeds import Barrel
from feeds.errors import SpileError
from feeds.rows import LogEntry

PAGE = 500  # log entries read at once

Page = tuple[list[LogEntry], int]  # entries, and the seq up to which they were looked for
Ask = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a call of the store in a thread."""


@dataclass(slots=True)
class Lane:
    """How far one barrel is; `told` is what the broker has acknowledged, `saved` what is stored of that, and `began`
    what was stored when the publisher began."""

    barrel: Barrel
    topics: BarrelTopics
    told: int
    head: int  # of the log, as far as known
    saved: int
    began: int
    head_told: int = -1
    head_told_at: float = 0.0
    behind_since: float | None = None
    _behind: int = 0  # the head when that began
    _ahead: asyncio.Task[Page | None] | None = None

    def is_behind(self, now: float) -> bool:
        """Whether something is to be told. `behind_since` begins anew when all that was there at its time is told."""
        if self.told >= self.head:
            self.behind_since = None
        elif self.behind_since is None or self.told >= self._behind:
            self.behind_since, self._behind = now, self.head
        return self.told < self.head

    async def read(self, ask: Ask) -> Page | None:
        """The page behind what was told; None where a part of that is forgotten already."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            try:
                early = await ahead
            except SpileError as error:
                if not error.retryable:
                    raise
            else:
                if early is None or early[1] > self.told:
                    return early  # else there was nothing yet when it was read
        page: Page | None = await ask(lambda: _page(self.barrel, self.told))
        return page

    def read_ahead(self, after: int, in_thread: Ask) -> None:
        """Read the next page while this one is told."""

        async def read() -> Page | None:
            page: Page | None = await in_thread(lambda: _page(self.barrel, after))
            return page

        self._ahead = asyncio.create_task(read(), name="spile-publisher-read")

    async def let_go(self) -> None:
        """Forget a page that was read ahead and will not be told from there."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            await asyncio.gather(ahead, return_exceptions=True)


def _page(barrel: Barrel, after: int) -> Page | None:
    page = barrel.tail_page(after, PAGE)
    return None if after < barrel.forgotten() else page
