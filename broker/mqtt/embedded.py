"""The embedded MQTT broker: its listeners, its logins, and the parts put together.

MQTT 3.1.1 over TCP and WebSocket, on amqtt's packet classes with routing, sessions and storage of its own.
Wills are published when a client vanishes, not when the broker stops.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from broker.mqtt.connection import Connection
from broker.mqtt.contract import Gate, Message, Requests
from broker.mqtt.frames import Publication
from broker.mqtt.inbound import Inbound
from broker.mqtt.limits import SLICE_DELIVERIES, BrokerLimits
from broker.mqtt.lobby import Lobby
from broker.mqtt.replay import Replays
from broker.mqtt.requestdesk import RequestDesk
from broker.mqtt.retained import RetainedMessages
from broker.mqtt.router import Router
from broker.mqtt.session import Counters, Session
from broker.mqtt.sessionbook import SessionBook
from broker.mqtt.statefile import StateFile
from broker.mqtt.stats import BrokerStats
from broker.mqtt.subscriptions import Subscriptions
from broker.mqtt.tasks import Tasks
from broker.mqtt.topicnames import matches
from broker.mqtt.websocket import WebSocketWire
from feeds.errors import Unavailable

log = logging.getLogger("spile.mqtt")

SWEEP_S = 0.25  # a keepalive is at least 1 s, so it is enforced within 1.75 s
EXPIRY_S = 60.0
COUNT_S = 5.0  # between counts of the retained messages, while an estimate says that there are many
STOP_S = 1.0  # for clients to read the rest when the broker stops


class EmbeddedBroker:
    """An MQTT broker in the running event loop.

    `host` and `port` (0: any free one) are for TCP, `websocket` the same for WebSocket; pages may connect from
    the same host and from `origins`. `state` is a directory for sessions and retained messages, None for
    memory. `port` and `websocket_port` tell where it listens once it has started.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        websocket: tuple[str, int] | None = None,
        origins: Sequence[str] = (),
        gate: Gate,
        requests: Requests | None,
        state: Path | None,
        limits: BrokerLimits = BrokerLimits(),  # noqa: B008 - it is frozen
    ) -> None:
        self.port = port
        self.websocket_port = websocket[1] if websocket else 0
        self._host = host
        self._websocket = websocket
        self._origins = tuple(origins)
        self._limits = limits
        self._counters = counters = Counters()
        self._tasks = tasks = Tasks()
        self._state = StateFile(state)
        self._subscriptions: Subscriptions[Session] = Subscriptions()
        self._book = SessionBook(self._state, self._subscriptions, limits, counters)
        self._router = Router(self._subscriptions, gate, limits, self._book.discard)
        self._retained = RetainedMessages(self._state)
        self._replays = Replays(self._retained, self._state, gate, tasks.run)
        self._desk = RequestDesk(requests, self.publish_to, self.offer_to, limits, counters) if requests else None
        self._inbound = Inbound(
            gate=gate, desk=self._desk, router=self._router, retained=self._retained, replays=self._replays,
            state=self._state, tasks=tasks, limits=limits, counters=counters,
        )  # fmt: skip
        self._lobby = Lobby(
            gate=gate, book=self._book, router=self._router, inbound=self._inbound, replays=self._replays,
            desk=self._desk, state=self._state, tasks=tasks, limits=limits, counters=counters,
        )  # fmt: skip
        self._servers: list[asyncio.Server] = []
        self._writer: asyncio.Task[None] | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._running = False

    # Its life.

    async def start(self) -> None:
        """Take up the state and listen, once.

        Raises Unavailable when an address cannot be had, StoreLocked when the state belongs to another process.
        """
        writer = await self._state.open()
        try:
            await self._book.load()
            await self._retained.recount()
            await self._listen()
        except BaseException:
            self._close_servers()
            await self._state.close()
            raise
        self._sweeper = asyncio.create_task(self._sweep(), name="spile mqtt sweep")
        self._tasks.watch(writer)
        self._tasks.watch(self._sweeper)
        self._lobby.open()
        self._running = True
        log.info("MQTT on %s:%d", self._host, self.port)

    async def stop(self) -> None:
        """Stop in order: no new clients, no new requests, what is under way, the sockets, the state."""
        if not self._running:
            return
        self._running = False
        self._close_servers()
        self._lobby.shut()
        if self._desk is not None:
            await self._desk.stop(self._limits.stop_s)
        await self._lobby.empty(STOP_S)
        await self._tasks.end()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait([self._sweeper])
        await self._state.close()

    async def failed(self) -> BaseException:
        """Return only when a part of the broker has died that it cannot work without, and why."""
        return await self._tasks.failed()

    @property
    def failure(self) -> str | None:
        """Why it cannot do all of its work at present; None while it can."""
        if not self._running:
            return "The MQTT broker does not run."
        failure = self._state.failure
        return None if failure is None else f"The MQTT broker's state cannot be written: {failure}"

    def stats(self) -> BrokerStats:
        """A look at the broker."""
        sessions = list(self._book)
        return BrokerStats(
            connections=len(self._lobby.connections),
            sessions=len(sessions),
            persistent_sessions=sum(session.persistent for session in sessions),
            subscriptions=self._subscriptions.count,
            failure=self._state.failure,
            queues={
                "mqtt_deliveries": sum(len(session.queue) for session in sessions),
                "mqtt_in_flight": sum(len(session.in_flight) for session in sessions),
                "mqtt_kept": sum(session.kept for session in sessions),
                "mqtt_requests": len(self._desk) if self._desk else 0,
                "mqtt_slowed": self._desk.slowed if self._desk else 0,
                "mqtt_replays": len(self._replays),
                "mqtt_state": self._state.depth,
            },
            **asdict(self._counters),
        )

    # Publishing.

    async def publish(self, batch: Sequence[Message]) -> None:
        """Queue every message for everyone who hears it; see `Publisher`."""
        self._check_running()
        state, router = self._state, self._router
        if state.failure is not None and (self._book.persistent or any(message.retain for message in batch)):
            await state.commit()  # raises; nothing is queued that could not be kept
        before = state.awaited
        work, last = 0, len(batch) - 1
        for place, message in enumerate(batch):
            targets = router.targets(message.topic, message.qos)
            work += 1 + len(targets)
            if targets or message.retain:
                publication = _publication(message)
                if message.retain:
                    self._inbound.retain(publication)
                elif place < last and _clears(following := batch[place + 1], message.topic):
                    # Whoever hears this is not told afterwards what was retained before, however long others take.
                    self._inbound.retain(_publication(following))
                waiting = router.spread(publication, targets)
                if waiting:
                    await router.finish(publication, waiting)
            if work >= SLICE_DELIVERIES:
                work = 0
                await asyncio.sleep(0)
                self._check_running()
        if state.awaited != before:
            await state.commit()

    def wants(self, prefix: str) -> bool:
        """False only if no subscription could match a topic that begins with these levels."""
        return self._subscriptions.could_match(prefix)

    def levels(self, prefix: str) -> frozenset[str] | None:
        """Which level may follow these in a topic that some subscription matches; None where any may."""
        return self._subscriptions.levels(prefix)

    async def publish_to(self, client_name: str, message: Message) -> bool:
        """Publish to one client, if it has subscribed to the topic; False when it has not, or is away."""
        session = self._book.get(client_name)
        qos = None if session is None else _wanted_qos(session, message)
        if session is None or qos is None:
            return False
        before = self._state.awaited
        done = await self._router.deliver(session, _publication(message), qos)
        if self._state.awaited != before:
            await self._state.commit()
        return done

    def offer_to(self, client_name: str, message: Message) -> bool:
        """The same without waiting: False also when the client is full, or only its session is there."""
        session = self._book.get(client_name)
        if session is None or session.connection is None or session.full:
            return False
        qos = _wanted_qos(session, message)
        if qos is None:
            return False
        session.offer(_publication(message), qos)
        return True

    # Its tasks and listeners.

    def _check_running(self) -> None:
        if not self._running:
            raise Unavailable("The MQTT broker is not running.")

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        lobby, origins = self._lobby, self._origins
        self.port = await self._serve(lambda: Connection(lobby, loop), self._host, self.port)
        if self._websocket is not None:
            self.websocket_port = await self._serve(lambda: WebSocketWire(lobby, loop, origins), *self._websocket)

    def _close_servers(self) -> None:
        for server in self._servers:
            server.close()
        self._servers = []

    async def _serve(self, protocol: Callable[[], asyncio.BaseProtocol], host: str, port: int) -> int:
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(protocol, host, port, backlog=1024)
        except OSError as fault:
            raise Unavailable(
                f"MQTT cannot listen on {host}:{port}: {fault.strerror or fault}",
                hint="Choose another address, or stop the process that has it.",
            ) from fault
        self._servers.append(server)
        for listening in server.sockets:
            # Accepted sockets inherit it: clients without a keepalive that vanish are found by the system.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return int(server.sockets[0].getsockname()[1])

    async def _count_retained(self) -> None:
        try:
            await self._retained.recount()
        except Unavailable as fault:
            log.warning("the retained messages cannot be counted: %s", fault.reason)

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        next_expiry = loop.time() + EXPIRY_S
        next_count = loop.time()
        while True:
            await asyncio.sleep(SWEEP_S)
            now = loop.time()
            self._lobby.look_at_clocks(now)
            if now >= next_expiry:
                next_expiry = now + EXPIRY_S
                self._book.expire()
            if now >= next_count and self._retained.count > 0.9 * self._limits.retained:
                next_count = now + COUNT_S
                await self._count_retained()


def _wanted_qos(session: Session, message: Message) -> int | None:
    """The QoS at which the session gets the message; None where it has not subscribed to its topic."""
    wanted = [qos for wanted, qos in session.filters.items() if matches(wanted, message.topic)]
    return min(message.qos, max(wanted)) if wanted else None


def _clears(message: Message, topic: str) -> bool:
    """Whether the message clears what is retained under the topic."""
    return message.retain and message.payload == b"" and message.topic == topic


def _publication(message: Message) -> Publication:
    payload = message.payload if isinstance(message.payload, bytes) else message.payload()
    return Publication(message.topic, payload, message.qos)
