"""Requests from an external broker: who asks, how many are in work, and when each is acknowledged.

What a request means is known to `Requests`. Messages are read as fast as they come: what is too much is refused by
the service of requests, and what is far too much is dropped, counted, and repeated by its client.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

from broker.external.connection import Arrived
from broker.external.limits import ExternalLimits
from broker.external.names import PORTABLE
from broker.external.ways import Ways
from broker.mqtt.contract import Client, Requests
from broker.mqtt.topicnames import ANONYMOUS
from feeds.errors import Unavailable

log = logging.getLogger("spile.mqtt.requests")

REQUESTS = "from/"
_LEVELS_MAX = 100  # of a request's topic: its answer's has more, and must not be what a broker closes on
_NAMES = "user names and client ids are made of A-Z, a-z, 0-9, _ and - on this broker"


class Acknowledges(Protocol):
    """The connection that a request came on."""

    def acknowledge(self, mid: int) -> None:
        """Tell the broker that a message was taken."""
        ...


class Acknowledgements:
    """What came on one connection and is not acknowledged: in order, at most so many, the oldest early."""

    def __init__(self, connection: Acknowledges, most: int) -> None:
        self._connection = connection
        self._most = most
        self._line: deque[list[int]] = deque()  # [mid, whether it was answered]

    def add(self, mid: int) -> list[int]:
        """A message has come; the entry is for `done`."""
        entry = [mid, 0]
        self._line.append(entry)
        self._go_on()
        return entry

    def done(self, entry: list[int]) -> None:
        """The message was answered."""
        entry[1] = 1
        self._go_on()

    def _go_on(self) -> None:
        line = self._line
        while line and (line[0][1] or len(line) > self._most):
            self._connection.acknowledge(line.popleft()[0])


class Desk:
    """Runs requests as named tasks, in order of arrival."""

    def __init__(self, requests: Requests, limits: ExternalLimits) -> None:
        self.received = 0
        self.dropped = 0
        self.failures = 0
        self._requests = requests
        self._limits = limits
        self._tasks: set[asyncio.Task[None]] = set()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._tasks)

    def take(self, arrived: Arrived, ways: Ways, acknowledgements: Acknowledgements) -> None:
        """Start serving what came; it is acknowledged once it is answered, or can have no answer."""
        self.received += 1
        entry = acknowledgements.add(arrived.mid) if arrived.mid else None
        topic = ways.names.inward(arrived.topic)
        levels = topic.split("/", 3) if topic is not None else []
        if topic is None or len(levels) < 4 or topic.count("/") >= _LEVELS_MAX:
            self._drop("a message to %.200r is no request", arrived.topic)
        elif arrived.is_retained:
            # It was served when it came, and comes again with each connection: a write would be done again each time.
            self._drop("a request to %.200r that the broker retains is not served again", arrived.topic)
        elif self._is_full(len(arrived.payload)):
            self._drop("too many requests are in work to refuse the one to %.200r", arrived.topic)
        else:
            client = _client(levels[1], levels[2])
            valid = bool(PORTABLE(levels[1]) and PORTABLE(levels[2]))
            work = self._serve(client, arrived, valid, ways, entry, acknowledgements)
            task = asyncio.create_task(work, name=f"spile mqtt request {topic[:200]}")
            self._tasks.add(task)
            self._bytes += len(arrived.payload)
            task.add_done_callback(self._done_with(len(arrived.payload)))
            return
        if entry is not None:
            acknowledgements.done(entry)

    async def stop(self) -> None:
        """Let requests in work finish; cancel those that take longer."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._limits.stop_s)
        for task in list(self._tasks):
            log.warning("%s is cancelled, since the service stops", task.get_name())
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _is_full(self, size: int) -> bool:
        limits, count = self._limits, len(self._tasks)
        return count >= limits.requests or (count > 0 and self._bytes + size > limits.requests_bytes)

    def _done_with(self, size: int) -> Callable[[asyncio.Task[None]], None]:
        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._bytes -= size

        return done

    async def _serve(
        self,
        client: Client,
        arrived: Arrived,
        valid: bool,
        ways: Ways,
        entry: list[int] | None,
        acknowledgements: Acknowledgements,
    ) -> None:
        try:
            await ways.sure_of([arrived.topic])
        except Unavailable:
            # Not acknowledged: where the broker keeps the session, it comes again on the next connection.
            self._drop("how %.200r is meant, and answered, is not known yet", arrived.topic)
            return
        topic = ways.names.inward(arrived.topic)
        assert topic is not None
        try:
            if valid:
                await self._requests.handle(client, topic, arrived.payload)
            else:
                await self._requests.refused(client, topic, arrived.payload, _NAMES)
        except Exception:
            self.failures += 1
            log.exception("the request %.200r has failed", topic)
        if entry is not None:
            acknowledgements.done(entry)

    def _drop(self, why: str, topic: str) -> None:
        # One line for each power of two: a flood is told, and floods no log.
        self.dropped += 1
        if self.dropped & (self.dropped - 1) == 0:
            log.warning(f"{why} (%d dropped since the start)", topic, self.dropped)


def _client(user: str, client_id: str) -> Client:
    """Who asks, as the topic says: the broker's access file sees to it that this is true."""
    return Client(None if user == ANONYMOUS else user, client_id, f"{user}/{client_id}")
