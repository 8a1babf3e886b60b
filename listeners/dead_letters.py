"""Dead letters: changes that a callback could not handle, kept to be looked at, replayed or discarded.

In process they lie with the barrel, as `_local` documents; for a listener elsewhere in a file that its user names.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from feeds.errors import Overloaded, TooLarge
from feeds.paths import decode_segment, encode_segment
from listeners.changes import Change
from listeners.stream.messages import check_listener_name

if TYPE_CHECKING:
    from feeds.barrel import Barrel

_PREFIX = "dead/"
# Somebody should look long before. Beyond it the listener stops, which is safer than to forget.
LETTERS_MAX = 10_000


class DeadLetter(msgspec.Struct, frozen=True):
    """A change that was given up: its key (the change's position), when, why, and the change itself."""

    key: str
    at: str
    error: str
    change: Change


class DeadLetters(Protocol):
    """A place for dead letters."""

    def add(self, change: Change, error: BaseException) -> DeadLetter:
        """Keep the change durably; Overloaded when there are too many already."""
        ...

    def list(self) -> Iterable[DeadLetter]:
        """All of them, in the order of their changes or of their arrival."""
        ...

    def discard(self, keys: Collection[str]) -> int:
        """Forget those with these keys; returns how many there were."""
        ...


def replay(letters: DeadLetters, callback: Callable[[Change], object]) -> int:
    """Tell each letter's change to the callback, and discard it when that returns; returns how many.

    The first that fails again stays, with all after it, and its exception is raised. The change is as it was:
    read the document again where its newest state matters.
    """
    told = 0
    for letter in list(letters.list()):
        callback(letter.change)
        letters.discard([letter.key])
        told += 1
    return told


def counted(barrel: Barrel) -> Counter[str]:
    """How many dead letters are kept in a barrel, by the listener's name."""
    segments = (id_.removeprefix(_PREFIX).split("/")[0] for id_ in barrel.local_ids(_PREFIX))
    return Counter(decode_segment(segment) or segment for segment in segments)


class BarrelDeadLetters:
    """Dead letters of one listener in its barrel's `_local/dead/<name>/<epoch>/<seq>`, the name as one segment."""

    def __init__(self, barrel: Barrel, name: str, *, letters_max: int = LETTERS_MAX) -> None:
        """Those of the listener of this name."""
        self._barrel = barrel
        self._prefix = f"{_PREFIX}{encode_segment(check_listener_name(name))}/"
        self._letters_max = letters_max

    def add(self, change: Change, error: BaseException) -> DeadLetter:
        """Keep the change; without its document if that is too large for a `_local` document."""
        if len(self._ids()) >= self._letters_max:
            raise _full(self._letters_max)
        letter = _letter(change, error)
        try:
            self._barrel.local_put(self._id(letter.key), _json(letter))
        except TooLarge:
            bare = msgspec.structs.replace(change, raw=msgspec.UNSET, doc_omitted=True)
            letter = _letter(bare, error)
            self._barrel.local_put(self._id(letter.key), _json(letter))
        return letter

    def list(self) -> Iterable[DeadLetter]:
        """All of them, in the order of their changes."""
        for id_ in self._ids():
            yield msgspec.json.decode(self._barrel.local_get(id_).body, type=DeadLetter)

    def discard(self, keys: Collection[str]) -> int:
        """Forget those with these keys."""
        present = set(self._ids())
        gone = [id_ for key in keys if (id_ := self._id(key)) in present]
        for id_ in gone:
            self._barrel.local_delete(id_)
        return len(gone)

    def _id(self, key: str) -> str:
        seq, _, epoch = key.partition("-")
        return f"{self._prefix}{epoch}/{int(seq):020d}"

    def _ids(self) -> Sequence[str]:
        return self._barrel.local_ids(self._prefix)


class FileDeadLetters:
    """Dead letters in a file of JSON lines. One listener at a time writes to it."""

    def __init__(self, path: str | Path, *, letters_max: int = LETTERS_MAX) -> None:
        """In the file at this path, made when it is first needed."""
        self._path = Path(path)
        self._letters_max = letters_max
        self._lock = threading.Lock()

    def add(self, change: Change, error: BaseException) -> DeadLetter:
        """Append the change; it is on the disk when this returns."""
        letter = _letter(change, error)
        with self._lock:
            if sum(1 for _ in self._lines()) >= self._letters_max:
                raise _full(self._letters_max)
            is_new = not self._path.exists()
            with self._path.open("ab") as file:
                if file.tell() and not self._ends_whole():
                    file.write(b"\n")
                file.write(_json(letter) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            if is_new:
                self._sync_folder()
        return letter

    def list(self) -> Iterable[DeadLetter]:
        """All of them, in the order of their arrival. A last line that a crash cut short is passed over."""
        with self._lock:
            lines = list(self._lines())
        for line in lines:
            letter = _read(line)
            if letter is not None:
                yield letter

    def discard(self, keys: Collection[str]) -> int:
        """Forget those with these keys: the rest is written aside, and takes the file's place."""
        with self._lock:
            lines = list(self._lines())
            kept = [line for line in lines if (letter := _read(line)) is None or letter.key not in keys]
            if len(kept) == len(lines):
                return 0
            aside = self._path.with_name(self._path.name + ".new")
            with aside.open("wb") as file:
                file.writelines(line + b"\n" for line in kept)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self._path)
            self._sync_folder()
            return len(lines) - len(kept)

    def _sync_folder(self) -> None:
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _lines(self) -> Iterable[bytes]:
        if self._path.exists():
            with self._path.open("rb") as file:
                for line in file:
                    if line.strip():
                        yield line.rstrip(b"\n")

    def _ends_whole(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


def _letter(change: Change, error: BaseException) -> DeadLetter:
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return DeadLetter(change.position, at, f"{type(error).__name__}: {error}"[:2_000], change)


def _json(letter: DeadLetter) -> bytes:
    return msgspec.json.encode(letter)


def _read(line: bytes) -> DeadLetter | None:
    try:
        return msgspec.json.decode(line, type=DeadLetter)
    except msgspec.MsgspecError:
        return None


def _full(letters_max: int) -> Overloaded:
    return Overloaded(
        f"There are {letters_max} dead letters already.",
        hint="Look at them, replay or discard them, then start the listener again.",
    )
