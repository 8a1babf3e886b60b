"""Who may do what: one decision for HTTP, MQTT and streams alike.

Without a token everyone is anonymous and trusted, which is why the settings then keep to loopback. With one,
whoever carries it may do everything, and nobody else anything. On MQTT the token is the password, and each client
keeps to its own request topics either way.
"""

from __future__ import annotations

import hmac
import time
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Sequence

from broker.http.services import Verb
from broker.mqtt.contract import Refused
from broker.mqtt.gate import OpenGate
from broker.sessions import Sessions, cookie_in
from feeds.errors import Unauthorized

HOLDER = "token"  # the identity of whoever carries the token

_BAD_LOGIN = 4  # MQTT 3.1.1: bad user name or password


class TokenAccess:
    """HTTP access for the holder of one token: as a bearer, as the password of anyone, or by a cookie got for it."""

    def __init__(self, token: str, clock: Callable[[], float] = time.time) -> None:
        self._token = token.encode()
        self._sessions = Sessions(self._token, clock)

    def who(self, headers: Sequence[tuple[bytes, bytes]], host: str) -> str:
        """The holder of the token in `Authorization`, or of a session's cookie; Unauthorized otherwise."""
        wrong = False
        for name, value in headers:
            if name == b"authorization":
                scheme, _, given = value.partition(b" ")
                if hmac.compare_digest(_secret(scheme.lower(), given.strip()), self._token):
                    return HOLDER
                wrong = True
        cookie = cookie_in(headers)
        if cookie is not None and self._sessions.name(cookie) is not None:
            return HOLDER
        reason = "The password or token is not this service's" if wrong else "This service asks for a token"
        raise Unauthorized(
            reason, hint="Send the header `Authorization: Bearer <token>`, or the token as the password of any user."
        )

    def decide(self, who: str, verb: Verb, barrel: str, path: str) -> None:
        """The holder may do everything."""

    def sign_in(self, name: str, password: str) -> str | None:
        """A session's cookie for who gives the token as password, under whatever name."""
        if not hmac.compare_digest(password.encode(), self._token):
            return None
        return self._sessions.cookie(name)


def _secret(scheme: bytes, given: bytes) -> bytes:
    """What credentials give as the token; nothing in those of another kind."""
    if scheme == b"bearer":
        return given
    if scheme == b"basic":
        try:
            return b64decode(given, validate=True).partition(b":")[2]
        except (Base64Error, ValueError):
            return b""
    return b""


class TokenGate(OpenGate):
    """MQTT access for whoever gives the token as password."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def authenticate(self, client_id: str, user: str | None, password: bytes | None) -> str | Refused | None:
        """Let in whoever gives the token, under the user name given with it."""
        if password is None or not hmac.compare_digest(password, self._token):
            return Refused("the password is not this service's token", _BAD_LOGIN)
        return user
