"""One process holds a SQLite store: a lock file beside the database says which."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from feeds.errors import StoreLocked


class LockFile:
    """An advisory lock that ends with its process, however that ends."""

    def __init__(self, path: Path) -> None:
        """Take the lock; StoreLocked names the process that has it."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._take(path)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give the lock back. The file stays: removing it would let two processes lock two files."""
        os.close(self._descriptor)

    def _take(self, path: Path) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._descriptor, 32).decode(errors="replace").strip() or "unknown"
            raise StoreLocked(f"The store in {path.parent} is held by process {holder}.") from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)
