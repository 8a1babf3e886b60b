"""Room on the disk that is kept for giving room back: what is trimmed is written to the index first, which a full
disk refuses."""

from __future__ import annotations

import logging
import os
from pathlib import Path

logger = logging.getLogger("spile.blobs")

RESERVE_BYTES = 1024 * 1024  # the index takes some 100 KB to give up 1 GiB


class Reserve:
    """A file that takes room and holds nothing. Not thread-safe: it is the committer's."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.is_there = False

    def fill(self) -> bool:
        """Take the room, if there is enough; whether it is held now."""
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            logger.debug("no room is kept in reserve: %s", error)
            return False
        try:
            os.posix_fallocate(fd, 0, RESERVE_BYTES)
            self.is_there = True
        except OSError as error:
            logger.debug("no room is kept in reserve: %s", error)
            os.ftruncate(fd, 0)  # what was taken before it was found too little
        finally:
            os.close(fd)
        return self.is_there

    def release(self) -> bool:
        """Let the room go; whether there was any."""
        was_there, self.is_there = self.is_there, False
        try:
            os.truncate(self._path, 0)
        except FileNotFoundError:
            return False
        except OSError as error:
            logger.warning("the room in reserve cannot be let go: %s", error)
            return False
        return was_there
