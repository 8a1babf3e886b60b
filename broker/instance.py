"""Which of several processes on one database this is: an id that stays in its data directory.

The embedded broker of each process is told the changes by itself, and how far it was told must not be mixed up with
another's. So one process has a data directory at a time.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from feeds.errors import BadRequest, StoreLocked, Unavailable
from feeds.storage.lockfile import LockFile

_FILE = "instance"


class Instance:
    """A data directory, held as long as the process runs."""

    def __init__(self, data: Path) -> None:
        """Take the directory. StoreLocked where another process has it, Unavailable where it cannot be written."""
        try:
            data.mkdir(parents=True, exist_ok=True)
            self._lock = LockFile(data / "spile.lock")
        except StoreLocked as held:
            raise StoreLocked(
                f"The data directory {data} is in use: {held.reason}",
                hint="Give each process on the database a data directory of its own (--data).",
            ) from None
        except OSError as error:
            raise _unwritable(data, error) from None
        try:
            self.id = _id_in(data)
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        """Give the directory back."""
        self._lock.release()


def _id_in(data: Path) -> str:
    path = data / _FILE
    try:
        if not path.exists():
            aside = path.with_suffix(".part")
            aside.write_text(uuid.uuid4().hex[:16] + "\n")
            aside.rename(path)
        found = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _unwritable(data, error) from None
    if len(found) != 16 or not set(found) <= set("0123456789abcdef"):
        raise BadRequest(
            f"{path} does not hold the id of a process.",
            hint="Remove the file: the embedded broker is then told everything from the beginning.",
        )
    return found


def _unwritable(data: Path, error: OSError | UnicodeDecodeError) -> Unavailable:
    said = error.strerror if isinstance(error, OSError) else str(error)
    return Unavailable(
        f"The data directory {data} cannot be used: {said}",
        hint="Choose another with --data, or mend its permissions.",
    )
