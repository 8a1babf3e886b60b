"""Telling a new subscriber what was retained, page by page and at its own pace.

One task for a session while it has something to be told. A message published while a page is on its way is newer
than the page, so the page's is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from broker.mqtt.contract import Gate
from broker.mqtt.frames import Publication
from broker.mqtt.pressure import wait_patiently
from broker.mqtt.retained import Page, RetainedMessages
from broker.mqtt.session import Session

Start = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


class Replays:
    """The replays under way. `start` runs a coroutine as a named task that is looked after."""

    def __init__(self, retained: RetainedMessages, gate: Gate, start: Start) -> None:
        self._retained = retained
        self._gate = gate
        self._start = start
        self._overtaken: dict[Session, set[str]] = {}

    def __len__(self) -> int:
        return len(self._overtaken)

    def begin(self, session: Session, topic_filter: str) -> None:
        """Tell the session everything retained that its filter matches."""
        if self._retained.count:
            session.replays[topic_filter] = b""
            self.resume(session)

    def resume(self, session: Session) -> None:
        """Go on with what the session was not yet told, on this connection or an earlier one."""
        if session.replays and session not in self._overtaken:
            self._overtaken[session] = set()
            self._start(self._tell(session), f"spile mqtt retained for {session.client.name}")

    def overtake(self, topic: str) -> None:
        """A newer message was published under this topic."""
        for topics in self._overtaken.values():
            topics.add(topic)

    async def _tell(self, session: Session) -> None:
        try:
            while session.replays and session.connection is not None:
                topic_filter, start = next(iter(session.replays.items()))
                self._overtaken[session].clear()
                page = await self._retained.page(topic_filter, start)
                if not await self._tell_page(session, topic_filter, page):
                    continue
                if session.replays.get(topic_filter) == start:
                    if page.following is None:
                        del session.replays[topic_filter]
                    else:
                        session.replays[topic_filter] = page.following
        finally:
            del self._overtaken[session]

    async def _tell_page(self, session: Session, topic_filter: str, page: Page) -> bool:
        """Queue a page's messages; False when the session no longer takes them."""
        wide = topic_filter.split("/")[0] in ("+", "#", "to", "from")
        for message in page.messages:
            await wait_patiently(session)
            qos = session.filters.get(topic_filter)
            if session.connection is None or qos is None:
                return False
            if message.topic in self._overtaken[session]:
                continue
            if wide and not self._gate.may_receive(session.client, message.topic):
                continue
            publication = Publication(message.topic, message.payload, message.qos)
            session.offer(publication, min(qos, message.qos), retain=True)
        return True
