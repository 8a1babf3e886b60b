"""Making sure that a text is one JSON object, and giving it its `_id` from one of its fields.

Pure, and without decoding more than the fields asked for: a document goes on as the bytes it came in,
with `"_id": …` put in front.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from broker.cli.elements import Piece
from broker.cli.inputs import BadInput
from feeds.errors import BadRequest

__all__ = ["checker"]

_ABSENT = msgspec.Raw(b"")
_CAN_BE_LOOKED_FOR = re.compile(r'[^\x00-\x1f"\\]+').fullmatch


def checker(field: str | None = None, *, literal: bool = False) -> Callable[[Piece], bytes]:
    """A function from a piece to the document to be sent; it raises BadInput for a piece that is none.

    With `field` the document's `_id` comes from there: text as it is, a number by its digits. `field` may be
    a dotted path (`name.common`) through nested objects; with `literal` it is one name, dots and all.
    Raises BadRequest for a name with quotes, backslashes or control characters.
    """
    if field is None:
        return _checked
    if field == "_id":
        return _checked_with_id
    if not field or not _CAN_BE_LOOKED_FOR(field) or (field.startswith("_id.") and not literal):
        raise BadRequest(f"ids cannot be taken from a field named {field!r}", hint="Rename the field first.")
    return _Identifier(field, (field,) if literal else tuple(field.split("."))).identified


class _Nothing(msgspec.Struct):
    """An object of which nothing is asked."""


_nothing: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_Nothing)
_plain: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


def _checked(piece: Piece) -> bytes:
    _decode(_nothing, piece)
    return piece.raw


class _Own(msgspec.Struct):
    """An object of which only the `_id` is asked."""

    own: msgspec.Raw = msgspec.field(name="_id", default=_ABSENT)


_own: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_Own)


def _checked_with_id(piece: Piece) -> bytes:
    own = bytes(_decode(_own, piece).own)
    if not own.startswith(b'"'):
        raise BadInput(piece.line, "its _id is not text" if own else "it has no _id")
    return piece.raw


class _Identifier:
    """Takes the `_id` of each document from the field that `names` lead to."""

    def __init__(self, field: str, names: tuple[str, ...]) -> None:
        self._field = field
        self._depth = len(names)
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_looking_for(names))

    def identified(self, piece: Piece) -> bytes:
        found = _decode(self._decoder, piece, f"it has no {self._field}")
        own = bytes(found.own)
        for _ in range(self._depth):
            found = found.next if found is not None else _ABSENT
        value = bytes(found) if found is not None else b""
        if not value or value in (b"null", b'""'):
            raise BadInput(piece.line, f"it has no {self._field}")
        if value[0] in b"{[tf":
            raise BadInput(piece.line, f"its {self._field} is neither text nor a number")
        identity = value if value[0] == 0x22 else b'"%b"' % value
        if own:
            if _plain.decode(own) != _plain.decode(identity):
                raise BadInput(piece.line, f"its _id is {own.decode()}, its {self._field} {value.decode()}")
            return piece.raw
        return b'{"_id":%b,%b' % (identity, piece.raw.lstrip()[1:])


def _looking_for(names: tuple[str, ...]) -> type[msgspec.Struct]:
    """A type that decodes nothing but the value that `names` lead to, and the document's own `_id`."""
    wanted: Any = msgspec.Raw
    default: Any = _ABSENT
    for name in reversed(names[1:]):
        wanted = msgspec.defstruct("_Level", [("next", wanted, default)], rename={"next": name}) | None
        default = None
    return msgspec.defstruct(
        "_Wanted",
        [("next", wanted, default), ("own", msgspec.Raw, _ABSENT)],
        rename={"next": names[0], "own": "_id"},
    )


def _decode(decoder: msgspec.json.Decoder[Any], piece: Piece, if_shape_differs: str = "") -> Any:
    raw = piece.raw
    if piece.problem:
        raise BadInput(piece.line, piece.problem)
    try:
        if not raw.isascii():
            # msgspec does not look into the text it skips.
            str(raw, "utf-8")
        return decoder.decode(raw)
    except UnicodeDecodeError as error:
        raise BadInput(piece.line, f"it is not UTF-8 (byte {error.start + 1:,} of it)") from error
    except msgspec.ValidationError as error:
        if raw.lstrip().startswith(b"{") and if_shape_differs:
            raise BadInput(piece.line, if_shape_differs) from error
        raise BadInput(piece.line, "it is not a JSON object") from error
    except msgspec.DecodeError as error:
        told = str(error).removeprefix("JSON is malformed: ")
        raise BadInput(piece.line, f"it is not JSON: {told}") from error
    except RecursionError as error:
        raise BadInput(piece.line, "it is nested too deep") from error
