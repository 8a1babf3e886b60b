"""Telling again what is retained of a barrel, where older states may stand at the broker by now.

That is so when a connection was lost: the broker may have ended it for the sake of a process whose turn is over and
that did not know, or it has crashed and lost what it had not kept. Told is the newest state of each document that
changed since the publisher began, page by page between other work.
"""

from __future__ import annotations

from functools import partial

from broker.mqtt.contract import Message
from broker.publishing.lanes import PAGE, Ask, Lane
from feeds.storage.replay import Replay


class Retelling:
    """One pass over one barrel, up to what was told when it began: what comes later is told in its turn anyway."""

    def __init__(self, lane: Lane, ask: Ask, bytes_max: int) -> None:
        self.ended = False
        self._lane = lane
        self._ask = ask
        self._bytes_max = bytes_max
        self._upto = lane.told
        self._purged_upto = lane.began
        self._replay: Replay | None = None

    async def next(self) -> list[Message]:
        """The messages of the next page; `ended` says whether it was the last one."""
        # What was purged comes first: one of the others may be such a document that was made anew.
        if self._purged_upto < self._upto:
            return await self._purged()
        if self._replay is None:
            self._upto = max(self._upto, self._lane.told)  # what was told since may have been cleared just now
            self._replay = await self._ask(self._open)
        # All that was read: what stayed behind could be older than what is told before the next page.
        page = await self._ask(partial(self._replay.next, PAGE))
        self.ended = page.caught_up or page.seq >= self._upto
        topics, found = self._lane.topics, list[Message]()
        for row in page.rows:
            if row.seq <= self._upto and row.deleted:
                found.append(topics.clear(row.id))
            elif row.seq <= self._upto and topics.retains(row.id):
                found.append(topics.state(row))
        return found

    def _open(self) -> Replay:
        lane = self._lane
        return lane.barrel.replay(lane.began, docs=True, doc_bytes_max=self._bytes_max, leaves=False)

    async def _purged(self) -> list[Message]:
        entries, upto = await self._ask(partial(self._lane.barrel.tail_page, self._purged_upto, PAGE))
        self._purged_upto = upto if upto > self._purged_upto else self._upto
        return [self._lane.topics.clear(entry.id) for entry in entries if entry.purged and entry.seq <= self._upto]
