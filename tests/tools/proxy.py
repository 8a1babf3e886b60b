"""A TCP proxy that can be hurt: cut in the middle of a packet, made slow, frozen, turned into a black hole.

It stands before one server and may change which; its clients keep one port for as long as it lives. All that it does
happens on a thread of its own, and each fault is one call.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Literal, Protocol, TypeVar

T = TypeVar("T")
Way = Literal["up", "down"]  # from the client to the server, and back

CHUNK = 1 << 16
_SLOW_CHUNK = 512  # so that a slow link is one all the time, not in gulps
_STEP_S_MAX = 10.0


class Meddler(Protocol):
    """Stands in one connection and decides about what passes. Whole packets only come out of it."""

    def passing(self, way: Way, data: bytes) -> list[tuple[float, bytes]]:
        """What goes on, each with how many seconds later; what was held back before comes with it."""
        ...

    def answers(self, way: Way) -> bytes:
        """What the proxy itself says, at once, to the side that sent in this direction."""
        ...


class Proxy:
    """A door to a server on 127.0.0.1. `target` says its port, anew for each connection."""

    def __init__(self, target: Callable[[], int], *, meddle: Callable[[], Meddler] | None = None) -> None:
        self._target = target
        self.meddle = meddle
        self.connections = 0  # that clients have made so far
        self.cuts = 0
        self.carried: dict[Way, int] = {"up": 0, "down": 0}  # bytes that were passed on so far
        self._present: set[_Connection] = set()
        self._refusing = False
        self._hole = False
        self._bytes_per_s: float | None = None
        self._latency_s = 0.0
        self._budget: dict[Way, int | None] = {"up": None, "down": None}
        self._freeze_at: int | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._end = asyncio.Event()
        self._began: Future[tuple[asyncio.AbstractEventLoop, int]] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="proxy", daemon=True)
        self._thread.start()
        self._loop, self.port = self._began.result(_STEP_S_MAX)

    # Faults

    def reset(self) -> None:
        """Break every connection at once; new ones are welcome."""
        self._do(self._reset())

    def cut_after(self, count: int, way: Way = "down") -> None:
        """Break the connection that carries the next bytes that way, after exactly so many of them."""
        self._do(self._set_budget(way, count))

    def freeze(self) -> None:
        """Pass nothing on; connections stay open, and what they sent arrives after `heal`."""
        self._do(self._freeze())

    def freeze_at(self, count: int) -> None:
        """Freeze as soon as so many bytes in all have been carried up: no more than a piece of them passes then."""
        self._freeze_at = count

    def black_hole(self) -> None:
        """Whatever is connected now, or connects before `heal`, is never heard again. Nobody is told."""
        self._do(self._swallow())

    def slow(self, bytes_per_s: float, latency_s: float = 0.0) -> None:
        """Pass so much a second each way, and each piece so much later."""
        self._bytes_per_s, self._latency_s = bytes_per_s, latency_s

    def refuse(self) -> None:
        """Break new connections at once; those that are there stay."""
        self._refusing = True

    def heal(self) -> None:
        """No more faults. Connections in the black hole stay there."""
        self._do(self._heal())

    def close(self) -> None:
        """Break everything, and end."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join(_STEP_S_MAX)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # On the proxy's thread

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._began.set_result((asyncio.get_running_loop(), server.sockets[0].getsockname()[1]))
        await self._end.wait()
        server.close()
        for each in list(self._present):
            each.abort()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_STEP_S_MAX)

    async def _reset(self) -> None:
        for each in list(self._present):
            each.abort()

    async def _set_budget(self, way: Way, count: int) -> None:
        self._budget[way] = count

    async def _freeze(self) -> None:
        self._flowing.clear()

    async def _swallow(self) -> None:
        self._hole = True
        for each in self._present:
            each.lost = True

    async def _heal(self) -> None:
        self._refusing = self._hole = False
        self._bytes_per_s, self._latency_s, self._freeze_at = None, 0.0, None
        self._budget = {"up": None, "down": None}
        self._flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = _Connection(self, reader, writer)
        connection.lost = self._hole
        if self._refusing:
            connection.abort()
            return
        self._present.add(connection)
        try:
            await connection.carry()
        except (OSError, asyncio.CancelledError):
            connection.abort()  # the one side or the other has gone
        finally:
            self._present.discard(connection)

    async def passable(self, connection: _Connection) -> None:
        """Wait until something may pass: for ever in a black hole."""
        while connection.lost or not self._flowing.is_set():
            if connection.lost:
                await asyncio.Event().wait()
            await self._flowing.wait()

    async def pace(self, count: int) -> None:
        """Take the time that so many bytes take."""
        if self._bytes_per_s is not None:
            await asyncio.sleep(self._latency_s + count / self._bytes_per_s)

    def carries(self, way: Way, count: int) -> None:
        """So many bytes are passed on now."""
        self.carried[way] += count
        if self._freeze_at is not None and self.carried["up"] >= self._freeze_at:
            self._flowing.clear()

    def allowed(self, way: Way, count: int) -> int | None:
        """How many of so many bytes are left before the cut; None if there is none to be made."""
        left = self._budget[way]
        if left is None or left > count:
            self._budget[way] = None if left is None else left - count
            return None
        self._budget[way] = None
        self.cuts += 1
        return left

    @property
    def chunk(self) -> int:
        return CHUNK if self._bytes_per_s is None else _SLOW_CHUNK

    def port_behind(self) -> int:
        return self._target()


class _Connection:
    """One client's connection, and the one to the server that was made for it."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.lost = False
        self._proxy = proxy
        self._reader = reader
        self._writers = {"down": writer}
        self._meddler = proxy.meddle() if proxy.meddle is not None else None

    async def carry(self) -> None:
        await self._proxy.passable(self)
        reader, writer = await asyncio.open_connection("127.0.0.1", self._proxy.port_behind())
        self._writers["up"] = writer
        pumps = [asyncio.create_task(self._pump("up", self._reader)), asyncio.create_task(self._pump("down", reader))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for each in self._writers.values():
                each.close()

    def abort(self) -> None:
        """Break both connections with a reset."""
        for each in self._writers.values():
            sock = each.get_extra_info("socket")
            if sock is not None and not each.is_closing():
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            each.transport.abort()

    async def _pump(self, way: Way, reader: asyncio.StreamReader) -> None:
        """Until the sender has ended, or the connection is cut."""
        proxy = self._proxy
        while True:
            await proxy.passable(self)
            data = await reader.read(proxy.chunk)
            if not data:
                return
            await proxy.pace(len(data))
            await proxy.passable(self)
            if not await self._forward(way, data):
                return

    async def _forward(self, way: Way, data: bytes) -> bool:
        """Whether the connection still stands."""
        writer = self._writers[way]
        self._proxy.carries(way, len(data))
        left = self._proxy.allowed(way, len(data))
        if left is not None:
            writer.write(data[:left])
            await writer.drain()
            while writer.transport.get_write_buffer_size():
                await asyncio.sleep(0.001)
            return False
        if self._meddler is None:
            writer.write(data)
        else:
            self._meddle(self._meddler, way, data)
        await writer.drain()
        return True

    def _meddle(self, meddler: Meddler, way: Way, data: bytes) -> None:
        writer = self._writers[way]
        for later_s, packet in meddler.passing(way, data):
            if later_s:
                asyncio.get_running_loop().call_later(later_s, self._late, writer, packet)
            else:
                writer.write(packet)
        if answer := meddler.answers(way):
            self._writers["down" if way == "up" else "up"].write(answer)

    @staticmethod
    def _late(writer: asyncio.StreamWriter, packet: bytes) -> None:
        if not writer.is_closing():
            writer.write(packet)
