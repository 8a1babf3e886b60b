"""The WebSocket feed: the stream protocol over a socket, the first message being the open.

It only carries messages and asks access; what they mean is the stream service's.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any, Final

import msgspec

from broker.http.answers import Answer
from broker.http.call import Call, Receive, Send
from broker.http.endpoint import route
from broker.http.errors import error_answer
from broker.http.origin import check_host, check_origin
from feeds.errors import BadRequest, Forbidden, NotFound, SpileError, Unauthorized, Unavailable
from feeds.patterns import parse_patterns
from listeners.stream.messages import decode_open, decode_run
from listeners.stream.sender import refusal
from listeners.stream.service import StreamService

if TYPE_CHECKING:
    from broker.http.application import Application

_STREAM: Final = "feed"
_OPEN_S_MAX: Final = 10.0
_POLICY_VIOLATION: Final = 1008
_SWITCHED: Final = 101

_numbers = itertools.count(1)


class _Kind(msgspec.Struct):
    ack: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    close: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_kind = msgspec.json.Decoder(_Kind).decode


async def serve_feed(app: Application, scope: Any, receive: Receive, send: Send) -> None:
    """Serve one WebSocket from its handshake to its end."""
    match = app.endpoints.match(scope["raw_path"].decode("latin-1"))
    client = app.client(scope)
    call = Call(scope, receive, app.services, app.admission, match.params if match else {}, (), client)
    await receive()
    live, taken = app.admission.live, False
    try:
        if match is None or "WEBSOCKET" not in match.methods:
            raise NotFound("There is no WebSocket at this address.", hint="Feeds are at /barrels/<barrel>/feed.")
        name = await _checked(call)
        live.take(1, client)
        taken = True
        await send({"type": "websocket.accept"})
        app.metrics.observe("WEBSOCKET", match.template, _SWITCHED, None)
        await _Socket(call, name, receive, send).serve()
    except SpileError as error:
        await _refuse(scope, send, error_answer(error))
    finally:
        if taken:
            live.give(1, client)


async def _checked(call: Call) -> str:
    """The barrel's name, if this client may listen to something in it at all."""
    check_host(call.headers, call.services.limits.hosts)
    check_origin(call.headers, call.services.limits.origins)
    if call.services.streams is None:
        raise Unavailable("This service follows no feeds.")
    call.allow("read")
    name = call.param("barrel")
    await call.in_thread(call.services.store.barrel, name)
    return name


class _Socket:
    def __init__(self, call: Call, barrel: str, receive: Receive, send: Send) -> None:
        assert call.services.streams is not None
        self._streams: StreamService = call.services.streams
        self._call = call
        self._barrel = barrel
        self._receive = receive
        self._send = send
        self._owner = f"websocket/{next(_numbers)}"

    async def serve(self) -> None:
        """Carry messages until the client goes or breaks the rules."""
        try:
            async with asyncio.timeout(_OPEN_S_MAX):
                message = await self._next()
        except TimeoutError:
            await self._close("no open came")
            return
        try:
            while message is not None:
                await self._hand_over(message)
                message = await self._next()
        except BadRequest as error:
            await self._close(error.reason)
        finally:
            self._streams.gone(self._owner)

    async def _next(self) -> bytes | None:
        event = await self._receive()
        if event["type"] == "websocket.disconnect":
            return None
        text = event.get("text")
        return text.encode() if text is not None else event.get("bytes") or b""

    async def _hand_over(self, message: bytes) -> None:
        try:
            kind = _kind(message)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise BadRequest(f"That is no message of a stream: {error}") from error
        if kind.ack is not msgspec.UNSET or kind.close is not msgspec.UNSET:
            closed = self._streams.credit(self._owner, self._barrel, _STREAM, message)
            if closed is not None:
                await self._deliver(closed)
            return
        try:
            for pattern in parse_patterns(decode_open(message).patterns) or ("#",):
                self._call.allow("read", self._barrel, str(pattern))
        except (BadRequest, Forbidden, Unauthorized) as error:
            run = decode_run(message)
            if run is None:
                raise
            await self._deliver(refusal(run, error))
            return
        await self._streams.open(self._owner, self._barrel, _STREAM, message, self._deliver)

    async def _deliver(self, array: bytes) -> None:
        """Send an array; a client that takes nothing for too long is cut off."""
        try:
            async with asyncio.timeout(self._call.services.limits.send_s_max):
                await self._send({"type": "websocket.send", "text": array.decode()})
                await self._call.sent(len(array))
        except TimeoutError:
            abort = self._call.scope.get("spile.abort")
            if abort is not None:
                abort()
            raise

    async def _close(self, reason: str) -> None:
        await self._send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": reason[:120]})


async def _plain(call: Call) -> Answer:
    raise BadRequest(
        "A feed is spoken over WebSocket.", hint="Connect with ws://, or read …/changes?feed=continuous."
    )


async def _refuse(scope: Any, send: Send, answer: Answer) -> None:
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        return
    headers = [(b"content-type", answer.content_type), *answer.headers]
    await send({"type": "websocket.http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": answer.body})


_PLACE: Final = "/barrels/{barrel}/feed"

ROUTES = [route("WEBSOCKET", _PLACE, "feed", _plain), route("GET", _PLACE, "feed_handshake", _plain)]
