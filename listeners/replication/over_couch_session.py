"""Who we are to a CouchDB: a name and a password, given once for a cookie where the server takes that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlencode

import httpx

RENEWED_S = 240.0
"""How long a cookie is used. CouchDB's end after 10 minutes, unless it says when; then we would be nobody to it, whom
it does not turn away where a database is open to all, and of whom it refuses documents."""
_ANSWER_BYTES_MAX = 64 << 10
_COOKIES_MAX = 16
_PASSING = (408, 429)  # tell nothing about whether there are cookies to be had


class SessionAuth(httpx.Auth):
    """A cookie from `_session`, had anew when it is not taken any more; Basic where there is none to be had."""

    def __init__(self, base: str, user: str, password: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is sent before the first request."""
        self._clock = clock
        self._url = f"{base}/_session"
        self._form = urlencode({"name": user, "password": password}).encode()
        self._basic = httpx.BasicAuth(user, password)
        self._cookie: str | None = None
        self._until = 0.0
        self._has_none = False
        self._asking = asyncio.Lock()

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        if self._asks_now():
            async with self._asking:
                if self._asks_now():  # else another request has done it
                    self._take(_shortened((yield self._login(request))))
        cookie = self._cookie
        self._sign(request, cookie)
        answer = yield request
        if answer.status_code != 401 or cookie is None:
            return
        if not _can_be_sent_again(request):
            # What is answered last is what the request is answered with: this it has to be, and no login.
            if self._cookie == cookie:
                self._cookie = None
            return
        _shortened(answer)
        async with self._asking:
            if self._cookie == cookie:  # else another request had it renewed
                self._take(_shortened((yield self._login(request))))
        self._sign(request, self._cookie)
        yield request

    def _asks_now(self) -> bool:
        return not self._has_none and (self._cookie is None or self._clock() >= self._until)

    def _login(self, request: httpx.Request) -> httpx.Request:
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        }
        made = httpx.Request("POST", self._url, headers=headers, content=self._form)
        made.extensions = dict(request.extensions)  # its time-outs
        return made

    def _take(self, answer: httpx.Response) -> None:
        """The cookies of a login. A server that is busy is asked again the next time."""
        self._cookie = None
        if answer.status_code != httpx.codes.OK:
            self._has_none = answer.status_code < 500 and answer.status_code not in _PASSING
            return
        found: dict[str, str] = {}
        lasts = RENEWED_S
        for line in answer.headers.get_list("set-cookie")[:_COOKIES_MAX]:
            try:
                told = SimpleCookie(line)
            except CookieError:
                continue
            for name, each in told.items():
                found[name] = each.coded_value
                if each["max-age"].isdecimal():
                    lasts = min(lasts, float(each["max-age"][:9]) / 2)
        self._until = self._clock() + lasts
        self._cookie = "; ".join(f"{name}={value}" for name, value in found.items() if value) or None
        self._has_none = self._cookie is None

    def _sign(self, request: httpx.Request, cookie: str | None) -> None:
        for name in ("Cookie", "Authorization"):
            request.headers.pop(name, None)
        if cookie is not None:
            request.headers["Cookie"] = cookie
        else:
            next(self._basic.auth_flow(request))


def _shortened(answer: httpx.Response) -> httpx.Response:
    """An answer of which httpx may read all before it goes on: no more than a bound of it is there."""
    if isinstance(answer.stream, httpx.AsyncByteStream):
        answer.stream = _Short(answer.stream)
    return answer


class _Short(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = _ANSWER_BYTES_MAX
        async for piece in self._stream:
            yield piece[:left]
            left -= len(piece)
            if left <= 0:
                return

    async def aclose(self) -> None:
        await self._stream.aclose()


def _can_be_sent_again(request: httpx.Request) -> bool:
    return isinstance(request.stream, httpx.ByteStream)
