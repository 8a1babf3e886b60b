"""Signed cookies: who signed in, and until when, so that nothing has to be remembered.

Pure but for the clock that it is given. Whoever has the key can check a cookie, and only they can make one.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Sequence
from hashlib import sha256

COOKIE = "AuthSession"
MAX_AGE_S = 24 * 3600
_PREFIX = COOKIE.encode() + b"="


class Sessions:
    """Cookies of one key."""

    def __init__(self, key: bytes, clock: Callable[[], float]) -> None:
        self._key = hmac.new(key, b"spile-session-1", sha256).digest()
        self._clock = clock

    def cookie(self, name: str) -> str:
        """A value that stands for `name` for a day."""
        told = f"{int(self._clock()) + MAX_AGE_S}:{name}".encode()
        return urlsafe_b64encode(self._signed(told) + told).decode().rstrip("=")

    def name(self, cookie: str) -> str | None:
        """Whom a cookie stands for; None where it was not made here, or stands for nobody any more."""
        try:
            signed = urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4))
            told = signed[sha256().digest_size :]
            if not hmac.compare_digest(self._signed(told), signed[: sha256().digest_size]):
                return None
            until, _, name = told.decode().partition(":")
            return name if int(until) > self._clock() else None
        except (Base64Error, ValueError):
            return None

    def _signed(self, told: bytes) -> bytes:
        return hmac.new(self._key, told, sha256).digest()


def name_in(cookie: str) -> str | None:
    """The name that a cookie gives, which is not checked here."""
    try:
        signed = urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4))
        return signed[sha256().digest_size :].decode().partition(":")[2] or None
    except (Base64Error, ValueError):
        return None


def cookie_in(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """The session's cookie among a request's headers."""
    for name, value in headers:
        if name == b"cookie":
            for part in value.split(b";"):
                if part.strip().startswith(_PREFIX):
                    return part.strip().removeprefix(_PREFIX).decode("latin-1")
    return None
