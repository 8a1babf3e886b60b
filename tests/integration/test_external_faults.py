"""An external broker that goes away, hangs, takes over, or closes on a message: nothing stops but the publishing."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from brokers import Mosquitto
from external_tools import QUICK, access, connected, running, scripted
from mqtt_tools import RawClient, until

from broker.external import ExternalBroker, ExternalLimits
from broker.mqtt.contract import Message
from feeds.errors import BadRequest, Unavailable

PROMPT_S = 30.0
WAITING = replace(QUICK, wait_s=120.0)  # for a broker that is away; far longer than what is to come at once


def one(topic: str = "barrels/b/_id/a", payload: bytes = b"x", qos: int = 1) -> Message:
    return Message(topic, payload, qos)


async def persistently(broker: ExternalBroker, batch: list[Message]) -> None:
    """As the publisher does it: again until it is taken, and past what is never taken."""
    while True:
        try:
            await broker.publish(batch)
            return
        except Unavailable:
            await asyncio.sleep(0)
        except BadRequest:
            if len(batch) > 1:
                for message in batch:
                    await persistently(broker, [message])
            return


async def test_while_the_broker_is_away_this_is_shown_and_then_it_goes_on_by_itself(tmp_path: Path) -> None:
    async with running("mosquitto", tmp_path) as (process, broker):
        assert broker.health().state == "running"
        process.kill()
        await until(lambda: broker.health().state == "waiting")
        await until(lambda: broker.health().figures.get("tries", 0) >= 2)
        told = broker.health()
        assert told.reason is not None and "nothing listens there" in told.reason
        assert told.since is not None
        assert told.figures["connected"] is False
        assert "next_try" in told.figures
        process.start()
        await until(lambda: broker.health().state == "running")
        await broker.publish([one()])
        assert broker.stats().connects == 2


async def test_a_publication_waits_for_a_broker_that_is_away_but_is_told_so_first(tmp_path: Path) -> None:
    async with running("mosquitto", tmp_path, limits=WAITING) as (process, broker):
        process.kill()
        await until(lambda: broker.failure)
        with pytest.raises(Unavailable):
            await asyncio.wait_for(broker.publish([one()]), PROMPT_S)
        waiting = asyncio.create_task(broker.publish([one()]))
        await until(lambda: broker.health().figures.get("tries", 0) >= 2)
        assert not waiting.done()
        process.start()
        await asyncio.wait_for(waiting, PROMPT_S)


async def test_stopping_does_not_wait_for_a_broker_that_is_away(tmp_path: Path) -> None:
    async with running("mosquitto", tmp_path, limits=WAITING) as (process, broker):
        process.kill()
        await until(lambda: broker.failure)
        with pytest.raises(Unavailable):
            await broker.publish([one()])
        waiting = asyncio.create_task(broker.publish([one()]))
        await asyncio.sleep(0)
        broker.hurry()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(waiting, PROMPT_S)


async def test_a_broker_that_hangs_is_left_and_taken_up_again_when_it_wakes(tmp_path: Path) -> None:
    async with running("mosquitto", tmp_path, login={"keepalive_s": 1}) as (process, broker):
        process.pause()
        publishing = asyncio.create_task(broker.publish([one()]))
        with pytest.raises(Unavailable):
            await asyncio.wait_for(publishing, PROMPT_S)
        await until(lambda: broker.failure)
        process.go_on()
        # With a ping each second it may lose a connection once more that is only slow.
        await asyncio.wait_for(persistently(broker, [one()]), PROMPT_S)
        await until(lambda: broker.failure is None)


@pytest.mark.parametrize("qos", [0, 1])
async def test_a_topic_that_is_too_long_with_its_prefix_is_refused_and_takes_no_room(qos: int) -> None:
    long = "to/u/c/rejected/".ljust(65_535, "x")
    async with scripted() as there, connected(there, prefix="site1/", kind="plain") as broker:
        assert not await broker.publish_to("u/c", one(long, qos=qos))
        with pytest.raises(BadRequest, match="too long"):
            await broker.publish([one(long, qos=qos), one()])
        assert broker.stats().queues == {"mqtt_in_flight": 0, "mqtt_answers": 0, "mqtt_requests": 0}
        await broker.publish([one()])


async def test_a_message_that_is_never_acknowledged_ends_the_connection_and_is_set_aside() -> None:
    limits = ExternalLimits(retry_first_s=0.01, retry_max_s=0.1, ack_s=1.5)
    async with scripted() as there, connected(there, limits=limits, login={"keepalive_s": 1}, kind="plain") as broker:
        there.on_publish = lambda topic: "ignore" if topic.endswith("/bad") else "ack"
        await asyncio.wait_for(persistently(broker, [one("barrels/b/bad"), one("barrels/b/good")]), 60)
        assert broker.stats().set_aside == 1
        assert there.came["barrels/b/good"] >= 1


async def test_a_message_on_which_the_broker_closes_twice_is_set_aside_and_the_others_pass() -> None:
    async with scripted() as there, connected(there, kind="plain") as broker:
        there.on_publish = lambda topic: "close" if topic.endswith("/bad") else "ack"
        batch = [one(f"barrels/b/{at}") for at in range(50)]
        batch.insert(20, one("barrels/b/bad"))
        await asyncio.wait_for(persistently(broker, batch), 30)
        assert there.came["barrels/b/bad"] == 3  # among others, and twice alone
        assert all(there.came[f"barrels/b/{at}"] for at in range(50))
        told = broker.health()
        assert told.figures["set_aside"] == 1
        assert told.hint is not None
        with pytest.raises(BadRequest, match="barrels/b/bad"):
            await broker.publish([one("barrels/b/bad")])
        assert there.came["barrels/b/bad"] == 3  # it is not tried again for a while


async def test_what_fails_when_the_broker_takes_nothing_at_all_is_not_set_aside() -> None:
    async with scripted() as there, connected(there, kind="plain") as broker:
        taking = False
        there.on_publish = lambda _topic: "ack" if taking else "close"
        publishing = asyncio.create_task(persistently(broker, [one()]))
        await until(lambda: there.came["to/spile/probe"] >= 2)
        assert there.came["barrels/b/_id/a"] == 2  # among others, and once alone
        taking = True
        await asyncio.wait_for(publishing, 30)
        assert there.came["barrels/b/_id/a"] == 3
        assert broker.stats().set_aside == 0


async def test_a_suspect_that_will_not_be_sent_is_a_suspect_no_more() -> None:
    limits = ExternalLimits(retry_first_s=0.01, packet_bytes=1_000)
    async with scripted() as there, connected(there, limits=limits, kind="plain") as broker:
        there.on_publish = lambda _topic: "close"
        with pytest.raises(Unavailable):
            await broker.publish([one()])
        there.on_publish = lambda _topic: "ack"
        assert broker._suspects
        await until(lambda: broker.failure is None)
        with pytest.raises(BadRequest, match="bytes"):
            await broker.publish([one(payload=b"x" * 2_000)])
        assert not broker._suspects


async def test_what_was_under_way_when_a_broker_was_killed_is_not_set_aside(tmp_path: Path) -> None:
    async with running("mosquitto", tmp_path) as (process, broker):
        batch = [one(f"barrels/b/_id/{at}") for at in range(5_000)]
        for _ in range(3):
            publishing = asyncio.create_task(persistently(broker, batch))
            before = broker.stats().acknowledged
            await until(lambda before=before: broker.stats().acknowledged > before + 100)  # type: ignore[misc]
            process.kill()
            await until(lambda: broker.failure)
            process.start()
            await asyncio.wait_for(publishing, 60)
        assert broker.stats().set_aside == 0


async def test_mosquitto_closes_on_too_many_levels_which_is_known_beforehand(tmp_path: Path) -> None:
    async with running("mosquitto", tmp_path) as (_, broker):
        with pytest.raises(BadRequest, match="levels"):
            await broker.publish([one("a/" * 250 + "x")])
        assert broker.stats().connects == 1


async def test_a_message_larger_than_the_broker_takes_is_refused_and_nothing_else(tmp_path: Path) -> None:
    limits = ExternalLimits(packet_bytes=10_000)
    async with running("mosquitto", tmp_path, limits=limits) as (_, broker):
        with pytest.raises(BadRequest, match="20"):
            await broker.publish([one(), one(payload=b"x" * 20_000)])
        await broker.publish([one(payload=b"x" * 9_000)])


class Lock:
    """What will be a lock in a database: one process has it."""

    def __init__(self) -> None:
        self.holder: str | None = None
        self.asked: dict[str, int] = {}

    def of(self, name: str) -> Any:
        async def mine() -> bool:
            self.asked[name] = self.asked.get(name, 0) + 1
            return self.holder == name

        return mine


async def test_of_two_processes_only_the_holder_of_the_lock_connects(tmp_path: Path) -> None:
    lock = Lock()
    lock.holder = "one"
    with Mosquitto(tmp_path) as process:
        async with connected(process, may_connect=lock.of("one")) as first:
            async with connected(process, may_connect=lock.of("two")) as second:
                await first.publish([one()])
                await until(lambda: second.health().state == "waiting")
                assert "Another process" in (second.health().reason or "")
                with pytest.raises(Unavailable):
                    await second.publish([one()])
                lock.holder = "two"
                second.wake()
                await until(lambda: second.failure is None)
                await until(lambda: first.failure)  # the broker has ended the connection of the same client id
                asked = lock.asked["one"]
                await until(lambda: lock.asked["one"] >= asked + 3)
                assert first.failure is not None
                assert second.stats().connects == 1  # nobody has taken it back
                await second.publish([one()])


async def test_a_process_that_lost_the_lock_lets_go_and_does_not_come_back(tmp_path: Path) -> None:
    lock = Lock()
    lock.holder = "one"
    async with running("mosquitto", tmp_path, may_connect=lock.of("one")) as (_, broker):
        await broker.publish([one()])
        lock.holder = None
        broker.let_go("the lock was lost")
        assert broker.failure is not None and "the lock was lost" in broker.failure
        with pytest.raises(Unavailable):
            await broker.publish([one()])
        asked = lock.asked["one"]
        await until(lambda: lock.asked["one"] >= asked + 3)
        assert broker.stats().connects == 1


async def test_two_of_one_client_id_that_end_each_others_connections_do_so_slowly(tmp_path: Path) -> None:
    limits = ExternalLimits(retry_first_s=0.1, retry_max_s=0.1)
    async with AsyncExitStack() as stack:
        process = stack.enter_context(Mosquitto(tmp_path))
        both = [await stack.enter_async_context(connected(process, limits=limits)) for _ in range(2)]

        async def publishes(broker: ExternalBroker) -> None:
            while True:
                await persistently(broker, [one()])

        publishing = [asyncio.create_task(publishes(broker)) for broker in both]
        try:
            before, began = sum(each.connects for each in both), time.monotonic()
            await until(lambda: sum(each.connects for each in both) >= before + 10)
            took_s = time.monotonic() - began
        finally:
            for each in publishing:
                each.cancel()
            await asyncio.gather(*publishing, return_exceptions=True)
        # A wait is half of `retry_first_s` at least, and one of the two has waited its time when this began.
        assert took_s > 8 * limits.retry_first_s / 2


async def test_a_broker_that_accepts_and_closes_is_tried_with_growing_waits() -> None:
    limits = ExternalLimits(retry_first_s=0.02, retry_max_s=10.0)
    async with scripted() as there, connected(there, limits=limits, kind="plain") as broker:
        there.greeting = b""
        there.cut()
        await until(lambda: broker.health().figures.get("tries", 0) >= 5)
        assert there.connects <= 8
        there.greeting = bytes([0x20, 2, 0, 0])
        broker.wake()
        await until(lambda: broker.failure is None)


async def test_answers_go_on_while_a_large_batch_is_published(tmp_path: Path) -> None:
    async with running("mosquitto", tmp_path) as (process, broker):
        device = await RawClient.connect(process.port, "device")
        await device.subscribe(("to/anonymous/device/#", 1))
        publishing = asyncio.create_task(broker.publish([one(f"barrels/b/{at}") for at in range(20_000)]))
        await until(lambda: broker.stats().acknowledged > 1_000)
        assert await broker.publish_to("anonymous/device", one("to/anonymous/device/accepted/put/b/a"))
        assert (await device.heard()).topic == "to/anonymous/device/accepted/put/b/a"
        assert not publishing.done()
        await publishing


async def test_what_is_under_way_is_bounded() -> None:
    limits = ExternalLimits(window=100, window_bytes=50_000, answers=10)
    async with scripted() as there, connected(there, limits=limits, kind="plain") as broker:
        there.on_publish = lambda _topic: "ignore"
        changes = [asyncio.create_task(broker.publish([one() for _ in range(1_000)]))]
        answers = [asyncio.create_task(broker.publish_to("a/b", one("to/a/b/x"))) for _ in range(100)]
        await until(lambda: there.came["barrels/b/_id/a"] == 100 and there.came["to/a/b/x"] == 10)
        assert broker.stats().queues == {"mqtt_in_flight": 100, "mqtt_answers": 10, "mqtt_requests": 0}
        there.cut()
        with pytest.raises(Unavailable):
            await changes[0]
        assert await asyncio.gather(*answers) == [False] * 100
        there.on_publish = lambda _topic: "ack"
        await asyncio.wait_for(persistently(broker, [one(payload=b"y" * 40_000) for _ in range(10)]), 30)


async def test_a_broker_that_cannot_be_reached_at_the_start_is_taken_up_when_it_comes(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as process:
        process.kill()
        broker = ExternalBroker(access(process), requests=None, limits=QUICK)
        await broker.start()
        try:
            assert broker.health().state == "waiting"
            process.start()
            await until(lambda: broker.failure is None)
            await broker.publish([one()])
        finally:
            await broker.stop()


async def test_the_end_of_its_task_is_told() -> None:
    class Broken(Exception):
        pass

    broken = asyncio.Event()

    async def may_connect() -> bool:
        if broken.is_set():
            raise Broken
        return True

    async with scripted() as there, connected(there, may_connect=may_connect, kind="plain") as broker:
        failed = asyncio.create_task(broker.failed())
        broken.set()
        there.cut()
        assert isinstance(await asyncio.wait_for(failed, 20), Broken)
