"""Where a barrel is to be listened to, read from a URL.

Reads no files. Connecting is the other modules' of this package.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import SplitResult, quote, unquote, urlsplit

from feeds.barrels import check_barrel_name
from feeds.errors import BadRequest
from listeners.links.tls import NO_FILES, TlsFiles

_MQTT = {"mqtt": 1883, "mqtts": 8883}
_WEBSOCKET = {"ws": 80, "wss": 443, "http": 80, "https": 443}
_HINT = "Write mqtt://HOST:PORT/BARREL, http://HOST:PORT/BARREL, sqlite:///FOLDER/spile.db#BARREL or FOLDER#BARREL."


@dataclass(frozen=True, slots=True)
class Address:
    """A barrel behind a network address.

    `kind` is `mqtt` or `websocket`. `prefix` is the path before the barrel (and `/barrels`), or on MQTT the levels
    (with a closing `/`) before all topics of a service that shares its broker.
    """

    kind: str
    host: str
    port: int
    tls: bool
    barrel: str
    user: str | None = None
    password: str | None = None
    prefix: str = ""
    files: TlsFiles = NO_FILES
    """What TLS needs beside what the system has."""

    def __str__(self) -> str:
        """The address as it may be shown: without the password."""
        scheme = ("mqtts" if self.tls else "mqtt") if self.kind == "mqtt" else ("wss" if self.tls else "ws")
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.kind == "mqtt":
            return f"{scheme}://{host}:{self.port}/{self.prefix}{quote(self.barrel, safe='')}"
        return f"{scheme}://{host}:{self.port}{self.prefix}/barrels/{quote(self.barrel, safe='')}/feed"


@dataclass(frozen=True, slots=True)
class StorePlace:
    """A barrel in a store that is opened in this process: the store's URL or folder, and the barrel."""

    store: str
    barrel: str


def parse_address(url: str) -> Address | StorePlace:
    """The address that a URL names; BadRequest says how one is written.

    `mqtt(s)://…/BARREL`, or `…/PREFIX/BARREL` where the service has a prefix of topics; `ws(s)://` or
    `http(s)://…/BARREL`, `…/barrels/BARREL` or `…/barrels/BARREL/feed`, with or without a path before it;
    `sqlite:///…#BARREL`, or a folder with `#BARREL`. A barrel's own `/` is written %2F.
    Behind a URL with TLS may stand PEM files: `?ca=FILE` of the authority that signed the certificate there, and
    `cert=FILE` and `key=FILE` of the client.
    """
    scheme, separator, _ = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in {*_MQTT, *_WEBSOCKET}:
        return _store_place(url)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        files = TlsFiles.of_query(parts.query)
    except ValueError as fault:
        raise BadRequest(f"{_shown(url)} is no address: {fault}.", hint=_HINT) from None
    if not host:
        raise BadRequest(f"{_shown(url)} names no host.", hint=_HINT)
    mqtt, tls = scheme in _MQTT, scheme in ("mqtts", "wss", "https")
    if files != NO_FILES and not tls:
        raise BadRequest(f"{_shown(url)} names files for TLS.", hint="Write https://, wss:// or mqtts://.")
    prefix, barrel = _prefix_and_barrel(parts.path) if mqtt else _barrel_in(parts.path)
    if not barrel or "/" in barrel or "//" in prefix:
        raise BadRequest(f"{_shown(url)} names no barrel.", hint=_HINT)
    user, password = login_in(parts)
    if mqtt and user == "":
        raise BadRequest(
            f"{_shown(url)} has a password without a user.", hint="Write mqtt://USER:PASSWORD@HOST/BARREL."
        )
    return Address(
        kind="mqtt" if mqtt else "websocket",
        host=host,
        port=port or (_MQTT if mqtt else _WEBSOCKET)[scheme],
        tls=tls,
        barrel=check_barrel_name(unquote(barrel)),
        user=user,
        password=password,
        prefix=prefix,
        files=files,
    )


def login_in(parts: SplitResult) -> tuple[str | None, str | None]:
    """User and password of a URL; the user is empty where there is a password alone, as in `http://:TOKEN@host`."""
    password = unquote(parts.password) if parts.password else None
    user = unquote(parts.username) if parts.username else None
    return "" if user is None and password is not None else user, password


def checked_token(token: str) -> str:
    """The token, which is sent in a header; BadRequest where it cannot be, without what it says."""
    if not token.isascii() or not token.isprintable():
        raise BadRequest(
            "The token has characters that cannot be sent: only those of ASCII can, and no control characters.",
            hint="See that it was copied whole, without the end of its line.",
        )
    return token


def _prefix_and_barrel(path: str) -> tuple[str, str]:
    """The last level, and those before it with a closing `/`."""
    before, slash, barrel = path.strip("/").rpartition("/")
    return unquote(before) + slash, barrel


def _barrel_in(path: str) -> tuple[str, str]:
    """The path before the barrel, less `/barrels`, and the barrel."""
    levels = path.strip("/").split("/")
    if levels[-1] == "feed" and len(levels) > 2 and levels[-3] == "barrels":
        levels.pop()
    before = levels[:-2] if len(levels) > 1 and levels[-2] == "barrels" else levels[:-1]
    return "".join("/" + level for level in before), levels[-1]


def _store_place(url: str) -> StorePlace:
    store, _, barrel = url.rpartition("#")
    if not store or not barrel:
        raise BadRequest(f"{_shown(url)} names no store and barrel.", hint=_HINT)
    return StorePlace(store, check_barrel_name(unquote(barrel)))


def _shown(url: str) -> str:
    """The URL without a password that it may hold."""
    head, at, tail = url.rpartition("@")
    if at and "://" in head:
        url = head.partition("://")[0] + "://…@" + tail
    return repr(url[:200])
