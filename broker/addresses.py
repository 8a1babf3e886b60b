"""What `HOST:PORT` means, whether it can be reached from outside this machine, and how a URL may be shown."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple
from urllib.parse import unquote_plus, urlsplit

__all__ = ["Address", "without_password"]

_PASSWORDS = frozenset(("password", "sslpassword"))
"""What stands behind `?` in PostgreSQL's URLs, and is secret."""


class Address(NamedTuple):
    """A host and a TCP port to listen on; port 0 takes a free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `127.0.0.1:8000`, `localhost:8000` or `[::1]:8000`. Raises ValueError naming what is wrong."""
        host, colon, port = text.strip().rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(f"{text!r}: put an IPv6 address into brackets, as in [::1]:8000")
        if not colon or not host:
            raise ValueError(f"{text!r} is not HOST:PORT, as in 127.0.0.1:8000")
        if not (port.isascii() and port.isdigit() and int(port) <= 65535):
            raise ValueError(f"{text!r}: the port is a number from 0 to 65535")
        return cls(host, int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it. A name other than `localhost` counts as reachable."""
        if self.host.lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def without_password(url: str) -> str:
    """The URL as it may be shown and logged: its user stays, a password does not, wherever it stands."""
    parts = urlsplit(url)
    who, at, where = parts.netloc.rpartition("@")
    netloc = f"{who.partition(':')[0]}{at}{where}" if ":" in who else parts.netloc
    given = parts.query.split("&")
    query = "&".join(each for each in given if unquote_plus(each.partition("=")[0]).lower() not in _PASSWORDS)
    return (
        url if (netloc, query) == (parts.netloc, parts.query) else parts._replace(netloc=netloc, query=query).geturl()
    )
