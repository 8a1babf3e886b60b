"""Waiting for a session that is full: how long, and what becomes of one that does not read.

A publisher waits for room while the session takes messages at a reasonable pace. One at QoS 1 or 2 that does not is
disconnected; at QoS 0 it loses messages, and for a while nobody waits for it again.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from broker.mqtt.limits import BrokerLimits
from broker.mqtt.session import Counters, Session

log = logging.getLogger("spile.mqtt")

PACE = 16  # a sixteenth of the queue within `stall_s` is a reasonable pace: 62 messages or 64 KiB a second
LOSSY_S = 10.0  # without this, a subscriber just too slow would hold publishers up each time it has caught up


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a session has come: messages taken or acknowledged, and bytes that left for the network."""

    messages: int
    sent_bytes: int


def keeps_pace(before: Progress, after: Progress, limits: BrokerLimits) -> bool:
    """Whether the session took enough in between to be worth waiting for."""
    messages = after.messages - before.messages
    sent_bytes = after.sent_bytes - before.sent_bytes
    return messages * PACE >= limits.queue_messages or sent_bytes * PACE >= limits.queue_bytes


def progress(session: Session) -> Progress:
    """How far the session is now."""
    connection = session.connection
    return Progress(session.taken, 0 if connection is None else connection.sent_bytes)


async def wait_for_room(session: Session, qos: int, limits: BrokerLimits) -> bool:
    """Wait until the session takes a message again or its client is gone; False when the message is lost.

    Ends within `stall_s` of the session's last progress, since who makes none is disconnected.
    """
    while session.full and session.connection is not None:
        if qos == 0:
            if lossy(session) or not await _room(session, limits.qos0_patience_s):
                lose(session, 1)
                return False
            continue
        before = progress(session)
        if not await _room(session, limits.stall_s) and session.full and session.connection is not None:
            if keeps_pace(before, progress(session), limits):
                continue
            cut(session, session.counters)
    return True


async def wait_patiently(session: Session) -> None:
    """Wait until half of the queue is free, as long as it takes, or until the client is gone.

    For what nobody waits behind: the other half is for what comes meanwhile, which may not wait as long.
    """
    while session.half_full and session.connection is not None:
        await _room(session, None)


def lossy(session: Session) -> bool:
    """Whether the session lost messages a short while ago, so that nobody waits for it."""
    return session.lossy_until > asyncio.get_running_loop().time()


def lose(session: Session, messages: int) -> None:
    """Count a loss, and say so once in an episode."""
    session.counters.dropped += messages
    session.lossy_until = asyncio.get_running_loop().time() + LOSSY_S
    if not session.dropping:
        session.dropping = True
        log.warning("%s does not read fast enough; it loses messages of QoS 0", session.client.name)


def cut(session: Session, counters: Counters) -> None:
    """Disconnect a session that is full and does not read, also where it is leaving and could read the rest."""
    connection = session.connection
    if connection is None:
        return
    counters.disconnected_slow += not connection.closing
    connection.abort("it does not read what it has subscribed to")


async def _room(session: Session, patience_s: float | None) -> bool:
    """Whether half of the queue became free (or the client vanished) in time."""
    if session.room is None:
        session.room = asyncio.get_running_loop().create_future()
    done, _ = await asyncio.wait([session.room], timeout=patience_s)
    return bool(done)
