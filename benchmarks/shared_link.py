"""Many streams over one MQTT connection: what a gateway does that listens for others."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from feeds.errors import Unavailable
from listeners.following import Events, Link


class SharedConnection:
    """One MQTT client, and the streams that it carries, by name."""

    def __init__(self, host: str, port: int, client_id: str) -> None:
        self.client = f"anonymous/{client_id}"
        self.streams: dict[str, Events] = {}
        self._place = (host, port)
        self._subscribed = threading.Event()
        self._paho = paho.Client(CallbackAPIVersion.VERSION2, client_id)
        self._paho.max_inflight_messages_set(0)
        self._paho.on_connect = lambda client, *_: client.subscribe(f"to/{self.client}/#", 1)
        self._paho.on_subscribe = lambda *_: self._subscribed.set()
        self._paho.on_message = self._on_message
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        """Connect and subscribe."""
        self._loop = asyncio.get_running_loop()
        self._paho.connect(*self._place)
        self._paho.loop_start()
        if not await asyncio.to_thread(self._subscribed.wait, 10):
            raise Unavailable("The broker does not answer.")

    def link(self, barrel: str, stream: str) -> Link:
        """A link for one stream."""
        return _SharedLink(self, barrel, stream)

    def publish(self, topic: str, data: bytes) -> None:
        """Send it; returns at once."""
        self._paho.publish(topic, data, qos=1)

    def close(self) -> None:
        """Disconnect."""
        self._paho.disconnect()
        self._paho.loop_stop()

    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._arrived, message.topic, bytes(message.payload))

    def _arrived(self, topic: str, payload: bytes) -> None:
        _, _, _, kind, *rest = topic.split("/")
        events = self.streams.get(rest[-1])
        if events is None:
            return
        if kind == "stream":
            events.message(payload)
        else:
            events.refused(Unavailable(payload.decode()))


class _SharedLink:
    """One stream of a shared connection."""

    def __init__(self, shared: SharedConnection, barrel: str, stream: str) -> None:
        self._shared = shared
        self._stream = stream
        self._tail = f"{barrel}/{stream}"

    @property
    def address(self) -> str:
        return f"{self._shared.client} {self._tail}"

    async def connect(self, events: Events) -> None:
        self._shared.streams[self._stream] = events

    async def send(self, data: bytes, *, opens: bool) -> None:
        verb = "stream" if opens else "credit"
        self._shared.publish(f"from/{self._shared.client}/{verb}/{self._tail}", data)

    async def close(self) -> None:
        self._shared.streams.pop(self._stream, None)
