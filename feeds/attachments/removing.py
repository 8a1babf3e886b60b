"""Removing the bytes of copies for good: not those that are being read, and none while somebody needs that all stay.

Whoever needs that may be another process of this machine, where contents are in a folder.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from feeds.blobs.contents import Contents
from feeds.blobs.handles import refusal
from feeds.errors import SpileError

logger = logging.getLogger("spile.blobs")

FAILURES_MAX = 3  # of one call, each of which may take its time; the others then wait for the next one

Where = Contents | Path | str


@dataclass(slots=True)
class Removed:
    """What became of copies that were to be removed, by place."""

    gone: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    is_stopped: bool = False
    """Whether nothing more can be removed now."""


class Removing:
    """The readers of one store's copies, those who need all of them, and who removes some. Thread-safe."""

    def __init__(self, where: Where | None) -> None:
        self._where = where
        self._guard = threading.Lock()
        self._reading: Counter[str] = Counter()
        self._holders = 0

    @contextmanager
    def in_use(self, place: str) -> Iterator[None]:
        """This copy stays meanwhile."""
        with self._guard:
            self._reading[place] += 1
        try:
            yield
        finally:
            with self._guard:
                self._reading[place] -= 1
                if not self._reading[place]:
                    del self._reading[place]

    @contextmanager
    def holding(self) -> Iterator[None]:
        """All stay meanwhile."""
        with self._guard:
            self._holders += 1
        try:
            with self._held(fcntl.LOCK_SH):
                yield
        finally:
            with self._guard:
                self._holders -= 1

    def remove(self, places: Sequence[str], remove: Callable[[str], None]) -> Removed:
        """Have these removed, as far as they may be."""
        done = Removed()
        with self._held(fcntl.LOCK_EX | fcntl.LOCK_NB) as is_free:
            for place in places:
                with self._guard:
                    if not is_free or self._holders or len(done.failed) == FAILURES_MAX:
                        done.is_stopped = True
                        break
                    if place in self._reading:
                        continue
                try:
                    remove(place)
                except SpileError as error:
                    logger.warning("the bytes of a content that nobody names stay for now: %s", error)
                    done.failed.append(place)
                else:
                    done.gone.append(place)
        return done

    @contextmanager
    def _held(self, how: int) -> Iterator[bool]:
        """With a lock between those who remove and those who need that everything stays."""
        folder = folder_of(self._where)
        if folder is None or not folder.is_dir():
            yield True
            return
        with hold(folder, how) as is_mine:
            yield is_mine


def folder_of(where: Where | None) -> Path | None:
    """The folder of this machine that contents are in, if that is where they are."""
    if isinstance(where, Path):
        return where
    return Path(where) if isinstance(where, str) and "://" not in where else None


@contextmanager
def hold(folder: Path, how: int) -> Iterator[bool]:
    """A lock of `flock`'s on a folder of contents: shared by those who need that all stays, exclusive for those who
    remove; whether it is held, where it was not waited for. It ends with its process."""
    try:
        handle = os.open(folder / "hold", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise refusal(error, "holding what is there") from error
    try:
        try:
            fcntl.flock(handle, how)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)
