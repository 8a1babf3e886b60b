"""Which service a command speaks to, and whether a URL can be that of one."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from feeds.errors import BadRequest

__all__ = ["check_mqtt_url", "service_url"]

DEFAULT_URL = "http://127.0.0.1:8000"


def service_url(url: str | None) -> str:
    """The service's URL, without a slash at its end: `url`, else SPILE_URL, else port 8000 here.

    Raises BadRequest for what is no http URL.
    """
    given = (url or os.environ.get("SPILE_URL") or DEFAULT_URL).rstrip("/")
    _check(given, ("http", "https"), DEFAULT_URL)
    return given


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
    shown = url.rpartition("@")[2]  # without a password
    raise BadRequest(f"{shown!r} is no URL of a service: {problem}", hint=f"Give a URL such as {example}.")
