"""From a publication to the queues of everyone who hears it, and from the queues to the sockets.

Straight into one bounded queue for each session, once for each session whatever filters overlap. Large fan-outs
are done in slices, so that the loop stays free for others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from broker.mqtt.contract import Gate
from broker.mqtt.frames import Publication
from broker.mqtt.limits import SLICE_DELIVERIES, SLICE_WRITES, BrokerLimits
from broker.mqtt.pressure import lose, wait_for_room
from broker.mqtt.session import Session
from broker.mqtt.subscriptions import Subscriptions

if TYPE_CHECKING:
    from broker.mqtt.connection import Connection

Targets = list[tuple[Session, int]]


class Router:
    """Delivers publications. `overkept` is told of an absent session that can keep nothing more."""

    def __init__(
        self,
        subscriptions: Subscriptions[Session],
        gate: Gate,
        limits: BrokerLimits,
        overkept: Callable[[Session], None],
    ) -> None:
        self._subscriptions = subscriptions
        self._gate = gate
        self._limits = limits
        self._overkept = overkept
        self._dirty: deque[Connection] = deque()
        self._scheduled = False

    def targets(self, topic: str, qos: int) -> Targets:
        """Every session that hears the topic, once, with the QoS to deliver at."""
        narrow, wide = self._subscriptions.match(topic)
        if topic.startswith(("to/", "from/")):
            narrow, wide = [], narrow + wide
        if not wide:
            if not narrow:
                return []
            if len(narrow) == 1:
                if len(narrow[0]) == 1:
                    for session, wanted in narrow[0].items():
                        return [(session, wanted if wanted < qos else qos)]
                return [(session, wanted if wanted < qos else qos) for session, wanted in narrow[0].items()]
        best: dict[Session, int] = {}
        for subscribers in narrow:
            for session, wanted in subscribers.items():
                if wanted >= best.get(session, -1):
                    best[session] = wanted
        for subscribers in wide:
            for session, wanted in subscribers.items():
                known = best.get(session, -1)
                if wanted > known and self._gate.may_receive(session.client, topic):
                    best[session] = wanted
        return [(session, wanted if wanted < qos else qos) for session, wanted in best.items()]

    def spread(self, publication: Publication, targets: Targets) -> Targets:
        """Queue the publication for its receivers at once; returns those that `finish` must wait for.

        These are the full ones, and whoever comes after the first slice of a large fan-out.
        """
        waiting: Targets = []
        for place, (session, qos) in enumerate(targets):
            if place >= SLICE_DELIVERIES:
                waiting += targets[place:]
                break
            if session.connection is None:
                self._keep(session, publication, qos)
            elif not session.full:
                session.offer(publication, qos)
            elif qos == 0 and session.dropping:
                lose(session, 1)
            else:
                waiting.append((session, qos))
        return waiting

    async def finish(self, publication: Publication, waiting: Targets) -> None:
        """Deliver to the rest: in slices, and to full sessions when they have room."""
        for place, (session, qos) in enumerate(waiting):
            if place % SLICE_DELIVERIES == SLICE_DELIVERIES - 1:
                await asyncio.sleep(0)
            await self.deliver(session, publication, qos)

    async def deliver(self, session: Session, publication: Publication, qos: int) -> bool:
        """Deliver to one session, waiting for room if need be; False when it was lost."""
        if session.full and not await wait_for_room(session, qos, self._limits):
            return False
        if session.connection is None:
            return self._keep(session, publication, qos)
        session.offer(publication, qos)
        return True

    def _keep(self, session: Session, publication: Publication, qos: int) -> bool:
        if not qos or not session.persistent:
            return False
        if session.overkept:
            self._overkept(session)
            return False
        session.offer(publication, qos)
        return True

    def schedule(self, connection: Connection) -> None:
        """Have the connection flushed in this turn of the loop."""
        self._dirty.append(connection)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        dirty = self._dirty
        for _ in range(min(len(dirty), SLICE_WRITES)):
            dirty.popleft().flush()
        if dirty:
            asyncio.get_running_loop().call_soon(self._flush)
        else:
            self._scheduled = False
