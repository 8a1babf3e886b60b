"""Telling a new subscriber what was retained, page by page and at its own pace.

One task for a session while it has something to be told. A message published while a page is on its way is newer
than the page, so the page's is left out. How far a session that stays was told is kept with its filters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from broker.mqtt.contract import Gate
from broker.mqtt.frames import Publication
from broker.mqtt.pressure import wait_patiently
from broker.mqtt.retained import Page, RetainedMessages
from broker.mqtt.session import Replay, Session
from broker.mqtt.statefile import RETRY_S, StateFile
from feeds.errors import Unavailable

Start = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]

_KEEP = "UPDATE filters SET replay = ? WHERE session = ? AND filter = ?"


class _Newest:
    """Which messages of a page are still the newest of their topics, from before it is read until it is told."""

    def __init__(self) -> None:
        self._overtaken: set[str] | None = set()  # while it is read
        self._topics: set[str] = set()  # afterwards; no more than a page has

    def __contains__(self, topic: str) -> bool:
        return topic in self._topics

    def __len__(self) -> int:
        return len(self._overtaken or self._topics)

    def read(self, page: Page) -> None:
        """The page is here."""
        self._topics = {message.topic for message in page.messages} - (self._overtaken or set())
        self._overtaken = None

    def overtake(self, topic: str) -> None:
        """There is a newer message of this topic."""
        if self._overtaken is None:
            self._topics.discard(topic)
        else:
            self._overtaken.add(topic)


class Replays:
    """The replays under way. `start` runs a coroutine as a named task that is looked after."""

    def __init__(self, retained: RetainedMessages, state: StateFile, gate: Gate, start: Start) -> None:
        self._retained = retained
        self._state = state
        self._gate = gate
        self._start = start
        self._under_way: dict[Session, _Newest] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def owe(self, session: Session, topic_filter: str) -> None:
        """The session, which has just subscribed, is to be told everything retained that its filter matches."""
        if self._retained.count:
            session.replays[topic_filter] = Replay()
            self._keep(session, topic_filter, b"")

    def resume(self, session: Session) -> None:
        """Go on with what the session was not yet told, on this connection or an earlier one."""
        if session.replays and session not in self._under_way:
            self._under_way[session] = _Newest()
            self._start(self._tell(session), f"spile mqtt retained for {session.client.name}")

    def overtake(self, topic: str) -> None:
        """A newer message was published under this topic."""
        for newest in self._under_way.values():
            newest.overtake(topic)

    async def _tell(self, session: Session) -> None:
        try:
            while session.replays and session.connection is not None:
                topic_filter, replay = next(iter(session.replays.items()))
                newest = self._under_way[session] = _Newest()
                try:
                    page = await self._retained.page(topic_filter, replay.key)
                except Unavailable:  # the state's failure is told elsewhere
                    await asyncio.sleep(RETRY_S)
                    continue
                newest.read(page)
                if not await self._tell_page(session, topic_filter, replay, page, newest):
                    continue
                if page.following is None:
                    del session.replays[topic_filter]
                else:
                    replay.key = page.following
                self._keep(session, topic_filter, page.following)
        finally:
            del self._under_way[session]

    async def _tell_page(
        self, session: Session, topic_filter: str, replay: Replay, page: Page, newest: _Newest
    ) -> bool:
        """Queue a page's messages; False when the session no longer takes them."""
        wide = topic_filter.split("/")[0] in ("+", "#", "to", "from")
        for message in page.messages:
            await wait_patiently(session)
            if session.connection is None or session.replays.get(topic_filter) is not replay:
                return False
            if message.topic not in newest:
                continue
            if wide and not self._gate.may_receive(session.client, message.topic):
                continue
            publication = Publication(message.topic, message.payload, message.qos)
            session.offer(publication, min(session.filters[topic_filter], message.qos), retain=True)
        return session.replays.get(topic_filter) is replay

    def _keep(self, session: Session, topic_filter: str, key: bytes | None) -> None:
        """Note up to where a filter was told; None: all of it."""
        if session.persistent:
            self._state.change(_KEEP, key, session.number, topic_filter)
