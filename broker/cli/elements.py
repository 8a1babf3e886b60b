"""Cutting a stream of bytes into JSON texts, without reading them.

Pure: takes an iterable of chunks, gives the raw bytes of one text after the other with the line each begins
on, and holds no more than the text at hand. What a text says is checked by whoever takes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from broker.cli.inputs import BadInput

__all__ = ["PIECE_BYTES_MAX", "Piece", "elements", "elements_of_member", "lines"]

PIECE_BYTES_MAX = 64 << 20
"""A text longer than this is refused: no document may be as large, so it is a missing end instead."""

_BOM = b"\xef\xbb\xbf"
_SPACE = re.compile(rb"[ \t\r\n]*")
_TO_NEXT_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")*+[\[\]{}]', re.DOTALL)
_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_BARE = re.compile(rb'[^ \t\r\n,\[\]{}"]++')


class Piece(NamedTuple):
    """One text as it stood in the input, and the line (from 1) that it begins on.

    Where a reader found no text but a `problem`, `raw` is empty.
    """

    line: int
    raw: bytes
    problem: str = ""


def lines(chunks: Iterable[bytes], bytes_max: int = PIECE_BYTES_MAX, *, blank: bool = False) -> Iterator[Piece]:
    """Each line without its end, blank ones only with `blank`. Raises BadInput for one beyond `bytes_max`."""
    number = 0
    begun: list[bytes] = []
    begun_bytes = 0
    for chunk in _without_bom(chunks):
        if b"\n" not in chunk:
            begun.append(chunk)
            begun_bytes += len(chunk)
            _check_size(begun_bytes, bytes_max, number + 1)
            continue
        whole = b"".join((*begun, chunk)).split(b"\n")
        begun = [whole.pop()]
        begun_bytes = len(begun[0])
        for raw in whole:
            number += 1
            if blank or (raw and not raw.isspace()):
                yield Piece(number, raw)
    last = b"".join(begun)
    if last and not last.isspace():
        yield Piece(number + 1, last)


def elements(chunks: Iterable[bytes], bytes_max: int = PIECE_BYTES_MAX) -> Iterator[Piece]:
    """Each element of one JSON array, or each of several JSON texts that follow one another.

    Raises BadInput, naming the line, where no element can be told: an array that does not end, a missing
    comma, an element beyond `bytes_max`. What came before was yielded.
    """
    window = _Window(chunks, bytes_max)
    if window.next_byte() == b"[":
        window.take(1)
        yield from _array(window)
        if window.next_byte():
            raise BadInput(window.line, "something follows the end of the array", skippable=False)
        return
    while window.next_byte():
        yield window.take_value()


def elements_of_member(chunks: Iterable[bytes], name: str, bytes_max: int = PIECE_BYTES_MAX) -> Iterator[Piece]:
    """Each element of the array that is the first member, `name`, of the object that begins here.

    What follows the array is not looked at. Raises BadInput as `elements` does.
    """
    window = _Window(chunks, bytes_max)
    for expected in (b"{", b'"%b"' % name.encode(), b":", b"["):
        if window.next_byte() != expected[:1] or window.take_text(len(expected)) != expected:
            raise BadInput(window.line, f'no object that begins with "{name}": [', skippable=False)
    yield from _array(window)


def _array(window: _Window) -> Iterator[Piece]:
    if window.next_byte() == b"]":
        window.take(1)
        return
    while True:
        yield window.take_value()
        separator = window.next_byte()
        if separator not in (b",", b"]"):
            found = repr(separator.decode("latin-1")) if separator else "the end of the input"
            raise BadInput(window.line, f"after an element comes , or ], not {found}", skippable=False)
        window.take(1)
        if separator == b"]":
            return


class _Window:
    """The part of the input that is held, and the place reached in it."""

    def __init__(self, chunks: Iterable[bytes], bytes_max: int) -> None:
        self.line = 1
        self._chunks = iter(_without_bom(chunks))
        self._bytes_max = bytes_max
        self._held = b""
        self._at = 0

    def next_byte(self) -> bytes:
        """The next byte that is no white space, not taken yet; empty at the end."""
        while True:
            spaces = _SPACE.match(self._held, self._at)
            assert spaces is not None
            self.take(spaces.end() - self._at)
            if self._at < len(self._held):
                return self._held[self._at : self._at + 1]
            if not self._read_more():
                return b""

    def take(self, size: int) -> bytes:
        """The next `size` bytes, which are held."""
        taken = self._held[self._at : self._at + size]
        self.line += taken.count(b"\n")
        self._at += size
        return taken

    def take_text(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end."""
        while len(self._held) - self._at < size and self._read_more():
            continue
        return self.take(size)

    def take_value(self) -> Piece:
        """The JSON text that begins after white space."""
        first = self.next_byte()
        line = self.line
        if first in (b"{", b"["):
            return Piece(line, self.take(self._bracketed()))
        if first == b'"':
            return Piece(line, self.take(self._matched(_TEXT, can_grow=False)))
        if first in (b"", b",", b"]", b"}"):
            found = repr(first.decode()) if first else "the end of the input"
            raise BadInput(line, f"a document is expected here, not {found}", skippable=False)
        return Piece(line, self.take(self._matched(_BARE, can_grow=True)))

    def _bracketed(self) -> int:
        """The size of the object or array that begins here: up to the bracket that closes the first one."""
        depth = 0
        size = 0
        while True:
            step = _TO_NEXT_BRACKET.match(self._held, self._at + size)
            if step is None:
                if not self._read_more():
                    raise BadInput(self.line, "the document that begins here does not end", skippable=False)
                continue
            size = step.end() - self._at
            depth += 1 if self._held[step.end() - 1] in b"{[" else -1
            if depth == 0:
                return size

    def _matched(self, form: re.Pattern[bytes], *, can_grow: bool) -> int:
        """The size of what has this form here; with `can_grow` it may go on beyond what is held."""
        while True:
            found = form.match(self._held, self._at)
            if found is not None and not (can_grow and found.end() == len(self._held)):
                return found.end() - self._at
            if not self._read_more():
                if found is not None:
                    return found.end() - self._at
                raise BadInput(self.line, "the text that begins here does not end", skippable=False)

    def _read_more(self) -> bool:
        """Hold at least twice as much as is left, so that looking again from the start stays linear."""
        rest = self._held[self._at :]
        _check_size(len(rest), self._bytes_max, self.line)
        parts = [rest]
        wanted = max(1, len(rest))
        for chunk in self._chunks:
            parts.append(chunk)
            wanted -= len(chunk)
            if wanted <= 0:
                break
        self._held = b"".join(parts)
        self._at = 0
        return len(self._held) > len(rest)


def _without_bom(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks without a byte order mark at their start, and without empty ones."""
    head: bytes | None = b""
    for chunk in chunks:
        if head is None:
            if chunk:
                yield chunk
            continue
        head += chunk
        if len(head) >= len(_BOM):
            if rest := head.removeprefix(_BOM):
                yield rest
            head = None
    if head:
        yield head


def _check_size(size: int, bytes_max: int, line: int) -> None:
    if size > bytes_max:
        reason = f"what begins here is longer than {bytes_max:,} bytes"
        raise BadInput(line, reason, skippable=False)
