"""What keeps the bytes of attachments: contents, each a copy of some bytes at a place of its own.

A copy is made once, never changed, and never made again under the same name. `Contents` has one implementation on the
blob files of this machine (`feeds.blobs.local`) and one on object stores and plain directories
(`feeds.blobs.objects`); `open_contents` (`feeds.blobs.opening`) picks one. It knows of no document: which
copies are needed is for the caller to know.

All calls block, and may come from any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from feeds.errors import BadChecksum, PartialRead

PIECE_BYTES_MAX = 1024 * 1024  # what a reader holds at a time, and what is verified at a time
NAMES_MAX = 500  # asked about at once: a bounded statement
LEFT_S = 3600.0  # as the lease of an uploaded content: within this time its uploader has said what it is for

LOST = (BadChecksum, PartialRead)
"""What reading a damaged copy raises: bytes are not what was written, or are not there (also when it was removed).
No retry helps; the same content stored again does."""

Known = Callable[[Sequence[str]], set[str]]
"""Which of these names (at most `NAMES_MAX`) somebody knows of: as the place of a content, or as the state of an
upload. A name in neither is nobody's."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A copy that is complete and durable."""

    place: str
    """Where it is: opaque, at most 200 characters of printable ASCII, and never used for another copy."""
    length: int
    sha256: bytes
    md5: bytes


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """What a step of scrubbing has looked at."""

    bytes: int
    damaged: tuple[str, ...] = ()
    """The names of copies in which something is damaged, each once."""
    is_done: bool = False
    """Whether this step came to the end of everything; the next one begins at the start."""


class Incoming(Protocol):
    """A content on its way in: written from its start to its end by one thread at a time.

    It ends with one of `finish`, `suspend` and `abort`; whatever is called after that raises RuntimeError (save
    `abort`, which then does nothing). As a context manager it is aborted where the block did not end it. TooLarge and
    BadRequest leave it as it was. Any other error of `write`, `finish` and `suspend` breaks it: it can then only be
    aborted, or suspended to be resumed later with what became durable.
    """

    @property
    def size(self) -> int:
        """How many bytes were given so far, with those from before a `resume`."""

    @property
    def state(self) -> str:
        """What `resume` takes to go on with this one, after a crash too: one name from `begin` on, so that it may be
        stored once, before the first byte. It is the caller's to answer for in `leftovers`, and to `remove` if it is
        given up. After `finish`, the place counts instead: it may be another name."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes. Waits where too much is on its way already. The buffer may be used again afterwards.
        TooLarge beyond the length that was given to `begin`."""

    def finish(self) -> Stored:
        """Wait until all of it is durable. BadRequest when it is shorter than the length given to `begin`."""

    def suspend(self) -> str:
        """Wait until all of it is durable, and let go; gives the `state`, with which `resume` goes on."""

    def abort(self) -> None:
        """Give it up: what was written is removed. Never raises for what the store cannot do now: what stays is
        found by `leftovers`."""

    def __enter__(self) -> Incoming: ...

    def __exit__(self, *_: object) -> None: ...


class Contents(Protocol):
    """Copies of bytes by place. Errors come out as SpileError: Unavailable (try again), StorageFull, and those of
    `LOST` for a copy that is not what it was, with its `place` in the details."""

    @property
    def identity(self) -> str:
        """Random, made when this store of contents was, and kept beside the bytes: by this a database knows again
        where its contents are."""

    def claim(self, owner: str) -> None:
        """Say which database these contents are for: the first word counts, for good. BadRequest for another one:
        two databases with the same contents would each remove what the other one keeps, as `leftovers`."""

    def begin(self, length: int | None = None) -> Incoming:
        """A new content; with a `length`, it will have exactly that."""

    def resume(self, state: str, length: int | None = None) -> Incoming:
        """Go on with a content that was suspended, or whose process died.

        Its `size` says what is there: at least what was there at the last `suspend`, and after a crash maybe more, or
        nothing; the caller goes on from there. All of that is read again to work out its digests (some 300 MB/s), so
        keep an upload open between its requests where that can be. Conflict while it is being written; Damaged
        where bytes that were there are not; BadRequest for no state at all.
        """

    def read(self, place: str, offset: int, length: int) -> Iterator[bytes]:
        """The bytes of this range, verified, in pieces of at most `PIECE_BYTES_MAX`, `length` of them in all.
        Whatever hinders that raises, also in the middle; nothing unverified is given out."""

    def remove(self, name: str) -> None:
        """Remove a copy, or what a suspended one holds. To be repeated freely: what is not there is removed.
        Conflict while it is being written."""

    def leftovers(self, known: Known, *, left_s: float = LEFT_S) -> int:
        """Remove the copies that nobody knows of, which uploads left behind when their process died; how many.

        Removed is what was in nobody's hands in an earlier call too, at least `left_s` ago, and has not grown since:
        an uploader may be about to tell of it. (So no clock of any machine is trusted.) What is being written
        here is spared. Goes through everything, in bounded pages: meant for once in an hour or a day.
        """

    def scrub(self, bytes_max: int) -> Scrubbed:
        """Read on from where the last step ended, about so many bytes, and tell what is damaged. Where the store
        does this by itself (S3), nothing is read and `is_done` at once."""

    def check(self, progress: Callable[[int], None] | None = None) -> Iterator[str]:
        """What is wrong with the store of contents itself, a sentence each; `progress` is told of bytes read."""

    def stats(self) -> dict[str, Any]:
        """Plain values for metrics: `incoming`, `in_flight_bytes`, and what the implementation adds."""

    def close(self) -> None:
        """Let go of everything. What is on its way in is lost, unless it was suspended."""
