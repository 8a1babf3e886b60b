"""What clients publish and subscribe to: judged, then served as requests or routed to others.

Tells by a future when a publication may be acknowledged; None is at once.
"""

from __future__ import annotations

import asyncio
import logging

from broker.mqtt.connection import Connection
from broker.mqtt.contract import Client, Gate
from broker.mqtt.frames import Malformed, Publication
from broker.mqtt.limits import BrokerLimits
from broker.mqtt.packets import Will
from broker.mqtt.replay import Replays
from broker.mqtt.requestdesk import RequestDesk
from broker.mqtt.retained import RetainedMessages
from broker.mqtt.router import Router, Targets
from broker.mqtt.session import Counters, Session
from broker.mqtt.statefile import StateFile
from broker.mqtt.tasks import Tasks
from broker.mqtt.topicnames import filter_fault
from broker.mqtt.wiring import Hold

log = logging.getLogger("spile.mqtt")

Outcome = asyncio.Future[None] | None


class Inbound:
    """Takes in what clients send, for the parts that serve it."""

    def __init__(
        self,
        *,
        gate: Gate,
        desk: RequestDesk | None,
        router: Router,
        retained: RetainedMessages,
        replays: Replays,
        state: StateFile,
        tasks: Tasks,
        limits: BrokerLimits,
        counters: Counters,
    ) -> None:
        self._gate = gate
        self._desk = desk
        self._router = router
        self._retained = retained
        self._replays = replays
        self._state = state
        self._limits = limits
        self._counters = counters
        self._tasks = tasks

    def published(
        self, connection: Connection, topic: str, payload: bytes, qos: int, retain: bool, packet_id: int
    ) -> Outcome:
        """A client has published. What comes twice at QoS 2 is taken once."""
        session, client = connection.session, connection.client
        if session is None or client is None:
            return None
        if qos < 2:
            return self._take_in(connection, client, topic, payload, qos, retain)
        if packet_id in session.received:
            return session.received[packet_id]
        if len(session.received) >= self._limits.received_ids:
            raise Malformed(f"More than {self._limits.received_ids} QoS 2 publications are not released.")
        before = self._state.awaited
        if session.persistent:
            self._state.change(
                "INSERT OR REPLACE INTO received (session, packet_id) VALUES (?, ?)",
                session.number, packet_id, awaited=True,
            )  # fmt: skip
        outcome = self._take_in(connection, client, topic, payload, qos, retain)
        if outcome is None and self._state.awaited != before:
            outcome = self._state.commit()
        session.received[packet_id] = outcome
        if outcome is not None:
            outcome.add_done_callback(lambda done: self._settled(session, packet_id, done))
        return outcome

    def released(self, connection: Connection, packet_id: int) -> Outcome:
        """A client forgets the id of a QoS 2 publication, so that we may."""
        session = connection.session
        if session is None or packet_id not in session.received:
            return None
        del session.received[packet_id]
        if session.persistent:
            self._forget_id(session, packet_id)
            return self._state.commit()
        return None

    def retain(self, publication: Publication) -> None:
        """Keep this as the newest message of its topic; empty, it clears it."""
        self._retained.put(publication.topic, publication.payload, publication.qos)
        self._replays.overtake(publication.topic)

    def will(self, client: Client, will: Will) -> None:
        """A client has vanished: publish what it left, as if it had published it itself."""
        outcome = self._take_in(None, client, will.topic, will.payload, will.qos, will.retain)
        if outcome is not None:
            outcome.add_done_callback(_look_at)

    def reason_against_filter(self, session: Session, topic_filter: str) -> str | None:
        """Why the session may not subscribe to this; None when it may."""
        fault = filter_fault(topic_filter)
        if fault is not None:
            return fault
        if topic_filter.startswith("$"):
            return "there are no shared subscriptions and no topics under $ here"
        if topic_filter.count("/") >= self._limits.levels:
            return f"a filter has at most {self._limits.levels} levels"
        if len(session.filters) >= self._limits.filters and topic_filter not in session.filters:
            return f"a session has at most {self._limits.filters} filters"
        return self._gate.may_subscribe(session.client, topic_filter)

    def _reason_against(self, client: Client, topic: str, payload: bytes, retain: bool) -> str | None:
        if topic.startswith("$"):
            return "topics that begin with $ are the broker's own"
        if topic.count("/") >= self._limits.levels:
            return f"a topic has at most {self._limits.levels} levels"
        if retain and payload and self._retained.count >= self._limits.retained:
            return "there are too many retained messages"
        return self._gate.may_publish(client, topic)

    def _take_in(
        self, connection: Connection | None, client: Client, topic: str, payload: bytes, qos: int, retain: bool
    ) -> Outcome:
        reason = self._reason_against(client, topic, payload, retain)
        desk = self._desk
        if reason is not None:
            self._counters.refused += 1
            log.debug("%s may not publish to %.200r: %s", client.name, topic, reason)
            if desk is None:
                return None
        elif desk is None or not desk.accepts(topic):
            return self._route(connection, topic, payload, qos, retain)
        if reason is not None:
            outcome = desk.refuse(client, topic, payload, reason)
        else:
            outcome = desk.handle(client, topic, payload)
        if connection is not None:
            connection.budget -= 5
            desk.hold_back(connection, client)
        return outcome

    def _route(self, connection: Connection | None, topic: str, payload: bytes, qos: int, retain: bool) -> Outcome:
        targets = self._router.targets(topic, qos)
        if not targets and not retain:
            return None
        before = self._state.awaited
        if self._state.failure is not None and (retain or any(session.persistent for session, _ in targets)):
            return self._state.commit()  # fails; nothing is queued that could not be kept
        publication = Publication(topic, payload, qos)
        if retain:
            self.retain(publication)
        waiting = self._router.spread(publication, targets)
        if connection is not None:
            connection.budget -= len(targets)
        if not waiting:
            return None if self._state.awaited == before else self._state.commit()
        task = self._tasks.run(self._finish(publication, waiting, before), f"spile mqtt delivery {topic[:100]}")
        if connection is not None:
            # Nothing of this client may overtake it; so the client waits, and nobody else.
            held = connection
            held.hold(Hold.ROUTING)
            task.add_done_callback(lambda _: held.release(Hold.ROUTING))
        return task

    async def _finish(self, publication: Publication, waiting: Targets, before: int) -> None:
        await self._router.finish(publication, waiting)
        if self._state.awaited != before:
            await self._state.commit()

    def _settled(self, session: Session, packet_id: int, done: asyncio.Future[None]) -> None:
        if session.received.get(packet_id) is not done:
            return
        if done.cancelled() or done.exception() is not None:
            del session.received[packet_id]
            if session.persistent:
                self._forget_id(session, packet_id)
        else:
            session.received[packet_id] = None

    def _forget_id(self, session: Session, packet_id: int) -> None:
        self._state.change(
            "DELETE FROM received WHERE session = ? AND packet_id = ?", session.number, packet_id, awaited=True
        )


def _look_at(outcome: asyncio.Future[None]) -> None:
    if not outcome.cancelled() and outcome.exception() is not None:
        log.warning("a will could not be published: %s", outcome.exception())
