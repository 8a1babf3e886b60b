"""How a broker is reached: its address, the login, TLS, and the client that Spile is there.

Reads files of certificates and passwords, once; opens no connection.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from feeds.errors import BadRequest
from listeners.links.tls import file_words
from listeners.links.tls import tls_context as context_of

_SCHEMES = {"mqtt": (1883, False), "mqtts": (8883, True)}
_HINT = "Write mqtt://HOST:PORT, or mqtts://HOST:PORT with TLS."


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where a broker listens."""

    host: str
    port: int
    tls: bool
    user: str | None = None

    @classmethod
    def parse(cls, url: str) -> BrokerAddress:
        """Read `mqtt://HOST`, `mqtts://HOST:PORT` or `mqtt://USER@HOST`; BadRequest says what is wrong."""
        shown = repr(_without_password(url)[:200])
        try:
            parts = urlsplit(url.strip())
            host, port = parts.hostname, parts.port
        except ValueError:
            # What the parser says may hold a part of the password.
            raise BadRequest(f"{shown} is no address of a broker.", hint=_HINT) from None
        scheme = parts.scheme.lower()
        if scheme in ("ws", "wss"):
            raise BadRequest(
                f"{shown}: a broker is not reached over WebSocket.", hint="Name its port for MQTT itself. " + _HINT
            )
        if scheme not in _SCHEMES:
            raise BadRequest(f"{shown} is no address of a broker.", hint=_HINT)
        if not host:
            raise BadRequest(f"{shown} names no host.", hint=_HINT)
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise BadRequest(
                f"{shown} has more than a host and a port.", hint="A prefix of topics is the setting broker_prefix."
            )
        if parts.password is not None:
            raise BadRequest(
                f"{shown} carries a password, which everyone on this machine could read.",
                hint="Give it as SPILE_BROKER_PASSWORD, or in a file named by broker_password_file.",
            )
        usual, tls = _SCHEMES[scheme]
        user = unquote(parts.username) if parts.username else None
        return cls(host, usual if port is None else port, tls, user)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class BrokerAccess:
    """All that a connection needs. `clean` is False for the session that outlives its connections."""

    address: BrokerAddress
    client_id: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    keepalive_s: int = 15
    clean: bool = False

    def beside(self, client_id: str) -> BrokerAccess:
        """The same login for a short connection beside the first one."""
        return replace(self, client_id=client_id, clean=True)


def read_password(path: Path) -> str:
    """The password that a file holds: its first line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise BadRequest(
            f"The file of the broker's password cannot be read: {file_words(fault, path)}.",
            hint="Correct broker_password_file, or who may read that file.",
        ) from None
    lines = text.splitlines()
    if not lines or not lines[0]:
        raise BadRequest(f"The file of the broker's password, {path}, is empty.", hint="Put it on the first line.")
    return lines[0]


def tls_context(ca: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    """TLS that always checks the broker's certificate: by `ca`, or by the authorities that the system trusts."""
    return context_of(ca, certificate, key, ("broker_ca", "broker_cert", "broker_key"))


def _without_password(url: str) -> str:
    head, at, tail = url.rpartition("@")
    if not at:
        return url
    scheme, separator, login = head.rpartition("://")
    return f"{scheme}{separator}{login.partition(':')[0]}@{tail}"
