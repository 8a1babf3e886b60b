"""Keeping retained messages true when a barrel's settings change, and when it goes.

Which settings the broker's retained messages were made under is stored; where they differ from the present ones,
every document is told or cleared once. A crash in between leaves the stored settings old, and it is done again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec

from broker.mqtt.contract import Message, Publisher
from broker.publishing.topics import ID_QOS, BarrelTopics, IdMessage
from feeds import Barrel, BarrelSettings, Row, Store
from feeds.errors import NotFound

_PAGE = 500
_encode = msgspec.json.Encoder().encode


class Retaining:
    """Brings the retained messages of one broker in line with the barrels' settings."""

    def __init__(
        self,
        store: Store,
        publisher: Publisher,
        in_thread: Callable[[Callable[[], Any]], Awaitable[Any]],
        broker: str,
        bytes_max: int,
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._in_thread = in_thread
        self._broker = broker
        self._bytes_max = bytes_max

    async def settle(self, barrel: Barrel, topics: BarrelTopics, settings: BarrelSettings, told: int) -> None:
        """Retain or clear every document told so far, if the settings changed since the last time."""
        mark = _encode([settings.retain, settings.publish]).decode()
        key = self._key(barrel)
        stored = await self._in_thread(lambda: self._store.note(key))
        before = stored if stored is not None else _encode([False, None]).decode()
        if before == mark:
            return
        retained_before = msgspec.json.decode(before)[0]
        if told and (settings.retain or retained_before):
            await self._sweep(barrel, topics, told, retained_before)
        await self._in_thread(lambda: self._store.set_note(key, mark))

    async def dropped(self, barrel: Barrel, topics: BarrelTopics) -> None:
        """Clear what was retained of a barrel that is no more; of one that still is, nothing."""
        try:
            await self._in_thread(barrel.head)
            return
        except NotFound:
            pass
        key = self._key(barrel)
        stored = await self._in_thread(lambda: self._store.note(key))
        if isinstance(stored, str) and msgspec.json.decode(stored)[0]:
            await self._clear_all(barrel, topics)
        await self._publisher.publish([Message(topics.head, b"", ID_QOS, True)])
        await self._in_thread(lambda: self._store.set_note(key, None))

    async def _clear_all(self, barrel: Barrel, topics: BarrelTopics) -> None:
        ids = barrel.ids_after("", _PAGE)
        while ids:
            await self._publisher.publish([topics.clear(each) for each in ids])
            read = partial(barrel.ids_after, ids[-1], _PAGE)
            ids = await self._in_thread(read)

    async def _sweep(self, barrel: Barrel, topics: BarrelTopics, told: int, retained_before: bool) -> None:
        replay = barrel.replay(0, docs=True, doc_bytes_max=self._bytes_max, leaves=False)
        caught_up = replay.upto == 0
        while not caught_up:
            page = await self._in_thread(lambda: replay.next(_PAGE, 4 << 20))
            batch = []
            for row in page.rows:
                if row.seq > told:
                    break  # still to be told in its turn
                message = self._message(topics, row, barrel.epoch, retained_before)
                if message is not None:
                    batch.append(message)
            if batch:
                await self._publisher.publish(batch)
            caught_up = page.caught_up or page.seq >= told

    def _message(self, topics: BarrelTopics, row: Row, epoch: str, retained_before: bool) -> Message | None:
        if topics.retains(row.id) and not row.deleted:
            told = IdMessage(row.seq, row.id, row.rev, row.changes, doc=row.doc, epoch=epoch)
            told.doc_omitted = row.doc_omitted
            return Message(topics.id_topic(row.id), _encode(told), ID_QOS, True)
        return topics.clear(row.id) if retained_before else None

    def _key(self, barrel: Barrel) -> str:
        return f"retained:{self._broker}:{barrel.key}"[:64]
