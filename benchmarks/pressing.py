"""Clients that ask for more than a service can take: over HTTP and over MQTT, each either waiting for answers or not.

A closed client asks again as soon as it is answered, refused or not, and never heeds `Retry-After`. An open one asks
at its rate whatever becomes of it, as far as a connection is free to ask on.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Protocol, cast

from benchmarks.measuring import percentile

TICK_S = 0.005
CONNECTING = 100  # at a time, so that the backlog of the listening socket does not overflow
ENDING_S = 3.0

Requests = Iterator[bytes]


class Tally:
    """What became of the requests that were answered while it counts, and how long the accepted ones took."""

    def __init__(self) -> None:
        self.counting = False
        self.outcomes: Counter[str] = Counter()
        self.accepted_s: list[float] = []
        self.unsent = 0

    def note(self, outcome: str, seconds: float) -> None:
        if not self.counting:
            return
        self.outcomes[outcome] += 1
        if outcome == "accepted":
            self.accepted_s.append(seconds)

    def figures(self, seconds: float) -> dict[str, float]:
        """Rates a second, and the latencies of what was accepted."""
        told = {"accepted_per_s": self.outcomes["accepted"] / seconds}
        if self.accepted_s:
            told["p50_ms"] = percentile(self.accepted_s, 0.5) * 1000
            told["p99_ms"] = percentile(self.accepted_s, 0.99) * 1000
            told["max_ms"] = max(self.accepted_s) * 1000
        for outcome, count in self.outcomes.items():
            if outcome != "accepted":
                told[f"{outcome}_per_s"] = count / seconds
        if self.unsent:
            told["unsent_per_s"] = self.unsent / seconds
        return told


class Asker(Protocol):
    """A connection that can be asked on when it is free."""

    def ask(self) -> None: ...

    def close(self) -> None: ...


class HttpClient(asyncio.Protocol):
    """One connection, one request at a time. `free` is called when it may ask again."""

    def __init__(self, requests: Requests, tally: Tally, free: Callable[[HttpClient], None]) -> None:
        self._requests, self._tally, self._free = requests, tally, free
        self._held = b""
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._tally.note("cut", 0.0)

    def ask(self) -> None:
        self._sent_at = time.perf_counter()
        if self._transport is not None:
            self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, found, body = self._held.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.partition(b"content-length: ")[2].partition(b"\r")[0]):
            return
        self._held = b""
        status = head[9:12].decode()
        outcome = "accepted" if status[0] == "2" else f"status_{status}"
        self._tally.note(outcome, time.perf_counter() - self._sent_at)
        self._free(self)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None


class MqttClient(asyncio.Protocol):
    """One device that puts documents with `window` requests unacknowledged at most, and hears what became of them."""

    def __init__(self, name: str, make: Callable[[int], bytes], window: int, tally: Tally, closed: bool) -> None:
        self.name, self._make, self._tally, self._closed = name, make, tally, closed
        self._room = window
        self._number = 0
        self._asked: dict[int, float] = {}
        self._packet = 0
        self._held = b""
        self._transport: asyncio.Transport | None = None
        self._to = f"to/anonymous/{name}/".encode()
        self._from = f"from/anonymous/{name}/put/bench/{name}-".encode()
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        name = self.name.encode()
        self._transport.write(_packet(0x10, b"\0\4MQTT\4\2\0\x3c" + _text(name)))
        self._transport.write(_packet(0x82, b"\0\1" + _text(self._to + b"#") + b"\1"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._tally.note("cut", 0.0)

    @property
    def has_room(self) -> bool:
        return self._room > 0

    def begin(self) -> None:
        """Fill the window."""
        while self._room and self._closed:
            self.ask()

    def ask(self) -> None:
        if self._transport is None:
            return
        self._room -= 1
        self._number += 1
        self._packet = self._packet % 65_000 + 1
        self._asked[self._number] = time.perf_counter()
        topic = self._from + b"%d" % self._number
        self._transport.write(
            _packet(0x32, _text(topic) + self._packet.to_bytes(2, "big") + self._make(self._number))
        )

    def data_received(self, data: bytes) -> None:
        data = self._held + data
        at = 0
        while (found := _frame(data, at)) is not None:
            first, start, at = found
            self._take(first, data[start:at])
        self._held = data[at:]

    def _take(self, first: int, body: bytes) -> None:
        kind = first >> 4
        if kind == 9:
            self.ready.set_result(None)
        elif kind == 4:
            self._room += 1
            if self._closed:
                self.ask()
        elif kind == 3:
            end = 2 + (body[0] << 8 | body[1])
            topic = body[2:end]
            if self._transport is not None:
                self._transport.write(b"\x40\x02" + body[end : end + 2])
            outcome = topic[len(self._to) :].partition(b"/")[0].decode()
            asked = self._asked.pop(int(topic.rpartition(b"-")[2]))
            self._tally.note(outcome, time.perf_counter() - asked)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None


async def http_closed(port: int, count: int, make: Callable[[int], Requests], tally: Tally, seconds: float) -> float:
    """So many connections that ask without a pause; the seconds that were counted."""
    clients = [HttpClient(make(number), tally, HttpClient.ask) for number in range(count)]
    await _connect(port, clients)
    for client in clients:
        client.ask()
    return await _count(tally, seconds, clients)


async def http_open(
    port: int, count: int, make: Callable[[int], Requests], tally: Tally, seconds: float, rate: float
) -> float:
    """So many requests a second, over as many connections at most; the seconds that were counted."""
    idle: deque[HttpClient] = deque()
    clients = [HttpClient(make(number), tally, idle.append) for number in range(count)]
    await _connect(port, clients)
    idle.extend(clients)
    return await _at_rate(tally, seconds, rate, clients, lambda: idle.popleft() if idle else None)


async def mqtt_load(
    port: int,
    count: int,
    make: Callable[[int], bytes],
    tally: Tally,
    seconds: float,
    *,
    run: str,
    window: int,
    rate: float | None = None,
) -> float:
    """So many devices, each with a window, without a pause or at a rate over all; the seconds that were counted."""
    clients = [MqttClient(f"{run}{number}", make, window, tally, rate is None) for number in range(count)]
    await _connect(port, clients)
    await asyncio.gather(*(client.ready for client in clients))
    for client in clients:
        client.begin()
    if rate is None:
        return await _count(tally, seconds, clients)
    turns = deque(clients)

    def next_free() -> MqttClient | None:
        for _ in range(len(turns)):
            turns.rotate()
            if turns[0].has_room:
                return turns[0]
        return None

    return await _at_rate(tally, seconds, rate, clients, next_free)


async def _connect(port: int, clients: list[HttpClient] | list[MqttClient]) -> None:
    loop = asyncio.get_running_loop()
    for start in range(0, len(clients), CONNECTING):
        part = clients[start : start + CONNECTING]
        await asyncio.gather(
            *(loop.create_connection(lambda client=client: client, "127.0.0.1", port) for client in part)  # type: ignore[misc]
        )


async def _count(tally: Tally, seconds: float, clients: list[HttpClient] | list[MqttClient]) -> float:
    tally.counting = True
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    return _end(tally, began, clients)


async def _at_rate(
    tally: Tally,
    seconds: float,
    rate: float,
    clients: list[HttpClient] | list[MqttClient],
    next_free: Callable[[], Asker | None],
) -> float:
    tally.counting = True
    began = time.perf_counter()
    due = 0
    while (now := time.perf_counter()) < began + seconds:
        wanted = int((now - began) * rate)
        while due < wanted:
            asker = next_free()
            if asker is None:
                tally.unsent += wanted - due
                due = wanted
                break
            asker.ask()
            due += 1
        await asyncio.sleep(TICK_S)
    return _end(tally, began, clients)


def _end(tally: Tally, began: float, clients: list[HttpClient] | list[MqttClient]) -> float:
    tally.counting = False
    seconds = time.perf_counter() - began
    for client in clients:
        client.close()
    return seconds


def _text(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def _packet(first: int, body: bytes) -> bytes:
    size, length = len(body), b""
    while size >= 0x80:
        length += bytes((size & 0x7F | 0x80,))
        size >>= 7
    return bytes((first,)) + length + bytes((size,)) + body


def _frame(data: bytes, at: int) -> tuple[int, int, int] | None:
    """First byte, start and end of the packet that begins here; None while it is not whole."""
    if len(data) < at + 2:
        return None
    size = shift = 0
    start = at + 1
    while True:
        if start >= len(data):
            return None
        byte = data[start]
        size |= (byte & 0x7F) << shift
        shift += 7
        start += 1
        if byte < 0x80:
            break
    return (data[at], start, start + size) if len(data) >= start + size else None
