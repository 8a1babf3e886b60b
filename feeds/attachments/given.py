"""What a caller may say of attachments under `_attachments`, checked and decoded.

Pure. Each is given by exactly one of: `data` (base64), `stub` (what the parent has under that name), `link` (a URL
that is kept and not fetched), `upload` (the id of an upload that was finished), `follows` (the content comes with the
same request). Everything else that a reader was told may be sent back with it, and has to agree.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from feeds.attachments.stubs import SHA256, Content
from feeds.errors import BadRequest, TooLarge
from feeds.faults import shown

NAME_BYTES_MAX = 512  # as an id
ATTACHMENTS_MAX = 1_000  # of one document: their stubs are read with every reading of it
TYPE_CHARACTERS_MAX = 255
LINK_BYTES_MAX = 2_048
INLINE_BYTES_MAX = 16 * 1024 * 1024  # of one document: it is held in memory; what is larger is uploaded
INLINE_TEXT_MAX = INLINE_BYTES_MAX // 3 * 4 + 1024 * 1024  # the same as base64, and what stands around it

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_TYPE = re.compile(f"[\x20-\x7e]{{1,{TYPE_CHARACTERS_MAX}}}")
_LINK = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s\x00-\x1f\x7f-\x9f]+")
_HEX = re.compile("[0-9a-f]{64}")
_MD5 = "md5-"
_MD5_BYTES = 16

_WAYS = ("data", "stub", "link", "upload", "follows")
_BESIDE = ("content_type", "digest", "length", "revpos")
_AS_IS = frozenset({*_WAYS, *_BESIDE})


@dataclass(frozen=True, slots=True)
class Given:
    """One attachment as a caller gave it. With neither `data`, `link`, `upload` nor `follows` it is a stub."""

    content_type: str | None = None
    sha256: str | None = None
    md5: str | None = None
    length: int | None = None
    revpos: int | None = None
    data: bytes | None = None
    link: str | None = None
    upload: str | None = None
    follows: bool = False
    content: Content | None = None
    """Once its bytes are stored."""

    @property
    def is_waiting(self) -> bool:
        """Whether its bytes have to be stored before it can be written."""
        return self.content is None and (self.data is not None or self.upload is not None or self.follows)

    def check(self, name: str | None, content: Content) -> None:
        """Refuse a content that is not what was announced. `name` is the attachment's, None for an upload."""
        told = "The upload" if name is None else f"The attachment {shown(name)}"
        if self.length is not None and self.length != content.length:
            raise BadRequest(
                f"{told} has {content.length} bytes, and its length is said to be {self.length}",
                hint="Send all of it, and its true length or none.",
            )
        if (self.sha256 or content.sha256) != content.sha256 or (self.md5 or content.md5) != content.md5:
            raise BadRequest(
                f"{told} is not what its digest says: it has {content.digest}, md5-{content.md5}",
                hint="It was damaged on its way, or the digest is another one's. Send it again.",
            )


Attachments = Mapping[str, Given | None]
"""By name; None takes one away, which only patches do."""


def read_attachments(value: Any, *, patch: bool = False) -> Attachments:
    """What stands under `_attachments` in a document, or in a merge patch; BadRequest names what is wrong."""
    if type(value) is not dict:
        raise BadRequest(
            "_attachments must be an object of attachments by name", hint='Send {"name.txt": {"data": "<base64>"}}.'
        )
    if len(value) > ATTACHMENTS_MAX:
        raise TooLarge(
            f"There are {len(value)} attachments; a document may have {ATTACHMENTS_MAX}",
            hint="Spread them over several documents.",
        )
    found: dict[str, Given | None] = {}
    inline = 0
    for name, told in value.items():
        check_name(name)
        found[name] = given = None if told is None and patch else _given(name, told)
        if given is not None and given.data is not None:
            inline += len(given.data)
    if inline > INLINE_BYTES_MAX:
        raise TooLarge(
            f"The attachments in the document have {inline} bytes; {INLINE_BYTES_MAX} are allowed",
            hint="Upload large contents by themselves.",
        )
    return found


def check_name(name: Any) -> str:
    """The name, if an attachment may have it."""
    if type(name) is not str:
        raise BadRequest("The name of an attachment is text", hint="Send it as a string.")
    try:
        size = len(name.encode())
    except UnicodeError:
        raise BadRequest(
            f"The name of an attachment holds a lone surrogate: {shown(name)}", hint="Use valid Unicode in names."
        ) from None
    if not 1 <= size <= NAME_BYTES_MAX:
        raise BadRequest(
            f"The name of an attachment has {size} bytes; 1 to {NAME_BYTES_MAX} are allowed",
            hint="Choose a shorter name, but not an empty one.",
        )
    if _CONTROL.search(name):
        raise BadRequest(
            f"The name of an attachment holds a control character: {shown(name)}",
            hint="Use printable characters in names.",
        )
    if name[0] == "_":
        raise BadRequest(
            f"The name of an attachment begins with an underscore: {shown(name)}", hint="Choose another name."
        )
    return name


def check_type(content_type: Any) -> str:
    """The content type, if an attachment may have it."""
    if type(content_type) is not str or _TYPE.fullmatch(content_type) is None:
        raise BadRequest(
            f"content_type must be 1 to {TYPE_CHARACTERS_MAX} printable characters of ASCII",
            hint='Send a type like "image/jpeg" or "text/plain; charset=utf-8".',
        )
    return content_type


def read_digest(text: Any) -> tuple[str | None, str | None]:
    """The sha256 (hex) or the md5 (base64) that a digest names."""
    if type(text) is str:
        if text.startswith(SHA256) and _HEX.fullmatch(text, len(SHA256)):
            return text.removeprefix(SHA256), None
        if text.startswith(_MD5) and _is_md5(text.removeprefix(_MD5)):
            return None, text.removeprefix(_MD5)
    raise BadRequest(
        f"{shown(str(text))} is no digest", hint="Write sha256-<64 lower hex digits>, or md5-<base64 of 16 bytes>."
    )


def _is_md5(text: str) -> bool:
    try:
        return len(b64decode(text, validate=True)) == _MD5_BYTES
    except (Base64Error, ValueError):
        return False


def _given(name: str, told: Any) -> Given:
    where = f"The attachment {shown(name)}"
    if type(told) is not dict:
        raise BadRequest(f"{where} is no object", hint='Send {"data": "<base64>"}, {"stub": true} or {"link": "…"}.')
    unknown = sorted(told.keys() - _AS_IS)
    if unknown:
        raise BadRequest(
            f"{where} has an unknown field {shown(unknown[0])}",
            hint=f"An attachment has {', '.join((*_WAYS, *_BESIDE))}.",
        )
    ways = [way for way in _WAYS if told.get(way) is not None and told[way] is not False]
    if len(ways) != 1:
        raise BadRequest(
            f"{where} is given by {' and '.join(ways) or 'nothing'}",
            hint=f"Give it by exactly one of {', '.join(_WAYS)}.",
        )
    (way,) = ways
    sha256, md5 = read_digest(told["digest"]) if told.get("digest") is not None else (None, None)
    content_type = told.get("content_type")
    if content_type is not None:
        check_type(content_type)
    length, revpos = _number(where, told, "length", 0), _number(where, told, "revpos", 1)
    value = told[way]
    if way == "data":
        return Given(content_type, sha256, md5, length, revpos, data=_decoded(where, value))
    if way == "link":
        return Given(content_type, revpos=revpos, link=_link(where, value))
    if way == "upload":
        if type(value) is not str:
            raise BadRequest(f"{where}: upload must be text", hint="Send the id that the upload was given.")
        return Given(content_type, sha256, md5, length, revpos, upload=value)
    if value is not True:
        raise BadRequest(f"{where}: {way} must be true", hint="Leave it out where it is not.")
    return Given(content_type, sha256, md5, length, revpos, follows=way == "follows")


def _number(where: str, told: dict[str, Any], field: str, least: int) -> int | None:
    value = told.get(field)
    if value is None or (type(value) is int and least <= value < 1 << 63):
        return value
    raise BadRequest(f"{where}: {field} must be an integer from {least} on", hint="Send it as it was read.")


def _decoded(where: str, text: Any) -> bytes:
    try:
        if type(text) is not str:
            raise ValueError("it is no text")
        data = a2b_base64(text, strict_mode=True)
        if b2a_base64(data, newline=False) != text.encode():
            raise ValueError("its padding is not what belongs to its length")
        return data
    except (Base64Error, ValueError) as error:
        raise BadRequest(
            f"{where}: data is not base64: {error}",
            hint="Encode the bytes as base64 with padding (RFC 4648, section 4) and without line breaks.",
        ) from None


def _link(where: str, link: Any) -> str:
    if type(link) is not str or _LINK.fullmatch(link) is None:
        raise BadRequest(f"{where}: link must be a URL", hint="Send one with its scheme, such as https://….")
    if len(link.encode()) > LINK_BYTES_MAX:
        raise TooLarge(f"{where}: link has more than {LINK_BYTES_MAX} bytes", hint="Use a shorter URL.")
    return link
