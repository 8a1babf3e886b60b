"""Which pages of which hosts may speak to the service from a browser.

Pure. Browsers send what a page tells them to, with the user's place in the network; `Host` and `Origin` are what
tells a page's request from a program's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from urllib.parse import urlsplit

from feeds.errors import Forbidden

_Headers = Sequence[tuple[bytes, bytes]]


def check_host(headers: _Headers, hosts: Collection[str]) -> None:
    """Forbidden unless the `Host` header names one of `hosts`; none given lets every name pass."""
    if not hosts:
        return
    host = _name(_find(headers, b"host") or "")
    if host not in hosts:
        raise Forbidden(
            f"This service does not go by the name {host[:80]!r}.",
            hint="Use a name it is configured for, or add this one to its allowed hosts.",
        )


def check_origin(headers: _Headers, origins: Collection[str]) -> None:
    """Forbidden when a browser sends this for a page of another origin than the service's own or `origins`."""
    origin = _find(headers, b"origin")
    if origin is None or origin in origins:
        return
    host = _find(headers, b"host")
    if host is None or _place(origin) != host.lower():
        raise Forbidden(
            f"Pages of {origin[:80]!r} may not do this.",
            hint="Use the service's own address, or add the origin to its allowed origins.",
        )


def _find(headers: _Headers, name: bytes) -> str | None:
    for given, value in headers:
        if given == name:
            return value.decode("latin-1")
    return None


def _place(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None  # no address at all


def _name(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].lower()
