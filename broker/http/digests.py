"""Digests in headers: what an upload is said to be, and what a download is.

Pure. Read are `Content-MD5`, RFC 9530's `Content-Digest` and `Repr-Digest`, and RFC 3230's `Digest`, which they
replace and which many clients still send. Only sha-256 and md5 are looked at, since those are known of a content;
other algorithms are ignored, as RFC 9530 has it. All are of the bytes as they are: no content coding is taken.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import http_sf

from broker.http.answers import Header
from feeds.attachments.stubs import Content
from feeds.errors import BadRequest

_SIZES: Final = {"sha-256": 32, "md5": 16}
_HINT: Final = "Send `Repr-Digest: sha-256=:<base64 of 32 bytes>:`, or none."
OF_CONTENT: Final = (b"content-md5", b"digest", b"content-digest", b"repr-digest")
"""Of a request that brings a whole content these all say the same."""
OF_WHOLE: Final = (b"repr-digest", b"digest")
"""Of one that brings a part of it these are of the whole."""
OF_PART: Final = (b"content-digest", b"content-md5")


@dataclass(frozen=True, slots=True)
class Announced:
    """What a content is said to be: sha256 in hex, md5 in base64."""

    sha256: str | None = None
    md5: str | None = None

    @property
    def is_nothing(self) -> bool:
        """Whether nothing was said."""
        return self.sha256 is None and self.md5 is None


def announced(headers: list[tuple[bytes, bytes]], names: tuple[bytes, ...] = OF_CONTENT) -> Announced:
    """What these headers say; BadRequest for what cannot be a digest, and for two that differ."""
    found: dict[str, bytes] = {}
    for name, value in headers:
        if name not in names:
            continue
        for algorithm, digest in _digests(name, value):
            if len(digest) != _SIZES[algorithm]:
                raise _refused(name, f"its {algorithm} has {len(digest)} bytes")
            if found.setdefault(algorithm, digest) != digest:
                raise BadRequest(f"The headers tell two different digests of {algorithm}.", hint="Send the true one.")
    sha256, md5 = found.get("sha-256"), found.get("md5")
    return Announced(None if sha256 is None else sha256.hex(), None if md5 is None else b64encode(md5).decode())


def digest_headers(content: Content, *, whole: bool) -> list[Header]:
    """What a download is told to be. `Content-…` is of the bytes that are sent: only where that is the whole."""
    sha256 = b64encode(bytes.fromhex(content.sha256))
    md5 = content.md5.encode()
    both = b"sha-256=:%b:, md5=:%b:" % (sha256, md5)
    headers = [(b"repr-digest", both), (b"digest", b"SHA-256=%b,MD5=%b" % (sha256, md5))]
    return [*headers, (b"content-digest", both), (b"content-md5", md5)] if whole else headers


def _digests(name: bytes, value: bytes) -> Iterator[tuple[str, bytes]]:
    if name == b"content-md5":
        yield "md5", _base64(name, value.strip())
    elif name == b"digest":
        for each in value.split(b","):
            algorithm, is_one, text = each.strip().partition(b"=")
            if not is_one:
                raise _refused(name, "it has no `=`")
            if (known := algorithm.decode("latin-1").lower()) in _SIZES:
                yield known, _base64(name, text)
    else:
        try:
            told: Any = http_sf.parse(value, tltype="dictionary")
        except (http_sf.StructuredFieldError, ValueError) as error:
            raise _refused(name, str(error)) from None
        for member, (sequence, _) in told.items():
            if member in _SIZES:
                if not isinstance(sequence, bytes):
                    raise _refused(name, f"its {member} is no byte sequence")
                yield member, sequence


def _base64(name: bytes, text: bytes) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (Base64Error, ValueError):
        raise _refused(name, "it is not base64") from None


def _refused(name: bytes, why: str) -> BadRequest:
    return BadRequest(f"The header `{name.decode()}` cannot be read: {why}.", hint=_HINT)
