"""How a leaf value stands in the path index: bytes whose order is the order of JSON values.

Pure. null < false < true < numbers (by value) < texts (by code point) < {} < []. Texts are cut, so whoever
looks a long text up has to check it against the document again.
"""

from __future__ import annotations

import math
from struct import Struct
from typing import Any

TEXT_BYTES_MAX = 100  # of a text value in a path and in the index; from the design, so that topics stay short
_SURELY_SHORT = TEXT_BYTES_MAX // 4  # characters

_NULL = b"\x10"
_FALSE = b"\x20"
_TRUE = b"\x21"
_NUMBER = b"\x30"
_TEXT = b"\x40"
_OBJECT = b"\x50"
_ARRAY = b"\x60"

_double = Struct(">d").pack
_from_long = Struct(">Q").unpack
_tagged = Struct(">cQ").pack
_residual = Struct(">H").pack
_SIGN = 1 << 63
_ALL = (1 << 64) - 1
_EXACT = 1 << 53  # beyond this a double no longer holds every integer


def cut_text(text: str) -> str:
    """The text, cut at 100 bytes of UTF-8 on a character boundary."""
    if len(text) <= _SURELY_SHORT:
        return text
    encoded = text.encode()
    if len(encoded) <= TEXT_BYTES_MAX:
        return text
    return encoded[:TEXT_BYTES_MAX].decode(errors="ignore")


def encode_number(value: float) -> bytes:
    """Nine bytes that sort as numbers do; integers beyond 2^53 get two more, so that none fall together."""
    if type(value) is not float and not -_EXACT <= value <= _EXACT:
        return _large_integer(int(value))
    (bits,) = _from_long(_double(value + 0.0))  # + 0.0 makes -0.0 the same as 0.0
    return _tagged(_NUMBER, _ALL - bits if bits >= _SIGN else bits + _SIGN)


def _large_integer(value: int) -> bytes:
    as_double = float(value)
    if as_double > value:
        as_double = math.nextafter(as_double, -math.inf)
    rest = value - int(as_double)
    return encode_number(as_double) + (_residual(rest) if rest else b"")


def encode_value(value: Any) -> bytes:
    """The leaf value as ordered bytes; `value` is what JSON can hold, `{}` and `[]` included."""
    kind = type(value)
    if kind is str:
        return _TEXT + (value if len(value) <= _SURELY_SHORT else cut_text(value)).encode()
    if kind is int or kind is float:
        return encode_number(value)
    if value is None:
        return _NULL
    if kind is bool:
        return _TRUE if value else _FALSE
    return _OBJECT if kind is dict else _ARRAY


def text_prefix(prefix: str) -> bytes:
    """What every indexed text that begins with `prefix` begins with (as far as texts are kept)."""
    return _TEXT + cut_text(prefix).encode()


def after_prefix(prefix: bytes) -> bytes:
    """The least bytes that are greater than everything that begins with `prefix` (never all 0xff here)."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes((trimmed[-1] + 1,))
