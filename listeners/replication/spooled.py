"""Contents on their way, kept until they are where they belong: in memory while they are small, else in files.

CouchDB names contents by their md5 and takes them together with their document; Spile names them by their sha256 and
takes them before. Who stands between the two has to see all of a content before it can be named to the other.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import tempfile
import threading
import time
from base64 import b64encode
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TypeVar

from feeds.attachments.stubs import SHA256
from feeds.errors import StorageFull, Unavailable

T = TypeVar("T")

FILES_BYTES_MAX = 256 << 20
MEMORY_BYTES_MAX = 16 << 20
"""Of contents that may be asked for again. Those that a document still waits for are kept besides."""
AWAITED_S = 3600.0
"""After that nobody waits for a content any more: its document was refused for another reason."""
_SMALL_BYTES = 64 << 10  # held in memory: a file costs more
_PIECE_BYTES = 256 << 10
_ENTRY_BYTES = 512  # what each takes besides its bytes, that many small ones are not taken for nothing


@dataclass(slots=True)
class Spooled:
    """A content that is here whole."""

    digest: str
    md5: str
    """In base64, as CouchDB writes it behind `md5-`."""
    length: int
    data: bytes = b""
    path: Path | None = None
    """Its file; one in memory has none."""
    awaited_until: float = 0.0


class Incoming:
    """A content on its way in. Its digests are right once it has ended."""

    def __init__(self, folder: Callable[[], Path]) -> None:
        self._folder = folder
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._held = bytearray()
        self._file: IO[bytes] | None = None
        self._writing = threading.Lock()
        self._is_given_up = False
        self.length = 0

    @property
    def digest(self) -> str:
        """The sha256, as in stubs."""
        return SHA256 + self._sha256.hexdigest()

    @property
    def md5(self) -> str:
        """In base64."""
        return b64encode(self._md5.digest()).decode()

    async def write(self, piece: bytes) -> None:
        """Take some more of it."""
        self.length += len(piece)
        self._held += piece
        if len(self._held) >= _PIECE_BYTES:
            await _blocking(self._flush)

    async def end(self) -> Spooled:
        """All of it came: what it is."""
        if self._file is not None or len(self._held) > _SMALL_BYTES:
            await _blocking(self._flush)
        else:
            self._hash()
        path = None
        if self._file is not None:
            path = Path(self._file.name)
            self._file.close()
        return Spooled(self.digest, self.md5, self.length, bytes(self._held), path)

    def abort(self) -> None:
        """Forget it, also once it has ended, if nobody keeps it."""
        self._is_given_up = True
        if self._writing.acquire(blocking=False):  # else the thread that writes a piece sees to it
            self._writing.release()
            self._remove()

    def _remove(self) -> None:
        if self._file is not None:
            self._file.close()
            Path(self._file.name).unlink(missing_ok=True)

    def _hash(self) -> None:
        self._sha256.update(self._held)
        self._md5.update(self._held)

    def _flush(self) -> None:
        try:
            with self._writing:
                if not self._is_given_up:
                    self._append()
        finally:
            if self._is_given_up:
                self._remove()

    def _append(self) -> None:
        self._hash()
        if self._file is None:
            self._file = tempfile.NamedTemporaryFile(dir=self._folder(), delete=False)  # noqa: SIM115
        self._file.write(self._held)
        self._held.clear()


class Spool:
    """The contents that one peer keeps, by their digest; the oldest go first. For one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is made before it is needed."""
        self._clock = clock
        self._kept: OrderedDict[str, Spooled] = OrderedDict()
        self._sizes = {True: 0, False: 0}  # of those in files, and of those in memory
        self._made: tempfile.TemporaryDirectory[str] | None = None
        self._making = threading.Lock()  # contents are written on several threads

    def incoming(self) -> Incoming:
        """A content that is to come."""
        return Incoming(self._folder)

    def find(self, digest: str) -> Spooled | None:
        """The content of this digest, if it is here."""
        found = self._kept.get(digest)
        if found is not None:
            self._kept.move_to_end(digest)
        return found

    def keep(self, content: Spooled, *, awaited: bool = False) -> None:
        """Keep it, for as long as there is room; one that is `awaited` until it was `taken`."""
        before = self._drop(content.digest)
        if awaited:
            content.awaited_until = self._clock() + AWAITED_S
        elif before is not None:
            content.awaited_until = before.awaited_until
        self._kept[content.digest] = content
        self._sizes[content.path is not None] += content.length + _ENTRY_BYTES
        self._make_room()

    def taken(self, digest: str) -> None:
        """Nobody waits for it any more."""
        found = self._kept.get(digest)
        if found is not None:
            found.awaited_until = 0.0
            self._make_room()

    async def read(self, content: Spooled, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """Its bytes from an offset on."""
        if content.path is None:
            yield content.data[offset:]
            return
        path = content.path
        file = await _blocking(lambda: path.open("rb"))
        try:
            await _blocking(file.seek, offset)
            while piece := await _blocking(file.read, _PIECE_BYTES):
                yield piece
        finally:
            file.close()

    def close(self) -> None:
        """Let go of everything."""
        self._kept.clear()
        if self._made is not None:
            self._made.cleanup()
            self._made = None

    def _folder(self) -> Path:
        with self._making:
            if self._made is None:
                self._made = tempfile.TemporaryDirectory(prefix="spile-contents-")
            return Path(self._made.name)

    def _make_room(self) -> None:
        bounds = {True: FILES_BYTES_MAX, False: MEMORY_BYTES_MAX}
        over = {kind: self._sizes[kind] - bounds[kind] for kind in bounds}
        now = self._clock()
        going: list[str] = []
        for digest, each in islice(self._kept.items(), max(0, len(self._kept) - 1)):  # the newest is wanted now
            if max(over.values()) <= 0:
                break
            kind = each.path is not None
            if over[kind] > 0 and each.awaited_until <= now:
                over[kind] -= each.length + _ENTRY_BYTES
                going.append(digest)
        for digest in going:
            self._drop(digest)

    def _drop(self, digest: str) -> Spooled | None:
        gone = self._kept.pop(digest, None)
        if gone is not None:
            self._sizes[gone.path is not None] -= gone.length + _ENTRY_BYTES
            if gone.path is not None:
                gone.path.unlink(missing_ok=True)  # who reads it has it open
        return gone


async def _blocking(call: Callable[..., T], *given: object) -> T:
    try:
        return await asyncio.to_thread(call, *given)
    except OSError as error:
        kind = StorageFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else Unavailable
        raise kind(f"A content on its way cannot be kept in {tempfile.gettempdir()}: {error}.") from error
