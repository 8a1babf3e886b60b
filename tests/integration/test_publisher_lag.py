"""The topic that says how far everyone is behind, on a real store with a broker that writes down what it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from streams_tools import Listening
from test_publisher import Recorder, until

from broker.lags import Lags
from broker.publishing import lag as lag_topic
from broker.publishing.lag import LagTopics
from broker.publishing.publisher import LogPublisher
from feeds import Barrel, Position, Store
from listeners.stream.service import StreamService

TOPIC = "barrels/geo/_lag"


class Hearing(Recorder):
    """Somebody may hear some topics, which can change."""

    def __init__(self) -> None:
        super().__init__()
        self.subscribed = TOPIC

    def wants(self, prefix: str) -> bool:
        return self.subscribed.startswith(prefix)

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(payload) if payload else {} for topic, payload in self.heard if topic == TOPIC]

    @property
    def newest(self) -> dict[str, Any]:
        """What is retained on the topic; empty where nothing is."""
        found: dict[str, Any] = json.loads(self.retained.get(TOPIC, b"{}"))
        return found


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag_topic, "LAG_S", 0.05)
    monkeypatch.setattr(lag_topic, "LOOK_S", 0.02)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as opened:
        yield opened


@pytest.fixture
def geo(store: Store) -> Barrel:
    barrel = store.create("geo")
    barrel.bulk([{"_id": f"d{number}"} for number in range(10)])
    return barrel


@pytest.fixture
async def streams(store: Store) -> AsyncIterator[StreamService]:
    with ThreadPoolExecutor(4) as executor:
        service = StreamService(store, executor)
        yield service
        await service.stop()


@asynccontextmanager
async def publishing(store: Store, streams: StreamService, broker: Recorder) -> AsyncIterator[LogPublisher]:
    with ThreadPoolExecutor(4) as executor:
        lags = Lags(store, streams, executor)
        publisher = LogPublisher(store, broker, executor, lags=LagTopics(lags))
        try:
            yield publisher
            assert not publisher.task.done(), publisher.task
        finally:
            await publisher.stop()
            await lags.stop()


async def test_who_is_behind_and_by_how_much_is_retained(store: Store, geo: Barrel, streams: StreamService) -> None:
    store.cursors.put([("geo", "away", Position(4, geo.epoch)), ("geo", "anew", Position(4, "older"))])
    broker = Hearing()
    async with publishing(store, streams, broker):
        await until(lambda: broker.newest.get("publisher") == {"seq": 0, "seconds": 0.0})
        found = broker.newest["listeners"]
        assert (found["away"]["seq"], found["away"]["connected"]) == (6, False)
        assert found["away"]["seconds"] >= 0
        assert (found["anew"]["seq"], found["anew"]["snapshot"]) == (10, True)
        assert broker.newest["here"]
        await asyncio.to_thread(geo.put, {}, id="more")
        await until(lambda: broker.newest["listeners"]["away"]["seq"] == 7)


async def test_a_stream_that_is_level_is_told_so(store: Store, geo: Barrel, streams: StreamService) -> None:
    broker = Hearing()
    async with publishing(store, streams, broker):
        client = await Listening(streams).open("first")
        await client.caught_up(geo.position(10))
        await until(lambda: [each["seq"] for each in broker.newest.get("streams", [])] == [0])


async def test_without_a_change_it_is_told_again_as_a_sign_of_life(
    store: Store, geo: Barrel, streams: StreamService, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Hearing()
    async with publishing(store, streams, broker):
        await until(lambda: broker.newest.get("publisher") == {"seq": 0, "seconds": 0.0})
        count = len(broker.told)
        await until(lambda: store.lags.publishers("geo")[0].lag.seq == 0)
        monkeypatch.setattr(lag_topic, "AGAIN_S", 0.05)
        await until(lambda: len(broker.told) >= count + 3)


async def test_nothing_is_looked_at_or_told_where_nobody_can_hear(
    store: Store, geo: Barrel, streams: StreamService, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Hearing()
    broker.subscribed = "barrels/geo/_id/d1"
    broker.retained[TOPIC] = b"{}"  # by a service that was killed
    looks: list[int] = []
    monkeypatch.setattr(Lags, "refresh", lambda *_: looks.append(1))
    async with publishing(store, streams, broker) as publisher:
        await until(lambda: TOPIC not in broker.retained)
        await until(lambda: publisher.health().figures["behind"] == 0)
    assert broker.told == [{}]
    assert looks == []


async def test_what_nobody_hears_any_more_is_cleared(store: Store, geo: Barrel, streams: StreamService) -> None:
    broker = Hearing()
    async with publishing(store, streams, broker):
        await until(lambda: TOPIC in broker.retained)
        broker.subscribed = ""
        await until(lambda: TOPIC not in broker.retained)
        broker.subscribed = TOPIC
        await until(lambda: TOPIC in broker.retained)


async def test_dropping_a_barrel_clears_it(store: Store, geo: Barrel, streams: StreamService) -> None:
    broker = Hearing()
    async with publishing(store, streams, broker):
        await until(lambda: TOPIC in broker.retained)
        await asyncio.to_thread(store.drop, "geo")
        await until(lambda: not broker.retained)


async def test_only_those_furthest_behind_are_told_beyond_a_bound(
    store: Store, geo: Barrel, streams: StreamService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lag_topic, "SHOWN_MAX", 2)
    store.cursors.put([("geo", f"l{seq}", Position(seq, geo.epoch)) for seq in range(5)])
    broker = Hearing()
    async with publishing(store, streams, broker):
        await until(lambda: bool(broker.newest))
        assert set(broker.newest["listeners"]) == {"l0", "l1"}
        assert broker.newest["left_out"] == 3
