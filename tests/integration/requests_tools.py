"""A service that is spoken to over MQTT alone: a store, streams, the broker, and devices that use paho."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from broker.mqtt.contract import Client, Gate, Message
from broker.mqtt.embedded import EmbeddedBroker
from broker.mqtt.gate import OpenGate
from broker.regulation import Regulator
from broker.requests import RequestLimits, RequestService
from broker.requests.serving import Decide, Verb
from feeds import Barrel, Store, StoreSettings
from listeners.nested import Neighbours, Nest
from listeners.stream.service import StreamService

PATIENCE_S = 20.0


@dataclass(frozen=True)
class Heard:
    """A message to a device: the topic below `to/<client>/`, its JSON, and how it came."""

    topic: str
    body: Any
    qos: int = field(default=1, compare=False)
    retain: bool = field(default=False, compare=False)


class Device:
    """An MQTT client that asks and hears its answers in the order in which they come."""

    def __init__(self, client_id: str, user: str | None) -> None:
        self.name = Client.of(user, client_id).name
        self.heard: asyncio.Queue[Heard] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._connected = self._loop.create_future()
        self._subscribed = self._loop.create_future()
        self._published: dict[int, asyncio.Future[None]] = {}
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=paho.MQTTv311,
            reconnect_on_failure=False,
        )
        client.max_inflight_messages_set(1_000)
        if user is not None:
            client.username_pw_set(user, "secret")
        client.on_connect = lambda *_: self._on_loop(_settle, self._connected)
        client.on_subscribe = lambda *_: self._on_loop(_settle, self._subscribed)
        client.on_publish = lambda _client, _data, mid, _reason, _properties: self._on_loop(self._done, mid)
        client.on_message = lambda _client, _data, message: self._on_loop(self._hear, message)

    @classmethod
    async def connect(cls, port: int, client_id: str, *, user: str | None = None, listens: bool = True) -> Device:
        """A device that is connected, and (unless it does not listen) hears its answers."""
        device = cls(client_id, user)
        await asyncio.to_thread(device._client.connect, "127.0.0.1", port)
        device._client.loop_start()
        await asyncio.wait_for(device._connected, PATIENCE_S)
        if listens:
            await device.subscribe(f"to/{device.name}/#")
        return device

    async def subscribe(self, topic_filter: str) -> None:
        """Subscribe, and return when that is acknowledged."""
        self._subscribed = self._loop.create_future()
        self._client.subscribe(topic_filter, qos=1)
        await asyncio.wait_for(self._subscribed, PATIENCE_S)

    def publish(self, topic: str, payload: bytes, qos: int = 1) -> asyncio.Future[None]:
        """Publish as it is; done when the broker has acknowledged."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._published[self._client.publish(topic, payload, qos=qos).mid] = done
        return done

    def ask(self, place: str, body: Any = b"") -> asyncio.Future[None]:
        """Publish a request: `<verb>/<barrel>/<rest>`, and its body (bytes as they are, all else as JSON)."""
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.publish(f"from/{self.name}/{place}", payload)

    async def hear(self) -> Heard:
        """The next message."""
        return await asyncio.wait_for(self.heard.get(), PATIENCE_S)

    async def asked(self, place: str, body: Any = b"") -> Heard:
        """Ask, and hear the answer."""
        done = self.ask(place, body)
        answer = await self.hear()
        await asyncio.wait_for(done, PATIENCE_S)
        return answer

    async def close(self) -> None:
        """Disconnect, and let go of paho's client, whose sockets close when nobody holds it."""
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)
        del self._client

    def _on_loop(self, call: Callable[..., None], *values: Any) -> None:
        self._loop.call_soon_threadsafe(call, *values)

    def _done(self, mid: int) -> None:
        self._published.pop(mid).set_result(None)

    def _hear(self, message: paho.MQTTMessage) -> None:
        topic = message.topic.removeprefix(f"to/{self.name}/")
        self.heard.put_nowait(Heard(topic, json.loads(message.payload), message.qos, message.retain))


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


@dataclass
class Service:
    """The running parts, with a barrel `geo`."""

    store: Store
    barrel: Barrel
    broker: EmbeddedBroker
    streams: StreamService
    requests: RequestService
    readers: ThreadPoolExecutor
    devices: list[Device] = field(default_factory=list)

    async def device(self, client_id: str = "d1", *, user: str | None = None, listens: bool = True) -> Device:
        """A device, disconnected at the end."""
        device = await Device.connect(self.broker.port, client_id, user=user, listens=listens)
        self.devices.append(device)
        return device


def everyone(who: str, verb: Verb, barrel: str, path: str) -> None:
    """All may do all."""


@asynccontextmanager
async def serving(
    folder: Path,
    *,
    limits: RequestLimits | None = None,
    decide: Decide = everyone,
    gate: Gate | None = None,
    settings: StoreSettings | None = None,
    regulator: Regulator | None = None,
    peers: Iterable[str] = (),
) -> AsyncIterator[Service]:
    """The service on a new store, stopped in order at the end; `peers` are those of its nested calls."""
    with Store.open(folder, settings) as store, ThreadPoolExecutor(4) as readers:
        streams = StreamService(store, readers)

        async def answer(client_name: str, message: Message) -> bool:
            return await broker.publish_to(client_name, message)

        nest = Nest(store, Neighbours.of(peers))
        requests = RequestService(
            store, streams, answer, readers, limits or RequestLimits(), decide=decide, regulator=regulator, nest=nest
        )
        broker = EmbeddedBroker(host="127.0.0.1", port=0, gate=gate or OpenGate(), requests=requests, state=None)
        await broker.start()
        service = Service(store, store.create("geo"), broker, streams, requests, readers)
        try:
            yield service
        finally:
            for device in service.devices:
                await device.close()
            await broker.stop()
            await streams.stop()
            requests.close()
            await nest.close()


async def until(holds: Callable[[], bool] | Callable[[], Awaitable[bool]], patience_s: float = PATIENCE_S) -> None:
    """Wait for a state."""
    async with asyncio.timeout(patience_s):
        while True:
            answer = holds()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.005)
