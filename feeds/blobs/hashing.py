"""The digests of a content, worked out beside its way in: sha256, by which it is addressed, and md5 for CouchDB's
protocol.

Python gives up its lock while it hashes, so that each digest gets a thread of its own where a content is long enough
to be worth it.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

INLINE_BYTES_MAX = 256 * 1024  # 1 ms of hashing: starting two threads costs as much
PENDING_MAX = 4  # pieces that wait for a digest: up to 4 MiB


class Digests:
    """The digests of bytes that come piece by piece. For one thread; `stop` or `finish` ends it."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._size = 0
        self._threads: list[ThreadPoolExecutor] = []
        self._pending: deque[Future[None]] = deque()

    def update(self, piece: bytes) -> None:
        """Take the next piece; waits where `PENDING_MAX` pieces are not yet hashed."""
        self._size += len(piece)
        if not self._threads:
            if self._size <= INLINE_BYTES_MAX:
                self._sha256.update(piece)
                self._md5.update(piece)
                return
            # One thread for each, so that pieces keep their order.
            self._threads = [ThreadPoolExecutor(1, f"spile-{name}") for name in ("sha256", "md5")]
        for threads, digest in zip(self._threads, (self._sha256, self._md5), strict=True):
            self._pending.append(threads.submit(digest.update, piece))
        while len(self._pending) > 2 * PENDING_MAX:
            self._pending.popleft().result()

    def finish(self) -> tuple[bytes, bytes]:
        """sha256 and md5 of everything."""
        while self._pending:
            self._pending.popleft().result()
        self.stop()
        return self._sha256.digest(), self._md5.digest()

    def stop(self) -> None:
        """End the threads; what was not hashed yet is let go."""
        for threads in self._threads:
            threads.shutdown(wait=True, cancel_futures=True)
        self._threads = []
        self._pending.clear()


def digests_of(pieces: Iterable[bytes]) -> tuple[bytes, bytes]:
    """sha256 and md5 of all of these bytes, as of a content that is read to be checked."""
    digests = Digests()
    try:
        for piece in pieces:
            digests.update(piece)
        return digests.finish()
    finally:
        digests.stop()
