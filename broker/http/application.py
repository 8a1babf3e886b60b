"""The ASGI application: from a request to its endpoint, and from whatever happens there to an answer.

Starlette is the frame that others can mount into (a console, another protocol's face); Spile's own requests go past
its layers, straight to the router over raw paths.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Iterable
from dataclasses import replace
from time import perf_counter
from typing import Any, Final

from starlette.applications import Starlette
from starlette.routing import Match as RouteMatch
from starlette.types import ASGIApp

from broker.http import (
    about,
    attachments,
    barrels,
    batches,
    blobs,
    changes,
    conflicts,
    documents,
    feed,
    listeners,
    local,
    nested,
    paths,
    replications,
    uploads,
)
from broker.http.admission import Admission, Entry
from broker.http.answers import Answer, AnyAnswer, Header, Streamed
from broker.http.call import Call, ClientGone, Receive, Send, content_length
from broker.http.endpoint import Endpoint, Route
from broker.http.errors import Internal, MethodNotAllowed, error_answer
from broker.http.exchange import send_answer, send_streamed
from broker.http.lag_metrics import LagCollector
from broker.http.metrics import HttpMetrics
from broker.http.origin import check_host, check_origin
from broker.http.routing import Match, Router
from broker.http.services import Services
from broker.lags import Lags
from feeds.errors import NotFound, SpileError
from listeners.nested import Nest

_log: Final = logging.getLogger("spile.http")

_BARREL: Final = ("barrel", "db")  # the parameters of paths that name one
_READING: Final = frozenset(("GET", "HEAD"))
_UNKNOWN: Final = "unknown"
_MATCH: Final = "spile.match"
_ENTRY: Final = "spile.entry"
_REFUSED: Final = 400  # and above
_CLIENT_LEFT: Final = 499  # the number that proxies log for it; nobody receives it


class Application(Starlette):
    """Spile over HTTP. `closing` is set when live feeds have to end because the service stops.

    The routes of other faces, `extra`, stand beside its own, which win; only its own are in its description.
    """

    def __init__(self, services: Services, extra: Iterable[Route] = ()) -> None:
        super().__init__()
        self.services = services if services.nest else replace(services, nest=Nest(services.store))
        self.closing = asyncio.Event()
        self.admission = Admission(services.limits, services.regulator)
        self.metrics = HttpMetrics(services.registry, {**services.gauges, "http": self.admission.stats})
        lags = services.lags or Lags(services.store, services.streams, services.readers)
        services.registry.register(LagCollector(lags))
        faces = list(extra)
        own: list[Route] = []
        own.extend(
            [
                *about.routes(self.metrics, lags, lambda: own),
                *barrels.ROUTES,
                *documents.ROUTES,
                *conflicts.ROUTES,
                *batches.ROUTES,
                *nested.ROUTES,
                *attachments.ROUTES,
                *uploads.ROUTES,
                *blobs.ROUTES,
                *local.ROUTES,
                *changes.ROUTES,
                *feed.ROUTES,
                *listeners.routes(lags),
                *paths.ROUTES,
                *replications.ROUTES,
            ]
        )
        self.endpoints: Router[Endpoint] = Router([*own, *faces])

    def build_middleware_stack(self) -> ASGIApp:
        """No layers: errors are answered in one place, and the hot path stays short."""
        return self._serve

    async def _serve(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await feed.serve_feed(self, scope, receive, send)
        else:
            await self.router(scope, receive, send)

    def admit(self, scope: Any) -> Answer | None:
        """Let a request in by its head alone, or give the refusal. `scope` needs no more than method, path, headers
        and client; what it was let in with stands in it afterwards.

        The connection asks as soon as the head is in, so that refusing costs neither a body nor a task.
        """
        match = self.endpoints.match(scope["raw_path"].decode("latin-1"))
        if match is None and self.routes:
            return None  # it may belong to what is mounted
        return self._enter(scope, match)

    def _enter(self, scope: Any, match: Match[Endpoint] | None) -> Answer | None:
        endpoint = find_endpoint(match, scope["method"])
        scope[_MATCH] = match, endpoint
        size = 0 if _streams(endpoint, scope["headers"]) else content_length(scope["headers"])
        try:
            writes = endpoint is not None and endpoint.writes
            scope[_ENTRY] = self.admission.enter(self.client(scope), size, writes=writes)
        except SpileError as error:
            refusal = self._refusal(error, match, scope["headers"])
            self.metrics.observe(scope["method"], match.template if match else _UNKNOWN, refusal.status, None)
            return refusal
        return None

    def client(self, scope: Any) -> str:
        """Who shares are counted for: the identity and where it comes from, since many may use one token."""
        address = scope["client"][0] if scope["client"] else ""
        try:
            return f"{self.services.access.who(scope['headers'], address)} {address}"
        except SpileError:
            return f" {address}"  # it will be told so

    async def _http(self, scope: Any, receive: Receive, send: Send) -> None:
        started = perf_counter()
        if _ENTRY not in scope:
            found = self.endpoints.match(scope["raw_path"].decode("latin-1"))
            if found is None and self.routes and await self._mounted(scope, receive, send):
                return
            refusal = self._enter(scope, found)
            if refusal is not None:
                await self.admission.held.wait()
                await send_answer(send, refusal)
                return
        match, endpoint = scope[_MATCH]
        params = match.params if match else {}
        entry: Entry = scope[_ENTRY]
        known, inflates = (endpoint.options, endpoint.inflates) if endpoint else ((), False)
        call = Call(scope, receive, self.services, self.admission, params, known, entry.client, entry.began, inflates)
        try:
            answer = await self._in_turn(call, send, match, endpoint, entry)
            if isinstance(answer, Streamed) and answer.live:
                await self._follow(call, send, answer, match)
            status, live = answer.status, isinstance(answer, Streamed) and answer.live
        except ClientGone:
            status, live = _CLIENT_LEFT, False
            await _abort(scope)
        finally:
            call.release()
            entry.release()
        seconds = None if live else perf_counter() - started
        self.metrics.observe(call.method, match.template if match else _UNKNOWN, status, seconds)

    async def _mounted(self, scope: Any, receive: Receive, send: Send) -> bool:
        """Hand the request to what was mounted into the frame, if that is where it goes."""
        for mounted in self.routes:
            found, below = mounted.matches(scope)
            if found is not RouteMatch.NONE:
                scope.update(below)
                await mounted.handle(scope, receive, send)
                return True
        return False

    async def _in_turn(
        self, call: Call, send: Send, match: Match[Endpoint] | None, endpoint: Endpoint | None, entry: Entry
    ) -> AnyAnswer:
        """Answer and send within the bound of requests in work; only a live answer is left to be sent."""
        try:
            answer = await self._answer(call, match, endpoint)
            if call.holds_body_back:
                # Its client may send the body after this answer or not; only closing is sure.
                answer.headers.append((b"connection", b"close"))
            elif answer.status >= _REFUSED:
                await call.forget_rest()
            if isinstance(answer, Streamed):
                if not answer.live:
                    await self._stream(call, send, answer)
            else:
                await send_answer(send, answer)
                if endpoint is not None and not endpoint.writes:
                    self.admission.regulator.has_read(entry.client, len(answer.body))
            return answer
        finally:
            entry.release()

    async def _answer(self, call: Call, match: Match[Endpoint] | None, endpoint: Endpoint | None) -> AnyAnswer:
        try:
            check_host(call.headers, self.services.limits.hosts)
            if call.method not in _READING:
                check_origin(call.headers, self.services.limits.origins)
            if endpoint is None:
                raise _nowhere(match, call)
            await self._look_for(call)
            return await endpoint.handler(call)
        except SpileError as error:
            return self._refusal(error, match, call.headers)
        except ClientGone:
            raise
        except Exception as error:  # noqa: BLE001 - the one place where the unexpected becomes an answer
            failure = internal(error, call.method, match.template if match else _UNKNOWN)
            return self._refusal(failure, match, call.headers)

    async def _look_for(self, call: Call) -> None:
        """See that the barrel is at hand, if there is one: a handler asks for it on the event loop."""
        parameter = next((each for each in _BARREL if each in call.params), None)
        if parameter is not None:
            directory, name = call.services.store.directory, call.param(parameter)
            if not directory.has_at_hand(name):
                await call.in_thread(directory.bring, name)

    def _refusal(self, error: SpileError, match: Match[Endpoint] | None, headers: list[Header]) -> Answer:
        """What is told before a handler is asked, or in its place: in the words of the face that serves the place."""
        endpoint = next(iter(match.methods.values()), None) if match else None
        if endpoint is None:
            return error_answer(error)
        return endpoint.refuse(error, headers, self.services.limits.origins)

    async def _follow(self, call: Call, send: Send, answer: Streamed, match: Match[Endpoint] | None) -> None:
        live, client = self.admission.live, call.client
        try:
            live.take(1, client)
        except SpileError as error:
            await answer.chunks.close()
            await send_answer(send, self._refusal(error, match, call.headers))
            return
        try:
            await self._stream(call, send, answer)
        finally:
            live.give(1, client)

    async def _stream(self, call: Call, send: Send, answer: Streamed) -> None:
        """Send a streamed answer. Its status is out, so that a failure can only be told by breaking off."""
        try:
            await send_streamed(call, send, answer, self.closing)
        except ClientGone:
            raise
        except SpileError as error:
            where = call.scope["raw_path"].decode("latin-1")
            _log.warning("an answer was broken off: %s %s: %s", call.method, where, error.reason)
            raise ClientGone from error
        except Exception as error:
            internal(error, call.method, call.scope["raw_path"].decode("latin-1"))
            raise ClientGone from error


def create_app(services: Services, extra: Iterable[Route] = ()) -> Application:
    """The application over these services; `extra` routes stand beside its own."""
    return Application(services, extra)


def find_endpoint(match: Match[Endpoint] | None, method: str) -> Endpoint | None:
    """What serves the method at the place; a HEAD is served as its GET."""
    if match is None:
        return None
    return match.methods.get("GET" if method == "HEAD" and "HEAD" not in match.methods else method)


def _streams(endpoint: Endpoint | None, headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether the body is taken piece by piece."""
    if endpoint is None or endpoint.streams is None:
        return False
    kind = next((value for name, value in headers if name == b"content-type"), b"")
    return kind.decode("latin-1").lower().startswith(endpoint.streams)


def internal(error: Exception, method: str, where: str) -> Internal:
    """The answer to an unexpected exception, which is logged under the id that the client is told."""
    request = uuid.uuid4().hex[:12]
    _log.error("request %s failed: %s %s", request, method, where, exc_info=error)
    return Internal(f"Request {request}")


async def _abort(scope: Any) -> None:
    """Close the connection at once, unsent bytes and all, where the server lets us."""
    abort = scope.get("spile.abort")
    if abort is not None:
        abort()
        await asyncio.sleep(0)


def _nowhere(match: Match[Endpoint] | None, call: Call) -> SpileError:
    if match is not None and match.allow:
        reason = f"{call.method} is not served at {match.template}."
        return MethodNotAllowed(reason, allow=match.allow)
    return NotFound(
        "There is nothing at this address.",
        hint="/openapi.json tells what there is; CouchDB's protocol is under /couch/. A name's `/` is written %2F.",
    )
