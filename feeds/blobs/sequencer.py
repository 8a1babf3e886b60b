"""Where the next chunk of a prefix goes: its file and offset, given to one caller alone."""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from itertools import count

from feeds.blobs.committer import Committer
from feeds.blobs.names import check_prefix
from feeds.blobs.owned import OwnedFile
from feeds.blobs.registry import Registry
from feeds.blobs.values import BlobSettings


class _Line:
    """The file that a prefix is appended to now."""

    __slots__ = ("epoch", "guard", "owner")

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.owner: OwnedFile | None = None
        self.epoch = -1


class Sequencer:
    """Hands out places. A new file is begun at the size limit, in each run and in each epoch. Thread-safe."""

    def __init__(self, registry: Registry, committer: Committer, settings: BlobSettings) -> None:
        self._registry = registry
        self._committer = committer
        self._settings = settings
        self._run = uuid.uuid4().hex
        self._numbers = count()
        self._lines: OrderedDict[str, _Line] = OrderedDict()
        self._guard = threading.Lock()

    def place(self, prefix: str, size: int, extra: int) -> tuple[OwnedFile, int]:
        """A file and an offset; `size` bytes there are claimed, and `extra` behind them are not given to others."""
        line = self._line(prefix)
        with line.guard:
            while True:
                if line.owner is not None and line.epoch == self._committer.epoch:
                    start = line.owner.allot(size, extra, self._settings.file_bytes_max)
                    if start is not None:
                        return line.owner, start
                self._leave(line)
                line.epoch = self._committer.epoch
                line.owner = self._registry.make(f"{prefix}^{self._run}^{next(self._numbers)}")

    def _line(self, prefix: str) -> _Line:
        with self._guard:
            line = self._lines.get(prefix)
            if line is not None:
                self._lines.move_to_end(prefix)
                return line
            line = self._lines[check_prefix(prefix)] = _Line()
            if len(self._lines) <= self._settings.prefixes_max:
                return line
            oldest = self._lines.popitem(last=False)[1]
        with oldest.guard:
            self._leave(oldest)
        return line

    def _leave(self, line: _Line) -> None:
        owner, line.owner = line.owner, None
        if owner is not None:
            self._registry.retire(owner)
