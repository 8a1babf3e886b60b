"""How the publisher follows its barrels: pages read ahead, how long it is behind, and barrels that go meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from broker.mqtt.contract import Message
from broker.publishing import publisher as publisher_module
from broker.publishing.lanes import PAGE, Lane
from broker.publishing.publisher import LogPublisher
from feeds import Store

from .test_publisher import Recorder, publishing, store, until

__all__ = ["store"]


async def test_what_was_written_since_an_empty_page_was_read_ahead_is_told_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "POLL_S", 120.0)  # nothing is found by looking unasked

    class Slow(Recorder):
        async def publish(self, batch: Sequence[Message]) -> None:
            ahead = publisher._lanes["geo"]._ahead
            if ahead is not None and len(self.seqs("geo")) == 0:
                await until(ahead.done)
                await asyncio.to_thread(geo.put, {"_id": "late"})
            await super().publish(batch)

    geo = store.create("geo")
    geo.bulk([{"_id": f"d{number}"} for number in range(PAGE)])
    broker = Slow()
    async with publishing(store, broker) as publisher:
        await until(lambda: PAGE + 1 in broker.seqs("geo"))


async def test_it_is_behind_for_as_long_as_something_waits_and_not_since_it_was_idle_last(store: Store) -> None:
    now, shown = [0.0], list[float]()

    class Busy(Recorder):
        """While it takes a change, which lasts ten seconds, there comes another one."""

        async def publish(self, batch: Sequence[Message]) -> None:
            await super().publish(batch)
            if any("/_id/" in message.topic for message in batch) and len(shown) < 10:
                now[0] += 10
                await asyncio.to_thread(geo.put, {"_id": f"d{len(shown)}"})
                shown.append(publisher.health().figures["behind_seconds"])

    geo = store.create("geo")
    geo.put({"_id": "first"})
    with ThreadPoolExecutor(2) as executor:
        publisher = LogPublisher(store, Busy(), executor, clock=lambda: now[0])
        await until(lambda: len(shown) == 10)
        await until(lambda: publisher.health().figures["behind_seconds"] == 0)
        await publisher.stop()
    assert max(shown) <= 20


async def test_what_was_purged_before_its_barrel_was_dropped_and_not_told_is_cleared(store: Store) -> None:
    geo = store.create("geo", {"retain": True})
    geo.bulk([{"_id": "stays"}, {"_id": "is-purged"}])
    broker = Recorder()
    async with publishing(store, broker):
        await until(lambda: len(broker.retained) == 3)
    geo.purge("is-purged")
    store.drop("geo")
    async with publishing(store, broker):
        await until(lambda: store.notes("retained:") == {})
    assert list(broker.retained) == []


async def test_a_barrel_that_is_dropped_while_its_settings_are_taken_up_is_cleared(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening, drops = LogPublisher._open, list[str]()

    async def dropped_before(self: LogPublisher, name: str) -> Lane | None:
        if drops:
            await asyncio.to_thread(store.drop, drops.pop())
        return await opening(self, name)

    monkeypatch.setattr(LogPublisher, "_open", dropped_before)
    geo = store.create("geo", {"retain": True})
    geo.put({"_id": "a"})
    broker = Recorder()
    async with publishing(store, broker):
        await until(lambda: len(broker.retained) == 2)
        drops.append("geo")
        await asyncio.to_thread(store.configure, "geo", {"path_qos": 0})
        await until(lambda: not broker.retained)
        await until(lambda: store.notes("retained:") == {})
