"""The values that the blob files take and give."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from enum import IntEnum

import msgspec

CHUNK_BYTES_MAX = 1024 * 1024  # of one row of the index: what a read has to look through at least


class State(IntEnum):
    """What became of a byte. One that no row covers was never written."""

    WRITTEN = 1
    TRIMMED = 2


class Tag(IntEnum):
    """Who worked out a checksum."""

    CLIENT = 1  # whoever sent the bytes; verified here
    SERVER = 2  # here, when the bytes arrived
    SPLIT = 3  # here, when a chunk that had been verified was divided


@dataclass(frozen=True, slots=True)
class BlobSettings:
    """The limits of a folder of blob files."""

    file_bytes_max: int = 1024 * 1024 * 1024
    """A file that would grow beyond it is followed by a new one; a single larger reservation gets its own."""
    waiting_bytes_max: int = 64 * 1024 * 1024
    """Bytes handed to the disk and not yet acknowledged; beyond it writers wait."""
    waiting_max: int = 8_192
    """Writes and trims not yet acknowledged; beyond it writers wait."""
    prefixes_max: int = 64
    """Prefixes that files are open for appending under; beyond it the one used longest ago gets a new file later."""
    handles_max: int = 128
    """Files kept open."""


class Placed(msgspec.Struct, frozen=True):
    """Where bytes went, or may go."""

    file: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Appending:
    """A chunk on its way: its place is certain, and nothing else will ever stand there.

    `done` gives the same place once the chunk is durable, or raises why it is not.
    """

    placed: Placed
    done: Future[Placed]


class Row(msgspec.Struct, frozen=True):
    """A range of a file as the index has it: a chunk with its checksum (crc32c), or trimmed bytes."""

    offset: int
    size: int
    state: State
    checksum: int | None = None
    tag: Tag | None = None

    @property
    def end(self) -> int:
        """Behind its last byte."""
        return self.offset + self.size


class Chunk(msgspec.Struct, frozen=True):
    """A whole chunk as it was read, verified."""

    offset: int
    data: bytes
    checksum: int
    tag: Tag


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file as the index knows it."""

    name: str
    end: int
    """Behind its last written or trimmed byte."""
    written: int
    """Bytes that can be read."""
    trimmed: int
    """Bytes given up."""
    current: bool
    """Whether it is still appended to in this run."""
    removed: bool
    epoch_written: int
    """The epoch in which bytes were last written or trimmed."""
    epoch_noted: int
    """The epoch in which its metadata was last set."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A range that cannot be read any more. `code` is that of the error that a reader gets."""

    file: str
    offset: int
    size: int
    code: str
    found: float
    """When, as Unix time in seconds."""


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """What one step of the scrubber did."""

    chunks: int
    bytes: int
    damaged: list[Damage]
    finished: bool
    """Whether it came to the end of the last file; the next step begins anew."""
