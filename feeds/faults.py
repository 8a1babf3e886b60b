"""What is wrong with a text that is no document, in words and with its place.

Pure. Asked only once something is refused, so that reading stays quick. Places count bytes of UTF-8 from 0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from feeds.errors import BadRequest

_SHOWN_CHARACTERS_MAX = 80

_MARK = b"\xef\xbb\xbf"
_PLACED = re.compile(r"(.*) \(byte (\d+)\)")
_TOLD_BEHIND = ("trailing characters", "invalid escape character", "invalid character in unicode escape")
_HIGH_AT_END = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?s:.{0,5})\Z")
_LOW = re.compile(rb"\\u[dD][c-fC-F]")
_NOT_FINITE = re.compile(rb"NaN|Infinity")
_LONE = re.compile("[\ud800-\udfff]")
_ONE_VALUE = "Send one valid JSON value."
_UTF16 = "It looks like UTF-16; encode it as UTF-8."
_PAIR = "Send both halves of a surrogate pair, or the character itself as UTF-8."


def shown(text: str) -> str:
    """A text as a reason quotes it: in quotes, escaped, and not longer than a line."""
    return repr(text if len(text) <= _SHOWN_CHARACTERS_MAX else text[:_SHOWN_CHARACTERS_MAX] + "…")


def unreadable(text: bytes, what: str, error: Exception) -> BadRequest:
    """The refusal of a text that the parser of JSON has refused with `error`."""
    try:
        text.decode()
    except UnicodeDecodeError as fault:
        return _not_utf8(text, what, fault.start)
    told = str(error).removeprefix("JSON is malformed: ")
    found = _PLACED.fullmatch(told)
    if found is not None:
        return _malformed(text, what, found[1], int(found[2]))
    if told.startswith(("Number out of range", "Integer value out of range")):
        return BadRequest(
            f"{what} holds a number that is too large: integers have 64 bits, others reach to 1.8e308",
            hint="Send larger numbers as strings.",
        )
    if told.startswith("Input data was truncated"):
        lone = _lone_at_end(text)
        if lone is not None:
            return _lone_escape(text, what, lone)
        told = "it ends in the middle" if text.strip() else "it is empty"
    return BadRequest(f"{what} is not JSON: {told}", hint=_ONE_VALUE)


def _malformed(text: bytes, what: str, told: str, at: int) -> BadRequest:
    """The refusal of what stands `at` a byte, as the parser counts: some faults are told behind what is wrong."""
    if "surrogate" in told:
        return _lone_escape(text, what, at - 6 if "end of" in told or _LOW.match(text, at - 6) else at - 12)
    if told.startswith(_TOLD_BEHIND):
        at -= 1
    hint = _ONE_VALUE
    if text.startswith(_MARK):
        told, at, hint = "a byte order mark", 0, "Leave the mark out."
    elif b"\0" in text[:2]:
        hint = _UTF16
    elif (number := _NOT_FINITE.match(text, at)) is not None:
        told, hint = number[0].decode(), "JSON has no NaN and no Infinity."
    return BadRequest(f"{what} is not JSON: {told} at byte {at}", hint=hint)


def _not_utf8(text: bytes, what: str, at: int) -> BadRequest:
    hint = "Encode the text as UTF-8."
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):
        hint = _UTF16
    elif text.startswith(b"\x1f\x8b"):
        hint = "It looks like gzip; send the text as it is, in UTF-8."
    if text[at] == 0xED and text[at + 1 : at + 2] >= b"\xa0":
        return BadRequest(f"{what} is not UTF-8: a lone surrogate at byte {at}", hint=_PAIR)
    return BadRequest(f"{what} is not UTF-8: 0x{text[at]:02x} at byte {at}", hint=hint)


def _lone_escape(text: bytes, what: str, at: int) -> BadRequest:
    return BadRequest(f"{what} holds a lone surrogate: {text[at : at + 6].decode()} at byte {at}", hint=_PAIR)


def _lone_at_end(text: bytes) -> int | None:
    """Where the first half of a pair stands so near to the end that the parser missed the second behind the end."""
    tail = _HIGH_AT_END.search(text, max(0, len(text) - 11))
    if tail is None or b"\\u".startswith(text[tail.start() + 6 : tail.start() + 8]):
        return None
    before = text[: tail.start()]
    return tail.start() if (len(before) - len(before.rstrip(b"\\"))) % 2 == 0 else None


def place_of(wanted: Any, value: Any) -> str | None:
    """The path of the first place at which a value stands in another: `a/0/b`; None where it does not."""
    return next(("/".join(path) for path, inner in _walk(value, ()) if inner is wanted), None)


def lone_surrogate(value: Any) -> BadRequest | None:
    """The refusal of a value with a lone surrogate in a key or a text, by its path; None if it has none."""
    for path, inner in _walk(value, ()):
        texts = inner if isinstance(inner, dict) else [inner]
        for text in texts:
            lone = _LONE.search(text) if isinstance(text, str) else None
            if lone is not None:
                where = f"The text at {shown('/'.join(path))}" if text is inner else f"The key {shown(text)}"
                return BadRequest(
                    f"{where} holds a lone surrogate: U+{ord(lone[0]):04X} at character {lone.start()}",
                    hint="Texts are valid Unicode: join both halves of a surrogate pair, or take the lone one out.",
                )
    return None


def _walk(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _walk(inner, (*path, str(key)))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from _walk(inner, (*path, str(at)))


def repeated_key(text: bytes) -> str | None:
    """A key that an object in this text has twice, if one has; the text is JSON."""
    found: list[str] = []

    def look(pairs: list[tuple[str, None]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                found.append(key)
            seen.add(key)

    # Numbers are not looked at, and would be slow to make where they are long.
    json.loads(text, object_pairs_hook=look, parse_int=len, parse_float=len)
    return found[0] if found else None
