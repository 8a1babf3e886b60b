"""A connection's bytes: an asyncio transport on one side, what paho takes for a socket on the other.

paho reads bytes one by one and sends packets one by one; here both are gathered, so that a thousand packets are
a few system calls. TLS and waiting are the event loop's.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import cast

GREETING = b"\x20\x02"  # what a CONNACK begins with
_GREETING_BYTES = 4
# Many brokers (Mosquitto where it is not told otherwise) hold back a small packet until the last one was acknowledged
# by TCP, which the system does after 40 ms. It holds for a moment only, and is asked for with each arrival.
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
_HIGH_WATER = 256 << 10  # bytes that may wait for the socket before publishing pauses


class Wire(asyncio.Protocol):
    """Carries bytes. `on_data` is called when some have come, `on_lost` when no more will come or go."""

    def __init__(self) -> None:
        self.greeting = b""
        """The first bytes that came: what tells a broker from something else."""
        self.heard_at = time.monotonic()
        self.writable = asyncio.Event()
        self.writable.set()
        self.on_data: Callable[[], None] = _nothing
        self.on_lost: Callable[[Exception | None], None] = _nothing_lost
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None
        self._came = b""
        self._at = 0
        self._out = bytearray()
        self._ended = False

    # As asyncio sees it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket stands."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        self._socket = transport.get_extra_info("socket")

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        self.heard_at = time.monotonic()
        if _QUICKACK is not None and self._socket is not None:
            self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        if len(self.greeting) < _GREETING_BYTES:
            self.greeting += data[: _GREETING_BYTES - len(self.greeting)]
        self._came = self._came[self._at :] + data if self._at < len(self._came) else data
        self._at = 0
        self.on_data()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed, by whichever side."""
        self._ended = True
        self.writable.set()
        self.on_lost(exc)

    def pause_writing(self) -> None:
        """Too much waits for the socket."""
        self.writable.clear()

    def resume_writing(self) -> None:
        """The socket takes bytes again."""
        self.writable.set()

    # As paho sees it

    def recv(self, buffer_size: int) -> bytes:
        """Bytes that have come already."""
        at, data = self._at, self._came
        if at >= len(data):
            if self._ended:
                return b""
            raise BlockingIOError
        self._at = at + buffer_size
        return data[at : at + buffer_size]

    def send(self, buffer: bytes | bytearray) -> int:
        """Take bytes, to be flushed."""
        self._out += buffer
        return len(buffer)

    def pending(self) -> int:
        """Bytes that have come and were not read."""
        return len(self._came) - self._at

    def fileno(self) -> int:
        """The event loop watches the socket itself."""
        return -1

    def setblocking(self, flag: bool) -> None:
        """It never blocks."""

    def close(self) -> None:
        """Let what was sent go out, and close."""
        self.flush()
        if self._transport is not None:
            self._transport.close()

    # Beside

    def flush(self) -> None:
        """Hand what was sent to the socket."""
        if self._out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(bytes(self._out))
        self._out.clear()

    def abort(self) -> None:
        """Close at once; what waits is lost."""
        if self._transport is not None:
            self._transport.abort()


def _nothing() -> None:
    """Until somebody listens."""


def _nothing_lost(_fault: Exception | None) -> None:
    """The same."""
