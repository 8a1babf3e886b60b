"""The uploads that are kept open between requests, so that going on with one needs no reading; one request has each.

Which uploads there are, and whose, is for `uploads` to know.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from feeds.blobs.contents import Incoming
from feeds.errors import Conflict, SpileError

logger = logging.getLogger("spile.blobs")

OPEN_MAX = 32  # each has threads of its own


@dataclass(slots=True, eq=False)
class Opened:
    """An upload whose bytes can be added to."""

    incoming: Incoming
    touched: float
    """When its row last said that it is gone on with."""
    used: threading.Lock = field(default_factory=threading.Lock)


class OpenUploads:
    """Uploads by their ids. Thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._open: dict[str, Opened] = {}  # the one used longest ago first
        self._busy: set[str] = set()  # being opened, let go, or given up

    def size(self, id: str) -> int | None:
        """How many bytes one has that is open."""
        with self._guard:
            opened = self._open.get(id)
            return None if opened is None else opened.incoming.size

    def take(self, id: str, resume: Callable[[], Opened]) -> Opened:
        """One for the caller alone, until it is given back, let go of or broken off; Conflict while another has it.
        `resume` opens one that is not open."""
        with self._guard:
            opened = self._claimed(id)
            if opened is not None:
                return opened
            self._busy.add(id)
        try:
            opened = resume()
            opened.used.acquire()
            with self._guard:
                self._open[id] = opened
            return opened
        finally:
            self._free(id)

    @contextmanager
    def alone(self, id: str) -> Iterator[Opened | None]:
        """For the length of the block nobody takes this one, open or not; Conflict while another has it."""
        with self._guard:
            opened = self._claimed(id)
            self._busy.add(id)
        try:
            yield opened
        finally:
            self._free(id)
            if opened is not None:
                opened.used.release()

    def give_back(self, id: str, opened: Opened) -> None:
        """It may be gone on with by others."""
        self.put_aside(id, opened)
        opened.used.release()

    def put_aside(self, id: str, opened: Opened) -> None:
        """Keep one open as the newest, and let the oldest go where there are too many."""
        with self._guard:
            self._open.pop(id, None)
            self._open[id] = opened
            surplus = []
            for old in list(self._open)[: max(0, len(self._open) - OPEN_MAX)]:
                if old not in self._busy and self._open[old].used.acquire(blocking=False):
                    surplus.append((old, self._open.pop(old)))
                    self._busy.add(old)
        for old, each in surplus:
            try:
                _suspend(each)
            finally:
                self._free(old)

    def let_go(self, id: str, opened: Opened) -> None:
        """It has ended."""
        self.forget(id)
        opened.used.release()

    def forget(self, id: str) -> None:
        """The same, of one that the caller has for the length of a block."""
        with self._guard:
            self._open.pop(id, None)

    def break_off(self, id: str, opened: Opened) -> None:
        """It cannot be written to any more as it is; what became durable can be gone on with."""
        try:
            _suspend(opened)
        finally:
            self.let_go(id, opened)

    def close(self) -> None:
        """Make durable what came so far, so that it can be gone on with."""
        with self._guard:
            left, self._open = self._open, {}
        for opened in left.values():
            with opened.used:
                _suspend(opened)

    def _claimed(self, id: str) -> Opened | None:
        opened = self._open.get(id)
        if id in self._busy or (opened is not None and not opened.used.acquire(blocking=False)):
            raise Conflict(
                f"Another request goes on with the upload {id}",
                hint="Let one request at a time send it; ask how far it is, and go on from there.",
            )
        return opened

    def _free(self, id: str) -> None:
        with self._guard:
            self._busy.discard(id)


def _suspend(opened: Opened) -> None:
    try:
        opened.incoming.suspend()
    except SpileError as error:
        logger.warning("of an upload only what was durable before stays: %s", error)
        opened.incoming.suspend()  # broken now: it lets go of what did not become durable
