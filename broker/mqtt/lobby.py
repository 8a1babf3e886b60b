"""Where clients come in and go: connections, logins, subscriptions, and the clocks of them all.

It is the house of every connection. What clients publish goes on to `inbound`; what the sessions are is known to
`sessionbook`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable

from broker.mqtt import packets
from broker.mqtt.connection import Connection
from broker.mqtt.contract import Client, Gate, Refused
from broker.mqtt.inbound import Inbound
from broker.mqtt.limits import RECEIVE_BUFFER_BYTES, BrokerLimits
from broker.mqtt.packets import Connect
from broker.mqtt.replay import Replays
from broker.mqtt.requestdesk import RequestDesk
from broker.mqtt.router import Router
from broker.mqtt.session import Counters, Session
from broker.mqtt.sessionbook import SessionBook
from broker.mqtt.statefile import StateFile
from broker.mqtt.tasks import Tasks
from broker.mqtt.wiring import Hold
from feeds.errors import SpileError, Unavailable

log = logging.getLogger("spile.mqtt")

LINGER_S = 5.0  # for a client to read the rest before its socket is closed all the same
CLIENT_ID_BYTES_MAX = 1_024


class Lobby:
    """The house of the broker's connections. Nobody is let in before `open`, nor after `shut`."""

    def __init__(
        self,
        *,
        gate: Gate,
        book: SessionBook,
        router: Router,
        inbound: Inbound,
        replays: Replays,
        desk: RequestDesk | None,
        state: StateFile,
        tasks: Tasks,
        limits: BrokerLimits,
        counters: Counters,
    ) -> None:
        self.limits = limits
        self.counters = counters
        self.receive_buffer = memoryview(bytearray(RECEIVE_BUFFER_BYTES))
        self.receiving_bytes = 0
        self.connections: set[Connection] = set()
        self._handshakes: set[object] = set()
        self._emptied: asyncio.Future[None] | None = None
        self._open = False
        self._gate = gate
        self._book = book
        self._router = router
        self._inbound = inbound
        self._replays = replays
        self._desk = desk
        self._state = state
        self._tasks = tasks

    def open(self) -> None:
        """Let clients in."""
        self._open = True

    def shut(self) -> None:
        """Let nobody in, and read from nobody any more. No will is published from now on."""
        self._open = False
        for connection in list(self.connections):
            connection.will = None
            connection.hold(Hold.STOPPING)

    async def empty(self, patience_s: float) -> None:
        """Close every connection, and see them gone."""
        for connection in list(self.connections):
            connection.close()
        await self._until_empty(patience_s)
        for connection in list(self.connections):
            connection.abort("the broker stops")
        await self._until_empty(patience_s)

    async def _until_empty(self, patience_s: float) -> None:
        if self.connections:
            self._emptied = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._emptied], timeout=patience_s)

    # What connections turn to it for.

    def shaking_hands(self, wire: object) -> bool:
        """A WebSocket is being opened; False when there is no room for it."""
        if not self._open or len(self.connections) + len(self._handshakes) >= self.limits.connections:
            return False
        self._handshakes.add(wire)
        return True

    def shook_hands(self, wire: object) -> None:
        """A WebSocket is open, or will not be."""
        self._handshakes.discard(wire)

    def opened(self, connection: Connection) -> bool:
        """A new connection; False when there is no room for it."""
        if not self._open or len(self.connections) + len(self._handshakes) >= self.limits.connections:
            return False
        self.connections.add(connection)
        return True

    def login(self, connection: Connection, connect: Connect) -> None:
        """Answer a CONNECT. Nothing of an existing session is touched before the login is accepted."""
        client_id = connect.client_id
        if not client_id and connect.clean:
            client_id = f"auto-{secrets.token_hex(8)}"
        if not client_id or len(client_id.encode()) > CLIENT_ID_BYTES_MAX:
            connection.refuse(packets.BAD_CLIENT_ID, "a session that stays needs a client id of 1 to 1024 bytes")
            return
        user = self._gate.authenticate(client_id, connect.user, connect.password)
        if isinstance(user, Refused):
            connection.refuse(user.code, f"{client_id!r}: {user.reason}")
            return
        client = Client.of(user, client_id)
        earlier = self._book.get(client.name)
        if earlier is not None and earlier.connection is not None:
            old = earlier.connection
            self._end(old)
            old.abort("the same client has connected again")
        before = self._state.awaited
        try:
            session, present = self._book.begin(connection, client, connect.clean)
        except SpileError as fault:
            connection.refuse(packets.UNAVAILABLE, fault.reason)
            return
        connection.client, connection.session = client, session
        connection.will, connection.keepalive_s = connect.will, connect.keepalive_s
        for topic_filter in list(session.filters):
            if self._gate.may_subscribe(client, topic_filter) is not None:
                self._book.unsubscribe(session, topic_filter)
        if self._state.awaited == before:
            connection.send(packets.connack(False, packets.ACCEPTED))
        else:
            connection.hold(Hold.STORING)
            self._tasks.run(self._admit(connection, session, present), f"spile mqtt login {client.name}")

    async def _admit(self, connection: Connection, session: Session, present: bool) -> None:
        """The rest of a login that touches the state file."""
        try:
            await self._state.commit()
            if present:
                await self._book.fetch(session, connection)
        except Unavailable as fault:
            connection.will = None
            connection.refuse(packets.UNAVAILABLE, fault.reason)
            return
        connection.send(packets.connack(present, packets.ACCEPTED))
        connection.release(Hold.STORING)
        self._replays.resume(session)

    def published(
        self, connection: Connection, topic: str, payload: bytes, qos: int, retain: bool, packet_id: int
    ) -> asyncio.Future[None] | None:
        """A client has published; None when it may be acknowledged now."""
        return self._inbound.published(connection, topic, payload, qos, retain, packet_id)

    def released(self, connection: Connection, packet_id: int) -> asyncio.Future[None] | None:
        """A client forgets the id of a QoS 2 publication."""
        return self._inbound.released(connection, packet_id)

    def subscribe(self, connection: Connection, packet_id: int, filters: list[tuple[str, int]]) -> None:
        """A client subscribes; each filter is granted or refused by itself."""
        session = connection.session
        if session is None:
            return
        before = self._state.awaited
        codes: list[int] = []
        for topic_filter, qos in filters:
            reason = self._inbound.reason_against_filter(session, topic_filter)
            if reason is None:
                self._book.subscribe(session, topic_filter, qos)
                self._replays.owe(session, topic_filter)
                codes.append(qos)
            else:
                log.info("%s may not subscribe to %.200r: %s", session.client.name, topic_filter, reason)
                codes.append(packets.FAILURE)
        connection.budget -= 10 * len(filters)

        def answer() -> None:
            connection.send(packets.suback(packet_id, codes))
            self._replays.resume(session)

        self._when_durable(connection, before, answer)

    def unsubscribe(self, connection: Connection, packet_id: int, filters: list[str]) -> None:
        """A client takes filters back."""
        session = connection.session
        if session is None:
            return
        before = self._state.awaited
        for topic_filter in filters:
            self._book.unsubscribe(session, topic_filter)
        connection.budget -= 10 * len(filters)
        self._when_durable(connection, before, lambda: connection.send(packets.unsuback(packet_id)))

    def lost(self, connection: Connection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        if not self.connections and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)
        if self._desk is not None:
            self._desk.forget(connection)
        self._end(connection)

    def schedule(self, connection: Connection) -> None:
        """Have a connection flushed in this turn of the loop."""
        self._router.schedule(connection)

    def _end(self, connection: Connection) -> None:
        """Part a connection from its session: the will is published, and whoever serves it is told."""
        session, client, will = connection.session, connection.client, connection.will
        connection.session = connection.will = None
        if session is None or client is None:
            return
        if session.connection is connection:
            self._book.leave(session)
        if self._desk is not None:
            self._desk.gone(client)
        if will is not None:
            self._inbound.will(client, will)

    def _when_durable(self, connection: Connection, before: int, then: Callable[[], None]) -> None:
        if self._state.awaited == before:
            then()
            return

        def settled(commit: asyncio.Future[None]) -> None:
            if commit.exception() is None:
                then()
                connection.release(Hold.STORING)
            else:
                connection.abort("its subscriptions cannot be stored")

        connection.hold(Hold.STORING)
        self._state.commit().add_done_callback(settled)

    def look_at_clocks(self, now: float) -> None:
        """Part with clients that were silent too long; `now` is the loop's time."""
        for connection in list(self.connections):
            self._look_at_clock(connection, now)

    def _look_at_clock(self, connection: Connection, now: float) -> None:
        if connection.closing:
            if now - connection.closing_since > LINGER_S:
                connection.abort("it does not read the end")
        elif connection.client is None:
            if now - connection.since > self.limits.connect_s:
                connection.abort("it has not sent a CONNECT in time")
        elif connection.silent_s(now) > 1.5 * connection.keepalive_s > 0:
            connection.abort(f"it was silent for 1.5 times its keepalive of {connection.keepalive_s} s")
