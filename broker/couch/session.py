"""`_session`: signing in with a name and a password, for a cookie that stands for them.

Cookies are signed and kept nowhere. Who may sign in is decided by the service's access; where everyone is trusted a
cookie is given to everyone, since clients that have credentials want one.
"""

from __future__ import annotations

from base64 import b64decode
from typing import Final
from urllib.parse import parse_qsl

from broker.couch.errors import CouchError, bad_request
from broker.couch.face import decoded
from broker.http.answers import Answer, Header, json_answer
from broker.http.call import Call
from broker.sessions import COOKIE, MAX_AGE_S, cookie_in, name_in
from feeds.errors import Unauthorized

_FORM: Final = "application/x-www-form-urlencoded"
_BODY_BYTES_MAX: Final = 16 << 10


async def sign_in(call: Call) -> Answer:
    """A cookie for who gives a name and the right password."""
    name, password = await _given(call)
    cookie = call.services.sign_in(name, password)
    if cookie is None:
        raise CouchError(401, "unauthorized", "Name or password is incorrect.")
    told = {"ok": True, "name": name, "roles": ["_admin"]}
    return json_answer(told, headers=[_cookie(cookie, MAX_AGE_S)])


async def tell_session(call: Call) -> Answer:
    """Who asks, as far as is known. Who gives a wrong password is refused."""
    try:
        who: str | None = call.who
        method = "default" if cookie_in(call.headers) is None else "cookie"
    except Unauthorized:
        if call.header(b"authorization") is not None:
            raise
        who, method = None, ""
    anonymous = who in (None, "anonymous")
    info = {"authentication_handlers": ["cookie", "default"], **({"authenticated": method} if method else {})}
    context = {"name": None if anonymous else _name(call) or who, "roles": ["_admin"] if who is not None else []}
    return json_answer({"ok": True, "userCtx": context, "info": info})


async def sign_out(call: Call) -> Answer:
    """Take the cookie away."""
    return json_answer({"ok": True}, headers=[_cookie("", 0)])


def _name(call: Call) -> str | None:
    """The name with which the token was given, now or for a cookie; none counts for more than another."""
    scheme, _, given = (call.header(b"authorization") or "").partition(" ")
    if scheme.lower() == "basic":
        try:
            return b64decode(given).decode().partition(":")[0] or None
        except ValueError:
            return None
    cookie = None if scheme else cookie_in(call.headers)
    return None if cookie is None else name_in(cookie)


async def _given(call: Call) -> tuple[str, str]:
    body = await call.body(_BODY_BYTES_MAX)
    kind = (call.header(b"content-type") or "").partition(";")[0].strip().lower()
    if kind == _FORM:
        try:
            told = dict(parse_qsl(body.decode(), keep_blank_values=True))
        except ValueError as error:
            raise bad_request("The form cannot be read.") from error
    elif kind == "application/json":
        told = decoded(body, dict[str, str])
    else:
        raise CouchError(415, "bad_content_type", f"Content-Type must be {_FORM} or application/json")
    name = told.get("name", told.get("username"))
    password = told.get("password")
    if name is None or password is None:
        raise bad_request("request body must contain a username and password")
    return name, password


def _cookie(value: str, max_age_s: int) -> Header:
    """Not for scripts, and for pages of this site alone."""
    parts = [f"{COOKIE}={value}", "Version=1", "Path=/", f"Max-Age={max_age_s}", "HttpOnly", "SameSite=Lax"]
    return b"set-cookie", "; ".join(parts).encode()
