"""uvicorn's HTTP and WebSocket connections, with the bounds and the handles that it leaves out.

Bounds: connections, bytes and seconds of a request's head, and whether it is let in at all, which is decided before
its body is read and before there is a task. Handles: `spile.abort` in the scope drops a connection whose client takes
nothing, which closing it cannot.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Protocol

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from broker.http.admission import Admission
from broker.http.answers import Answer, encode_json
from broker.http.errors import error_answer
from broker.http.refusing import Refused, refusal_bytes
from feeds.errors import BadRequest, Overloaded

HEAD_BYTES_MAX = 64 << 10
HEAD_S_MAX = 20.0
REFUSED_BODY_S_MAX = 20.0  # for the rest of a body that nobody wants, before the connection can be used again


class Door(Protocol):
    """What lets requests in."""

    admission: Admission

    def admit(self, scope: Any) -> Answer | None:
        """The refusal of a request by its head, or None."""
        ...


class HttpConnection(HttpToolsProtocol):
    """One client's connection."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._door: Door = self.app
        self._address: str | None = None  # for which it is counted
        self._body_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._unfinished: list[RequestResponseCycle] = []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        try:
            self._door.admission.connections.take(1, address)
        except Overloaded as error:
            transport.write(refusal_bytes(error_answer(error), bodiless=False, closes=True))
            transport.close()
            return
        self._address = address
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        self._head_in()
        self._body_in()
        # uvicorn tells only the newest request of a pipeline that the client has left.
        for cycle in self._unfinished:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        self._leave()  # it is bounded as a live feed from here on
        super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = 0
        self._await_head()
        self.scope["spile.abort"] = self.transport.abort  # type: ignore[typeddict-unknown-key]

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_in()
        before = self.cycle
        if (before is None or before.response_complete) and not self.parser.should_upgrade():
            # One that comes before its forerunner is answered waits its turn, and is judged then.
            self.scope["method"] = self.parser.get_method().decode("ascii")
            self.scope["raw_path"] = httptools.parse_url(self.url).path
            refusal = self._door.admit(self.scope)
            if refusal is not None:
                self._refuse(refusal)
                return
        super().on_headers_complete()
        self._unfinished = [cycle for cycle in self._unfinished if not cycle.response_complete]
        if before is not None and before is not self.cycle and not before.response_complete:
            self._unfinished.append(before)

    def on_body(self, body: bytes) -> None:
        if not isinstance(self.cycle, Refused):
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._body_in()
        if isinstance(self.cycle, Refused):
            self.cycle.more_body = False
        else:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        answered = self.cycle is not None and self.cycle.response_complete
        if answered and self.cycle.more_body and self._body_timer is None:
            # It was answered before its body was in: the rest is taken and forgotten, for a while.
            self._body_timer = self.loop.call_later(REFUSED_BODY_S_MAX, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        if not self.transport.is_closing():
            super().data_received(data)

    def _refuse(self, answer: Answer) -> None:
        """Answer in a moment, and read nothing more of this client until then."""
        # Who waits to be told whether to send its body may send it or not after a refusal; only closing is sure.
        keeps = self.parser.should_keep_alive() and not self.expect_100_continue
        refused = Refused(keeps and self.parser.get_http_version() != "1.0")
        self.cycle = refused  # type: ignore[assignment]
        self.flow.pause_reading()
        self._door.admission.held.hold(partial(self._tell, refused, answer, self.scope["method"] == "HEAD"))

    def _tell(self, refused: Refused, answer: Answer, bodiless: bool) -> None:
        refused.response_complete = True
        if self.transport.is_closing():
            return
        self.transport.write(refusal_bytes(answer, bodiless=bodiless, closes=not refused.keep_alive))
        if not refused.keep_alive:
            self.transport.close()
        elif refused.more_body:
            self._body_timer = self.loop.call_later(REFUSED_BODY_S_MAX, self.transport.abort)
        self.on_response_complete()

    def send_400_response(self, msg: str) -> None:
        body = encode_json(BadRequest(msg, hint="Speak HTTP/1.1, with a head of at most 64 KiB.").as_dict())
        head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        self.transport.close()

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES_MAX:
            raise ValueError("The head of the request is too large.")  # the parser turns it into a 400

    def _leave(self) -> None:
        if self._address is not None:
            self._door.admission.connections.give(1, self._address)
            self._address = None

    def _body_in(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S_MAX, self.transport.abort)

    def _head_in(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class WebSocketConnection(WebSocketsSansIOProtocol):
    """One client's WebSocket."""

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        scope = getattr(self, "scope", None)
        if scope is not None:
            scope["spile.abort"] = self.transport.abort

    async def send(self, message: Any) -> None:
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            # A refusal completes the handshake too; uvicorn would log it as an error of the application's.
            self.handshake_complete = True
