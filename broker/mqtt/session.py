"""One client's session: its filters, its bounded queue, and its deliveries under way.

Knows no socket: a connection takes from it what may be sent. What is kept of a persistent session is written
through the state file; who the sessions are is known to `sessionbook`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from broker.mqtt.contract import Client
from broker.mqtt.frames import DUP, Publication, pubrel
from broker.mqtt.limits import BrokerLimits
from broker.mqtt.statefile import StateFile

if TYPE_CHECKING:
    import asyncio

    from broker.mqtt.connection import Connection

_KEEP_ID = "UPDATE queued SET packet_id = ? WHERE session = ? AND row = ?"
_RELEASE = "UPDATE queued SET released = 1, payload = x'' WHERE session = ? AND row = ?"


class Delivery(msgspec.Struct):
    """A message of QoS 1 or 2 on its way to one session. `row` is 0 where nothing is kept of it."""

    publication: Publication
    qos: int
    retain: bool
    row: int = 0
    packet_id: int = 0
    again: bool = False  # it was sent on an earlier connection
    released: bool = False  # QoS 2: the client has it, and is to forget the id


@dataclass(slots=True, eq=False)
class Replay:
    """How far what is retained was told to one subscription. Whoever subscribes again begins another one."""

    key: bytes = b""


@dataclass(slots=True)
class Counters:
    """What has happened since the broker started."""

    dropped: int = 0
    disconnected_slow: int = 0
    discarded_sessions: int = 0
    refused: int = 0
    request_failures: int = 0
    received: int = 0
    delivered: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class Session:
    """The queue and the window of one client. `number` is 0 for a session that ends with its connection.

    A queue item is a whole QoS 0 packet, shared with other sessions, or a `Delivery`.
    """

    __slots__ = (
        "_limits",
        "_state",
        "_window_bytes_max",
        "client",
        "connection",
        "counters",
        "dropping",
        "filters",
        "first_new_row",
        "in_flight",
        "in_flight_bytes",
        "kept",
        "kept_bytes",
        "last_packet_id",
        "loading",
        "lossy_until",
        "next_row",
        "number",
        "queue",
        "queue_bytes",
        "received",
        "replays",
        "room",
        "seen",
        "taken",
    )

    def __init__(
        self, client: Client, number: int, state: StateFile, limits: BrokerLimits, counters: Counters
    ) -> None:
        self.client = client
        self.number = number
        self._state = state
        self._limits = limits
        self._window_bytes_max = max(1, limits.queue_bytes // 4)
        self.counters = counters
        self.connection: Connection | None = None
        self.filters: dict[str, int] = {}
        self.queue: deque[bytes | Delivery] = deque()
        self.queue_bytes = 0
        self.in_flight: dict[int, Delivery] = {}
        self.in_flight_bytes = 0
        self.last_packet_id = 0
        self.kept = 0  # messages in the state file, and their bytes
        self.kept_bytes = 0
        self.next_row = 1
        self.first_new_row = 1  # what was kept before it is read from the state file, the rest is in the queue
        self.loading = False  # what was kept is still being read; nothing newer may overtake it
        # Ids of QoS 2 publications not yet released; None when nothing is left to be done for one.
        self.received: dict[int, asyncio.Future[None] | None] = {}
        self.replays: dict[str, Replay] = {}  # by filter, while there is something retained to be told
        self.seen = 0.0  # when a persistent session was last connected, in Unix time
        self.room: asyncio.Future[None] | None = None  # done when half of the queue is free, or nobody is there
        self.lossy_until = 0.0  # until then nobody waits for this session at QoS 0
        self.dropping = False  # an episode of losses is going on, and was logged
        self.taken = 0  # messages that have left the queue, for judging its pace

    @property
    def persistent(self) -> bool:
        """Whether it outlives its connection."""
        return self.number > 0

    @property
    def full(self) -> bool:
        """Whether the queue takes nothing more for now. One message always fits into an empty queue."""
        return len(self.queue) >= self._limits.queue_messages or self.queue_bytes >= self._limits.queue_bytes

    @property
    def half_full(self) -> bool:
        """Whether more than half of the queue is taken."""
        limits = self._limits
        return len(self.queue) * 2 > limits.queue_messages or self.queue_bytes * 2 > limits.queue_bytes

    @property
    def overkept(self) -> bool:
        """Whether more is kept for this absent client than the limits allow."""
        return self.kept >= self._limits.queue_messages or self.kept_bytes >= self._limits.queue_bytes

    def offer(self, publication: Publication, qos: int, retain: bool = False) -> None:
        """Queue a message; the caller has looked at `full`, and at `overkept` for an absent client."""
        connection = self.connection
        if qos == 0 and not retain:
            if connection is None:
                return
            wire = publication.wire()
            self.queue.append(wire)
            self.queue_bytes += len(wire)
        else:
            delivery = Delivery(publication, qos, retain)
            if self.number and qos:
                self._keep(delivery)
            if connection is None:
                return
            self.queue.append(delivery)
            self.queue_bytes += publication.size
        if not connection.marked:
            connection.mark()

    def _keep(self, delivery: Delivery) -> None:
        publication = delivery.publication
        row = delivery.row = self.next_row
        self.next_row = row + 1
        self.kept += 1
        self.kept_bytes += publication.size
        self._state.add_row(self.number, row, publication.topic, publication.payload, delivery.qos, delivery.retain)

    def _forget(self, delivery: Delivery) -> None:
        if delivery.row:
            self.kept -= 1
            self.kept_bytes -= delivery.publication.size
            self._state.drop_row(self.number, delivery.row)

    def fill(self, parts: list[bytes], bytes_max: int) -> bool:
        """Move what may be sent now from the queue to `parts`; False when nothing more may be."""
        if self.loading:
            return False
        queue = self.queue
        size = 0
        sent = 0
        open_window = True
        while queue and size < bytes_max:
            item = queue[0]
            if item.__class__ is bytes:
                parts.append(item)
                weight = len(item)
            else:
                assert isinstance(item, Delivery)
                if item.qos and not self._into_window(item, parts):
                    open_window = False
                    break
                if not item.qos:
                    parts += (item.publication.head(0, item.retain), item.publication.payload)
                weight = item.publication.size
            queue.popleft()
            self.queue_bytes -= weight
            size += weight
            sent += 1
        if sent:
            self.taken += sent
            self.counters.delivered += sent
            if not queue:
                self.dropping = False
            if self.room is not None:
                self._tell_room()
        return open_window and bool(queue)

    def _into_window(self, delivery: Delivery, parts: list[bytes]) -> bool:
        in_flight = self.in_flight
        size = delivery.publication.size
        if in_flight and (
            len(in_flight) >= self._limits.window or self.in_flight_bytes + size > self._window_bytes_max
        ):
            return False
        packet_id = delivery.packet_id
        if not packet_id:
            packet_id = self.last_packet_id % 65_535 + 1
            while packet_id in in_flight:
                packet_id = packet_id % 65_535 + 1
            self.last_packet_id = delivery.packet_id = packet_id
            if delivery.row and delivery.qos == 2:
                self._state.change(_KEEP_ID, packet_id, self.number, delivery.row)
        in_flight[packet_id] = delivery
        self.in_flight_bytes += size
        if delivery.released:
            parts.append(pubrel(packet_id))
            return True
        head = delivery.publication.head(delivery.qos, delivery.retain)
        if delivery.again:
            head = bytes((head[0] | DUP,)) + head[1:]
        parts += (head, packet_id.to_bytes(2, "big"), delivery.publication.payload)
        return True

    def acknowledged(self, packet_id: int, qos: int) -> bool:
        """The client has a QoS 1 message, or has forgotten the id of a QoS 2 one; False if it was not asked."""
        delivery = self.in_flight.get(packet_id)
        if delivery is None or delivery.qos != qos or (qos == 2 and not delivery.released):
            return False
        del self.in_flight[packet_id]
        self.in_flight_bytes -= delivery.publication.size
        self.taken += 1
        self._forget(delivery)
        return True

    def released(self, packet_id: int) -> None:
        """The client has received a QoS 2 message and is told to forget its id (also when we do not know it)."""
        delivery = self.in_flight.get(packet_id)
        if delivery is not None and delivery.qos == 2 and not delivery.released:
            delivery.released = True
            if delivery.row:
                self._state.change(_RELEASE, self.number, delivery.row)
                whole = delivery.publication
                delivery.publication = Publication(whole.topic, b"", whole.qos)
                self.kept_bytes -= len(whole.payload)
                self.in_flight_bytes -= len(whole.payload)

    def detach(self) -> None:
        """The connection has ended: what is not kept is gone, what is under way is kept with its id."""
        self.connection = None
        self.loading = False
        for packet_id, delivery in self.in_flight.items():
            if delivery.row and delivery.qos == 1:
                self._state.change(_KEEP_ID, packet_id, self.number, delivery.row)
        self.in_flight.clear()
        self.in_flight_bytes = 0
        self.queue.clear()
        self.queue_bytes = 0
        self.dropping = False
        self._tell_room()

    def restore(self, deliveries: list[Delivery]) -> None:
        """Put what was kept before all that came since."""
        self.queue.extendleft(reversed(deliveries))
        self.queue_bytes += sum(delivery.publication.size for delivery in deliveries)
        self.loading = False
        if self.connection is not None:
            self.connection.mark()

    def _tell_room(self) -> None:
        room = self.room
        if room is not None and (not self.half_full or self.connection is None):
            self.room = None
            if not room.done():
                room.set_result(None)
