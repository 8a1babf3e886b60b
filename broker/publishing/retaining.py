"""Keeping retained messages true when a barrel's settings change, and when it goes.

Which settings the broker's retained messages were made under is stored; where they differ from the present ones,
every document is told or cleared once. A crash in between leaves the stored settings old, and it is done again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec

from broker.mqtt.contract import Message
from broker.publishing.topics import ID_QOS, BarrelTopics
from feeds import Barrel, BarrelSettings, Row, Store
from feeds.errors import NotFound

_PAGE = 500
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Retaining:
    """Brings the retained messages of one broker in line with the barrels' settings."""

    def __init__(
        self,
        store: Store,
        publish: Callable[[list[Message]], Awaitable[None]],
        ask: Callable[[Callable[[], Any]], Awaitable[Any]],
        broker: str,
        bytes_max: int,
    ) -> None:
        """`publish` tells messages and `ask` runs a call of the store; both take as many tries as it needs."""
        self._store = store
        self._publish = publish
        self._ask = ask
        self._broker = broker
        self._prefix = f"retained:{broker}:"
        self._bytes_max = bytes_max
        self._left: set[str] = set()  # names whose head was left to the barrel that had taken the name by then

    async def settle(self, barrel: Barrel, topics: BarrelTopics, settings: BarrelSettings, told: int) -> None:
        """Retain or clear every document, if the settings changed since the last time; `told` is the position."""
        mark = _encode([settings.retain, settings.publish, barrel.name]).decode()
        key = self._key(barrel)
        before = await self._ask(lambda: self._store.note(key))
        if before == mark:
            return
        retained_before = before is not None and bool(_decode(before)[0])
        if settings.retain and not retained_before:
            # From the first message on somebody has to clear up, also where this is cut short by a drop or a crash.
            await self._ask(lambda: self._store.set_note(key, _encode([True, None, barrel.name]).decode()))
        if settings.retain or retained_before:
            await self._sweep(barrel, topics, told, retained_before)
        await self._ask(lambda: self._store.set_note(key, mark))

    async def dropped(self, barrel: Barrel, topics: BarrelTopics) -> None:
        """Clear what was retained of a barrel that is no more; of one that still is, nothing."""
        try:
            await self._ask(barrel.head)
            return
        except NotFound:
            await self._clear(barrel, topics)

    async def taken_by_nobody(self, name: str) -> None:
        """Clear the head that was left to another barrel of this name, which has gone as well."""
        if name in self._left:
            await self._clear_head(BarrelTopics(name, "", BarrelSettings(), self._bytes_max))
            self._left.discard(name)

    async def clear_dropped(self) -> None:
        """Clear what was retained of barrels that were dropped while nobody was here to do it."""
        notes = await self._ask(lambda: self._store.notes(self._prefix))
        infos = await self._ask(self._store.barrels)
        present = {self._key(self._store.barrel(info.name)) for info in infos} if notes else set()
        for key, note in notes.items():
            if key not in present:
                name = str(_decode(note)[2])
                gone = self._store.dropped_barrel(int(key.removeprefix(self._prefix)), name)
                await self._clear(gone, BarrelTopics(name, "", BarrelSettings(), self._bytes_max))

    async def _clear(self, barrel: Barrel, topics: BarrelTopics) -> None:
        key = self._key(barrel)
        note = await self._ask(lambda: self._store.note(key))
        after = "" if note is not None and _decode(note)[0] else None
        if after is not None:
            told = await self._ask(lambda: self._store.publisher_position(self._broker, barrel))
            await self._clear_purged(barrel, topics, told or 0)
        while after is not None:
            ids = await self._ask(partial(barrel.ids_after, after, _PAGE))
            await self._publish([topics.clear(each) for each in ids])
            after = ids[-1] if ids else None
        if await self._ask(partial(self._is_gone, barrel)):
            await self._clear_head(topics)
        else:
            self._left.add(barrel.name)
        await self._ask(lambda: self._store.set_note(key, None))

    async def _clear_head(self, topics: BarrelTopics) -> None:
        await self._publish([Message(each, b"", ID_QOS, True) for each in (topics.head, topics.lag)])

    def _is_gone(self, barrel: Barrel) -> bool:
        """Whether no other barrel has taken the name, whose head it would be that is cleared."""
        return all(info.name != barrel.name for info in self._store.barrels())

    async def _sweep(self, barrel: Barrel, topics: BarrelTopics, told: int, retained_before: bool) -> None:
        replay = await self._ask(lambda: barrel.replay(0, docs=True, doc_bytes_max=self._bytes_max, leaves=False))
        caught_up = replay.upto == 0
        while not caught_up:
            page = await self._ask(lambda: replay.next(_PAGE, 4 << 20))
            messages = (self._message(topics, row, told, retained_before) for row in page.rows)
            await self._publish([message for message in messages if message is not None])
            caught_up = page.caught_up
        if retained_before:
            await self._clear_purged(barrel, topics, told)

    async def _clear_purged(self, barrel: Barrel, topics: BarrelTopics, told: int) -> None:
        """Documents that were purged and not told yet: no look at the documents shows them."""
        while True:
            entries, upto = await self._ask(partial(barrel.tail_page, told, _PAGE))
            await self._publish([topics.clear(entry.id) for entry in entries if entry.purged])
            if upto <= told:
                return
            told = upto

    def _message(self, topics: BarrelTopics, row: Row, told: int, retained_before: bool) -> Message | None:
        if topics.retains(row.id) and not row.deleted:
            if row.seq > told:
                return None  # it is told, and retained, in its turn
            return topics.state(row)
        return topics.clear(row.id) if retained_before else None

    def _key(self, barrel: Barrel) -> str:
        return f"{self._prefix}{barrel.key}"
