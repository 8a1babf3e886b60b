"""Where a named peer is, read from a setting: an address with credentials that are never shown.

Pure. `NAME=URL`, where a URL whose path ends with `/`, or that has none, means the barrel of the same name there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from feeds.barrels import is_peer_name
from feeds.errors import BadRequest
from listeners.links.address import Address, parse_address

_HINT = "Write NAME=http://HOST:PORT, or NAME=http://:TOKEN@HOST:PORT/BARREL for a barrel of another name."


@dataclass(frozen=True, slots=True)
class PeerPlace:
    """A peer of the service. Its text is without secrets."""

    name: str
    url: str = field(repr=False)
    """Without the token, and maybe without a barrel."""
    token: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str) -> PeerPlace:
        """Read `NAME=URL`; BadRequest says what is wrong, without what may be secret."""
        name, equals, url = text.strip().partition("=")
        if not equals or not is_peer_name(name):
            shown = name if equals and "://" not in name else text.partition("://")[0]
            raise BadRequest(f"{shown[:80]!r} names no peer", hint=_HINT)
        try:
            parts = urlsplit(url.strip())
            secret, user = parts.password, parts.username
        except ValueError:
            raise BadRequest(f"The address of the peer {name!r} cannot be read", hint=_HINT) from None
        token = None
        if secret is not None and not user:
            token = unquote(secret)
            parts = parts._replace(netloc=parts.netloc.rpartition("@")[2])
        if not parts.path:
            parts = parts._replace(path="/")
        made = cls(name, urlunsplit(parts), token)
        if not parts.scheme or not parts.netloc or not isinstance(parse_address(made.at("b")), Address):
            raise BadRequest(f"The address of the peer {name!r} is none", hint=_HINT)
        return made

    def at(self, barrel: str) -> str:
        """The address of its barrel for a barrel of this name here. It may hold a password."""
        parts = urlsplit(self.url)
        if not parts.path.endswith("/"):
            return self.url
        return parts._replace(path=parts.path + quote(barrel, safe="")).geturl()

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        return f"{self.name}={urlunsplit(parts._replace(netloc=parts.netloc.rpartition('@')[2]))}"
