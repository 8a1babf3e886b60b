"""One request, as handlers see it: its path, options, headers and bounded body.

It reads and asks; answers are values that `broker.http.exchange` sends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from concurrent.futures import Future
from typing import Any, TypeVar

import msgspec

from broker.http.admission import Admission
from broker.http.answers import revisions_in
from broker.http.options import Options
from broker.http.routing import decode
from broker.http.services import Services, Verb
from broker.http.transfers import Transfers
from broker.regulation import Limit
from feeds import Barrel, Outcome, Token
from feeds.attachments.given import INLINE_TEXT_MAX
from feeds.attachments.inflating import Inflating
from feeds.body import is_too_large
from feeds.errors import BadRequest, Forbidden, Timeout, TooLarge, Unauthorized
from listeners.nested import Nest

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

T = TypeVar("T")

# A client that was refused while still sending often reads no answer before it has sent everything.
_BYTES_PER_S_MIN = 1024  # beyond the first seconds; below it a body holds a place that others need
_DRAIN_BYTES_MAX = 16 << 20
_DRAIN_S_MAX = 2.0
_ATTACHMENTS = b'"_attachments"'


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


class Call:
    """A request. `params` are the still encoded parts of the path, `scope` is ASGI's."""

    __slots__ = (
        "_admission",
        "_began",
        "_is_taken",
        "_is_whole",
        "_receive",
        "_reserved",
        "_who",
        "client",
        "headers",
        "is_compressed",
        "known",
        "method",
        "params",
        "scope",
        "services",
    )

    def __init__(
        self,
        scope: Any,
        receive: Receive,
        services: Services,
        admission: Admission,
        params: Any,
        known: Collection[str],
        client: str = "",
        began: float = 0.0,
        inflates: bool = False,
    ) -> None:
        self.scope = scope
        self.method: str = scope.get("method", "GET")
        self.headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.services = services
        self.params: dict[str, str] = params
        self.known = known
        self.is_compressed = inflates and (self.header(b"content-encoding") or "").lower() == "gzip"
        """Whether the body comes compressed; it is made plain as it is read."""
        self._receive = receive
        self._admission = admission
        self.client = client
        self._began = began
        self._reserved = 0
        self._is_taken = False
        self._is_whole = False
        self._who: str | None = None

    # Who and what

    def header(self, name: bytes) -> str | None:
        """A header's value (the first of that lower-case name), or None."""
        for given, value in self.headers:
            if given == name:
                return value.decode("latin-1")
        return None

    @property
    def who(self) -> str:
        """The identity of the client; Unauthorized when it has none."""
        if self._who is None:
            client = self.scope.get("client")
            self._who = self.services.access.who(self.headers, client[0] if client else "")
        return self._who

    def admit(self) -> str:
        """As `who`, asked before anything of the body is looked at that says what the request is about."""
        return self.who

    def allow(self, verb: Verb, barrel: str = "", path: str = "#") -> None:
        """Forbidden or Unauthorized unless the client may do this."""
        self.services.access.decide(self.who, verb, barrel, path)

    def check_deliberate(self) -> None:
        """Forbidden where a page of another site may have made a browser ask: of a GET that changes something.

        Browsers follow a link from anywhere with their cookies, and with nothing that they were not given by hand.
        """
        client = self.scope.get("client")
        by_hand = [header for header in self.headers if header[0] != b"cookie"]
        foreign = self.header(b"sec-fetch-site") in ("cross-site", "same-site")
        try:
            self.services.access.who(by_hand, client[0] if client else "")
        except Unauthorized:
            foreign = True
        if foreign:
            raise Forbidden(
                "This changes something here, which a cookie or a page of another site does not do with a GET.",
                hint="Send the token in `Authorization`, or ask with POST.",
            )

    def param(self, name: str) -> str:
        """A part of the path, decoded."""
        return decode(self.params[name], name)

    def options(self) -> Options:
        """The options of the query string."""
        return Options.from_query(self.scope["query_string"], self.known)

    def barrel(self) -> Barrel:
        """The barrel that the path names; NotFound. Access is the caller's to ask, with the path it needs."""
        return self.services.store.barrel(self.param("barrel"))

    @property
    def nest(self) -> Nest:
        """The peers around."""
        nest = self.services.nest
        if nest is None:
            raise BadRequest("This service knows no peers.", hint="Its setting `peers` names them.")
        return nest

    def token(self, verb: str, barrel: str, id: str, body: bytes) -> Token | None:
        """The client's `Idempotency-Key`, bound to what it asks for."""
        key = self.header(b"idempotency-key")
        return None if key is None else Token.of(key, self.who, verb, barrel, id, body)

    def if_match(self) -> str | None:
        """The one revision of `If-Match` (or `*`); BadRequest for several, since a write extends one."""
        header = self.header(b"if-match")
        if header is None:
            return None
        revisions = revisions_in(header)
        if len(revisions) != 1:
            raise BadRequest(f"If-Match names {len(revisions)} revisions.", hint='Send one: If-Match: "<rev>".')
        return revisions[0]

    # Body

    async def document(self) -> bytes:
        """The body as a document of a size that is allowed, for which what attachments bring along does not count."""
        bytes_max = self.services.limits.document_bytes_max
        body = await self.body(bytes_max, INLINE_TEXT_MAX)
        if is_too_large(body, bytes_max):
            raise _too_large(bytes_max)
        return body

    async def body(self, bytes_max: int, inline_max: int = 0) -> bytes:
        """The whole body; TooLarge as soon as it is known to exceed `bytes_max`, Timeout when it stops coming.

        It may have `inline_max` more where it speaks of attachments within its first `bytes_max`.
        """
        self._refuse_encoded()
        declared = content_length(self.headers)
        if declared > bytes_max + inline_max:
            await self._drain(declared)
            raise _too_large(bytes_max)
        self._reserve(declared)
        message = await self._next_message(self.services.limits.body_s_max)
        body: bytes = message.get("body", b"")
        if message.get("more_body"):
            body = await self._rest(body, bytes_max, inline_max)
            self.waits_from_now()
        if len(body) > bytes_max + inline_max:
            raise _too_large(bytes_max)
        return await self._inflated(body, bytes_max, inline_max) if self.is_compressed else body

    @property
    def declared(self) -> int:
        """The bytes that the body says it has; 0 where it does not say."""
        return content_length(self.headers)

    @property
    def has_body(self) -> bool:
        """Whether something was sent, or is about to be."""
        return bool(self.declared) or self.header(b"transfer-encoding") is not None

    @property
    def holds_body_back(self) -> bool:
        """Whether the client waits to be told whether to send its body, and was not told to."""
        return not self._is_taken and (self.header(b"expect") or "").lower() == "100-continue"

    async def forget_rest(self) -> None:
        """Take what still comes of a body that is refused, up to a bound. Who wants the connection closed after the
        answer would else be cut off while it sends, and never read why; on one that stays open the server does this.
        """
        closes = self.scope.get("http_version") == "1.0" or (self.header(b"connection") or "").lower() == "close"
        if closes and self.has_body and not self._is_whole:
            await self._drain(_DRAIN_BYTES_MAX)

    async def pieces(self, bytes_max: int) -> AsyncGenerator[bytes, None]:
        """The body as it comes, without a place for all of it. TooLarge, Timeout and ClientGone as for `body`.

        A client that has used up its rate is let wait, and so is one whose bytes are not taken any faster: neither
        counts as silence.
        """
        self._refuse_encoded()
        if self.declared > bytes_max:
            raise _too_large(bytes_max)
        clock = asyncio.get_running_loop().time
        silence_s = self.services.limits.body_s_max
        inflating = Inflating("the body", bytes_max) if self.is_compressed else None
        size, waited_s, more = 0, 0.0, True
        while more:
            began = clock()
            message = await self._next_message(min(silence_s, silence_s + size / _BYTES_PER_S_MIN - waited_s))
            waited_s += clock() - began
            piece: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            size += len(piece)
            if size > bytes_max:
                raise _too_large(bytes_max)
            await self.took(len(piece))
            for part in (piece,) if inflating is None else inflating.plain(piece):
                if part:
                    yield part
        if inflating is not None:
            inflating.end()

    async def json(self, type: type[T], bytes_max: int = 1 << 20) -> T:
        """The body decoded as `type`; BadRequest says where it is not."""
        body = await self.body(bytes_max)
        try:
            return msgspec.json.decode(body, type=type)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise BadRequest(f"The body is not what is wanted here: {error}") from error

    async def gone(self) -> None:
        """Return when the client has closed the connection. The body must have been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def release(self) -> None:
        """Give back the room that the body took."""
        if self._reserved:
            self._admission.bytes.give(self._reserved, self.client)
            self._reserved = 0

    # Work

    async def in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """A blocking read, on one of the readers' threads."""
        return await asyncio.get_running_loop().run_in_executor(self.services.readers, function, *arguments)

    async def in_step(self, function: Callable[..., T], *arguments: Any) -> T:
        """A step that waits for where contents are kept, on threads of its own."""
        return await asyncio.get_running_loop().run_in_executor(self.transfers.stepping, function, *arguments)

    @property
    def transfers(self) -> Transfers:
        """Contents on their way in and out."""
        return self._admission.transfers

    @property
    def body_bytes(self) -> Limit:
        """The limit on bytes of bodies in memory."""
        return self._admission.bytes

    def waits_from_now(self) -> None:
        """The body is in: from here on it is the client that waits for the service."""
        self._began = self._admission.regulator.now()

    async def written(self, outcomes: Future[list[Outcome]]) -> list[Outcome]:
        """Wait for the writer; how long the request has waited by then regulates what is let in."""
        return await self._admission.regulator.wait_for(asyncio.wrap_future(outcomes), self._began)

    async def took(self, size: int) -> None:
        """So many bytes came of a body that was not paid for when it was let in; as `sent`."""
        regulator = self._admission.regulator
        await regulator.paid(regulator.has_written(self.client, size))

    async def sent(self, size: int) -> None:
        """The client was sent so many bytes; who has used up its rate waits until it owes nothing."""
        regulator = self._admission.regulator
        await regulator.paid(regulator.has_read(self.client, size))

    async def _rest(self, first: bytes, bytes_max: int, inline_max: int) -> bytes:
        clock = asyncio.get_running_loop().time
        silence_s = self.services.limits.body_s_max
        ends_at = clock() + silence_s
        parts, size, more = [first], len(first), True
        while more:
            message = await self._next_message(min(silence_s, ends_at + size / _BYTES_PER_S_MIN - clock()))
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            more = message.get("more_body", False)
            if size > bytes_max and inline_max and _ATTACHMENTS in b"".join(parts):
                bytes_max, inline_max = bytes_max + inline_max, 0
            if size > bytes_max:
                parts.clear()
                if more:
                    await self._drain(_DRAIN_BYTES_MAX)
                raise _too_large(bytes_max)
            self._reserve(size)
        return b"".join(parts)

    async def _inflated(self, body: bytes, bytes_max: int, inline_max: int) -> bytes:
        """The plain body of a compressed one, with a place among the bodies for every piece of it."""
        inflating = Inflating("the body", bytes_max + inline_max)
        parts, size = [], 0
        for piece in inflating.plain(body):
            parts.append(piece)
            size += len(piece)
            self._reserve(len(body) + size)
            await asyncio.sleep(0)  # a piece takes a millisecond: others are served in between
        inflating.end()
        plain = b"".join(parts)
        if size > bytes_max and _ATTACHMENTS not in plain:
            raise _too_large(bytes_max)
        return plain

    async def _next_message(self, seconds: float) -> Any:
        self._is_taken = True
        try:
            async with asyncio.timeout(seconds):
                message = await self._receive()
        except TimeoutError as error:
            self._is_whole = True  # all of it that will be waited for
            raise Timeout("The rest of the request's body did not come in time.") from error
        if message["type"] == "http.disconnect":
            raise ClientGone
        self._is_whole = not message.get("more_body", False)
        return message

    async def _drain(self, bytes_max: int) -> None:
        """Take and forget what still comes, up to a bound, so that the client gets to read its refusal."""
        self._is_whole = True  # no more of it will be waited for
        left = min(bytes_max, _DRAIN_BYTES_MAX)
        try:
            async with asyncio.timeout(_DRAIN_S_MAX):
                while left > 0:
                    message = await self._receive()
                    left -= len(message.get("body", b""))
                    if not message.get("more_body"):
                        return
        except TimeoutError:
            return

    def _reserve(self, size: int) -> None:
        more = size - self._reserved
        if more > 0:
            self._admission.bytes.take(more, self.client)
            self._reserved = size

    def _refuse_encoded(self) -> None:
        encoding = self.header(b"content-encoding")
        if encoding is not None and encoding.lower() != "identity" and not self.is_compressed:
            raise BadRequest(f"Bodies encoded as {encoding!r} are not read.", hint="Send the body as it is.")


def content_length(headers: list[tuple[bytes, bytes]]) -> int:
    """The bytes that a body says it has; 0 where it does not say."""
    for name, value in headers:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(f"The body is larger than {bytes_max} bytes.", limit=bytes_max)
