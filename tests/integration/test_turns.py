"""Publishing in turns to one broker: what the holder of the lock tells, and what one that hung cannot do any more."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from brokers import BrokerProcess
from external_tools import KINDS, QUICK, ScriptedBroker, access, scripted
from mqtt_tools import SUBACK, RawClient, leave_no_client, read_heard, subscribe_packet, until
from test_publisher import Recorder

from broker.election import Election
from broker.external import ExternalBroker
from broker.publishing.publisher import LogPublisher
from broker.publishing.turns import Turns
from feeds import Store
from feeds.storage.locks import LockLost, SharedLocks

NAME = "external-1"
LIMITS = replace(QUICK, connect_s=20.0)
EXPIRY_S = 30.0  # a machine that is busy costs nobody the turn; a rival's clock is moved instead


class Process:
    """What publishes in a service, on a store of its own. It hangs as far as others see when its beats stop."""

    def __init__(self, url: str, name: str, broker: BrokerProcess | ScriptedBroker) -> None:
        self.store = Store.open(url)
        self.later_s = 0.0
        clock = lambda: time.monotonic() + self.later_s
        locks = SharedLocks(self.store.database, self.store.statements, expiry_s=EXPIRY_S, clock=clock)
        self.election = Election(locks, NAME, name, valid_s=EXPIRY_S * 0.8, beat_s=0.05, look_s=0.05)
        self.may_connect: Callable[[], Awaitable[bool]] = self.election.confirm
        self.broker = ExternalBroker(
            access(broker, client_id="spile-shared"),
            requests=None,
            device=access(broker, client_id="spile-probe", user="sensor"),
            limits=LIMITS,
            may_connect=self._may_connect,
        )
        self.executor = ThreadPoolExecutor(2)

    async def start(self) -> None:
        await self.election.start()
        await self.broker.start()
        self.turns = Turns(
            self.election,
            self.broker,
            lambda to, fence, connects: LogPublisher(
                self.store, to, self.executor, name=NAME, fence=fence, connects=connects
            ),
        )

    async def stop(self) -> None:
        self.broker.hurry()
        await self.turns.stop()
        await self.broker.stop()
        await self.election.stop()
        self.executor.shutdown()
        await asyncio.to_thread(self.store.close)

    def hang(self) -> None:
        """It beats no more, and does not know that time passes."""
        assert self.election.task is not None
        self.election.task.cancel()
        self.election._clock = lambda: 0.0

    async def follows(self) -> None:
        """Return when it has the turn of one that hangs, for which time passes fast."""

        def holds() -> bool:
            self.later_s += 0.2
            return self.election.fence is not None

        await until(holds, "the next holder")

    async def put(self, *docs: dict[str, Any]) -> None:
        barrel = self.store.barrel("geo")
        await asyncio.to_thread(lambda: barrel.bulk(list(docs), update=True))

    async def _may_connect(self) -> bool:
        return await self.may_connect()


@pytest.fixture
def url(databases: Any) -> Iterator[str]:
    with databases.lent() as lent:
        with Store.open(lent) as store:
            store.create("geo", {"retain": True})
        yield lent


@pytest.fixture(params=list(KINDS))
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BrokerProcess]:
    process = KINDS[request.param](tmp_path / "broker")
    yield process
    process.kill()


@asynccontextmanager
async def two(url: str, there: BrokerProcess | ScriptedBroker) -> AsyncIterator[tuple[Process, Process]]:
    """The first holds the lock, the second waits for it."""
    async with AsyncExitStack() as stack:
        stack.push_async_callback(leave_no_client)
        made = []
        for name in ("first", "second"):
            process = await asyncio.to_thread(Process, url, name, there)
            stack.push_async_callback(process.stop)
            await process.start()
            made.append(process)
        first, second = made
        assert first.election.fence is not None
        assert second.election.fence is None
        await until(lambda: first.broker.failure is None)
        yield first, second


async def retained(there: BrokerProcess) -> dict[str, int]:
    """The seq of what is retained, by the last level of its topic."""
    client = await RawClient.connect(there.port, "newcomer")
    await client.send(subscribe_packet(1, ("barrels/geo/_id/+", 0), ("barrels/geo/_head", 0)))
    heard = []
    while (came := await client.receive()).kind != SUBACK:  # NATS sends some of it before,
        heard.append(read_heard(came))
    await asyncio.sleep(0.1)  # and some after the answer to a ping
    heard += await client.hear_until_quiet()
    await client.vanish()
    return {each.topic.rpartition("/")[2]: json.loads(each.payload)["seq"] for each in heard if each.payload}


async def holds(there: BrokerProcess, **seqs: int) -> None:
    """Wait until exactly this is retained."""
    wanted = {name.replace("head", "_head"): seq for name, seq in seqs.items()}

    async def is_so() -> bool:
        return await retained(there) == wanted

    await until(is_so, f"{wanted} to be retained")


async def test_the_next_holder_begins_at_the_stored_position(url: str, there: BrokerProcess) -> None:
    async with two(url, there) as (first, second):
        await first.put({"_id": "a"}, {"_id": "b"})
        await holds(there, a=1, b=2, head=2)
        first.hang()
        await second.put({"_id": "a"}, {"_id": "c"})
        await second.follows()
        await holds(there, a=3, b=2, c=4, head=4)
        await until(lambda: second.store.publisher_position(NAME, second.store.barrel("geo")) == 4)
        assert second.turns.stats()["published"] < 10


async def test_a_broker_that_answers_no_trial_delays_no_take_over(url: str) -> None:
    async with scripted() as there:
        there.greeting_of = lambda client_id: there.greeting if client_id == "spile-shared" else None
        async with two(url, there) as (first, second):
            await first.put({"_id": "a"})
            await until(lambda: there.came["barrels/geo/_id/a"])
            await second.put({"_id": "b"})
            await until(lambda: there.came["barrels/geo/_id/b"])
            first.hang()
            await second.follows()
            began = time.monotonic()
            await second.put({"_id": "c"})
            await until(lambda: there.came["barrels/geo/_id/c"])
            assert time.monotonic() - began < LIMITS.connect_s  # a trial waits longer for its connection alone
            assert second.broker.failure is None


async def test_one_that_woke_after_asking_and_before_connecting_publishes_nothing_and_is_put_right(
    url: str, there: BrokerProcess
) -> None:
    async with two(url, there) as (first, second):
        await first.put({"_id": "a"}, {"_id": "b"})
        await holds(there, a=1, b=2, head=2)
        asked, go = asyncio.Event(), asyncio.Event()
        confirm = first.may_connect

        async def stopped_after_asking() -> bool:
            said = await confirm()
            if not asked.is_set():
                assert said
                asked.set()
                await go.wait()
            return said

        first.may_connect = stopped_after_asking
        first.broker.let_go("the test cuts it")
        await asyncio.wait_for(asked.wait(), 20)
        first.hang()
        await second.follows()
        await second.put({"_id": "a"}, {"_id": "c"})
        await holds(there, a=3, b=2, c=4, head=4)

        # What a process with an older idea of whose turn it is could have put there.
        old = await RawClient.connect(there.port, "old")
        for name, seq in (("_id/a", 1), ("_id/c", 0), ("_head", 2)):
            await old.publish(f"barrels/geo/{name}", json.dumps({"seq": seq}).encode(), qos=1, retain=True)
        before = first.broker.stats().acknowledged
        connects = second.broker.connects
        go.set()
        await until(lambda: second.broker.connects > connects, "the second's connection to be ended and made again")
        await holds(there, a=3, b=2, c=4, head=4)
        assert first.broker.stats().acknowledged == before
        assert first.broker.failure is not None


async def test_a_position_that_another_moved_ends_the_turn(url: str, there: BrokerProcess) -> None:
    async with two(url, there) as (first, second):
        await first.put({"_id": "a"})
        await holds(there, a=1, head=1)
        first.hang()
        await second.follows()
        publisher = first.turns._now
        assert publisher is not None
        publisher._lanes["geo"].saved = 0  # it has something to store, and believes that it is its turn
        with pytest.raises(LockLost):
            await asyncio.wait_for(asyncio.shield(publisher.task), 20)


async def test_what_is_retained_is_told_again_after_a_new_connection_and_nothing_else(tmp_path: Path) -> None:
    connects = 1
    broker = Recorder()
    with Store.open(tmp_path) as store, ThreadPoolExecutor(2) as executor:
        geo = store.create("geo", {"retain": True})
        plain = store.create("plain")
        geo.bulk([{"_id": each} for each in ("early", "gone", "purged")])
        store.add_publisher("embedded")
        store.move_publisher("embedded", {geo: 1})
        publisher = LogPublisher(store, broker, executor, connects=lambda: connects)
        try:
            await asyncio.to_thread(lambda: geo.bulk([{"_id": "a", "n": n} for n in range(700)], update=True))
            await asyncio.to_thread(lambda: geo.delete("gone", rev=geo.get("gone").rev))
            await asyncio.to_thread(geo.purge, "purged")
            await asyncio.to_thread(plain.put, {"_id": "x"})
            await until(lambda: b'"seq":705,' in broker.retained.get("barrels/geo/_head", b""))
            await until(lambda: "barrels/plain/_head" in broker.retained)
            wanted = dict(broker.retained)
            broker.retained["barrels/geo/_id/a"] = b"older"
            broker.retained["barrels/geo/_id/gone"] = b"older"
            broker.retained["barrels/geo/_id/purged"] = b"older"
            broker.retained["barrels/geo/_head"] = b"older"
            broker.heard.clear()
            connects += 1
            await until(lambda: broker.retained == wanted, "what is retained to be as before")
            told = [topic for topic, _ in broker.heard if "/_id/" in topic]
            assert sorted(told) == [f"barrels/geo/_id/{each}" for each in ("a", "gone", "purged")]
        finally:
            await publisher.stop()
