"""Requests to a Spile or a CouchDB over HTTP, and what may come back instead of an answer.

Redirects are not followed: what was meant for one service is sent to no other.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from feeds.errors import BadRequest, SpileError, Timeout, TooLarge, Unauthorized, Unavailable
from listeners.errors import Unreached, error_of
from listeners.links.address import Address, checked_token
from listeners.links.tls import HINT, tls_words
from listeners.replication.errors import BadPeer

T = TypeVar("T")
Body: TypeAlias = "bytes | AsyncGenerator[bytes, None] | None"

CONNECT_S_MAX = 10.0
ANSWER_S_MAX = 60.0  # of silence; a body that is on its way may take longer
ANSWER_BYTES_MAX = 128 << 20
ABSENT_HINT = "Create it first, have it created (create_target), or check the name."
CONNECTIONS_MAX = 96  # a replicator needs a quarter; of nested calls each may wait on one for as long as it lasts
KEPT_MAX = 16
_AFTER_DIGITS_MAX = 6  # of the seconds that a service wants us to wait

_CODES = {400: "bad_request", 401: "unauthorized", 403: "forbidden", 404: "not_found", 413: "too_large"}
_CODES |= {429: "rate_limited", 502: "unavailable", 503: "unavailable", 504: "timeout", 507: "storage_full"}


class _Refusal(msgspec.Struct):
    error: str
    reason: str | None = None
    hint: str | None = None


Refuse: TypeAlias = Callable[[int, bytes], SpileError | None]
"""The error that a body with this status tells of; None for a body that tells of none."""


def spile_refusal(status: int, body: bytes) -> SpileError | None:
    """An error as a Spile tells it."""
    try:
        told = msgspec.json.decode(body, type=_Refusal)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return error_of(told.error, told.reason, told.hint)


class Requests:
    """A pool of connections to one service."""

    def __init__(
        self,
        address: Address,
        token: str | None = None,
        *,
        auth: httpx.Auth | None = None,
        refusal: Refuse = spile_refusal,
        kind: str = "a Spile",
    ) -> None:
        """`token` is sent as a bearer's, else the address's user and password if it has them: as `auth` does it.

        `kind` is what is expected there, and `refusal` reads the errors of its kind.
        """
        self.base = base_of(address)
        try:
            httpx.URL(self.base).host  # noqa: B018
        except (httpx.InvalidURL, UnicodeError) as fault:
            raise BadRequest(f"{self.base[:200]} is no address: {fault}") from None
        self._hint = HINT if address.tls else Unreached.hint
        self._refusal = refusal
        self._kind = kind
        if token is not None:
            auth = None
        elif auth is None and address.user is not None:
            auth = httpx.BasicAuth(address.user, address.password or "")
        self._files = address.files
        self._tls = address.files.context() if address.tls else None
        self._client = httpx.AsyncClient(
            base_url=self.base,
            headers=_ASKS if token is None else {**_ASKS, "Authorization": f"Bearer {checked_token(token)}"},
            auth=auth,
            timeout=httpx.Timeout(ANSWER_S_MAX, connect=CONNECT_S_MAX),
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=KEPT_MAX),
            follow_redirects=False,
            trust_env=address.host not in ("127.0.0.1", "::1", "localhost"),
            verify=self._tls or False,
        )

    async def json(self, method: str, path: str, kind: type[T], body: bytes | None = None, **more: Any) -> T:
        """The answer to a request, read as what it has to be; BadPeer where it is something else."""
        answer = await self.send(method, path, body, **more)
        return self.read(answer.content, kind)

    def read(self, body: bytes, kind: type[T]) -> T:
        """A body as what it has to be."""
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BadPeer(f"{self.base} answers, but not as {self._kind} does: {str(error)[:120]}") from None

    async def send(
        self,
        method: str,
        path: str,
        body: Body = None,
        *,
        headers: Mapping[str, str] | None = None,
        bytes_max: int | None = None,
    ) -> httpx.Response:
        """A whole answer of success; any other is raised as the error that it tells of; TooLarge beyond a bound."""
        async with self.streamed(method, path, body, headers=headers) as answer:
            parts, size = [], 0
            async for part in self.pieces(answer):
                parts.append(part)
                size += len(part)
                if bytes_max is not None and size > bytes_max:
                    raise TooLarge(f"{self.base} answers {method} {path[:200]} with more than {bytes_max} bytes")
                if size > ANSWER_BYTES_MAX:
                    raise BadPeer(f"{self.base} answers {method} {path} with more than {ANSWER_BYTES_MAX} bytes")
            return httpx.Response(answer.status_code, headers=_bare(answer.headers), content=b"".join(parts))

    @asynccontextmanager
    async def streamed(
        self,
        method: str,
        path: str,
        body: Body = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """An answer of success, whose body is read with `pieces`."""
        told = dict(headers or {})
        if body is not None:
            told.setdefault("Content-Type", "application/json")
        try:
            request = self._client.build_request(method, path, content=body, headers=told)
        except httpx.InvalidURL as fault:
            raise TooLarge(f"{method} {self.base}{path[:200]}… cannot be asked: {fault}") from None
        try:
            answer = await self._client.send(request, stream=True)
        except httpx.HTTPError as error:
            raise self._lost(error) from None
        try:
            if answer.status_code >= 300 and answer.status_code != httpx.codes.PARTIAL_CONTENT:
                raise await self._refused(answer)
            yield answer
        finally:
            await answer.aclose()

    async def pieces(self, answer: httpx.Response) -> AsyncGenerator[bytes, None]:
        """The bytes of an answer; one that breaks off is Unavailable."""
        try:
            async for piece in answer.aiter_raw():
                yield piece
        except httpx.HTTPError as error:
            raise self._lost(error) from None

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    def _lost(self, error: httpx.HTTPError) -> SpileError:
        if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
            return Timeout(f"{self.base} did not answer in time.")
        wrong = tls_words(error)
        if wrong is not None and self._tls is not None:
            self._files.read_again(self._tls)  # somebody may have renewed them
        why = wrong or _system_words(error) or str(error) or type(error).__name__
        kind = Unreached if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)) else Unavailable
        return kind(f"{self.base} cannot be reached: {why.rstrip('.')}.", hint=self._hint)

    async def _refused(self, answer: httpx.Response) -> SpileError:
        if answer.status_code < 400:
            where = answer.headers.get("location", "elsewhere")
            return BadPeer(
                f"{self.base} sends us on to {where[:200]}", hint="Name the address that it leads to, if it is right."
            )
        body = b""
        async for piece in self.pieces(answer):
            body += piece
            if len(body) > 1 << 16:
                break
        error = self._refusal(answer.status_code, body)
        if error is None:
            code = _CODES.get(answer.status_code)
            if code is None and answer.status_code < 500:
                return BadPeer(f"{self.base} answers with HTTP status {answer.status_code}.")
            error = error_of(code or "unavailable", f"{self.base} answers with HTTP status {answer.status_code}.")
        if isinstance(error, Unauthorized):
            error = Unauthorized(f"{self.base} does not let us in: {error.reason}", hint=error.hint)
        after = answer.headers.get("retry-after", "")
        if after.isascii() and after.isdigit() and len(after) <= _AFTER_DIGITS_MAX:
            error.details["retry_after"] = int(after)
        return error


def base_of(address: Address) -> str:
    """The URL before all paths."""
    scheme = "https" if address.tls else "http"
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{scheme}://{host}:{address.port}{address.prefix}"


def segment(text: str) -> str:
    """One segment of a path; dots are encoded where they alone would be taken for a step up."""
    return text.replace(".", "%2E") if text in (".", "..") else quote(text, safe="")


def _system_words(fault: BaseException | None) -> str | None:
    """What the system says of a connection that failed, where it said anything."""
    while fault is not None:
        if isinstance(fault, OSError) and fault.errno is not None:
            return os.strerror(fault.errno) if fault.errno > 0 else fault.strerror
        fault = fault.__cause__ or fault.__context__
    return None


def _bare(headers: httpx.Headers) -> dict[str, str]:
    """The headers without those of how the body came."""
    return {name: value for name, value in headers.items() if name not in _OF_TRANSFER}


_ASKS = {"Accept-Encoding": "identity"}  # bodies are taken as they come, also from what stands in between
_OF_TRANSFER = {"transfer-encoding", "content-length", "content-encoding"}
