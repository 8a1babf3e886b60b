"""Who may do what: one decision for HTTP, MQTT and streams alike.

Without a token everyone is anonymous and trusted, which is why the settings then keep to loopback. With one,
whoever carries it may do everything, and nobody else anything. On MQTT the token is the password, and each client
keeps to its own request topics either way.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from broker.http.services import Verb
from broker.mqtt.contract import Refused
from broker.mqtt.gate import OpenGate
from feeds.errors import Unauthorized

HOLDER = "token"  # the identity of whoever carries the token

_BAD_LOGIN = 4  # MQTT 3.1.1: bad user name or password


class TokenAccess:
    """HTTP access for the holder of one bearer token."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def who(self, headers: Sequence[tuple[bytes, bytes]], host: str) -> str:
        """The holder of the token in `Authorization: Bearer …`; Unauthorized otherwise."""
        for name, value in headers:
            if name == b"authorization":
                scheme, _, given = value.partition(b" ")
                if scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._token):
                    return HOLDER
        raise Unauthorized("This service asks for a token", hint="Send the header `Authorization: Bearer <token>`.")

    def decide(self, who: str, verb: Verb, barrel: str, path: str) -> None:
        """The holder may do everything."""


class TokenGate(OpenGate):
    """MQTT access for whoever gives the token as password."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def authenticate(self, client_id: str, user: str | None, password: bytes | None) -> str | Refused | None:
        """Let in whoever gives the token, under the user name given with it."""
        if password is None or not hmac.compare_digest(password, self._token):
            return Refused("the password is not this service's token", _BAD_LOGIN)
        return user
