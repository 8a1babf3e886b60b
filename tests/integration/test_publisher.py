"""The publisher on a real store, with a broker that writes down what it is told."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from broker.mqtt.contract import Message
from broker.publishing import publisher as publisher_module
from broker.publishing.publisher import LogPublisher
from broker.publishing.retaining import Retaining
from feeds import Barrel, Store
from feeds.errors import BadRequest, Unavailable


class Recorder:
    """A broker that hears everything, keeps what is retained, and may be away or picky."""

    def __init__(self) -> None:
        self.halted = False
        self.heard: list[tuple[str, bytes]] = []
        self.retained: dict[str, bytes] = {}
        self.wanted = True
        self.away = 0
        self.away_after: int | None = None
        """So many messages are heard before it is away, for a moment."""
        self.refuses: str | None = None
        self.asked: list[int] = []
        """The sizes of the batches that it was to take."""

    async def publish(self, batch: Sequence[Message]) -> None:
        self.asked.append(len(batch))
        if self.away_after is not None and len(self.heard) >= self.away_after:
            self.away, self.away_after = 2, None
        if self.away:
            self.away -= 1
            raise Unavailable("the broker is away")
        for message in batch:
            if message.topic == self.refuses:
                raise BadRequest("no such topic")
        for message in batch:
            payload = message.payload if isinstance(message.payload, bytes) else message.payload()
            self.heard.append((message.topic, payload))
            if message.retain:
                self.retained[message.topic] = payload
                if not payload:
                    self.retained.pop(message.topic, None)

    def wants(self, prefix: str) -> bool:
        return self.wanted

    def levels(self, prefix: str) -> frozenset[str] | None:
        return None if self.wanted else frozenset()

    def seqs(self, barrel: str) -> list[int]:
        return [json.loads(told)["seq"] for topic, told in self.heard if f"/{barrel}/_id/" in topic and told]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as opened:
        yield opened


@asynccontextmanager
async def publishing(store: Store, broker: Recorder) -> AsyncIterator[LogPublisher]:
    with ThreadPoolExecutor(2) as executor:
        publisher = LogPublisher(store, broker, executor)
        try:
            yield publisher
            assert not publisher.task.done(), publisher.task
        finally:
            await publisher.stop()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


async def test_every_update_of_a_fresh_barrel_is_told_with_its_document(store: Store) -> None:
    broker = Recorder()
    async with publishing(store, broker):
        await until(lambda: "embedded" in store.publishers.here)
        geo = await asyncio.to_thread(store.create, "geo", {"revs_limit": 10})
        updates = [{"_id": "a", "value": value} for value in range(500)]
        await asyncio.to_thread(lambda: geo.bulk(updates, update=True))
        await until(lambda: len(broker.seqs("geo")) == 500)
    told = [json.loads(payload)["doc"]["value"] for topic, payload in broker.heard if "/_id/" in topic]
    assert told == list(range(500))


async def test_a_store_or_a_broker_that_cannot_for_a_while_only_delays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    geo = store.create("geo")
    broker = Recorder()
    broker.away = 2
    failures = iter([Unavailable("locked"), Unavailable("locked")])
    move = store.move_publisher

    def failing(name: str, seqs: dict[object, int], fence: None) -> None:
        error = next(failures, None)
        if error is not None:
            raise error
        move(name, seqs)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "move_publisher", failing)
    async with publishing(store, broker) as publisher:
        await asyncio.to_thread(lambda: geo.bulk([{"_id": str(at)} for at in range(10)]))
        await until(lambda: store.publisher_position("embedded", geo) == 10)
        await until(lambda: publisher.failure is None)
    assert sorted(set(broker.seqs("geo"))) == list(range(1, 11))


async def test_a_barrel_made_anew_begins_at_its_own_first_change(store: Store) -> None:
    broker = Recorder()
    broker.wanted = False
    async with publishing(store, broker):
        old = await asyncio.to_thread(store.create, "geo")
        await asyncio.to_thread(lambda: old.bulk([{"_id": str(at)} for at in range(50)]))
        await asyncio.to_thread(store.drop, "geo")
        new = await asyncio.to_thread(store.create, "geo")
        await until(lambda: f'"epoch":"{new.epoch}"'.encode() in broker.retained.get("barrels/geo/_head", b""))
        assert json.loads(broker.retained["barrels/geo/_head"])["seq"] == 0
        broker.wanted = True
        await asyncio.to_thread(lambda: new.bulk([{"_id": f"n{at}"} for at in range(20)]))
        await until(lambda: broker.seqs("geo") == list(range(1, 21)))


async def test_where_the_log_was_forgotten_newest_states_are_told(tmp_path: Path) -> None:
    now = [1_000_000.0]
    with Store.open(tmp_path, clock=lambda: now[0]) as store:
        geo = store.create("geo", {"log_kept": 60, "retain": True})
        geo.bulk([{"_id": str(at), "kind": "rare"} for at in range(5)])
        now[0] += 3600
        store.maintain()
        assert geo.forgotten() == 5
        geo.put({"_id": "late", "kind": "rare"})
        broker = Recorder()
        async with publishing(store, broker):
            await until(lambda: len(broker.seqs("geo")) == 6)
    assert {topic.rsplit("/", 1)[1] for topic in broker.retained} == {"0", "1", "2", "3", "4", "late", "_head"}
    assert sum(topic == "barrels/geo/kind/rare" for topic, _ in broker.heard) == 6


async def test_what_was_retained_and_changed_untold_is_cleared_with_retain(store: Store) -> None:
    geo = store.create("geo", {"retain": True})
    geo.bulk([{"_id": name} for name in ("stays", "changes", "goes", "is-purged")])
    broker = Recorder()
    async with publishing(store, broker):
        await until(lambda: len(broker.retained) == 5)
    geo.put({"_id": "changes", "x": 1}, update=True)
    geo.delete("goes", rev=geo.get("goes").rev)
    geo.purge("is-purged")
    store.configure("geo", {"retain": False})
    async with publishing(store, broker):
        await until(lambda: set(broker.retained) == {"barrels/geo/_head"})


async def test_a_barrel_dropped_while_nobody_published_is_cleared(store: Store) -> None:
    geo = store.create("geo", {"retain": True})
    geo.bulk([{"_id": "a"}, {"_id": "b/c"}])
    broker = Recorder()
    async with publishing(store, broker):
        await until(lambda: len(broker.retained) == 3)
    store.drop("geo")
    async with publishing(store, broker):
        await until(lambda: not broker.retained)
    assert store.notes("retained:") == {}


async def test_a_barrel_dropped_while_the_broker_is_away_is_cleared_when_that_is_back(store: Store) -> None:
    geo = store.create("geo", {"retain": True})
    geo.bulk([{"_id": f"d{at:03}"} for at in range(700)])
    broker = Recorder()
    async with publishing(store, broker) as publisher:
        await until(lambda: len(broker.retained) == 701)
        broker.away = 1 << 30
        await asyncio.to_thread(store.drop, "geo")
        for _ in range(4):
            await asyncio.to_thread(store.maintain)
        await until(lambda: publisher.failure is not None)
        broker.away = 0
        await until(lambda: not broker.retained)
    assert store.notes("retained:") == {}
    assert [store.maintain()["dropped"] > 0 for _ in range(3)] == [False, True, False]


async def test_a_barrel_dropped_behind_a_first_sweep_that_was_cut_short_is_cleared(store: Store) -> None:
    class Halting(Recorder):
        async def publish(self, batch: Sequence[Message]) -> None:
            await super().publish(batch)
            if len(self.retained) > 500 and not self.halted:
                self.halted, self.away = True, 1 << 30

    geo = store.create("geo")
    geo.bulk([{"_id": f"d{at:04}"} for at in range(1_500)])
    broker = Halting()
    broker.halted = True
    async with publishing(store, broker) as publisher:
        await until(lambda: len(broker.seqs("geo")) == 1_500)
        broker.halted = False
        await asyncio.to_thread(store.configure, "geo", {"retain": True})
        await until(lambda: broker.halted and publisher.failure is not None)
    store.drop("geo")
    broker.away = 0
    async with publishing(store, broker):
        await until(lambda: not broker.retained)
    assert store.notes("retained:") == {}


async def test_the_head_of_a_name_is_cleared_though_a_barrel_had_it_once_more_for_a_moment(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    is_gone = Retaining._is_gone

    def looked(self: Retaining, barrel: Barrel) -> bool:
        if not asked:
            store.create("geo")
        asked.append(is_gone(self, barrel))
        if asked == [False]:
            store.drop("geo")
        return asked[-1]

    monkeypatch.setattr(Retaining, "_is_gone", looked)
    store.create("geo").put({"_id": "a"})
    broker = Recorder()
    async with publishing(store, broker):
        await until(lambda: "barrels/geo/_head" in broker.retained)
        await asyncio.to_thread(store.drop, "geo")
        await until(lambda: not broker.retained and bool(asked))


async def test_a_message_that_the_broker_will_never_take_is_set_aside(store: Store) -> None:
    geo = store.create("geo")
    geo.bulk([{"_id": "a"}, {"_id": "b"}, {"_id": "c"}])
    broker = Recorder()
    broker.refuses = "barrels/geo/_id/b"
    async with publishing(store, broker) as publisher:
        await until(lambda: broker.seqs("geo") == [1, 3])
        assert publisher.stats()["set_aside"] == 1


async def test_the_message_that_is_refused_among_many_is_found_by_halves_and_the_others_keep_their_order(
    store: Store,
) -> None:
    broker = Recorder()
    broker.refuses = "barrels/geo/_id/333"
    geo = store.create("geo", {"publish": ["_id/#"]})
    geo.bulk([{"_id": f"{at:03}"} for at in range(500)])
    store.add_publisher("embedded")
    async with publishing(store, broker) as publisher:
        await until(lambda: store.publisher_position("embedded", geo) == 500)
        assert publisher.stats()["set_aside"] == 1
    assert broker.seqs("geo") == [each for each in range(1, 501) if each != 334]
    first = broker.asked.index(500)
    asked = broker.asked[first : broker.asked.index(1, first) + 2]
    assert len(asked) <= 2 * (500).bit_length() + 1, asked  # one by one it would be 500
    assert broker.asked.count(1) < 10


async def test_a_message_to_be_retained_that_the_broker_will_never_take_is_set_aside(store: Store) -> None:
    geo = store.create("geo", {"retain": True})
    geo.bulk([{"_id": "a"}, {"_id": "b"}, {"_id": "c"}])
    store.add_publisher("embedded")
    store.move_publisher("embedded", {geo: 3})
    broker = Recorder()
    broker.refuses = "barrels/geo/_id/b"
    async with publishing(store, broker) as publisher:
        await until(lambda: set(broker.retained) == {f"barrels/geo/{name}" for name in ("_id/a", "_id/c", "_head")})
        assert publisher.stats()["set_aside"] == 1
        health = publisher.health()
        assert (health.state, health.figures["set_aside"]) == ("running", 1)
        assert health.hint is not None


async def test_while_the_broker_is_away_it_says_so_and_ends_at_once_and_tells_everything_later(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "STOP_S", 60.0)
    geo = store.create("geo")
    broker = Recorder()
    broker.away = 1 << 30
    async with AsyncExitStack() as stack:
        publisher = await stack.enter_async_context(publishing(store, broker))
        await until(lambda: publisher.health().state == "waiting")
        await asyncio.to_thread(lambda: geo.bulk([{"_id": str(at)} for at in range(10)]))
        await until(lambda: publisher.health().figures["behind"] == 10)
        told = publisher.health()
        assert told.reason == "the broker is away"
        assert told.figures["doing"] == "publishing to the embedded broker"
        assert told.since is not None
        assert told.hint is not None
        await until(lambda: publisher.health().figures["tries"] >= 3)
        assert publisher.stats()["waiting_seconds"] > 0
        async with asyncio.timeout(publisher_module.STOP_S / 2):
            await stack.aclose()
    assert publisher.task.exception() is None
    broker.away = 0
    await asyncio.to_thread(geo.put, {"_id": "late"})
    async with publishing(store, broker):
        await until(lambda: broker.seqs("geo") == list(range(1, 12)))


async def test_retaining_all_goes_on_where_it_was_when_the_broker_is_back(store: Store) -> None:
    geo = store.create("geo", {"retain": True})
    geo.bulk([{"_id": f"{at:04}"} for at in range(1_200)])
    store.add_publisher("embedded")
    store.move_publisher("embedded", {geo: 1_200})
    broker = Recorder()
    broker.away_after = 500
    async with publishing(store, broker):
        await until(lambda: len(broker.retained) == 1_201)
    told = [topic for topic, _ in broker.heard if "/_id/" in topic]
    assert len(told) == 1_200


async def test_barrels_may_come_and_go_at_any_time(store: Store) -> None:
    broker = Recorder()
    rng = random.Random(1)

    def work(name: str) -> None:
        for _ in range(15):
            barrel = store.create(name, {"retain": rng.random() < 0.5})
            for at in range(rng.randrange(5)):
                barrel.put({"_id": str(at)})
            if rng.random() < 0.5:
                store.configure(name, {"retain": False})
            store.drop(name)

    async with publishing(store, broker) as publisher:
        await asyncio.gather(*(asyncio.to_thread(work, f"b{at}") for at in range(4)))
        await until(lambda: not broker.retained or publisher.task.done())
