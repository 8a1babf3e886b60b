"""The files on disk: opened when they are needed, a bounded number of them kept open, and their bytes moved.

What may be written, and whether what was read is sound, is for others to say.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from feeds.errors import SpileError, StorageFull, Unavailable

_KEEP_SIZE = 1
_PUNCH_HOLE = 2
DISK_ERRORS = (errno.EIO, errno.EBADMSG, errno.EUCLEAN)  # what is stored there cannot be read, now or later
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_libc = ctypes.CDLL(None, use_errno=True)


class Handle:
    """An open file, and how many use it now."""

    __slots__ = ("dropped", "fd", "name", "users")

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd
        self.users = 1
        self.dropped = False


class Handles:
    """The open files of a folder. Thread-safe."""

    def __init__(self, folder: Path, handles_max: int) -> None:
        self._folder = folder
        self._handles_max = handles_max
        self._open: OrderedDict[str, Handle] = OrderedDict()
        self._guard = threading.Lock()

    def __len__(self) -> int:
        return len(self._open)

    def path(self, name: str) -> Path:
        """Where a file is."""
        return self._folder / name

    def take(self, name: str, *, create: bool = False) -> Handle:
        """The open file, until it is given back; FileNotFoundError where it is none and shall not be made."""
        with self._guard:
            handle = self._open.get(name)
            if handle is not None:
                handle.users += 1
                self._open.move_to_end(name)
                return handle
            handle = self._open[name] = Handle(name, self._opened(name, create))
            if len(self._open) > self._handles_max:
                self._close_idle(len(self._open) - self._handles_max)
            return handle

    def create(self, name: str) -> None:
        """Make a file, whose name is durable then."""
        os.close(os.open(self.path(name), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_CREAT, 0o644))
        sync_folder(self._folder)

    def give(self, handle: Handle) -> None:
        """It is not used any more by whoever took it."""
        with self._guard:
            handle.users -= 1
            if handle.dropped and not handle.users:
                os.close(handle.fd)

    @contextmanager
    def borrowed(self, name: str) -> Iterator[int]:
        """The descriptor of a file for the length of the block."""
        handle = self.take(name)
        try:
            yield handle.fd
        finally:
            self.give(handle)

    def remove(self, name: str) -> None:
        """Take the file from the disk; who reads it now can go on."""
        with self._guard:
            handle = self._open.pop(name, None)
            if handle is not None:
                self._drop(handle)
        self.path(name).unlink(missing_ok=True)

    def close(self) -> None:
        """Close every file, those in use when they are given back."""
        with self._guard:
            for handle in self._open.values():
                self._drop(handle)
            self._open.clear()

    def _opened(self, name: str, create: bool) -> int:
        path = self.path(name)
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            if not create:
                raise
        self.create(name)
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)

    def _close_idle(self, count: int) -> None:
        for handle in [handle for handle in self._open.values() if not handle.users][:count]:
            del self._open[handle.name]
            os.close(handle.fd)

    def _drop(self, handle: Handle) -> None:
        handle.dropped = True
        if not handle.users:
            os.close(handle.fd)


def write_all(fd: int, data: bytes, offset: int) -> None:
    """Write all of it at an offset, also where the system takes it in parts."""
    done = os.pwrite(fd, data, offset)
    if done == len(data):
        return
    rest = memoryview(data)
    while done < len(data):
        done += os.pwrite(fd, rest[done:], offset + done)


def write_vector(fd: int, parts: list[bytes], offset: int) -> None:
    """Write parts one behind the other, at an offset."""
    done = os.pwritev(fd, parts, offset)
    if done < sum(map(len, parts)):
        write_all(fd, b"".join(parts)[done:], offset + done)


def read_all(fd: int, size: int, offset: int) -> bytes:
    """That many bytes, or those up to the end of the file."""
    data = os.pread(fd, size, offset)
    if len(data) == size:
        return data
    parts = [data]
    got = len(data)
    while data and got < size:
        data = os.pread(fd, size - got, offset + got)
        parts.append(data)
        got += len(data)
    return b"".join(parts)


def punch(fd: int, start: int, end: int, within: tuple[int, int] | None = None) -> int:
    """Give the blocks of a range back to the file system; how many bytes, 0 where it cannot do that.

    A block of which the range has only a part goes where the rest of it is `within` what nobody needs either.
    """
    first, last = within or (start, end)
    block = os.fstatvfs(fd).f_bsize
    start = -(-max(first, start - start % block) // block) * block
    end = min(last, -(-end // block) * block) // block * block
    size = end - start
    if size <= 0:
        return 0
    how = _PUNCH_HOLE | _KEEP_SIZE
    return 0 if _libc.fallocate(fd, how, ctypes.c_longlong(start), ctypes.c_longlong(size)) else size


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def refusal(error: OSError, what: str) -> SpileError:
    """What the system said, in our words."""
    if error.errno in _FULL:
        return StorageFull(f"The disk of the blob files is full: {what} failed: {error.strerror}")
    return Unavailable(
        f"The disk of the blob files failed: {what}: {error.strerror}",
        hint="Check the disk and the folder's permissions.",
    )
