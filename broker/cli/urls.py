"""Which service a command speaks to, and whether a URL can be that of one."""

from __future__ import annotations

import os
from urllib.parse import quote, urlsplit

from feeds.errors import BadRequest
from listeners.links.tls import NO_FILES, TlsFiles

__all__ = ["barrel_url", "check_mqtt_url", "service_url", "with_files"]

DEFAULT_URL = "http://127.0.0.1:8000"


def service_url(url: str | None) -> str:
    """The service's URL, without a slash at its end: `url`, else SPILE_URL, else port 8000 here.

    Behind it may stand the files that its TLS needs: `https://HOST?ca=FILE&cert=FILE&key=FILE`. Raises BadRequest for
    what is no http URL.
    """
    given = url or os.environ.get("SPILE_URL") or DEFAULT_URL
    _check(given, ("http", "https"), DEFAULT_URL)
    base, files = with_files(given)
    return base + files.query


def with_files(url: str) -> tuple[str, TlsFiles]:
    """A service's URL without what stands behind it, and that."""
    parts = urlsplit(url)
    try:
        files = TlsFiles.of_query(parts.query)
    except ValueError as error:
        raise BadRequest(f"{_shown(url)} is no URL of a service: {error}") from None
    if files != NO_FILES and parts.scheme != "https":
        raise BadRequest(f"{_shown(url)} names files for TLS.", hint="Write https://.")
    return parts._replace(path=parts.path.rstrip("/"), query="").geturl(), files


def barrel_url(url: str, barrel: str) -> str:
    """The URL of a barrel of a service, with the files that its TLS needs."""
    base, files = with_files(url)
    return f"{base}/barrels/{quote(barrel, safe='')}{files.query}"


def check_mqtt_url(url: str) -> None:
    """Raises BadRequest for what is no mqtt URL."""
    _check(url, ("mqtt", "mqtts"), "mqtt://127.0.0.1:1883")


def _check(url: str, schemes: tuple[str, ...], example: str) -> None:
    try:
        parts = urlsplit(url)
        if parts.scheme in schemes and parts.hostname and parts.port != 0:
            return
        problem = f"it does not begin with {schemes[0]}://HOST"
    except ValueError as error:
        problem = str(error)
    raise BadRequest(f"{_shown(url)} is no URL of a service: {problem}", hint=f"Give a URL such as {example}.")


def _shown(url: str) -> str:
    return repr(url.rpartition("@")[2].partition("?")[0])  # without a password, or what was meant to be one
