"""Who the sessions are: begun, resumed, left, and discarded, in memory and in the state file.

A session belongs to a client's name, user and client id together, so that nobody can take over or erase the
session of another user. What is in a session's queue is the session's own business.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from broker.mqtt.contract import Client
from broker.mqtt.frames import Publication
from broker.mqtt.limits import BrokerLimits
from broker.mqtt.session import Counters, Delivery, Replay, Session
from broker.mqtt.statefile import StateFile
from broker.mqtt.subscriptions import Subscriptions
from feeds.errors import Overloaded

if TYPE_CHECKING:
    from broker.mqtt.connection import Connection

log = logging.getLogger("spile.mqtt")

SEEN_S = 3600.0  # how old what is stored of a client that is connected may be


class SessionBook:
    """All sessions by their client's name. `now` tells Unix time, for the age of those that are away."""

    def __init__(
        self,
        state: StateFile,
        subscriptions: Subscriptions[Session],
        limits: BrokerLimits,
        counters: Counters,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._state = state
        self._subscriptions = subscriptions
        self._limits = limits
        self._counters = counters
        self._now = now
        self._sessions: dict[str, Session] = {}
        self._last_number = 0
        self.persistent = 0  # how many sessions are

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def get(self, name: str) -> Session | None:
        """The session of the client with this name."""
        return self._sessions.get(name)

    async def load(self) -> None:
        """Take up the persistent sessions of an earlier run."""
        for session in await self._state.read(self._read_sessions):
            self._sessions[session.client.name] = session
            self._last_number = max(self._last_number, session.number)
            self.persistent += 1
            for topic_filter, qos in session.filters.items():
                self._subscriptions.add(topic_filter, session, qos)

    def begin(self, connection: Connection, client: Client, clean: bool) -> tuple[Session, bool]:
        """The session of a connection whose login was accepted, and whether it was there before.

        The earlier connection is gone already. A resumed session is `loading` until `fetch` has run.
        Raises Overloaded when there are too many persistent sessions.
        """
        session = self._sessions.get(client.name)
        present = session is not None and session.persistent and not clean
        if session is None or not present:
            if not clean and self.persistent - (session is not None and session.persistent) >= self._limits.sessions:
                raise Overloaded("There are too many persistent sessions.")
            if session is not None:
                self._remove(session)
            session = self._new(client, persistent=not clean)
        session.client = client
        session.connection = connection
        session.loading = present
        session.first_new_row = session.next_row
        if session.persistent:
            self._is_seen(session, awaited=True)
        return session, present

    async def fetch(self, session: Session, connection: Connection) -> None:
        """Put what was kept for a session that this connection resumes before whatever came since."""
        number, before = session.number, session.first_new_row
        deliveries = await self._state.read(lambda state: _read_queue(state, number, before))
        if session.connection is connection and session.loading:  # else more is kept by now, and another one fetches
            for delivery in deliveries:
                session.last_packet_id = max(session.last_packet_id, delivery.packet_id)
            session.restore(deliveries)

    def subscribe(self, session: Session, topic_filter: str, qos: int) -> None:
        """Add a filter to the session, or change its QoS."""
        session.filters[topic_filter] = qos
        self._subscriptions.add(topic_filter, session, qos)
        if session.persistent:
            self._state.change(
                "INSERT OR REPLACE INTO filters (session, filter, qos) VALUES (?, ?, ?)",
                session.number, topic_filter, qos, awaited=True,
            )  # fmt: skip

    def unsubscribe(self, session: Session, topic_filter: str) -> None:
        """Take a filter from the session, if it is there."""
        if session.filters.pop(topic_filter, None) is None:
            return
        self._subscriptions.remove(topic_filter, session)
        session.replays.pop(topic_filter, None)
        if session.persistent:
            self._state.change(
                "DELETE FROM filters WHERE session = ? AND filter = ?",
                session.number, topic_filter, awaited=True,
            )  # fmt: skip

    def leave(self, session: Session) -> None:
        """The session's connection has ended."""
        session.detach()
        if session.persistent:
            self._is_seen(session)
        else:
            self._remove(session)

    def discard(self, session: Session) -> None:
        """End an absent persistent session for which no more can be kept."""
        if self._sessions.get(session.client.name) is session:
            self._counters.discarded_sessions += 1
            log.warning(
                "the session of %s is discarded: %d messages (%d bytes) are kept for it and it is away",
                session.client.name, session.kept, session.kept_bytes,
            )  # fmt: skip
            self._remove(session)

    def expire(self) -> None:
        """End the persistent sessions that nobody came back to in time. To be called often."""
        now = self._now()
        oldest = now - self._limits.session_kept_s
        for session in self:  # who is there now was seen lately, should the broker die
            if session.persistent and session.connection is not None and now - session.seen > SEEN_S:
                self._is_seen(session)
        for session in [s for s in self if s.persistent and s.connection is None and s.seen < oldest]:
            log.info("the session of %s has expired", session.client.name)
            self._remove(session)

    def _is_seen(self, session: Session, *, awaited: bool = False) -> None:
        session.seen = self._now()
        self._state.change("UPDATE sessions SET seen = ? WHERE id = ?", session.seen, session.number, awaited=awaited)

    def _new(self, client: Client, *, persistent: bool) -> Session:
        number = 0
        if persistent:
            number = self._last_number = self._last_number + 1
            self.persistent += 1
            self._state.change(
                "INSERT OR REPLACE INTO sessions (id, name, user, client_id, seen) VALUES (?, ?, ?, ?, ?)",
                number, client.name, client.user, client.client_id, self._now(), awaited=True,
            )  # fmt: skip
        session = Session(client, number, self._state, self._limits, self._counters)
        self._sessions[client.name] = session
        return session

    def _remove(self, session: Session) -> None:
        del self._sessions[session.client.name]
        for topic_filter in session.filters:
            self._subscriptions.remove(topic_filter, session)
        session.filters = {}
        session.replays = {}
        if session.persistent:
            for table, key in (
                ("queued", "session"), ("filters", "session"), ("received", "session"), ("sessions", "id")
            ):  # fmt: skip
                self._state.change(f"DELETE FROM {table} WHERE {key} = ?", session.number, awaited=True)
            session.number = 0
            self.persistent -= 1

    def _read_sessions(self, connection: sqlite3.Connection) -> list[Session]:
        sessions: dict[int, Session] = {}
        for number, user, client_id, seen in connection.execute("SELECT id, user, client_id, seen FROM sessions"):
            session = Session(Client.of(user, client_id), number, self._state, self._limits, self._counters)
            session.seen = seen
            sessions[number] = session
        for number, topic_filter, qos, key in connection.execute("SELECT session, filter, qos, replay FROM filters"):
            if number in sessions:
                sessions[number].filters[topic_filter] = qos
                if key is not None:
                    sessions[number].replays[topic_filter] = Replay(key)
        for number, packet_id in connection.execute("SELECT session, packet_id FROM received"):
            if number in sessions:
                sessions[number].received[packet_id] = None
        for number, kept, kept_bytes, last_row, last_id in connection.execute(
            "SELECT session, count(*), sum(length(payload) + length(CAST(topic AS BLOB)) + 9), max(row),"
            " max(packet_id) FROM queued GROUP BY session"
        ):
            if number in sessions:
                session = sessions[number]
                session.kept, session.kept_bytes, session.next_row = kept, kept_bytes, last_row + 1
                session.last_packet_id = last_id or 0
        return list(sessions.values())


def _read_queue(connection: sqlite3.Connection, number: int, before: int) -> list[Delivery]:
    """What is kept for a session, what was under way first: in the order it was sent, with its ids."""
    rows = connection.execute(
        "SELECT row, topic, payload, qos, retain, packet_id, released FROM queued"
        " WHERE session = ? AND row < ? ORDER BY packet_id IS NULL, row",
        (number, before),
    )
    return [
        Delivery(
            publication=Publication(topic, payload, qos),
            qos=qos,
            retain=bool(retain),
            row=row,
            packet_id=packet_id or 0,
            again=packet_id is not None,
            released=bool(released),
        )
        for row, topic, payload, qos, retain, packet_id, released in rows
    ]
