"""Who we are to a CouchDB: a name and a password, given once for a cookie where the server takes that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlencode

import httpx

_COOKIES_MAX = 16
_PASSING = (408, 429)  # tell nothing about whether there are cookies to be had


class SessionAuth(httpx.Auth):
    """A cookie from `_session`, had anew when it is not taken any more; Basic where there is none to be had."""

    def __init__(self, base: str, user: str, password: str) -> None:
        """Nothing is sent before the first request."""
        self._url = f"{base}/_session"
        self._form = urlencode({"name": user, "password": password}).encode()
        self._basic = httpx.BasicAuth(user, password)
        self._cookie: str | None = None
        self._has_none = False
        self._asking = asyncio.Lock()

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        cookie = self._cookie
        if cookie is None and not self._has_none:
            async with self._asking:
                if self._cookie is None and not self._has_none:
                    self._take((yield self._login(request)))
            cookie = self._cookie
        self._sign(request, cookie)
        answer = yield request
        if answer.status_code != 401 or cookie is None:
            return
        async with self._asking:
            if self._cookie == cookie:  # else another request had it renewed
                self._take((yield self._login(request)))
        if _can_be_sent_again(request):
            self._sign(request, self._cookie)
            yield request

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
        for line in answer.headers.get_list("set-cookie")[:_COOKIES_MAX]:
            try:
                found.update({name: each.coded_value for name, each in SimpleCookie(line).items()})
            except CookieError:
                continue
        self._cookie = "; ".join(f"{name}={value}" for name, value in found.items() if value) or None
        self._has_none = self._cookie is None

    def _sign(self, request: httpx.Request, cookie: str | None) -> None:
        for name in ("Cookie", "Authorization"):
            request.headers.pop(name, None)
        if cookie is not None:
            request.headers["Cookie"] = cookie
        else:
            next(self._basic.auth_flow(request))


def _can_be_sent_again(request: httpx.Request) -> bool:
    return isinstance(request.stream, httpx.ByteStream)
