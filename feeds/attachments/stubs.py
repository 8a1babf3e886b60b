"""What a stored body says of its attachments: stubs, in front of the user's keys.

Pure. A body without attachments is just its canonical JSON. One with them begins with the key `_attachments`, so that
its first bytes tell, and so that what lies behind is the canonical JSON of the user's keys, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec
from msgspec import UNSET, UnsetType

MARK = b'{"_attachments":'
"""What a body with attachments begins with, and no other."""
SHA256 = "sha256-"
DEFAULT_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes that are stored: their digests, and how many there are."""

    sha256: str
    """64 lower hex digits."""
    md5: str
    """base64, as CouchDB and `Content-MD5` write it."""
    length: int

    @property
    def digest(self) -> str:
        """As it stands in documents."""
        return SHA256 + self.sha256


class Stub(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An attachment in a stored document: a content (`stub`, with digest and length), or a link."""

    content_type: str | UnsetType = UNSET
    digest: str | UnsetType = UNSET
    length: int | UnsetType = UNSET
    link: str | UnsetType = UNSET
    revpos: int
    """The generation in which it came or was last changed."""
    stub: bool = False

    @property
    def sha256(self) -> str | None:
        """The hex digits of the content's digest; None of a link."""
        return None if self.digest is UNSET else self.digest.removeprefix(SHA256)

    @property
    def meaning(self) -> tuple[str, str]:
        """What it is, whenever it came: its type ("" where a link has none), and its sha256 or link."""
        what = self.link if self.digest is UNSET else self.digest.removeprefix(SHA256)
        return "" if self.content_type is UNSET else self.content_type, "" if what is UNSET else what


Stubs = Mapping[str, Stub]


class Moves(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the attachments of one winner differ from those of the winner before: names, in order."""

    came: list[str] = []
    changed: list[str] = []
    went: list[str] = []


class _Head(msgspec.Struct):
    attachments: msgspec.Raw = msgspec.field(name="_attachments")


_head = msgspec.json.Decoder(_Head).decode
_stubs = msgspec.json.Decoder(dict[str, Stub]).decode
_encode = msgspec.json.Encoder(order="deterministic").encode
_NONE: Stubs = {}


def stubs_of(body: bytes | None) -> Stubs:
    """The attachments of a stored body, by name."""
    if body is None or not body.startswith(MARK):
        return _NONE
    return _stubs(_head(body).attachments)


def split(body: bytes) -> tuple[Stubs, bytes]:
    """The attachments of a stored body, and the canonical JSON of the user's keys."""
    if not body.startswith(MARK):
        return _NONE, body
    text = bytes(_head(body).attachments)
    rest = body[len(MARK) + len(text) :]
    return _stubs(text), b"{" + rest.removeprefix(b",")


def joined(stubs: Stubs, body: bytes) -> bytes:
    """The stored body that has these attachments and this canonical JSON of the user's keys."""
    if not stubs:
        return body
    return MARK + _encode(stubs) + (b"}" if body == b"{}" else b"," + body[1:])


def hashed(stubs: Stubs) -> list[tuple[str, str, str]]:
    """Name, type, and sha256 or link of each: how attachments take part in a revision's digest."""
    return [(name, *stub.meaning) for name, stub in stubs.items()]


def contents_of(stubs: Stubs) -> set[str]:
    """The sha256 of every content that they name."""
    return {stub.sha256 for stub in stubs.values() if stub.sha256 is not None}


def moves(before: Stubs, after: Stubs) -> Moves | None:
    """What came, changed and went between two winners; None where all stayed."""
    if not before and not after:
        return None
    changed = [name for name in after.keys() & before.keys() if after[name].meaning != before[name].meaning]
    told = Moves(_named(after.keys() - before.keys()), sorted(changed), _named(before.keys() - after.keys()))
    return told if told.came or told.changed or told.went else None


def _named(names: Iterable[str]) -> list[str]:
    return sorted(names)
