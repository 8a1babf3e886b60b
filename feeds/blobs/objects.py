"""Contents in an object store, or in a plain directory.

A content is a row of segments, each an object that is put at once (`feeds.blobs.objects_format`). Multipart uploads
of the store are not used: what a crash leaves of one is seen by no listing, cannot be gone on with through the
library, and costs money until somebody notices.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import groupby
from typing import Any
from uuid import uuid4

from feeds.blobs.contents import LEFT_S, Known, Scrubbed
from feeds.blobs.contents_incoming import Pieces
from feeds.blobs.contents_suspects import Suspects
from feeds.blobs.hashing import Digests
from feeds.blobs.objects_bucket import Bucket, claim
from feeds.blobs.objects_format import (
    HEADER_BYTES,
    OBJECT_BYTES,
    SEGMENT_BYTES,
    folder_of,
    header_of,
    id_of,
    key_of,
    place_of,
    segment_of,
)
from feeds.blobs.objects_reading import as_damaged, read_range, read_segment
from feeds.errors import (
    BadChecksum,
    Conflict,
    Damaged,
    Exists,
    NewerSchema,
    NotFound,
    PartialRead,
    SpileError,
    Unavailable,
)

PUTS_MAX = 4  # segments on their way at a time, of all uploads: 32 MiB
PENDING_MAX = 2  # of one upload
FORMAT = "spile-contents-1"


class ObjectContents:
    """`Contents` on a bucket. Several processes may use one at a time."""

    def __init__(self, bucket: Bucket) -> None:
        """Looks who the contents are, and makes them an identity where they have none."""
        self._bucket = bucket
        self._identity = _identify(bucket)
        self._guard = threading.Lock()
        self._writing: set[str] = set()
        self._suspects = Suspects()
        self._scrub_guard = threading.Lock()
        self._scrubbing = _scrubbing(bucket)
        self._is_closed = False
        self._puts = ThreadPoolExecutor(PUTS_MAX, "spile-puts")
        self._room = threading.BoundedSemaphore(PUTS_MAX)

    @property
    def identity(self) -> str:
        return self._identity

    def claim(self, owner: str) -> None:
        claim(self._bucket, owner)

    def begin(self, length: int | None = None) -> Pieces:
        id = uuid4().hex
        self._take(id)
        return self._incoming(_ObjectSink(self._bucket, self._submit, id), length, Digests())

    def resume(self, state: str, length: int | None = None) -> Pieces:
        id = id_of(state)
        self._take(id)
        digests = Digests()
        try:
            sink = _ObjectSink(self._bucket, self._submit, id)
            with as_damaged(id):
                sink.load(digests)
        except BaseException:
            digests.stop()
            self._let_go(id)
            raise
        return self._incoming(sink, length, digests)

    def read(self, place: str, offset: int, length: int) -> Iterator[bytes]:
        return read_range(self._bucket, id_of(place), offset, length)

    def remove(self, name: str) -> None:
        if name.startswith("making/"):
            self._bucket.remove([name])
            return
        id = id_of(name)
        self._take(id)
        try:
            _remove(self._bucket, id)
        finally:
            self._let_go(id)

    def leftovers(self, known: Known, *, left_s: float = LEFT_S) -> int:
        count = 0
        for name in self._suspects.look(self._names(), partial(self._known, known), left_s):
            try:
                self.remove(name)
            except Conflict:  # it is being written: someone resumed it
                continue
            count += 1
        return count

    def scrub(self, bytes_max: int) -> Scrubbed:
        if self._bucket.scrubs_itself:
            return Scrubbed(0, is_done=True)
        looked = 0
        damaged: dict[str, None] = {}
        with self._scrub_guard:
            while looked < bytes_max:
                try:
                    found = next(self._scrubbing, None)
                except SpileError:
                    self._scrubbing = _scrubbing(self._bucket)
                    raise
                if found is None:
                    self._scrubbing = _scrubbing(self._bucket)
                    return Scrubbed(looked, tuple(damaged), is_done=True)
                id, size, is_sound = found
                looked += size
                if not is_sound:
                    damaged[place_of(id)] = None
        return Scrubbed(looked, tuple(damaged))

    def check(self, progress: Callable[[int], None] | None = None) -> Iterator[str]:
        if _identify(self._bucket) != self._identity:
            yield f"{self._bucket.name} has become another store of contents"
        if self._bucket.scrubs_itself:
            return
        done = 0
        for id, size, is_sound in _scrubbing(self._bucket):
            done += size
            if progress is not None:
                progress(done)
            if not is_sound:
                yield f"An object of the content {place_of(id)} is damaged"

    def stats(self) -> dict[str, Any]:
        with self._guard:
            return {"incoming": len(self._writing)}

    def close(self) -> None:
        with self._guard:
            self._is_closed = True
        self._puts.shutdown(wait=True)

    def _submit(self, put: Callable[[], None]) -> Future[None]:
        """Put in the background; waits where `PUTS_MAX` segments are on their way, so that no more are held."""
        self._room.acquire()
        try:
            with self._guard:
                if self._is_closed:
                    raise Unavailable("The store of contents was closed")
                future = self._puts.submit(put)
        except BaseException:
            self._room.release()
            raise
        future.add_done_callback(lambda _: self._room.release())
        return future

    def _incoming(self, sink: _ObjectSink, length: int | None, digests: Digests) -> Pieces:
        id = sink.id
        return Pieces(sink, place_of(id), lambda: self._let_go(id), length=length, size=sink.size, digests=digests)

    def _known(self, known: Known, names: Sequence[str]) -> set[str]:
        """Those that somebody knows of, and those that are being written, which may be known by then."""
        with self._guard:
            written = {place_of(id) for id in self._writing}
        return written.intersection(names) | known(names)

    def _take(self, id: str) -> None:
        with self._guard:
            if id in self._writing:
                raise Conflict(
                    "This content is being written by another request",
                    hint="Let one request at a time send it; ask how far it is, and go on from there.",
                )
            self._writing.add(id)

    def _let_go(self, id: str) -> None:
        with self._guard:
            self._writing.discard(id)

    def _names(self) -> Iterator[tuple[str, int]]:
        """Each copy that is there, and its size so far. From a store that does not list in order a copy comes more
        than once, with another size each time, and is then never taken for a leftover."""
        for _, found in groupby(self._segments(), lambda each: each[0][:2]):
            sizes: dict[str, int] = {}
            for id, size in found:
                sizes[id] = sizes.get(id, 0) + size
            for id, size in sizes.items():
                yield place_of(id), size
        yield from self._bucket.strays()

    def _segments(self) -> Iterator[tuple[str, int]]:
        for key, size in self._bucket.list("objects"):
            found = segment_of(key)
            if found is not None:
                yield found[0], size


class _ObjectSink:
    """The objects of one content."""

    def __init__(self, bucket: Bucket, submit: Callable[[Callable[[], None]], Future[None]], id: str) -> None:
        self._bucket = bucket
        self._submit = submit
        self.id = id
        self._at = 0
        self._data: list[bytes] = []  # of the segment that fills up
        self._filled = 0
        self._parts: list[str] = []  # what the segment that fills up was kept in, to be removed once it is there
        self._is_ended = False  # whether the segment that fills up is there already, as that of an earlier `finish`
        self._pending: deque[Future[None]] = deque()

    @property
    def size(self) -> int:
        return self._at * SEGMENT_BYTES + self._filled

    def load(self, digests: Digests) -> None:
        """Take up what is there: full segments, then the longest of what is there of the next one. What stands behind
        a gap, where a put failed and a later one did not, is removed: it may be sent otherwise now."""
        found: dict[int, list[tuple[int, bool, str]]] = {}
        for key, size in self._bucket.list(folder_of(self.id)):
            segment = segment_of(key)
            if segment is not None:
                found.setdefault(segment[1], []).append((size, segment[2], key))
        while any(size == OBJECT_BYTES and not is_part for size, is_part, _ in found.get(self._at, [])):
            for piece in read_segment(self._bucket, self.id, self._at):
                digests.update(piece)
            self._bucket.remove([key for _, is_part, key in found[self._at] if is_part])
            self._at += 1
        self._bucket.remove([key for at, each in found.items() if at > self._at for _, _, key in each])
        rest = sorted(found.get(self._at, []))
        if rest:
            size, is_part, _ = rest[-1]
            part = size - HEADER_BYTES if is_part else None
            for piece in read_segment(self._bucket, self.id, self._at, part=part):
                digests.update(piece)
                self._data.append(piece)
                self._filled += len(piece)
            self._parts = [key for _, is_part, key in rest if is_part]
            self._is_ended = any(not is_part for _, is_part, _ in rest)

    def put(self, piece: bytes) -> None:
        at = 0
        while at < len(piece):
            if self._filled == SEGMENT_BYTES:
                self._send()
            part = piece[at : at + SEGMENT_BYTES - self._filled]
            self._data.append(part)
            self._filled += len(part)
            at += len(part)

    def finish(self) -> str:
        self._settle()
        if self._filled or self._at == 0:
            self._make(self._at, self._data, self._is_ended, self._parts)
        return place_of(self.id)

    def suspend(self) -> None:
        self._settle()
        if self._filled == SEGMENT_BYTES:
            self._make(self._at, self._data, self._is_ended, self._parts)
        elif self._filled:
            key = key_of(self.id, self._at, self._filled)
            _make(self._bucket, self.id, self._at, self._data, key)
            self._bucket.remove([part for part in self._parts if part != key])

    def stop(self) -> None:
        while self._pending:
            future = self._pending.popleft()
            if not future.cancel():
                future.exception()

    def remove(self) -> None:
        _remove(self._bucket, self.id)

    def _send(self) -> None:
        while len(self._pending) >= PENDING_MAX:
            self._pending.popleft().result()
        data, self._data, self._filled = self._data, [], 0
        self._pending.append(self._submit(partial(self._make, self._at, data, self._is_ended, self._parts)))
        self._at += 1
        self._parts = []
        self._is_ended = False

    def _settle(self) -> None:
        while self._pending:
            self._pending.popleft().result()

    def _make(self, at: int, data: Sequence[bytes], replace: bool, parts: Sequence[str]) -> None:
        _make(self._bucket, self.id, at, data, key_of(self.id, at), replace=replace)
        if parts:
            self._bucket.remove(parts)


def _make(bucket: Bucket, id: str, at: int, data: Sequence[bytes], key: str, *, replace: bool = False) -> None:
    buffers = [header_of(id, at, data).pack(), *data]
    try:
        bucket.make(key, buffers, replace=replace)
    except Exists:
        # Ours, where an answer was lost and the library asked again; else two processes go on with one upload.
        if b"".join(bucket.stream(key, 0, OBJECT_BYTES)) != b"".join(buffers):
            raise Conflict(
                "This content is being written by another process",
                hint="Let one request at a time send it; ask how far it is, and go on from there.",
            ) from None


def _remove(bucket: Bucket, id: str) -> None:
    """From the end, so that what a crash leaves is not taken for more than it is."""
    keys = sorted((key for key, _ in bucket.list(folder_of(id))), reverse=True)
    bucket.remove(keys)


def _scrubbing(bucket: Bucket) -> Iterator[tuple[str, int, bool]]:
    """Each object's content and size, and whether it is sound; reads all of it."""
    for key, size in bucket.list("objects"):
        segment = segment_of(key)
        if segment is None:
            continue
        id, at, is_part = segment
        try:
            for _ in read_segment(bucket, id, at, part=size - HEADER_BYTES if is_part else None):
                pass
        except (BadChecksum, PartialRead):
            # Whatever was removed meanwhile is not damaged.
            yield id, size, all(each != key for each, _ in bucket.list(folder_of(id)))
        else:
            yield id, size, True


def _identify(bucket: Bucket) -> str:
    while True:
        try:
            told = json.loads(b"".join(bucket.stream("identity", 0, 4096)))
            found, identity = str(told["format"]), str(told["identity"])
        except NotFound:
            fresh = {"format": FORMAT, "identity": uuid4().hex}
            try:
                bucket.make("identity", [json.dumps(fresh).encode()])
            except Exists:
                pass  # another process was faster: its word counts
        except (ValueError, LookupError, TypeError) as error:
            raise Damaged(
                f"The object `identity` in {bucket.name} is not one that Spile made",
                hint="Name an empty prefix, or one that Spile has used; or put the object back.",
            ) from error
        else:
            if found != FORMAT:
                raise NewerSchema(f"The contents in {bucket.name} are of the format {found!r}, not {FORMAT!r}")
            return identity
