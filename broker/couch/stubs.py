"""Attachments in documents, in CouchDB's words and back.

A content is named by its md5 here, and by its sha256 everywhere else in Spile. A link, which CouchDB does not know,
is shown as a small text of a type of its own, and is a link again where that comes back.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Collection, Mapping, Sequence
from hashlib import md5
from typing import Any, Final

import msgspec

from broker.couch.errors import CouchError, bad_request
from broker.http.answers import encode_json
from feeds import Barrel
from feeds.attachments.given import INLINE_BYTES_MAX
from feeds.attachments.inflating import Inflating
from feeds.attachments.links import is_link_type, link_type, type_of_link
from feeds.attachments.stubs import DEFAULT_TYPE, SHA256

KEY: Final = b'"_attachments":'
MD5: Final = "md5-"
GZIP: Final = "gzip"

_KEPT: Final = ("content_type", "revpos", "stub", "follows", "data")


class _Attached(msgspec.Struct):
    stubs: msgspec.Raw = msgspec.field(name="_attachments", default=msgspec.Raw(b""))


_attached = msgspec.json.Decoder(_Attached).decode
_decode = msgspec.json.Decoder().decode


def told(
    barrel: Barrel, docs: Sequence[bytes], *, follows: Collection[str] = (), inline: bool = False
) -> list[bytes]:
    """Documents as they are read here, with their attachments in CouchDB's words. Blocks.

    The contents of those that are named in `follows` come behind the document, and it says so. With `inline` contents
    stand in it already.
    """
    found: dict[int, tuple[bytes, dict[str, Any]]] = {}
    wanted: set[str] = set()
    for place, doc in enumerate(docs):
        if KEY in doc and (text := bytes(_attached(doc).stubs)):
            stubs = _decode(text)
            found[place] = text, stubs
            wanted.update(each["digest"].removeprefix(SHA256) for each in stubs.values() if "digest" in each)
    if not found:
        return list(docs)
    known = barrel.store.blobs.rows.find(wanted)
    answer = list(docs)
    for place, (text, stubs) in found.items():
        for name, each in stubs.items():
            stubs[name] = _told(each, known, name in follows, inline)
        answer[place] = answer[place].replace(KEY + text, KEY + encode_json(stubs), 1)
    return answer


def _told(stub: dict[str, Any], known: Mapping[str, Any], follows: bool, inline: bool) -> dict[str, Any]:
    if "link" in stub:
        text = stub["link"].encode()
        digest, length, kind = md5_of(text), len(text), link_type(stub.get("content_type"))
        given: dict[str, Any] = {"data": b64encode(text).decode()} if follows or inline else {"stub": True}
        return {"content_type": kind, "revpos": stub["revpos"], "digest": digest, "length": length, **given}
    sha256 = stub["digest"].removeprefix(SHA256)
    digest = MD5 + known[sha256].content.md5 if sha256 in known else stub["digest"]
    given = {"data": stub["data"]} if "data" in stub else {"follows": True} if follows else {"stub": True}
    kind = stub.get("content_type", DEFAULT_TYPE)
    return {"content_type": kind, "revpos": stub["revpos"], "digest": digest, "length": stub["length"], **given}


def md5_of(data: bytes) -> str:
    """The digest of a content as CouchDB writes it."""
    return MD5 + b64encode(md5(data, usedforsecurity=False).digest()).decode()


def given(value: Any) -> Any:
    """What a client says under `_attachments`, in Spile's words. What is no attachment is left to be refused."""
    if not isinstance(value, dict):
        raise bad_request("Attachments property must be a JSON object.")
    found = {}
    left = INLINE_BYTES_MAX  # of all of them together, since all are in memory
    for name, told in value.items():
        if isinstance(told, dict) and told.get("encoding") == GZIP and told.get("data") is not None:
            plain = _inflated(name, told["data"], left)
            left -= len(plain)
            told = {**told, "data": b64encode(plain).decode()}
        found[name] = _given(name, told)
    return found


def _given(name: str, told: Any) -> Any:
    if not isinstance(told, dict):
        raise bad_request(f"The attachment {name!r} must be a JSON object.")
    found = {key: told[key] for key in _KEPT if told.get(key) is not None}
    if "data" in found:
        found.pop("stub", None)
        found.pop("follows", None)
    elif found.get("follows"):
        found.pop("stub", None)
        length = told.get("length")  # of the plain bytes, however they come
        if isinstance(length, int) and not isinstance(length, bool) and length >= 0:
            found["length"] = length
    else:
        found = {**found, "stub": True}
        found.pop("follows", None)
    if not isinstance(found.get("revpos"), int) or found["revpos"] < 1:
        found.pop("revpos", None)
    # The md5 of something encoded, or of a link, is of nothing that is kept: there the name says what is meant.
    by_name = told.get("encoding") not in (None, "identity") or is_link_type(found.get("content_type"))
    digest = told.get("digest")
    if found.get("stub") and not by_name and isinstance(digest, str) and digest.startswith(MD5):
        found["digest"] = digest
    if "data" in found and is_link_type(found.get("content_type")):
        return _link(found)
    return found


def _link(found: dict[str, Any]) -> dict[str, Any]:
    link: dict[str, Any] = {"link": _decoded("link", found["data"]).decode("utf-8", "replace")}
    if (kind := type_of_link(found["content_type"])) is not None:
        link["content_type"] = kind
    return {**link, "revpos": found["revpos"]} if "revpos" in found else link


def _decoded(name: str, data: Any) -> bytes:
    try:
        return b64decode(data, validate=True)
    except (Base64Error, ValueError, TypeError) as error:
        raise bad_request(f"Invalid attachment data for {name}") from error


def check_data(name: str, data: Any) -> None:
    """Refuse what is no base64."""
    _decoded(name, data)


def _inflated(name: str, data: Any, bytes_max: int) -> bytes:
    inflating = Inflating(name, bytes_max)
    plain = b"".join(inflating.plain(_decoded(name, data)))
    inflating.end()
    return plain


def missing_stub(id: str, name: str) -> CouchError:
    """A document names an attachment that is not here."""
    return CouchError(412, "missing_stub", f"id:{id}, name:{name}")
