"""Sessions that stay: what they keep, in what order it comes, and what a crash leaves of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from broker.mqtt.contract import Client, Message
from broker.mqtt.embedded import EmbeddedBroker
from broker.mqtt.gate import OpenGate
from broker.mqtt.limits import BrokerLimits
from broker.mqtt.statefile import FILE
from feeds.errors import NewerSchema, StoreLocked, Unavailable

from .mqtt_tools import (
    CONNACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    Heard,
    RawClient,
    ack_packet,
    connect_packet,
    leave_no_client,
    messages,
    numbers,
    publish_packet,
    read_heard,
    serving,
    until,
)

SERVE = """
import asyncio, sys
from pathlib import Path
from broker.mqtt.embedded import EmbeddedBroker
from broker.mqtt.gate import OpenGate

async def main():
    broker = EmbeddedBroker(host="127.0.0.1", port=0, gate=OpenGate(), requests=None, state=Path(sys.argv[1]))
    await broker.start()
    print(broker.port, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    async with serving(tmp_path) as broker:
        yield broker


class Served:
    """A broker in a process of its own, to be killed."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    @classmethod
    async def start(cls, state: Path) -> Served:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SERVE, str(state), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        return cls(process, int(await process.stdout.readline()))

    async def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        await self.process.wait()
        await leave_no_client()


async def test_what_was_acknowledged_survives_the_death_of_the_broker(tmp_path: Path) -> None:
    served = await Served.start(tmp_path)
    client = await RawClient.connect(served.port, "c", clean=False)
    await client.subscribe(("a/#", 2))
    await client.disconnect()
    speaker = await RawClient.connect(served.port, "s")
    for number in range(50):
        await speaker.publish("a/b", str(number).encode(), 1 + number % 2)
    await speaker.publish("k", b"kept", 1, retain=True)
    await served.kill()
    again = await Served.start(tmp_path)
    client = await RawClient.connect(again.port, "c", clean=False)
    assert client.present
    assert numbers(await client.hear(50)) == list(range(50))
    await client.subscribe(("k", 1))
    assert await client.heard() == Heard("k", b"kept", 1, retain=True)
    await again.kill()


async def test_qos_2_is_exactly_once_across_the_death_of_the_broker(tmp_path: Path) -> None:
    served = await Served.start(tmp_path)
    listener = await RawClient.connect(served.port, "l", clean=False, acking=False)
    await listener.subscribe(("a", 2))
    speaker = await RawClient.connect(served.port, "s", clean=False)
    await speaker.send(publish_packet("a", b"x", 2, 9))
    await speaker.expect(PUBREC)
    heard = await listener.heard()
    await listener.send(ack_packet(PUBREC, heard.packet_id))
    await listener.expect(PUBREL)
    # What nobody waits for is written at the latest with what comes after it and is waited for.
    await speaker.publish("other", b"kept", 1, retain=True)
    await served.kill()

    again = await Served.start(tmp_path)
    speaker = await RawClient.connect(again.port, "s", clean=False)
    listener = await RawClient.connect(again.port, "l", clean=False, acking=False)
    assert (await listener.expect(PUBREL)).body == heard.packet_id.to_bytes(2, "big")
    await speaker.send(publish_packet("a", b"x", 2, 9, again=True))
    await speaker.expect(PUBREC)
    await speaker.send(ack_packet(PUBREL, 9))
    await speaker.expect(PUBCOMP)
    assert await listener.hear_until_quiet() == []
    await listener.send(ack_packet(PUBCOMP, heard.packet_id))
    await listener.hear_until_quiet()
    await again.kill()


async def test_what_comes_during_a_reconnect_does_not_overtake_what_was_kept(broker: EmbeddedBroker) -> None:
    client = await RawClient.connect(broker.port, "c", clean=False)
    await client.subscribe(("barrels/#", 0), ("barrels/b/+", 1))
    await client.disconnect()
    await broker.publish(messages(20))
    session = broker._book.get("anonymous/c")
    assert session is not None
    held = threading.Event()
    busy = asyncio.create_task(broker._state._in_thread(lambda: held.wait(30)))
    connecting = asyncio.create_task(RawClient.connect(broker.port, "c", clean=False))
    await until(lambda: session.loading)
    newer = asyncio.create_task(broker.publish([*messages(10), Message("barrels/other/x/y", b"10", 0)]))
    for _ in range(5):
        await asyncio.sleep(0)
    held.set()
    client = await connecting
    assert numbers(await client.hear(31)) == [*range(20), *range(11)]
    await asyncio.gather(busy, newer)
    assert await client.hear_until_quiet() == []


async def test_what_comes_while_a_login_is_cut_short_comes_with_the_next_one(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await RawClient.connect(broker.port, "c", clean=False)
    await client.subscribe(("barrels/#", 1))
    await client.disconnect()
    numbered = messages(10)
    await broker.publish(numbered[:5])
    read, goes_on, looked = broker._state.read, asyncio.Event(), list[object]()

    async def slow(query: Callable[[sqlite3.Connection], object]) -> object:
        looked.append(found := await read(query))
        await goes_on.wait()
        return found

    monkeypatch.setattr(broker._state, "read", slow)
    first = await RawClient.open(broker.port)
    await first.send(connect_packet("c", clean=False))
    await until(lambda: len(looked) == 1)
    await broker.publish(numbered[5:])
    second = await RawClient.open(broker.port)
    await second.send(connect_packet("c", clean=False))
    await until(lambda: len(looked) == 2)
    goes_on.set()
    await second.expect(CONNACK)
    assert numbers(await second.hear(10)) == list(range(10))


async def test_what_is_kept_of_a_message_that_was_only_to_be_released_is_counted_as_it_is(
    broker: EmbeddedBroker,
) -> None:
    client = await RawClient.connect(broker.port, "c", clean=False, acking=False)
    await client.subscribe(("a", 2))
    await broker.publish([Message("a", b"x" * 1_000, 2)])
    heard = read_heard(await client.expect(PUBLISH))
    await client.send(ack_packet(PUBREC, heard.packet_id))
    await client.expect(PUBREL)
    await client.vanish()
    session = broker._book.get("anonymous/c")
    assert session is not None
    await until(lambda: session.connection is None)
    client = await RawClient.connect(broker.port, "c", clean=False, acking=False)
    await client.expect(PUBREL)
    await client.send(ack_packet(PUBCOMP, heard.packet_id))
    await until(lambda: session.kept == 0)
    assert (session.kept_bytes, session.in_flight_bytes) == (0, 0)


async def test_a_clean_connect_erases_what_was_kept(broker: EmbeddedBroker) -> None:
    client = await RawClient.connect(broker.port, "c", clean=False)
    await client.subscribe(("a", 1))
    await client.disconnect()
    await broker.publish([Message("a", b"x", 1)])
    clean = await RawClient.connect(broker.port, "c")
    assert not clean.present
    await clean.disconnect()
    again = await RawClient.connect(broker.port, "c", clean=False)
    assert not again.present
    assert await again.hear_until_quiet() == []
    assert broker.stats().queues["mqtt_kept"] == 0


async def test_packet_ids_begin_again_and_spare_those_under_way(broker: EmbeddedBroker) -> None:
    client = await RawClient.connect(broker.port, "c", acking=False)
    await client.subscribe(("barrels/#", 1))
    await broker.publish(messages(1))
    assert (await client.heard()).packet_id == 1
    session = broker._book.get("anonymous/c")
    assert session is not None
    session.last_packet_id = 65_533
    await broker.publish(messages(4))
    assert [each.packet_id for each in await client.hear(4)] == [65_534, 65_535, 2, 3]


async def test_a_client_that_unsubscribed_stays_unsubscribed(tmp_path: Path) -> None:
    async with serving(tmp_path) as broker:
        client = await RawClient.connect(broker.port, "c", clean=False)
        await client.subscribe(("a", 1), ("b", 1))
        await client.send(b"\xa2\x05\x00\x07\x00\x01a")
        await client.receive()
        await client.disconnect()
    async with serving(tmp_path) as broker:
        await broker.publish([Message("a", b"x", 1), Message("b", b"y", 1)])
        client = await RawClient.connect(broker.port, "c", clean=False)
        assert await client.hear(1) == [Heard("b", b"y", 1)]
        assert await client.hear_until_quiet() == []


async def test_a_discarded_session_is_not_back_after_a_restart(tmp_path: Path) -> None:
    limits = BrokerLimits(queue_messages=10)
    async with serving(tmp_path, limits=limits) as broker:
        client = await RawClient.connect(broker.port, "c", clean=False)
        await client.subscribe(("barrels/#", 1))
        await client.disconnect()
        await broker.publish(messages(11))
    async with serving(tmp_path, limits=limits) as broker:
        assert broker.stats().sessions == 0
        assert not (await RawClient.connect(broker.port, "c", clean=False)).present


async def test_the_bytes_kept_for_an_absent_client_are_bounded_too(broker: EmbeddedBroker) -> None:
    client = await RawClient.connect(broker.port, "c", clean=False)
    await client.subscribe(("barrels/#", 1))
    await client.disconnect()
    await broker.publish(messages(12, size=100_000))
    assert broker.stats().discarded_sessions == 1


async def test_qos_0_is_not_kept_for_an_absent_client(broker: EmbeddedBroker) -> None:
    client = await RawClient.connect(broker.port, "c", clean=False)
    await client.subscribe(("barrels/#", 1))
    await client.disconnect()
    await broker.publish(messages(5_000, qos=0))
    again = await RawClient.connect(broker.port, "c", clean=False)
    assert again.present and await again.hear_until_quiet() == []


async def test_a_session_nobody_came_back_to_expires(tmp_path: Path) -> None:
    async with serving(tmp_path) as broker:
        client = await RawClient.connect(broker.port, "c", clean=False)
        await client.disconnect()
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("UPDATE sessions SET seen = seen - 20 * 86400")
    connection.close()
    async with serving(tmp_path) as broker:
        broker._book.expire()
        assert broker.stats().sessions == 0


async def test_a_session_does_not_expire_for_having_been_connected_for_long_when_the_broker_died(
    tmp_path: Path,
) -> None:
    weeks_later = time.time() + 20 * 86_400
    async with serving(tmp_path / "state") as broker:
        await RawClient.connect(broker.port, "c", clean=False)
        broker._book._now = lambda: weeks_later
        broker._book.expire()
        await broker._state.commit()
        shutil.copytree(tmp_path / "state", tmp_path / "found after the crash")
    async with serving(tmp_path / "found after the crash") as broker:
        broker._book._now = lambda: weeks_later + 60
        broker._book.expire()
        assert (await RawClient.connect(broker.port, "c", clean=False)).present


async def test_persistent_sessions_are_limited(tmp_path: Path) -> None:
    async with serving(tmp_path, limits=BrokerLimits(sessions=1)) as broker:
        assert (await RawClient.connect(broker.port, "a", clean=False)).code == 0
        assert (await RawClient.connect(broker.port, "b", clean=False)).code == 3
        assert (await RawClient.connect(broker.port, "b")).code == 0
        assert (await RawClient.connect(broker.port, "a", clean=False)).present


async def test_a_filter_that_is_no_longer_allowed_is_gone_when_its_session_comes_back(tmp_path: Path) -> None:
    class Stricter(OpenGate):
        def may_subscribe(self, client: Client, topic_filter: str) -> str | None:
            return "secret" if topic_filter.startswith("secret/") else None

    async with serving(tmp_path) as broker:
        client = await RawClient.connect(broker.port, "c", clean=False)
        await client.subscribe(("secret/#", 1), ("open/#", 1))
        await client.disconnect()
    async with serving(tmp_path, gate=Stricter()) as broker:
        client = await RawClient.connect(broker.port, "c", clean=False)
        await broker.publish([Message("secret/x", b"", 1), Message("open/x", b"", 1)])
        assert await client.hear_until_quiet() == [Heard("open/x", b"", 1)]


async def test_two_brokers_cannot_have_one_state(tmp_path: Path, broker: EmbeddedBroker) -> None:
    second = EmbeddedBroker(host="127.0.0.1", port=0, gate=OpenGate(), requests=None, state=tmp_path)
    with pytest.raises(StoreLocked):
        await second.start()


async def test_a_state_from_the_future_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(NewerSchema):
        async with serving(tmp_path):
            pass


async def test_a_port_in_use_is_named(broker: EmbeddedBroker) -> None:
    second = EmbeddedBroker(host="127.0.0.1", port=broker.port, gate=OpenGate(), requests=None, state=None)
    with pytest.raises(Unavailable, match=f"127.0.0.1:{broker.port}"):
        await second.start()


async def test_a_stopped_broker_does_not_pretend_to_publish(tmp_path: Path) -> None:
    async with serving(tmp_path) as broker:
        pass
    with pytest.raises(Unavailable):
        await broker.publish(messages(1))


async def test_when_the_disk_takes_nothing_nothing_is_acknowledged(tmp_path: Path) -> None:
    async with serving(tmp_path) as broker:
        away = await RawClient.connect(broker.port, "away", clean=False)
        await away.subscribe(("barrels/#", 1), ("a", 1))
        await away.disconnect()
        speaker = await RawClient.connect(broker.port, "s")
        # As on a full disk: the file may not grow.
        state = broker._state
        connection = state._connection
        assert connection is not None
        await state.read(lambda c: c.execute("PRAGMA max_page_count = 1").fetchone())  # as many as there are
        with pytest.raises(Unavailable):
            await broker.publish(messages(100, size=10_000))
        assert broker.stats().failure is not None
        with pytest.raises(Unavailable):
            await broker.publish(messages(1))
        await speaker.send(publish_packet("a", b"x", 1, 1))
        await speaker.closed()
        await state._in_thread(lambda: connection.execute("PRAGMA max_page_count = 1000000").fetchone())
        await until(lambda: broker.stats().failure is None, "it is written after all")
        await broker.publish([Message("barrels/b/x", b"last", 1)])
        again = await RawClient.connect(broker.port, "away", clean=False)
        heard = await again.hear(101)
        assert [each.payload.rstrip(b".") for each in heard] == [*(b"%d" % n for n in range(100)), b"last"]
        assert await again.hear_until_quiet() == []
