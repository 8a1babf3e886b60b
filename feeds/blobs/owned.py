"""One blob file as its owner in this process has it: what is claimed, where appends go on, and whether it lives."""

from __future__ import annotations

import threading
from collections.abc import Callable

from feeds.blobs.claims import Claims
from feeds.blobs.names import OFFSET_MAX
from feeds.errors import Trimmed, Unavailable


class OwnedFile:
    """Every write and trim of a file goes through its one owner. Thread-safe."""

    __slots__ = (
        "__weakref__",
        "_changed",
        "_claims",
        "_given",
        "_high",
        "_tail",
        "_void",
        "_waiting",
        "current",
        "failure",
        "file",
        "name",
        "removed",
    )

    def __init__(self, file: int, name: str, end: int, current: bool) -> None:
        self.file = file
        """Its number in the index."""
        self.name = name
        self.current = current
        """Whether it is appended to: begun by the sequencer in this run, and not followed by another file yet."""
        self.removed = False
        self.failure: str | None = None
        """Why nothing more is written to it until the folder is opened anew."""
        self._claims = Claims()
        self._changed = threading.Condition(threading.Lock())
        self._waiting = 0
        self._high = end  # behind every byte that was ever claimed or is in the index
        self._tail = end  # where the next chunk would go
        self._void = (0, 0)  # the last range of which writes failed that nobody has touched since
        self._given = 0  # behind what was given away in this run, be it written or not

    def allot(self, size: int, extra: int, file_bytes_max: int) -> int | None:
        """Where the next chunk goes, claimed, with the extra room behind it; None where a new file shall begin."""
        with self._changed:
            start = self._tail
            if not self.current or self.failure is not None or (start and start + size + extra > file_bytes_max):
                return None
            self._tail = self._given = start + size + extra
            if size:
                self._claims.add(start, start + size)
                self._high = start + size
            return start

    def claim(self, start: int, end: int, *, gives_up: bool = False) -> bool:
        """Wait until nobody else works on any byte of the range, and take it. True: none of it was ever touched.

        `gives_up`: nothing is going to be written, which a file that the disk refused allows as well.
        """
        with self._changed:
            self._usable(gives_up)
            while start < self._high and not self._claims.free(start, end):
                self._waiting += 1
                self._changed.wait()
                self._waiting -= 1
                self._usable(gives_up)
            if start < self._void[1]:
                self._void = (0, 0)
            fresh = start >= self._high
            self._claims.add(start, end)
            self._high = max(self._high, end)
            self._tail = max(self._tail, end)
            return fresh

    def void(self, start: int, end: int, give_back: Callable[[int, int, tuple[int, int]], object]) -> None:
        """The write to a claimed range failed: have its room given back, and that of blocks that it shares with those
        before it that failed as well. Nobody takes any of them meanwhile."""
        with self._changed:
            first = self._void[0] if self._void[1] == start else start
            self._void = first, end
            give_back(start, end, self._void)

    def claim_all(self) -> int:
        """Wait until nobody works on the file, and take all of it: nothing is appended to it from now on, and what
        was promised in it is not. Gives what `release_all` needs."""
        with self._changed:
            self.current = False
            self._usable(gives_up=True)
            while self._claims.end():
                self._waiting += 1
                self._changed.wait()
                self._waiting -= 1
                self._usable(gives_up=True)
            self._given = 0
            self._claims.add(0, OFFSET_MAX)
            high, self._high = self._high, OFFSET_MAX
            return high

    def release_all(self, high: int) -> None:
        """The work on the whole file is done."""
        with self._changed:
            self._claims.remove(0)
            self._high = high
            if self._waiting:
                self._changed.notify_all()

    def release(self, start: int) -> None:
        """The work on the range that begins here is done."""
        with self._changed:
            self._claims.remove(start)
            if self._waiting:
                self._changed.notify_all()

    def fail(self, failure: str) -> None:
        """Let nothing more be written: the system may have lost what it was given."""
        with self._changed:
            self.failure = self.failure or failure

    def retire(self) -> None:
        """Nothing is appended to it any more."""
        with self._changed:
            self.current = False

    def removable(self, trimmed: int, end: int) -> bool:
        """Whether so many trimmed bytes, of so many in the index, are all there is and all that was promised to
        anybody; if so it counts as removed from now on."""
        with self._changed:
            self.removed = not self.current and trimmed == max(end, self._given, self._claims.end())
            return self.removed

    def condemn(self) -> None:
        """It counts as removed from now on, whatever was promised."""
        with self._changed:
            self.removed = True

    def revive(self) -> None:
        """It was not removed after all."""
        with self._changed:
            self.removed = False

    def _usable(self, gives_up: bool) -> None:
        if self.removed:
            raise removed(self.name)
        if self.failure is not None and not gives_up:
            raise failed(self.name, self.failure)


def removed(name: str) -> Trimmed:
    """All of the file was trimmed, and it is gone."""
    return Trimmed(f"{name} was trimmed from end to end, and removed")


def failed(name: str, failure: str) -> Unavailable:
    """The disk refused the file before."""
    return Unavailable(
        f"{name} is not written to any more: {failure}",
        hint="Mend the disk, and restart; appends go to another file.",
    )
