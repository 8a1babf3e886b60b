"""What is done when a folder of blob files is opened: whatever a crash left is put in order before anybody asks.

Bytes behind the last indexed one were never acknowledged, and are cut off. What is missing before it is damage, and
is noted. Files that the index does not know are not ours to remove: they are told, and left.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from feeds.blobs.handles import sync_folder
from feeds.blobs.names import OFFSET_MAX
from feeds.blobs.values import State
from feeds.errors import PartialRead
from feeds.storage.session import SqliteSession

logger = logging.getLogger("spile.blobs")

_PAGE = 1_000  # files looked at together
_TOLD = 20  # files named in the log; the rest is counted
_FILES = 'SELECT file, name, removed, "end", trimmed FROM files WHERE file > ? ORDER BY file LIMIT ?'
_LAST = (
    f'SELECT "offset" + size FROM chunks WHERE file = ? AND state = {State.WRITTEN.value}'
    ' ORDER BY "offset" DESC LIMIT 1'
)


@dataclass(slots=True)
class Recovered:
    """What was found and done."""

    cut: dict[str, int] = field(default_factory=dict)  # bytes, by file
    short: dict[str, int] = field(default_factory=dict)  # where the file ends, by file
    removed: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)


def recover(session: SqliteSession, folder: Path, now: float) -> Recovered:
    """Bring files and index together: for a file at most one question to the index, whatever its size."""
    found = Recovered()
    on_disk = {
        entry.name: entry.stat().st_size for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False)
    }
    session.begin(())
    session.run("DELETE FROM damage WHERE code = ?", (PartialRead.code,))
    for file, name, removed, end, trimmed in _files(session):
        size = on_disk.pop(name, None)
        if removed:
            if size is not None:
                found.removed.append(name)
        elif end and end == trimmed:
            session.run("UPDATE files SET removed = 1 WHERE file = ?", (file,))
            session.run("DELETE FROM notes WHERE file = ?", (file,))
            if size is not None:
                found.removed.append(name)
        elif not end and not session.rows("SELECT 1 FROM notes WHERE file = ?", (file,)):
            # Made for a chunk that never came; the row goes last, so that no file is left that nobody knows.
            (folder / name).unlink(missing_ok=True)
            session.run("DELETE FROM files WHERE file = ?", (file,))
        else:
            needed = _needed(session, file) if trimmed else end
            if size is not None and size > needed:
                _cut(folder / name, needed)
                found.cut[name] = size - needed
            elif needed > (size or 0):
                found.short[name] = size or 0
                session.run(
                    "INSERT OR REPLACE INTO damage VALUES (?, ?, ?, ?, ?)",
                    (file, size or 0, needed - (size or 0), PartialRead.code, now),
                )
    session.commit()
    for name in found.removed:
        (folder / name).unlink(missing_ok=True)
    sync_folder(folder)
    found.foreign = sorted(on_disk)
    _tell(found)
    return found


def _files(session: SqliteSession) -> Iterator[Sequence[Any]]:
    mark = 0
    while rows := session.rows(_FILES, (mark, _PAGE)):
        yield from rows
        mark = rows[-1][0]


def _needed(session: SqliteSession, file: int) -> int:
    """Where the last chunk of a file ends that was not trimmed."""
    last = session.rows(_LAST, (file,))
    return int(last[0][0]) if last else 0


def _cut(path: Path, size: int) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.ftruncate(fd, min(size, OFFSET_MAX))
        os.fsync(fd)
    finally:
        os.close(fd)


def _tell(found: Recovered) -> None:
    if found.cut:
        logger.info(
            "%d blob files had %d bytes that were never acknowledged", len(found.cut), sum(found.cut.values())
        )
    for name, size in islice(found.short.items(), _TOLD):
        logger.error("the blob file %s ends at %d, before what was written to it", name, size)
    for name in found.foreign[:_TOLD]:
        logger.warning("%s stands among the blob files, and is none of them", name)
    for count, what in ((len(found.short), "are short or gone"), (len(found.foreign), "are none of ours")):
        if count > _TOLD:
            logger.error("%d blob files %s; `spile check` names them", count, what)
