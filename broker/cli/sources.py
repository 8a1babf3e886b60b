"""Opening what documents are read from: a file or standard input, unpacked, its format told."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import IO, Protocol, cast

from broker.cli.csvdocs import DELIMITERS, csv_documents
from broker.cli.elements import Piece, elements, lines
from broker.cli.inputs import BadInput, BrokenInput
from feeds.errors import BadRequest, NotFound

__all__ = ["Format", "Source", "open_source", "size_bytes"]

CHUNK_BYTES = 256 * 1024
_PACKED_SUFFIXES = (".gz", ".xz", ".bz2")
_JSON_SUFFIXES = (".ndjson", ".jsonl", ".json")
_DAMAGED = (gzip.BadGzipFile, lzma.LZMAError, zlib.error)


class Format(StrEnum):
    """What a file of documents is written in."""

    NDJSON = "ndjson"
    JSON = "json"
    CSV = "csv"


class _Readable(Protocol):
    """What gives bytes as they come."""

    def read1(self, size: int, /) -> bytes: ...


class Source:
    """One open input: its pieces, and how many bytes of it were taken (as packed, for progress)."""

    def __init__(self, name: str, counted: _Counted, chunks: Iterator[bytes], form: Format) -> None:
        self.name = name
        self.format = form
        self._counted = counted
        self._chunks = chunks

    @property
    def taken_bytes(self) -> int:
        return self._counted.taken

    def pieces(self, *, as_text: bool = False) -> Iterator[Piece]:
        """Every document's text in order. Raises BadInput where no more texts can be told, BrokenInput where no more
        bytes can be read."""
        if self.format is Format.CSV:
            return csv_documents(self._chunks, as_text=as_text)
        return elements(self._chunks) if self.format is Format.JSON else lines(self._chunks)


@contextmanager
def open_source(name: str, form: Format | None = None) -> Iterator[Source]:
    """Open a file, or standard input for `-`; gzip, xz and bzip2 are unpacked.

    Raises NotFound for a file that is not there, BadRequest for one that cannot be read or whose format
    cannot be told.
    """
    with _opened(name) as file:
        name = "standard input" if name == "-" else name
        counted = _Counted(file)
        chunks = _chunks(_unpacked(io.BufferedReader(counted, CHUNK_BYTES), name), name)
        head = _head(chunks)
        yield Source(name, counted, chain((head,), chunks), form or _format_of(head, name))


def check_files(names: Iterable[str]) -> None:
    """Raises as `open_source` for files that cannot be opened; leaves standard input, pipes and devices alone."""
    for name in names:
        path = Path(name)
        if name != "-" and (path.is_file() or path.is_dir() or not path.exists()):
            with _opened(name):
                pass


def size_bytes(names: Iterable[str]) -> int | None:
    """How many bytes these files hold together; None if that is not known, as for standard input."""
    total = 0
    for name in names:
        path = Path(name)
        if name == "-" or not path.is_file():
            return None
        total += path.stat().st_size
    return total


class _Counted(io.RawIOBase):
    """A binary file that counts what was read of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        size = cast(io.RawIOBase, self._file).readinto(buffer) or 0
        self.taken += size
        return size


@contextmanager
def _opened(name: str) -> Iterator[IO[bytes]]:
    if name == "-":
        yield sys.stdin.buffer
        return
    with ExitStack() as stack:
        try:
            file = stack.enter_context(Path(name).open("rb", buffering=0))
        except FileNotFoundError as error:
            raise NotFound(f"the file {name} is not there", hint="Check the path; - is standard input.") from error
        except OSError as error:
            hint = "Check the path and its rights."
            raise BadRequest(f"{name} cannot be read: {error.strerror}", hint=hint) from error
        yield file


def _unpacked(packed: io.BufferedReader, name: str) -> _Readable:
    try:
        magic = packed.peek(6)[:6]
    except OSError as error:
        hint = "Check the file and its disk."
        raise BrokenInput(f"reading {name} failed: {error.strerror}", hint=hint) from error
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=packed)
    if magic.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile(packed)
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(packed)
    if magic.startswith((b"\x28\xb5\x2f\xfd", b"PK\x03\x04")):
        raise BadRequest(f"{name} is packed as zstd or zip", hint="Unpack it first, and pipe it in as -.")
    return packed


def _chunks(file: _Readable, name: str) -> Iterator[bytes]:
    """What is there, as soon as it is: of a file that breaks off everything before that place."""
    while True:
        try:
            chunk = file.read1(CHUNK_BYTES)
        except EOFError as error:
            raise BrokenInput(f"{name} ends early: a part of the packed file is missing") from error
        except _DAMAGED as error:
            raise BrokenInput(f"{name} is damaged, and cannot be unpacked further: {error}") from error
        except OSError as error:
            if error.errno is None:
                # bzip2 tells damage so.
                raise BrokenInput(f"{name} is damaged, and cannot be unpacked further: {error}") from error
            hint = "Check the file and its disk."
            raise BrokenInput(f"reading {name} failed: {error.strerror}", hint=hint) from error
        if not chunk:
            return
        yield chunk


def _head(chunks: Iterator[bytes]) -> bytes:
    """The first line at least: a pipe may give less than that at a time."""
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= CHUNK_BYTES or b"\n" in head.lstrip():
            break
    return head


def _format_of(head: bytes, name: str) -> Format:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in text[:1024]:
        raise BadRequest(f"{name} is not UTF-8 text", hint="Convert it to UTF-8 (iconv -f UTF-16 -t UTF-8).")
    first_line = text.split(b"\n", 1)[0].strip()
    if text.startswith(b"[") or first_line == b"{":
        # A line that is just { begins documents that go over several lines.
        return Format.JSON
    suffix = _suffix(name)
    if not text or text.startswith(b"{") or suffix in _JSON_SUFFIXES:
        return Format.NDJSON
    if suffix in (".csv", ".tsv") or any(delimiter.encode() in first_line for delimiter in DELIMITERS):
        return Format.CSV
    raise BadInput(1, f"{name} holds neither JSON nor a first row of field names", skippable=False)


def _suffix(name: str) -> str:
    path = Path(name.lower())
    while path.suffix in _PACKED_SUFFIXES:
        path = path.with_suffix("")
    return path.suffix
