"""Telling again what is retained, page by page, while the barrel goes on and its changes are told in between."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.mqtt.contract import Message
from broker.publishing.lanes import PAGE, Lane
from broker.publishing.retelling import Retelling
from broker.publishing.topics import BarrelTopics
from feeds import Barrel, Store

LARGE = 2 << 20  # bytes; a few of them are more than a page of other readers


@pytest.fixture
def barrel(tmp_path: Path) -> Iterator[Barrel]:
    with Store.open(tmp_path) as store:
        yield store.create("geo", {"retain": True})


class Broker:
    """A barrel's way to a broker that retains what it is told."""

    def __init__(self, barrel: Barrel) -> None:
        self.retained: dict[str, int] = {}
        """The seq of each retained message by document."""
        self._barrel = barrel
        topics = BarrelTopics(barrel.name, barrel.epoch, barrel.settings, 4 * LARGE)
        self.lane = Lane(barrel, topics, told=0, head=0, saved=0, began=0)

    def is_told(self) -> None:
        """All changes that it was not told of."""
        wanted = self.lane.topics.wanted(None)
        entries, upto = self._barrel.tail_page(self.lane.told)
        for entry in entries:
            self.takes(self.lane.topics.messages(entry, wanted))
        self.lane.told = upto

    def takes(self, messages: Iterable[Message]) -> None:
        """What a broker does with messages."""
        for message in messages:
            _, _, id = message.topic.partition("/_id/")
            payload = message.payload if isinstance(message.payload, bytes) else message.payload()
            if message.retain and payload:
                self.retained[id] = json.loads(payload)["seq"]
            elif message.retain:
                self.retained.pop(id, None)

    @property
    def retelling(self) -> Retelling:
        """A new one of the barrel."""
        return Retelling(self.lane, ask, 4 * LARGE)


async def ask(call: Callable[[], Any]) -> Any:
    """As the publisher asks the store, without its threads."""
    return call()


def newest(barrel: Barrel) -> dict[str, int]:
    """The newest seq of each document that is there."""
    return {row.id: row.seq for row in barrel.changes().results if not row.deleted}


async def test_what_an_outdated_broker_retains_is_put_right(barrel: Barrel) -> None:
    broker = Broker(barrel)
    barrel.bulk([{"_id": f"d{number}"} for number in range(PAGE + 20)])
    for id in ("d1", "d2", "d3"):
        barrel.delete(id, rev=barrel.get(id).rev)
    barrel.purge("d4")
    broker.is_told()
    broker.is_told()
    truth = newest(barrel)
    assert broker.retained == truth
    broker.retained = {f"d{number}": 0 for number in range(PAGE)}
    retelling = broker.retelling
    while not retelling.ended:
        broker.takes(await retelling.next())
    assert broker.retained == truth


async def test_what_changes_between_two_pages_is_not_put_back(barrel: Barrel) -> None:
    broker = Broker(barrel)
    body = "x" * LARGE
    docs = [{"_id": f"d{number}", "body": body} for number in range(4)]
    barrel.bulk(docs)
    broker.is_told()
    retelling = broker.retelling
    while not (page := await retelling.next()):
        pass  # it looks for what was purged first
    broker.takes(page)
    barrel.bulk([{"_id": doc["_id"]} for doc in docs], update=True)
    broker.is_told()
    while not retelling.ended:
        broker.takes(await retelling.next())
    assert broker.retained == {f"d{number}": 5 + number for number in range(4)}


async def test_a_document_that_was_purged_and_is_made_anew_meanwhile_stays_retained(barrel: Barrel) -> None:
    broker = Broker(barrel)
    barrel.put({}, id="x")
    barrel.purge("x")
    broker.is_told()
    retelling = broker.retelling
    barrel.put({}, id="x")
    broker.is_told()
    while not retelling.ended:
        broker.takes(await retelling.next())
    assert broker.retained == newest(barrel) == {"x": 3}
