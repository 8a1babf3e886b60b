"""Requests under way: started in order of arrival, bounded, and answered even when they fail.

What a request means is known to `Requests`, which the composition root gives; here it is only kept from
being lost, and from being too much.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from itertools import islice
from typing import Any

import msgspec

from broker.mqtt.connection import Connection
from broker.mqtt.contract import Client, Message, Requests
from broker.mqtt.limits import BrokerLimits
from broker.mqtt.session import Counters
from broker.mqtt.topicnames import rest_of_request
from broker.mqtt.wiring import Hold
from broker.regulation.holding import Holding
from feeds.errors import SpileError

log = logging.getLogger("spile.mqtt.requests")

Answer = Callable[[str, Message], Awaitable[bool]]
Offer = Callable[[str, Message], bool]


class RequestDesk:
    """Runs requests as named tasks. `answer` publishes to one client.

    A client with too many under way, those of its earlier connections included, is not read from; nor is
    anybody while there are too many in all. A refusal is told at once, but acknowledged a moment later: by then
    the sender's window is full, and slows it. `offer` publishes to one client without waiting.
    """

    def __init__(
        self, requests: Requests, answer: Answer, offer: Offer, limits: BrokerLimits, counters: Counters
    ) -> None:
        self._requests = requests
        self._answer = answer
        self._offer = offer
        self._slowed = Holding(limits.slowed, requests.room)
        self._limits = limits
        self._counters = counters
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way: dict[str, int] = {}
        self._held: dict[Connection, str] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def slowed(self) -> int:
        """Refused requests that are not acknowledged yet."""
        return len(self._slowed)

    def accepts(self, topic: str) -> bool:
        """Whether a publication to this topic is a request."""
        return self._requests.accepts(topic)

    def hold_back(self, connection: Connection, client: Client) -> None:
        """Stop reading from the client if it has, or all have, too much under way."""
        if self._too_much(client.name):
            self._held[connection] = client.name
            connection.hold(Hold.REQUESTS)

    def forget(self, connection: Connection) -> None:
        """The connection is gone."""
        self._held.pop(connection, None)

    def _too_much(self, name: str) -> bool:
        return (
            self._under_way.get(name, 0) >= self._limits.requests
            or len(self._tasks) >= self._limits.requests_in_all
            or len(self._slowed) >= self._slowed.places
        )

    def handle(self, client: Client, topic: str, payload: bytes) -> asyncio.Future[None]:
        """Start a request; done when it was served, or when its failure was told and may be acknowledged."""
        begun = self._requests.begin(client, topic, payload)
        if isinstance(begun, Message):
            return self._turn_away(client, begun)
        return self._start(client, topic, self._serve(client, topic, payload, begun))

    def refuse(self, client: Client, topic: str, payload: bytes, reason: str) -> asyncio.Future[None]:
        """Have the client told that it may not publish there."""
        return self._start(client, topic, self._refuse(client, topic, payload, reason))

    def gone(self, client: Client) -> None:
        """The client's connection has ended."""
        self._requests.gone(client)

    async def stop(self, patience_s: float) -> None:
        """Let requests under way finish; cancel those that take longer."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience_s)
        for task in list(self._tasks):
            log.warning("%s is cancelled, since the broker stops", task.get_name())
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _turn_away(self, client: Client, refusal: Message) -> asyncio.Future[None]:
        if not self._offer(client.name, refusal):
            log.debug("%s does not hear that it is refused", client.name)
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def acknowledge() -> None:
            if not outcome.done():
                outcome.set_result(None)
            self._make_room()

        self._slowed.hold(acknowledge, client.name)
        return outcome

    def _start(self, client: Client, topic: str, work: Any) -> asyncio.Future[None]:
        task: asyncio.Task[None] = asyncio.create_task(work, name=f"spile mqtt request {topic[:200]}")
        self._tasks.add(task)
        self._under_way[client.name] = self._under_way.get(client.name, 0) + 1
        task.add_done_callback(lambda done: self._finished(client.name, done))
        return task

    def _finished(self, name: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._under_way[name] == 1:
            del self._under_way[name]
        else:
            self._under_way[name] -= 1
        self._make_room()
        if not task.cancelled() and task.exception() is not None:
            log.error("%s could not be answered", task.get_name(), exc_info=task.exception())

    def _make_room(self) -> None:
        # A few at a time: each finished request makes room for one.
        for connection, held in list(islice(self._held.items(), 8)):
            if not self._too_much(held):
                del self._held[connection]
                connection.release(Hold.REQUESTS)

    async def _serve(self, client: Client, topic: str, payload: bytes, begun: Coroutine[Any, Any, None]) -> None:
        try:
            await begun
        except Exception as fault:  # noqa: BLE001 - whatever it was, the client is told and the traffic goes on
            await self._failed(client, topic, payload, fault)

    async def _refuse(self, client: Client, topic: str, payload: bytes, reason: str) -> None:
        try:
            await self._requests.refused(client, topic, payload, reason)
        except Exception as fault:  # noqa: BLE001 - as above
            await self._failed(client, topic, payload, fault)

    async def _failed(self, client: Client, topic: str, payload: bytes, fault: Exception) -> None:
        self._counters.request_failures += 1
        if isinstance(fault, SpileError):
            body = fault.as_dict()
            log.info("the request %s of %s has failed: %s", topic, client.name, fault.reason)
        else:
            body = SpileError("The service failed to serve this request.").as_dict()
            log.error("the request %s of %s has failed", topic, client.name, exc_info=fault)
        body |= _how_to_recognise(payload)
        rest = rest_of_request(topic)
        await self._answer(
            client.name, Message(f"to/{client.name}/rejected/{rest}", msgspec.json.encode(body), qos=1)
        )


def _how_to_recognise(payload: bytes) -> dict[str, str]:
    """The request's token, or the sha256 of a body that cannot be parsed."""
    try:
        body = msgspec.json.decode(payload)
    except msgspec.DecodeError:
        return {"sha256": hashlib.sha256(payload).hexdigest()}
    token = body.get("_token") if isinstance(body, dict) else None
    return {"token": token} if isinstance(token, str) else {}
