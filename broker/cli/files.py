"""Files that are attached or fetched: read from any place on, and written so that only what is whole has its name."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from feeds.errors import BadChecksum, BadRequest, NotFound, SpileError, StorageFull

__all__ = ["Incoming", "Outgoing", "opened", "written"]

Tell = Callable[[int, int | None], None]
"""Told of progress: bytes so far, and of how many, if that is known."""

PIECE_BYTES = 1 << 20


class Outgoing:
    """A file that is attached. It may be read again from a place that was read before; its digest grows with it."""

    def __init__(self, name: str, file: BinaryIO, size: int | None, changed_ns: int = 0) -> None:
        """`size` is None where it is not known, as of a pipe: then only the last part can be read again.
        `changed_ns` is when a file was changed last."""
        self.name = name
        self.size = size
        self.changed_ns = changed_ns
        self._file = file
        self._part = b""
        self._part_at = 0
        self._digest = hashlib.sha256()
        self._hashed = 0

    def part(self, offset: int, size: int) -> bytes:
        """The bytes from `offset` on, fewer only at the end; what is passed over goes into the digest. BadRequest
        where they cannot be read (again)."""
        if offset > self._hashed:
            self._pass_over(offset)
        held_end = self._part_at + len(self._part)
        if not self._part_at <= offset <= held_end:
            if self.size is None:
                raise BadRequest(
                    f"{self.name} cannot be read again from byte {offset:,}, which the service has lost",
                    hint="Attach it from a file.",
                )
            self._seek(offset)
            self._part, self._part_at = b"", offset
        else:
            self._part, self._part_at = self._part[offset - self._part_at :], offset
        while len(self._part) < size and (more := self._read(size - len(self._part))):
            self._part += more
        return self._part[:size]

    @property
    def digest(self) -> bytes:
        """The sha256 of all that was read."""
        return self._digest.digest()

    def _pass_over(self, offset: int) -> None:
        if self.size is not None:
            self._seek(self._hashed)
        while self._hashed < offset:
            self._part, self._part_at = b"", self._hashed
            if not self._read(min(PIECE_BYTES, offset - self._hashed)):
                raise BadRequest(
                    f"{self.name} ends before byte {offset:,}, up to which it was read before",
                    hint="It has become shorter meanwhile. Attach it again.",
                )
        self._part, self._part_at = b"", offset

    def _seek(self, offset: int) -> None:
        try:
            self._file.seek(offset)
        except OSError as error:
            raise _unreadable(self.name, error) from error

    def _read(self, size: int) -> bytes:
        at = self._part_at + len(self._part)
        try:
            data = self._file.read(size)
        except OSError as error:
            raise _unreadable(self.name, error) from error
        new = at + len(data) - self._hashed
        if new > 0:
            self._digest.update(data[-new:])
            self._hashed += new
        return data


@contextmanager
def opened(path: str) -> Iterator[Outgoing]:
    """The file of this path, or standard input for `-`. NotFound, or BadRequest for what is no file."""
    if path == "-":
        yield Outgoing("standard input", sys.stdin.buffer, None)
        return
    with ExitStack() as stack:
        try:
            file = stack.enter_context(Path(path).open("rb"))
        except FileNotFoundError as error:
            raise NotFound(f"the file {path} is not there", hint="Check the path; - is standard input.") from error
        except OSError as error:
            raise _unreadable(path, error) from error
        status = os.fstat(file.fileno())
        size = status.st_size if stat.S_ISREG(status.st_mode) else None
        yield Outgoing(path, file, size, status.st_mtime_ns)


class Incoming:
    """A file that is fetched: `add` what comes, in order. `begin` starts it anew."""

    def __init__(self, file: BinaryIO, name: str, *, is_own: bool = True) -> None:
        """`is_own`: what is in the file may be taken back."""
        self._file = file
        self._name = name
        self._is_own = is_own
        self.size = 0
        self._digest = hashlib.sha256()

    def add(self, data: bytes) -> None:
        """Take the next bytes."""
        try:
            self._file.write(data)
        except BrokenPipeError:
            raise  # whoever read it has gone
        except OSError as error:
            raise _unwritable(self._name, error) from error
        self._digest.update(data)
        self.size += len(data)

    def begin(self) -> None:
        """Nothing of what came counts. BadRequest where it was given on already."""
        if not self.size:
            return
        if not self._is_own:
            raise BadRequest("the attachment was changed while it was fetched", hint="Fetch it again.")
        self._file.seek(0)
        self._file.truncate()
        self.size, self._digest = 0, hashlib.sha256()

    def check(self, digest: str) -> None:
        """BadChecksum where what came has not this digest (`sha256-<hex>`)."""
        if digest != f"sha256-{self._digest.hexdigest()}":
            raise BadChecksum(
                f"what was fetched has the sha256 {self._digest.hexdigest()}, and the attachment is {digest}",
                hint="It was damaged on its way. Fetch it again.",
            )


@contextmanager
def written(target: str) -> Iterator[Incoming]:
    """A file that gets its name when the block ends well, and else leaves nothing behind; `-` is standard output.

    What is there and is no file (a device, a pipe) is written to as it is. BadRequest for a folder.
    """
    if target == "-":
        yield Incoming(sys.stdout.buffer, "standard output", is_own=False)
        return
    path = Path(target)
    if not path.name or path.is_dir():
        raise BadRequest(f"{target!r} is a folder, or no name of a file", hint="Name the file to write.")
    if path.exists() and not path.is_file():
        try:
            with path.open("wb") as device:
                yield Incoming(device, target, is_own=False)
        except OSError as error:
            raise _unwritable(target, error) from error
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with aside.open("wb") as file:
            yield Incoming(file, target)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise _unwritable(target, error) from error
    finally:
        aside.unlink(missing_ok=True)


def _unreadable(name: str, error: OSError) -> BadRequest:
    return BadRequest(f"{name} cannot be read: {error.strerror}", hint="Check the path and its rights.")


def _unwritable(name: str, error: OSError) -> SpileError:
    kind = StorageFull if error.errno == 28 else BadRequest
    return kind(f"{name} cannot be written: {error.strerror}", hint="Check the folder, its rights and its disk.")
