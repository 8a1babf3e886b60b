"""Serving an application on a socket, inside a loop that is already running.

uvicorn does the work; the process keeps its own signals, its own logging, and a bound on how long stopping takes.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from broker.http.application import Application
from broker.http.protocol import HttpConnection, WebSocketConnection
from feeds.errors import Unavailable

STOP_S_MAX = 5
_BACKLOG = 2048
_ACCEPTED_AT_ONCE = 8  # the loop takes one connection a round from each descriptor; rounds are long under load
_DROPPED_S_MAX = 2  # for handlers to notice that their clients are gone
_WS_MESSAGE_BYTES_MAX = 1 << 20  # an open with a thousand patterns; credits are a hundred bytes
_KEEP_ALIVE_S = 75


class HttpServer:
    """A running server. `finished` ends when it has stopped, with the exception if it failed."""

    def __init__(self, app: Application, uv: _Uvicorn, sockets: list[socket.socket], stop_s_max: float) -> None:
        self._app = app
        self._uv = uv
        self._stop_s_max = stop_s_max
        self.host, self.port = sockets[0].getsockname()[:2]
        self.finished = asyncio.create_task(uv.serve(sockets=sockets), name=f"spile-http-{self.port}")

    async def stop(self) -> None:
        """Take no more requests, let those in work finish within the bound, then drop what is left."""
        self._app.closing.set()
        self._app.admission.held.let_go()
        self._uv.should_exit = True
        await asyncio.wait((self.finished,), timeout=self._stop_s_max)
        # A dropped connection ends its request as if the client had left: quietly, and with everything given back.
        for connection in list(self._uv.server_state.connections):
            connection.transport.abort()
        await asyncio.wait((self.finished,), timeout=_DROPPED_S_MAX)
        if not self.finished.done():
            self.finished.cancel()
        await asyncio.get_running_loop().run_in_executor(None, self._app.admission.transfers.close)


async def serve_http(app: Application, host: str, port: int, *, stop_s_max: int = STOP_S_MAX) -> HttpServer:
    """Listen and serve; port 0 takes a free one. Returns once requests are answered.

    Unavailable names the address when it cannot be listened on.
    """
    config = uvicorn.Config(
        app,
        http=HttpConnection,
        ws=WebSocketConnection,
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=stop_s_max + _DROPPED_S_MAX,
        ws_max_size=_WS_MESSAGE_BYTES_MAX,
        ws_per_message_deflate=False,
    )
    sock = await _listen(host, port)
    uv = _Uvicorn(config)
    sockets = [sock, *(sock.dup() for _ in range(_ACCEPTED_AT_ONCE - 1))]
    server = HttpServer(app, uv, sockets, stop_s_max)
    ready = asyncio.create_task(uv.ready.wait(), name="spile-http-ready")
    await asyncio.wait((ready, server.finished), return_when=asyncio.FIRST_COMPLETED)
    if not ready.done():
        ready.cancel()
        server.finished.result()
    return server


class _Uvicorn(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


async def _listen(host: str, port: int) -> socket.socket:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, address = found[0]
        listening = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
        # asyncio sends at once what is written (TCP_NODELAY) only on sockets that say that they are TCP; else an
        # answer's second piece waits for the acknowledgement of the first one, which the other side delays by 40 ms.
        return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=listening.detach())
    except OSError as error:
        hint = "Choose another port, or stop what listens there." if error.errno == errno.EADDRINUSE else None
        raise Unavailable(f"Cannot listen for HTTP on {host}:{port}: {error.strerror or error}", hint=hint) from error
