"""MQTT over WebSocket: the same broker, for browsers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from broker.mqtt.contract import Message
from broker.mqtt.embedded import EmbeddedBroker
from broker.mqtt.limits import BrokerLimits
from broker.mqtt.websocket import origin_allowed

from .mqtt_tools import (
    RawClient,
    connect_packet,
    messages,
    packet,
    publish_packet,
    serving,
    subscribe_packet,
    until,
)


@pytest.fixture
async def broker() -> AsyncIterator[EmbeddedBroker]:
    async with serving(websocket=True, limits=BrokerLimits(packet_bytes=2_000_000)) as broker:
        yield broker


def opened(broker: EmbeddedBroker, **options: Any) -> connect:
    subprotocols = [Subprotocol("mqtt")]
    return connect(
        f"ws://127.0.0.1:{broker.websocket_port}/mqtt", subprotocols=subprotocols, close_timeout=0.2, **options
    )


async def logged_in(socket: ClientConnection, client_id: str) -> None:
    await socket.send(connect_packet(client_id))
    assert await socket.recv() == b"\x20\x02\x00\x00"


async def send_and_be_closed(socket: ClientConnection, data: bytes) -> None:
    with contextlib.suppress(ConnectionClosed):  # it may be closed before everything is sent
        await socket.send(data)
    with pytest.raises(ConnectionClosed):
        await socket.recv()


async def test_paho_listens_and_publishes_over_websocket(broker: EmbeddedBroker) -> None:
    loop = asyncio.get_running_loop()
    heard: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
    ready = asyncio.Event()

    def on_message(_client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        loop.call_soon_threadsafe(heard.put_nowait, (message.topic, bytes(message.payload)))

    client = paho.Client(CallbackAPIVersion.VERSION2, "browser", transport="websockets")
    client.on_message = on_message
    client.on_subscribe = lambda *_: loop.call_soon_threadsafe(ready.set)  # type: ignore[assignment]
    await asyncio.to_thread(client.connect, "127.0.0.1", broker.websocket_port)
    client.loop_start()
    client.subscribe("a/#", 1)
    await asyncio.wait_for(ready.wait(), 10)
    await broker.publish([Message("a/b", b"x" * 100_000, 1)])
    assert await asyncio.wait_for(heard.get(), 10) == ("a/b", b"x" * 100_000)
    client.publish("a/c", b"from the browser", 1)
    assert await asyncio.wait_for(heard.get(), 10) == ("a/c", b"from the browser")
    client.disconnect()
    client.loop_stop()
    await until(lambda: broker.stats().connections == 0)


async def test_packets_need_not_end_with_their_frames(broker: EmbeddedBroker) -> None:
    async with opened(broker) as socket:
        stream = connect_packet("c") + subscribe_packet(1, ("a", 0)) + publish_packet("a", b"x" * 1_000)
        await socket.send(stream[at : at + 7] for at in range(0, len(stream), 7))
        came = b""
        while len(came) < 4 + 5 + 1_006:
            part = await socket.recv()
            assert isinstance(part, bytes)
            came += part
        assert came.startswith(b"\x20\x02\x00\x00\x90\x03\x00\x01\x00") and came.endswith(b"x" * 1_000)


async def test_a_frame_of_text_closes_the_connection(broker: EmbeddedBroker) -> None:
    async with opened(broker) as socket:
        await logged_in(socket, "c")
        await socket.send("hello")
        with pytest.raises(ConnectionClosed):
            await socket.recv()


async def test_the_subprotocol_is_mqtt(broker: EmbeddedBroker) -> None:
    async with opened(broker) as socket:
        assert socket.subprotocol == "mqtt"
    with pytest.raises(InvalidStatus):
        async with connect(f"ws://127.0.0.1:{broker.websocket_port}/"):
            pass


@pytest.mark.parametrize(
    ("origin", "host", "allowed", "expected"),
    [
        (None, "here:9001", (), True),
        ("http://here:8000", "here:9001", (), True),
        ("http://HERE", "here", (), True),
        ("https://evil.example", "here:9001", (), False),
        ("https://evil.example", None, (), False),
        ("null", "here", (), False),
        ("https://app.example", "here", ("https://app.example",), True),
        ("https://any.example", "here", ("*",), True),
        ("http://[::1]:8000", "[::1]:9001", (), True),
    ],
)
def test_pages_of_other_sites_may_not_connect(
    origin: str | None, host: str | None, allowed: tuple[str, ...], expected: bool
) -> None:
    assert origin_allowed(origin, host, allowed) is expected


async def test_a_foreign_page_is_told_so(broker: EmbeddedBroker) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with opened(broker, origin="https://evil.example"):
            pass
    assert caught.value.response.status_code == 403


async def test_who_does_not_shake_hands_or_connect_in_time_is_closed() -> None:
    async with serving(websocket=True, limits=BrokerLimits(connect_s=2.0)) as broker:
        silent = await RawClient.open(broker.websocket_port)
        async with opened(broker) as socket:
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(socket.recv(), 30)
        await silent.closed()
        await until(lambda: broker.stats().connections == 0)


async def test_what_is_no_websocket_gets_an_answer_in_http(broker: EmbeddedBroker) -> None:
    plain = await RawClient.open(broker.websocket_port)
    await plain.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await plain.reader.readline()).startswith(b"HTTP/1.1 426")
    rude = await RawClient.open(broker.websocket_port)
    await rude.send(b"\x10\x20\r\n\r\n")
    await rude.closed()


async def test_a_page_that_does_not_read_is_cut_like_any_other(broker: EmbeddedBroker) -> None:
    async with opened(broker, max_queue=1) as socket:
        await logged_in(socket, "c")
        await socket.send(subscribe_packet(1, ("barrels/#", 1)))
        await socket.recv()
        await asyncio.wait_for(broker.publish(messages(5_000, size=10_000)), 30)
        assert broker.stats().disconnected_slow == 1


async def test_a_frame_above_the_limit_closes_the_connection(broker: EmbeddedBroker) -> None:
    async with opened(broker) as socket:
        await logged_in(socket, "c")
        await send_and_be_closed(socket, publish_packet("a", bytes(3_000_000), 1, 1))


async def test_before_its_login_a_page_may_send_no_large_frame(broker: EmbeddedBroker) -> None:
    async with opened(broker) as socket:
        await send_and_be_closed(socket, packet(0x10, bytes(1_500_000)))


async def test_it_stops_while_pages_are_open() -> None:
    async with serving(websocket=True) as broker, opened(broker) as socket:
        await logged_in(socket, "c")
        await broker.stop()
        with pytest.raises(ConnectionClosed) as caught:
            await socket.recv()
        assert caught.value.rcvd is not None and caught.value.rcvd.code == 1000
