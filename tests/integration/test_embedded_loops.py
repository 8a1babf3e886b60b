"""The embedded broker on uvloop: what depends on the loop's transports, end to end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import uvloop
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from broker.mqtt.contract import Message, Publisher
from broker.mqtt.embedded import EmbeddedBroker
from broker.mqtt.limits import BrokerLimits

from .mqtt_tools import Heard, RawClient, connect_packet, messages, numbers, serving, subscribe_packet, until


def test_everything_that_touches_a_transport_works_on_uvloop(tmp_path: Path) -> None:
    uvloop.run(scenario(tmp_path))


async def scenario(state: Path) -> None:
    # A reader that stops is waited for so long; one that is only slow, on a machine that is busy, is not cut.
    async with serving(state, websocket=True, limits=BrokerLimits(stall_s=2.5)) as broker:
        assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")
        await every_qos(broker)
        await large_messages(broker)
        await larger_than_the_queue(broker)
        await a_reader_that_stops(broker)
        await a_page(broker)
        await a_take_over(broker)


async def every_qos(publisher: EmbeddedBroker) -> None:
    contract: Publisher = publisher
    client = await RawClient.connect(publisher.port, "c", clean=False)
    await client.subscribe(("a", 2))
    for qos in (0, 1, 2):
        await client.publish("x", b"", qos)
        await contract.publish([Message("a", b"x", qos)])
        assert await client.heard() == Heard("a", b"x", qos)
    await client.disconnect()


async def large_messages(broker: EmbeddedBroker) -> None:
    client = await RawClient.connect(broker.port, "large")
    await client.subscribe(("large", 1))
    speaker = await RawClient.connect(broker.port, "speaker")
    payload = bytes(8 * 1024 * 1024)
    await speaker.publish("large", payload, 1)
    assert (await client.heard()).payload == payload
    await client.disconnect()


async def larger_than_the_queue(broker: EmbeddedBroker) -> None:
    client = await RawClient.connect(broker.port, "many")
    await client.subscribe(("barrels/#", 1))
    publishing = asyncio.create_task(broker.publish(messages(5_000)))
    assert numbers(await client.hear(5_000)) == list(range(5_000))
    await publishing
    await client.disconnect()


async def a_reader_that_stops(broker: EmbeddedBroker) -> None:
    stopped = await RawClient.connect(broker.port, "stopped", receive_bytes=4096)
    await stopped.subscribe(("barrels/#", 1))
    await broker.publish(messages(3_000, size=5_000))
    assert broker.stats().disconnected_slow == 1
    lossy = await RawClient.connect(broker.port, "lossy", receive_bytes=4096)
    await lossy.subscribe(("barrels/#", 0))
    await broker.publish(messages(5_000, size=5_000, qos=0))
    lost = broker.stats().dropped
    assert lost > 0
    assert len(await lossy.hear(5_000 - lost)) == 5_000 - lost
    await lossy.disconnect()


async def a_page(broker: EmbeddedBroker) -> None:
    url = f"ws://127.0.0.1:{broker.websocket_port}/"
    async with connect(url, subprotocols=[Subprotocol("mqtt")], close_timeout=0.2) as page:
        await page.send(connect_packet("page") + subscribe_packet(1, ("a", 0)))
        assert await page.recv() == b"\x20\x02\x00\x00\x90\x03\x00\x01\x00"
        await broker.publish([Message("a", b"x")])
        assert await page.recv() == b"\x30\x04\x00\x01ax"


async def a_take_over(broker: EmbeddedBroker) -> None:
    old = await RawClient.connect(broker.port, "c")
    new = await RawClient.connect(broker.port, "c")
    await old.closed()
    await new.disconnect()
    await until(lambda: all(session.client.client_id != "c" for session in broker._book))
