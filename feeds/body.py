"""Documents as text: what may be stored, and the one canonical form in which it is.

Pure. A document comes in as JSON bytes or as a Python mapping, is checked against every rule of the format, and
leaves as a `Draft`: canonical bytes of the user's keys (sorted, no white space, integers exact, floats in their
shortest round-trip form) and the reserved fields beside them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from feeds.attachments.given import INLINE_TEXT_MAX, Attachments, read_attachments
from feeds.errors import BadRequest, TooLarge
from feeds.faults import lone_surrogate, place_of, repeated_key, shown, unreadable

DOCUMENT_BYTES_MAX = 8 * 1024 * 1024
DEPTH_MAX = 100  # levels of objects and arrays; far below where parsers and recursion end
ID_BYTES_MAX = 512
ID_LEVELS_MAX = 32
INTEGER_MIN, INTEGER_MAX = -(1 << 63), (1 << 64) - 1  # what every JSON library we meet keeps exactly

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(order="deterministic").encode
_encode_quickly = msgspec.json.Encoder().encode
# What a reader was given and sends back.
_IGNORED = frozenset({"_conflicts", "_deleted_conflicts", "_history", "_branches"})
_FINITE_MAX = 1.7976931348623157e308
_WHAT = "The document"
_BACKSLASH = ord("\\")


class Draft(msgspec.Struct, frozen=True):
    """A checked document: its reserved fields, its user keys, and their canonical bytes."""

    id: str | None
    rev: str | None
    deleted: bool
    revisions: tuple[int, tuple[str, ...]] | None  # from `_revisions`: (start, digests newest first)
    data: dict[str, Any]  # user keys only
    body: bytes
    attachments: Attachments | None = None


def read_json(text: bytes | bytearray | memoryview | str, *, what: str = "The body") -> Any:
    """The JSON value, or a BadRequest that says where it breaks."""
    text = as_bytes(text, what)
    value = _read(text, what)
    try:
        colons = _encode_quickly(value).count(b":")
    except (OverflowError, RecursionError):
        colons = 0  # too large or too deep to be kept, and refused for it by whoever looks at the value
    _refuse_repeated(text, colons, what)
    return value


def is_too_large(text: bytes, bytes_max: int) -> bool:
    """Whether a text cannot be a document of so many bytes. What attachments bring along does not count, but is
    bounded too."""
    return len(text) > bytes_max and (b"_attachments" not in text or len(text) > bytes_max + INLINE_TEXT_MAX)


def as_bytes(text: bytes | bytearray | memoryview | str, what: str) -> bytes:
    """A text as UTF-8; BadRequest where it holds a lone surrogate."""
    if type(text) is str:
        try:
            return text.encode()
        except UnicodeEncodeError as error:
            at = len(text[: error.start].encode())
            raise BadRequest(
                f"{what} holds a lone surrogate: U+{ord(text[error.start]):04X} at byte {at}",
                hint="Make the text of valid Unicode.",
            ) from None
    return text if type(text) is bytes else bytes(text)  # type: ignore[arg-type]


def _read(text: bytes, what: str) -> Any:
    try:
        return _decode(text)
    except RecursionError:
        raise BadRequest(f"{what} is nested deeper than {DEPTH_MAX} levels", hint="Flatten the document.") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise unreadable(text, what, error) from None


def _refuse_repeated(text: bytes, colons: int, what: str) -> None:
    """Refuse an object that has a key twice, by the colons that are in the text and not in what was made of it.

    Counting costs next to nothing. A colon may also be written as an escape; such texts are looked at closely.
    """
    if text.count(b":") > colons or (_BACKSLASH in text and b"\\u003" in text):
        try:
            key = repeated_key(text)
        except RecursionError:
            return
        if key is not None:
            raise BadRequest(f"{what} has the key {shown(key)} twice in one object", hint="Send each key once.")


def canonical(value: Any) -> bytes:
    """Canonical JSON bytes: keys sorted by code point, no white space, shortest floats."""
    try:
        return _encode(value)
    except (OverflowError, UnicodeError, TypeError, ValueError, RecursionError) as error:
        lone = lone_surrogate(value) if isinstance(error, UnicodeError) else None
        raise lone or BadRequest(
            f"The document cannot be written as JSON: {error}",
            hint="Use texts without lone surrogates, integers of 64 bits, and plain JSON types.",
        ) from None


def check_id(document_id: Any) -> str:
    """The id, if a document may have it."""
    id = check_local_id(document_id)
    if id[0] == "_" and (not id.startswith("_design/") or id == "_design/"):
        raise BadRequest(
            f"_id {shown(id)} begins with an underscore",
            hint="Only _design/… and _local/… may; _local documents have routes of their own.",
        )
    return id


def check_local_id(document_id: Any) -> str:
    """What follows `_local/`, if a local document may have it: it may begin with `_`, as PouchDB's checkpoints do."""
    if type(document_id) is not str:
        raise BadRequest(f"_id must be text, not {kind_of(document_id)}", hint="Send the id as a string.")
    try:
        size = len(document_id) if document_id.isascii() else len(document_id.encode())
    except UnicodeError:
        raise BadRequest("_id holds a lone surrogate", hint="Use valid Unicode in ids.") from None
    if not 1 <= size <= ID_BYTES_MAX:
        raise BadRequest(
            f"_id has {size} bytes; 1 to {ID_BYTES_MAX} are allowed",
            hint="Choose a shorter id, but not an empty one.",
        )
    if _CONTROL.search(document_id):
        raise BadRequest(
            f"_id holds a control character: {shown(document_id)}", hint="Use printable characters in ids."
        )
    if document_id.count("/") >= ID_LEVELS_MAX:
        raise BadRequest(f"_id has more than {ID_LEVELS_MAX} levels", hint="Use fewer slashes in the id.")
    return document_id


def draft(
    document: bytes | bytearray | memoryview | str | Mapping[str, Any], *, bytes_max: int = DOCUMENT_BYTES_MAX
) -> Draft:
    """Check a document and bring it into canonical form.

    Raises BadRequest or TooLarge, naming what was refused; never returns a document that could not be read back.
    """
    text = None
    value: Any = document
    if isinstance(document, (bytes, bytearray, memoryview, str)):
        text = document if type(document) is bytes else as_bytes(document, _WHAT)
        if len(text) > bytes_max and is_too_large(text, bytes_max):
            raise TooLarge(
                f"The document has {len(text)} bytes; {bytes_max} are allowed",
                hint="Split the document, or ask the operator to raise document_bytes_max.",
            )
        value = _read(text, _WHAT)
    elif isinstance(document, Mapping):
        value = dict(document)
    fields = check_document(value)
    check_values(fields)
    given = _split(fields, bytes_max)
    if text is not None:
        _refuse_repeated(text, given.body.count(b":") + _reserved_colons(fields, given), _WHAT)
    return given


def _reserved_colons(document: dict[str, Any], given: Draft) -> int:
    """How many colons the reserved fields have where they are as usual; what has more is looked at closely."""
    colons = len(document) - len(given.data)
    if colons and given.id is not None:
        colons += given.id.count(":")
    if given.attachments is not None:
        colons += _encode_quickly(document["_attachments"]).count(b":")
    return colons if given.revisions is None else colons + 2


def check_document(value: Any) -> dict[str, Any]:
    """The value, if it may be a document at all."""
    if type(value) is not dict:
        raise BadRequest(
            f"A document is a JSON object, not {kind_of(value)}", hint='Send an object, like {"name": "value"}.'
        )
    return value


def _split(document: dict[str, Any], bytes_max: int) -> Draft:
    document_id = rev = revisions = attachments = None
    deleted = False
    data = document
    for key in document:
        if key[:1] == "_":
            data = {key: value for key, value in document.items() if key[:1] != "_"}
            document_id, rev, deleted, revisions, attachments = _reserved(document)
            break
    body = canonical(data)
    if len(body) > bytes_max:
        raise TooLarge(f"The document has {len(body)} bytes; {bytes_max} are allowed")
    return Draft(document_id, rev, deleted, revisions, data, body, attachments)


def _reserved(
    document: dict[str, Any],
) -> tuple[str | None, str | None, bool, tuple[int, tuple[str, ...]] | None, Attachments | None]:
    document_id = rev = revisions = attachments = None
    deleted = False
    for key, value in document.items():
        if key[:1] != "_":
            continue
        if key == "_id":
            document_id = check_id(value)
        elif key == "_rev":
            if type(value) is not str:
                raise BadRequest(
                    f"_rev must be text, not {kind_of(value)}", hint="Send the _rev as you were given it."
                )
            rev = value
        elif key == "_deleted":
            if type(value) is not bool:
                raise BadRequest("_deleted must be true or false", hint="Leave it out of documents that live.")
            deleted = value
        elif key == "_revisions":
            revisions = _revisions(value)
        elif key == "_attachments":
            attachments = read_attachments(value) or None
        elif key not in _IGNORED:
            raise BadRequest(
                f"The field {shown(key)} is reserved, and unknown",
                hint="Top-level keys that begin with _ belong to Spile; rename the field.",
            )
    return document_id, rev, deleted, revisions, attachments


def _revisions(value: Any) -> tuple[int, tuple[str, ...]]:
    good = (
        type(value) is dict
        and type(value.get("start")) is int
        and type(value.get("ids")) is list
        and value["ids"]
        and all(type(digest) is str for digest in value["ids"])
        and value["start"] >= len(value["ids"])
    )
    if not good:
        raise BadRequest(
            '_revisions must be {"start": N, "ids": [digest, …]} with at most N digests',
            hint="Send the history as it was read.",
        )
    return value["start"], tuple(value["ids"])


class _Unfit(Exception):
    """A value that JSON cannot hold or that would not come back the same."""

    def __init__(self, value: Any, told: str, hint: str) -> None:
        self.value = value
        self.told = told
        self.hint = hint


def check_values(value: Any) -> None:
    """Refuse what JSON cannot hold or what would not come back the same, at any depth."""
    try:
        _check_dict(value, 1) if type(value) is dict else _check_list([value], 0)
    except _Unfit as unfit:
        where = shown(place_of(unfit.value, value) or "")
        raise BadRequest(f"The {unfit.told.format(where)}", hint=unfit.hint) from None


def _check_dict(value: dict[Any, Any], depth: int) -> None:
    if depth > DEPTH_MAX:
        raise BadRequest(f"The document is nested deeper than {DEPTH_MAX} levels", hint="Flatten the document.")
    for key, inner in value.items():
        if type(key) is not str:
            raise BadRequest(f"The key {shown(str(key))} is not text", hint="JSON keys are strings.")
        kind = type(inner)
        if kind is str:
            continue
        if kind is dict:
            _check_dict(inner, depth + 1)
        elif kind is list:
            _check_list(inner, depth + 1)
        else:
            _check_scalar(inner, kind)


def _check_list(value: list[Any], depth: int) -> None:
    if depth > DEPTH_MAX:
        raise BadRequest(f"The document is nested deeper than {DEPTH_MAX} levels", hint="Flatten the document.")
    for inner in value:
        kind = type(inner)
        if kind is str:
            continue
        if kind is dict:
            _check_dict(inner, depth + 1)
        elif kind is list:
            _check_list(inner, depth + 1)
        else:
            _check_scalar(inner, kind)


def _check_scalar(value: Any, kind: type) -> None:
    if kind is int:
        if not INTEGER_MIN <= value <= INTEGER_MAX:
            raise _Unfit(value, "integer at {} does not fit into 64 bits", "Send large integers as strings.")
    elif kind is float:
        if not -_FINITE_MAX <= value <= _FINITE_MAX:
            raise _Unfit(value, "number at {} is not finite", "JSON has no NaN and no Infinity.")
    elif kind is not bool and value is not None:
        raise _Unfit(value, f"value at {{}} is no JSON type: {kind.__name__}", "Use plain JSON types.")


def kind_of(value: Any) -> str:
    """What a value is, in the words of JSON."""
    names = {
        dict: "an object",
        list: "an array",
        str: "a string",
        int: "a number",
        float: "a number",
        bool: "a boolean",
    }
    return "null" if value is None else names.get(type(value), type(value).__name__)


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396: null removes, objects merge, anything else replaces. Neither argument is changed."""
    if type(patch) is not dict:
        return patch
    result = dict(target) if type(target) is dict else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result
