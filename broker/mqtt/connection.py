"""One client's socket: packets out of bytes, acknowledgements in order, and joined writes.

Decides nothing about topics or sessions; that is its `House`. It costs no task and no buffer while it is idle:
all connections read into one buffer, and one sweep looks after all their clocks.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from amqtt.mqtt.packet import (
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBSCRIBE,
    UNSUBSCRIBE,
)

from broker.mqtt import packets
from broker.mqtt.contract import Client
from broker.mqtt.frames import PINGRESP_BYTES, Malformed, puback, pubcomp, pubrec, pubrel
from broker.mqtt.limits import CONNECT_BYTES, SLICE_DELIVERIES, WRITE_BYTES
from broker.mqtt.owed import Owed
from broker.mqtt.packets import UnknownProtocol, Will
from broker.mqtt.session import Session
from broker.mqtt.topicnames import topic_fault
from broker.mqtt.wiring import Hold, House, Wire
from feeds.errors import SpileError

log = logging.getLogger("spile.mqtt")

LARGE_BYTES = 64 * 1024  # from here on a packet that is arriving is counted against `receiving_bytes`
UNREAD_REPLIES_BYTES = 4 * WRITE_BYTES  # a client with so much unread is not read from either
FLUSHES = 16  # MiB at most, before other connections have their turn


class Connection(asyncio.BufferedProtocol):
    """A socket's protocol, from accept to loss. `heard` and `since` are loop times."""

    def __init__(self, house: House, loop: asyncio.AbstractEventLoop) -> None:
        self._house = house
        self._loop = loop
        self.wire: Wire | None = None
        self.client: Client | None = None
        self.session: Session | None = None
        self.will: Will | None = None
        self.keepalive_s = 0
        self.heard = self.since = loop.time()
        self.closing = False
        self.closing_since = 0.0
        self.marked = False  # it is in line to be flushed
        self.budget = SLICE_DELIVERIES
        self._rest: bytearray | None = None  # bytes not yet parsed: an incomplete packet, or what is held
        self._need = 0  # how many bytes `_rest` must have before parsing can go on
        self._counted = 0  # of `receiving_bytes`
        self._holds = 0
        self._reading = True
        self._congested = False
        self._out: list[bytes] = []
        self._owed: Owed | None = None
        self._written_bytes = 0

    # The transport's calls.

    def connection_made(self, transport: Any) -> None:
        self.attach(transport)
        transport.set_write_buffer_limits(high=WRITE_BYTES)

    def attach(self, wire: Wire) -> None:
        """Begin to speak over this wire."""
        self.wire = wire
        if not self._house.opened(self):
            wire.write(packets.connack(False, packets.UNAVAILABLE))
            self.close()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._house.receive_buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.receive(self._house.receive_buffer[:nbytes])

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing = True
        self.wire = None
        self._out.clear()
        self._rest = None
        self._count(0)
        self._house.lost(self)

    def pause_writing(self) -> None:
        self._congested = True

    def resume_writing(self) -> None:
        self._congested = False
        self.release(Hold.REPLIES)
        if not self.marked:
            self.mark()

    # Reading.

    def receive(self, data: bytes | memoryview) -> None:
        """Take bytes from the client."""
        if self.closing:
            return
        self.heard = self._loop.time()
        self._house.counters.bytes_in += len(data)
        rest = self._rest
        if rest is not None:
            rest += data
            if self._holds or len(rest) < self._need:
                return
            self._rest = None
            data = bytes(rest)
        elif self._holds:
            self._rest, self._need = bytearray(data), 0
            return
        else:
            data = bytes(data)
        self._read(data)

    def _read(self, data: bytes) -> None:
        try:
            self._parse(data)
        except UnknownProtocol as fault:
            self.refuse(packets.BAD_PROTOCOL, fault.reason)
        except Malformed as fault:
            self.abort(fault.reason)
        except BaseException:
            self.abort("an error in the broker")
            raise

    def _parse(self, data: bytes) -> None:
        self.budget = SLICE_DELIVERIES
        position = 0
        end = len(data)
        limit = self._house.limits.packet_bytes if self.client is not None else CONNECT_BYTES
        while position < end and not self.closing:
            if self._holds or self.budget <= 0:
                if not self._holds:
                    self.hold(Hold.TURN)
                    self._loop.call_soon(self.release, Hold.TURN)
                self._rest, self._need = bytearray(memoryview(data)[position:]), 0
                return
            start = position + 2
            length = data[position + 1] if start <= end else -1
            if length >= 0x80:
                length, start = _length(data, position + 1)
            if length > limit:
                raise Malformed(f"A packet of {length} bytes is above the limit of {limit}.")
            stop = start + length
            if length < 0 or stop > end:
                self._wait_for(memoryview(data)[position:], stop - position if length >= 0 else 0)
                return
            first = data[position]
            if first >> 4 == PUBLISH:
                self._publish(first, data, start, stop)
            else:
                self._other(first, data[start:stop])
                limit = self._house.limits.packet_bytes if self.client is not None else CONNECT_BYTES
            self.budget -= 1
            position = stop

    def _wait_for(self, rest: memoryview, need: int) -> None:
        self._rest = bytearray(rest)
        self._need = need
        self._count(need if need > LARGE_BYTES else 0)
        if self._house.receiving_bytes > self._house.limits.receiving_bytes:
            raise Malformed("Too many large packets are arriving at once.")

    def _count(self, large_bytes: int) -> None:
        if large_bytes != self._counted:
            self._house.receiving_bytes += large_bytes - self._counted
            self._counted = large_bytes

    def _publish(self, first: int, data: bytes, start: int, stop: int) -> None:
        if self._counted:
            self._count(0)
        if self.client is None:
            raise Malformed("The first packet is no CONNECT.")
        at = start + 2 + (data[start] << 8 | data[start + 1]) if stop - start >= 2 else stop + 1
        qos = first >> 1 & 3
        if at + (2 if qos else 0) > stop or qos == 3:
            raise Malformed("This PUBLISH is too short, or has QoS 3.")
        try:
            topic = data[start + 2 : at].decode()
        except UnicodeDecodeError as fault:
            raise Malformed("The topic of this PUBLISH is not UTF-8.") from fault
        fault_text = topic_fault(topic)
        if fault_text is not None:
            raise Malformed(f"A PUBLISH to {topic[:200]!r}: {fault_text}.")
        packet_id = 0
        if qos:
            packet_id = data[at] << 8 | data[at + 1]
            at += 2
            if not packet_id:
                raise Malformed("A packet id is not 0.")
        self._house.counters.received += 1
        outcome = self._house.published(self, topic, data[at:stop], qos, first & 1 == 1, packet_id)
        if qos == 0:
            self._owe(b"", outcome)
        else:
            self._owe(puback(packet_id) if qos == 1 else pubrec(packet_id), outcome)

    def _other(self, first: int, body: bytes) -> None:
        kind, flags = first >> 4, first & 15
        session = self.session
        if kind == CONNECT and self.client is None:
            self._house.login(self, packets.read_connect(flags, body))
        elif session is None:
            raise Malformed("The first packet is no CONNECT.")
        elif kind in (PUBACK, PUBREC, PUBREL, PUBCOMP):
            self._acknowledgement(session, kind, flags, body)
        elif kind == SUBSCRIBE:
            self._house.subscribe(self, *packets.read_subscribe(flags, body))
        elif kind == UNSUBSCRIBE:
            self._house.unsubscribe(self, *packets.read_unsubscribe(flags, body))
        elif kind == PINGREQ and not first & 15 and not body:
            self.send(PINGRESP_BYTES)
        elif kind == DISCONNECT and not first & 15 and not body:
            self.will = None
            self.close()
        else:
            raise Malformed(f"A packet of type {kind} has no place here.")

    def _acknowledgement(self, session: Session, kind: int, flags: int, body: bytes) -> None:
        if len(body) != 2 or flags != (2 if kind == PUBREL else 0):
            raise Malformed("This acknowledgement has a wrong length, or wrong flags.")
        packet_id = body[0] << 8 | body[1]
        if kind == PUBREL:
            self._owe(pubcomp(packet_id), self._house.released(self, packet_id))
        elif kind == PUBREC:
            session.released(packet_id)
            self.send(pubrel(packet_id))
        elif session.acknowledged(packet_id, 1 if kind == PUBACK else 2) and session.queue and not self.marked:
            self.mark()

    def _owe(self, reply: bytes, outcome: asyncio.Future[None] | None) -> None:
        """Acknowledge in order: at once if nothing earlier is under way, else in line."""
        owed = self._owed
        if outcome is None and not owed:
            if reply:
                self.send(reply)
            return
        if owed is None:
            owed = self._owed = Owed(self._settled, self._failed)
        owed.add(reply, outcome)
        if len(owed) >= self._house.limits.requests:
            self.hold(Hold.WINDOW)

    def _settled(self, replies: list[bytes], left: int) -> None:
        for reply in replies:
            self.send(reply)
        if self._holds and left < self._house.limits.requests:
            self.release(Hold.WINDOW)

    def _failed(self, fault: BaseException) -> None:
        # Without an acknowledgement the client sends it again after it has connected again.
        self.abort(fault.reason if isinstance(fault, SpileError) else f"a publication failed: {fault!r}")

    # Not reading for a while.

    def hold(self, why: Hold) -> None:
        """Stop reading until this and every other reason is gone."""
        self._holds |= why
        if self._reading and self.wire is not None and not self.wire.is_closing():
            self._reading = False
            self.wire.pause_reading()

    def release(self, why: Hold) -> None:
        """Take a reason back."""
        if not self._holds or not self._holds & why:
            return
        self._holds = int(self._holds & ~why)
        if self._holds or self.closing or self.wire is None:
            return
        self.heard = self._loop.time()  # it could not be heard while it was not read
        rest = self._rest
        if rest is not None and len(rest) >= self._need:
            self._rest = None
            self._read(bytes(rest))
        if not self._holds and not self._reading and self.wire is not None and not self.wire.is_closing():
            self._reading = True
            self.wire.resume_reading()

    def silent_s(self, now: float) -> float:
        """For how long nothing was heard of the client; 0 while it is not read from."""
        return 0.0 if self._holds else now - self.heard

    # Writing.

    def send(self, data: bytes) -> None:
        """Write a small packet with the next flush."""
        if self.wire is None:
            return
        self._out.append(data)
        if not self.marked:
            self.mark()

    def mark(self) -> None:
        """Get in line to be flushed in this turn of the loop."""
        self.marked = True
        self._house.schedule(self)

    def flush(self) -> None:
        """Write what may be written, joined."""
        self.marked = False
        wire = self.wire
        if wire is None:
            return
        parts, self._out = self._out, []
        session = self.session
        for _ in range(FLUSHES):
            more = False
            if session is not None and not self._congested and not self.closing:
                more = session.fill(parts, WRITE_BYTES)
            if not parts:
                break
            data = b"".join(parts)
            parts = []
            self._written_bytes += len(data)
            self._house.counters.bytes_out += len(data)
            wire.write(data)
            if not more:
                break
        else:
            if not self._congested and not self.marked:
                self.mark()
        if self._congested and wire.get_write_buffer_size() > UNREAD_REPLIES_BYTES:
            self.hold(Hold.REPLIES)

    @property
    def sent_bytes(self) -> int:
        """How many bytes have left this process."""
        wire = self.wire
        return self._written_bytes - (0 if wire is None else wire.get_write_buffer_size())

    # Ending.

    def refuse(self, code: int, reason: str) -> None:
        """Answer the CONNECT with a return code, and close."""
        log.info("a login is refused: %s", reason)
        self.send(packets.connack(False, code))
        self.close()

    def close(self) -> None:
        """Close once everything is written."""
        if self.closing or self.wire is None:
            return
        self.flush()
        self.closing = True
        self.closing_since = self._loop.time()
        self.wire.close()

    def abort(self, reason: str) -> None:
        """Close at once, whatever is still to be written."""
        if self.wire is None:
            return
        if not self.closing:
            log.info("%s is disconnected: %s", self.client.name if self.client else "a connection", reason)
        self.closing = True
        self.closing_since = self._loop.time()
        self.wire.abort()


def _length(data: bytes, position: int) -> tuple[int, int]:
    """The length written from `position` on, and where it ends; -1 when it goes on beyond the data."""
    value = shift = 0
    for place in range(position, min(position + 4, len(data))):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place + 1
        shift += 7
    if len(data) >= position + 4:
        raise Malformed("The length of a packet takes more than four bytes.")
    return -1, position
