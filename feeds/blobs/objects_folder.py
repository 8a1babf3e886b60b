"""A plain directory that keeps objects, on a disk or on a share.

An object is written aside, synced, and given its name, and then the folder is synced: what was acknowledged survives
a power cut. (That is why the object store library's own local store is not used: it syncs nothing.)
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from feeds.errors import Exists, NotFound, SpileError, StorageFull, Unavailable

_READ_BYTES = 1024 * 1024
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Folder:
    """A `Bucket` in a directory, which is made where it is missing."""

    scrubs_itself = False

    def __init__(self, root: Path) -> None:
        self._root = root
        self.name = str(root)
        try:
            with _translated(self.name):
                self._make_folder(root / "making")
        except Exists:
            raise Unavailable(f"{root} is no directory", hint="Name one, or a path where one can be made.") from None

    def make(self, key: str, buffers: Sequence[bytes], *, replace: bool = False) -> None:
        path, aside = self._root / key, self._root / "making" / uuid4().hex
        with _translated(key):
            try:
                with aside.open("xb") as file:
                    file.writelines(buffers)
                    file.flush()
                    os.fsync(file.fileno())
                self._make_folder(path.parent)
                if replace:
                    aside.replace(path)
                else:
                    _name(aside, path)
            finally:
                aside.unlink(missing_ok=True)
                if path.parent.is_dir():
                    _sync(path.parent)  # also where the object is there already: its maker may have died before this

    def stream(self, key: str, start: int, end: int) -> Iterator[bytes]:
        with _translated(key), (self._root / key).open("rb", buffering=0) as file:
            file.seek(start)
            while start < end:
                data = file.read(min(_READ_BYTES, end - start))
                if not data:
                    return
                yield data
                start += len(data)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        with _translated(prefix):
            for folder, folders, files in os.walk(self._root / prefix, onerror=_unlisted):
                folders.sort()
                for name in sorted(files):
                    path = Path(folder, name)
                    try:
                        size = path.stat().st_size
                    except FileNotFoundError:
                        continue  # removed meanwhile
                    yield path.relative_to(self._root).as_posix(), size

    def remove(self, keys: Sequence[str]) -> None:
        with _translated("objects to be removed"):
            folders = set()
            for key in keys:
                path = self._root / key
                path.unlink(missing_ok=True)
                folders.add(path.parent)
            for folder in folders:
                try:
                    _sync(folder)
                except FileNotFoundError:
                    continue
                if folder.parent.parent.name == "objects":
                    self._leave(folder)

    def strays(self) -> Iterator[tuple[str, int]]:
        return self.list("making")

    def _make_folder(self, folder: Path) -> None:
        """Durably, with those above it."""
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for each in reversed(missing):
            each.mkdir(exist_ok=True)
            _sync(each.parent)

    def _leave(self, folder: Path) -> None:
        """Remove the folder of a content once it is empty. One that a crash leaves does no harm."""
        try:
            folder.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                raise


def _name(aside: Path, path: Path) -> None:
    """Give a file its name; FileExistsError where that is taken."""
    try:
        os.link(aside, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
            raise
        # A file system without links. Ids are random: no two uploads want one name.
        if path.exists():
            raise FileExistsError(errno.EEXIST, "File exists", str(path)) from None
        aside.replace(path)


def _unlisted(error: OSError) -> None:
    """A folder that is not there has nothing in it; of one that cannot be looked into that is not known."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"There is no object {what}") from error
    except FileExistsError as error:
        raise Exists(f"There is an object {what}") from error
    except OSError as error:
        raise _refusal(error, what) from error


def _refusal(error: OSError, what: str) -> SpileError:
    told = f"{error.strerror or error}: {what}"
    if error.errno in _FULL:
        return StorageFull(f"The directory of contents takes no more: {told}")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Unavailable(
            f"The directory of contents may not be used: {told}",
            hint="Give the user that Spile runs as the right to read and write it.",
        )
    return Unavailable(
        f"The directory of contents does not answer: {told}",
        hint="Look whether the disk is mounted and sound; what was stored is left as it is.",
    )
