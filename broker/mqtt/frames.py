"""The packets that make up the traffic, as bytes: PUBLISH and the acknowledgements.

Written for speed, since every delivery passes here; all other packets go through amqtt's classes in `packets`.
"""

from __future__ import annotations

from amqtt.mqtt.packet import PUBACK, PUBCOMP, PUBREC, PUBREL

from broker.mqtt.topicnames import TOPIC_BYTES_MAX, topic_fault
from feeds.errors import BadRequest, TooLarge

REMAINING_BYTES_MAX = 268_435_455  # four bytes of seven bits, from the standard
PINGRESP_BYTES = b"\xd0\x00"
DUP = 0x08


class Malformed(BadRequest):
    """The bytes are no valid MQTT packet."""

    code = "bad_request"
    hint = "Use an MQTT 3.1.1 client; the connection is closed."


def length_bytes(length: int) -> bytes:
    """The length of what follows, as MQTT writes it: seven bits a byte, lowest first."""
    if length < 0x80:
        return bytes((length,))
    out = bytearray()
    while length >= 0x80:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    out.append(length)
    return bytes(out)


def puback(packet_id: int) -> bytes:
    """We have your message (QoS 1)."""
    return bytes((PUBACK << 4, 2, packet_id >> 8, packet_id & 0xFF))


def pubrec(packet_id: int) -> bytes:
    """We have your message (QoS 2); release it."""
    return bytes((PUBREC << 4, 2, packet_id >> 8, packet_id & 0xFF))


def pubrel(packet_id: int) -> bytes:
    """You have our message (QoS 2); forget its id."""
    return bytes((PUBREL << 4 | 2, 2, packet_id >> 8, packet_id & 0xFF))


def pubcomp(packet_id: int) -> bytes:
    """The id is forgotten (QoS 2)."""
    return bytes((PUBCOMP << 4, 2, packet_id >> 8, packet_id & 0xFF))


class Publication:
    """A message on its way out: encoded once, however many sessions receive it.

    `size` is what it weighs in a queue, in bytes. Raises BadRequest for an impossible topic, TooLarge for
    what no packet can hold.
    """

    __slots__ = ("_heads", "_topic", "_wire", "payload", "qos", "size", "topic")

    def __init__(self, topic: str, payload: bytes, qos: int) -> None:
        fault = topic_fault(topic)
        if fault is not None:
            raise BadRequest(f"{topic[:200]!r} is no topic: {fault}.")
        name = topic.encode()
        size = len(name) + len(payload) + 9
        if size > REMAINING_BYTES_MAX or len(name) > TOPIC_BYTES_MAX:
            raise TooLarge(f"A message of {len(payload)} bytes fits no MQTT packet.")
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.size = size
        self._topic = len(name).to_bytes(2, "big") + name
        self._wire: bytes | None = None
        self._heads: dict[int, bytes] | None = None

    def wire(self) -> bytes:
        """The whole packet for QoS 0; every receiver shares the same bytes."""
        wire = self._wire
        if wire is None:
            topic, payload = self._topic, self.payload
            length = len(topic) + len(payload)
            wire = self._wire = b"".join((b"\x30", length_bytes(length), topic, payload))
        return wire

    def head(self, qos: int, retain: bool) -> bytes:
        """The packet for QoS 1 or 2 up to its packet id, which is followed by the payload."""
        flags = 0x30 | qos << 1 | retain
        heads = self._heads
        if heads is None:
            heads = self._heads = {}
        head = heads.get(flags)
        if head is None:
            length = len(self._topic) + len(self.payload) + (2 if qos else 0)
            head = heads[flags] = b"".join((bytes((flags,)), length_bytes(length), self._topic))
        return head
