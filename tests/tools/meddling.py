"""Messages dropped, doubled and delayed: MQTT 3.1.1 connections whose PUBLISH packets are meddled with.

What is dropped is acknowledged to its sender by the proxy, as by a broker or a client that takes a message and then
loses it. The codec is the suite's own.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from proxy import Meddler, Way

PUBLISH, PUBACK = 3, 4
DUP = 0x08


class Packets:
    """The packets of a stream of bytes."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The packets that are whole now."""
        self._bytes += data
        found = []
        while (size := self._size()) is not None and len(self._bytes) >= size:
            found.append(bytes(self._bytes[:size]))
            del self._bytes[:size]
        return found

    def _size(self) -> int | None:
        length = 0
        for at, byte in enumerate(self._bytes[1:5]):
            length |= (byte & 0x7F) << 7 * at
            if not byte & 0x80:
                return 2 + at + length
        return None


def published(packet: bytes) -> tuple[str, int, bytes] | None:
    """Topic, QoS and packet id of a PUBLISH; None for any other packet."""
    if packet[0] >> 4 != PUBLISH:
        return None
    at = 1
    while packet[at] & 0x80:
        at += 1
    size = int.from_bytes(packet[at + 1 : at + 3], "big")
    behind = at + 3 + size
    qos = packet[0] >> 1 & 3
    return packet[at + 3 : behind].decode(), qos, packet[behind : behind + 2] if qos else b""


class Meddling:
    """Drops, doubles and delays publications under some topics, each with a chance; lets all else pass."""

    def __init__(
        self,
        luck: random.Random,
        topics: tuple[str, ...] = ("from/", "to/"),
        *,
        drop: float = 0.1,
        double: float = 0.1,
        delay: float = 0.1,
        delay_s: float = 0.3,
    ) -> None:
        self._luck = luck
        self._topics = topics
        self._chances = (drop, double, delay)
        self._delay_s = delay_s
        self._packets: dict[Way, Packets] = {"up": Packets(), "down": Packets()}
        self._answers: dict[Way, bytes] = {"up": b"", "down": b""}
        self.dropped = self.doubled = self.delayed = 0

    def calm(self) -> None:
        """Let everything pass from now on."""
        self._chances = (0.0, 0.0, 0.0)

    def passing(self, way: Way, data: bytes) -> list[tuple[float, bytes]]:
        """What goes on of these bytes, whole packets only."""
        passed: list[tuple[float, bytes]] = []
        for packet in self._packets[way].feed(data):
            passed += self._packet(way, packet)
        return passed

    def answers(self, way: Way) -> bytes:
        """The acknowledgements of what was dropped."""
        told, self._answers[way] = self._answers[way], b""
        return told

    def _packet(self, way: Way, packet: bytes) -> list[tuple[float, bytes]]:
        message = published(packet)
        if message is None or not message[0].startswith(self._topics):
            return [(0.0, packet)]
        drop, double, delay = self._chances
        luck = self._luck.random()
        if luck < drop:
            self.dropped += 1
            if message[1] == 1:
                self._answers[way] += bytes((PUBACK << 4, 2)) + message[2]
            return []
        if luck < drop + double:
            self.doubled += 1
            again = bytes((packet[0] | (DUP if message[1] else 0),)) + packet[1:]
            return [(0.0, packet), (0.0, again)]
        if luck < drop + double + delay:
            self.delayed += 1
            return [(self._luck.uniform(0.01, self._delay_s), packet)]
        return [(0.0, packet)]


def meddler(luck: random.Random, made: list[Meddling]) -> Callable[[], Meddler]:
    """What a proxy asks for each of its connections; `made` collects them."""

    def make() -> Meddling:
        made.append(Meddling(random.Random(luck.getrandbits(64))))
        return made[-1]

    return make
