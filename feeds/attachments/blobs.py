"""The contents of a store's attachments: kept once each, read by their digest, collected when nobody names them.

Rows are in `feeds.storage`, bytes in `feeds.blobs`, which is opened when it is first needed.
"""

from __future__ import annotations

import logging
import threading
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import md5, sha256
from pathlib import Path
from typing import Any

from feeds.attachments.given import Given
from feeds.attachments.removing import Removed, Removing
from feeds.attachments.removing import Where as Where
from feeds.attachments.stubs import Content
from feeds.blobs.contents import LOST, Contents, Stored
from feeds.errors import BadRequest, NotFound, SpileError
from feeds.limits import BLOBS_KEPT
from feeds.storage.blobrows import Blob, StoredBlobs
from feeds.storage.collector import Collector
from feeds.storage.database import Database
from feeds.storage.statements import Statements
from feeds.storage.transaction import Transaction
from feeds.storage.writer import Writer

logger = logging.getLogger("spile.blobs")

LEFTOVERS_EVERY = 3600.0  # seconds
SCRUB_BYTES_PER_SECOND = 1024 * 1024  # a disk that has other work to do hardly notices
SCRUB_BYTES = 60 * SCRUB_BYTES_PER_SECOND  # of one round of upkeep, if there is one a minute
HEAD_BYTES = 64 * 1024  # up to this a content is hashed before it is written: the same again costs no disk
MENDED_BY = "Attach the same file again, which mends it everywhere, or restore a backup."
_TOGETHER = 32  # small contents on their way to the disk at once: they share its syncs


class Blobs:
    """The contents of one store. Thread-safe; everything blocks."""

    def __init__(
        self,
        database: Database,
        statements: Statements,
        writer: Writer,
        clock: Callable[[], float],
        where: Where | None,
        kept: float = BLOBS_KEPT,
        owner: Callable[[], str] | None = None,
    ) -> None:
        """`owner` is what the place of the contents is told whose they are: no other store may use it then."""
        self.rows = StoredBlobs(database, statements, writer, clock)
        self.collector = Collector(self, database, statements, writer, clock, kept)
        self._clock = clock
        self._where = where
        self._owner = owner
        self._kept = kept
        self._guard = threading.Lock()
        self._opening = threading.Lock()
        self._contents: Contents | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._removing = Removing(where)
        self._leftovers_at = clock()

    # -- where they are

    @property
    def is_there(self) -> bool:
        """Whether this store was opened with a place for contents."""
        return self._where is not None

    @property
    def contents(self) -> Contents:
        """Where the bytes are; opened at the first call. BadRequest where the store has no such place, or where it
        is another one than before; StoreLocked while another process has it open."""
        with self._opening:
            if self._contents is None:
                self._contents = self._open()
            return self._contents

    def _open(self) -> Contents:
        if self._where is None:
            raise BadRequest(
                "This store has no place for attachments",
                hint="Open it with `blobs`, a folder or the URL of an object store.",
            )
        from feeds.blobs.opening import open_contents

        own = isinstance(self._where, (str, Path))
        contents = open_contents(self._where) if isinstance(self._where, (str, Path)) else self._where
        try:
            self.rows.belong_to(contents.identity)
            if self._owner is not None:
                contents.claim(self._owner())
        except BaseException:
            if own:
                contents.close()
            raise
        return contents

    def close(self) -> None:
        """Let go of the bytes; what is on its way in is lost."""
        with self._guard:
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown()
        with self._opening:
            contents, self._contents = self._contents, None
        if contents is not None:
            contents.close()

    # -- in

    def keep(self, parts: Sequence[bytes]) -> list[Content]:
        """Store contents that are at hand; those that are here already are not stored again."""
        digests = [sha256(part).hexdigest() for part in parts]
        there = self._still_kept(digests)
        new = {digest: part for digest, part in zip(digests, parts, strict=True) if digest not in there}
        if len(new) > 1:
            stored = list(self._pool().map(self._store, new.values()))
        else:
            stored = [self._store(part) for part in new.values()]
        if stored:
            there.update((content.sha256, content) for content in self.adopt(stored))
        return [there[digest] for digest in digests]

    def _still_kept(self, digests: Sequence[str]) -> dict[str, Content]:
        """Those that are here, sound, and stay so for a while."""
        found = {digest: blob for digest, blob in self.rows.find(digests).items() if not blob.is_damaged}
        recent = self._clock() - self._kept / 2
        old = [digest for digest, blob in found.items() if blob.at < recent]
        if old:
            renewed = self.rows.renew(old)
            found = {digest: blob for digest, blob in found.items() if blob.at >= recent or digest in renewed}
        return {digest: blob.content for digest, blob in found.items()}

    def _store(self, data: bytes) -> Stored:
        with self.contents.begin(len(data)) as incoming:
            incoming.write(data)
            return incoming.finish()

    def _pool(self) -> ThreadPoolExecutor:
        with self._guard:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(_TOGETHER, "spile-attachments")
            return self._threads

    def receive(
        self,
        pieces: Iterable[bytes],
        *,
        length: int | None = None,
        announced: Given | None = None,
        name: str | None = None,
    ) -> Content:
        """Store a content that comes in pieces; `length` is how long it has to be, `announced` what else it has to
        agree with, `name` that of its attachment. Whatever hinders that, nothing of it stays."""
        contents = self.contents
        coming = iter(pieces)
        head, is_all = _head(coming)
        if is_all and length in (None, len(head)):
            if announced is not None:
                announced.check(name, _content(head))
            return self.keep([head])[0]  # written only if it is not here yet
        with contents.begin(length) as incoming:
            incoming.write(head)
            for piece in coming:
                incoming.write(piece)
            stored = incoming.finish()
        return self.accept(stored, announced, name)

    def accept(
        self,
        stored: Stored,
        announced: Given | None = None,
        name: str | None = None,
        first: Callable[[Transaction], None] | None = None,
    ) -> Content:
        """Take a complete copy that agrees with what was announced; any other is removed, and refused. `first` is as
        for `StoredBlobs.keep`."""
        content = content_of(stored)
        if announced is not None:
            try:
                announced.check(name, content)
            except SpileError:
                self._drop([stored.place])
                raise
        return self.adopt([stored], first)[0]

    def adopt(self, stored: Sequence[Stored], first: Callable[[Transaction], None] | None = None) -> list[Content]:
        """Remember complete copies; those of contents that are here already are removed."""
        contents = [content_of(each) for each in stored]
        copies = {content.sha256: (content, each.place) for content, each in zip(contents, stored, strict=True)}
        doubles = [each.place for each in stored]
        for _, place in copies.values():
            doubles.remove(place)
        self._drop(doubles + self.rows.keep(copies, first))
        return contents

    def _drop(self, places: Sequence[str]) -> None:
        """Remove copies that nobody was led to. What cannot be removed now is found by `leftovers`."""
        for place in places:
            try:
                self.contents.remove(place)
            except SpileError as error:
                logger.warning("a copy that is not needed stays for now: %s", error)

    # -- out

    def find(self, digest: str) -> Blob:
        """The content with this sha256 in hex; NotFound if it is not here."""
        found = self.rows.find([digest]).get(digest)
        if found is None:
            raise NotFound(f"The content sha256-{digest} is not here", hint="Store it again.")
        return found

    def read(self, digest: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Bytes of a content, verified, in pieces of at most 1 MiB; BadRequest for a range that it does not have.

        One that turns out to be damaged is remembered as such, so that storing the same again mends it.
        """
        blob = self.find(digest)
        if not 0 <= offset <= blob.content.length or (length is not None and not length >= 0):
            raise BadRequest(
                f"The content has {blob.content.length} bytes, and the range begins at {offset}",
                hint="Ask for a range within it.",
                length=blob.content.length,
            )
        end = blob.content.length if length is None else min(offset + length, blob.content.length)
        return self._pieces(blob, offset, end)

    def _pieces(self, blob: Blob, offset: int, end: int) -> Iterator[bytes]:
        while offset < end:
            try:
                with self._removing.in_use(blob.place):
                    for piece in self.contents.read(blob.place, offset, end - offset):
                        yield piece
                        offset += len(piece)
            except LOST as error:
                blob = self._lost(blob, error)

    def _lost(self, blob: Blob, error: SpileError) -> Blob:
        """Another copy of a content that cannot be read, if there is one by now."""
        again = self.rows.find([blob.content.sha256]).get(blob.content.sha256)
        if again is None:
            raise NotFound(f"The content {blob.content.digest} was given up while it was read") from error
        if again.place != blob.place:
            return again
        self.rows.mark_damaged([blob.place])
        raise type(error)(
            f"The content {blob.content.digest} is damaged: {error.reason}",
            hint=MENDED_BY,
            digest=blob.content.digest,
        ) from error

    # -- upkeep

    def remove(self, places: Sequence[str]) -> Removed:
        """Remove the bytes of copies that stand in the trash, but for those that are being read."""
        return self._removing.remove(places, lambda place: self.contents.remove(place))

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Nothing is removed for good meanwhile: by this process, and where contents are in a folder by any of this
        machine."""
        with self._removing.holding():
            yield

    @contextmanager
    def readable(self) -> Iterator[Contents | None]:
        """The bytes for a backup, while nothing is removed; None where attachments were never used."""
        if self._where is None or not self.rows.is_used():
            yield None
            return
        with self.holding():
            yield self.contents

    def round(self, *, scrub_bytes: int = SCRUB_BYTES) -> dict[str, int]:
        """A bounded part of upkeep: collecting, scrubbing, and once in an hour what crashes left. Without
        `scrub_bytes` nothing is scrubbed, for who calls `scrub` itself."""
        done = {"blob_refs": 0, "blobs": 0, "blobs_removed": 0, "blobs_damaged": 0, "blob_leftovers": 0}
        if self._where is None or not self.rows.is_used():
            return done
        done.update(self.collector.round())
        contents = self.contents  # Unavailable while it is away, whether or not there is anything to do with it
        if scrub_bytes:
            done["blobs_damaged"] = self.scrub(scrub_bytes)
        now = self._clock()
        if not 0 <= now - self._leftovers_at < LEFTOVERS_EVERY:
            self._leftovers_at = now
            done["blob_leftovers"] = contents.leftovers(self.rows.known)
        return done

    def scrub(self, bytes_max: int) -> int:
        """Read on from where the last call ended, about so many bytes; how many contents turned out to be damaged,
        which is remembered."""
        if self._where is None or not self.rows.is_used():
            return 0
        return self.rows.mark_damaged(self.contents.scrub(bytes_max).damaged)

    def stats(self) -> Mapping[str, Any]:
        """Plain values for metrics, of what is open."""
        with self._opening:
            return {} if self._contents is None else self._contents.stats()


def content_of(stored: Stored) -> Content:
    """What a complete copy is, wherever it is."""
    return Content(stored.sha256.hex(), b64encode(stored.md5).decode(), stored.length)


def _content(data: bytes) -> Content:
    return Content(sha256(data).hexdigest(), b64encode(md5(data, usedforsecurity=False).digest()).decode(), len(data))


def _head(pieces: Iterator[bytes]) -> tuple[bytes, bool]:
    """The first bytes, more than `HEAD_BYTES` of them unless that is all; and whether it is."""
    head = bytearray()
    while len(head) <= HEAD_BYTES:
        piece = next(pieces, None)
        if piece is None:
            return bytes(head), True
        head += piece
    return bytes(head), False
