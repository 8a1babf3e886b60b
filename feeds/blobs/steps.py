"""What the committer does for a caller: a write whose bytes the system has, a trim, or a task of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from feeds.blobs.checksums import RawRow
from feeds.blobs.handles import Handle, Handles, punch
from feeds.blobs.ledger import Ledger
from feeds.blobs.owned import OwnedFile
from feeds.errors import SpileError


class Step:
    """One caller's part of a group."""

    __slots__ = ("_finished", "answer", "epoch", "future", "size")

    frees = False
    """Whether it gives room on the disk back, so that it is done even on a full one."""

    def __init__(self, size: int, epoch: int | None, answer: Any = None) -> None:
        self.size = size
        """Bytes, against the limit of what waits."""
        self.epoch = epoch
        self.answer = answer
        self._finished = False
        self.future: Future[Any] = Future()
        self.future.set_running_or_notify_cancel()  # nobody can take back what is on its way

    def run(self, ledger: Ledger) -> None:
        """Do it, inside the transaction."""

    def undo(self) -> None:
        """The transaction does not stand."""

    def finish(self, handles: Handles, *, void: bool = False) -> None:
        """It is over, and holds nothing any more; called before the answer. `void`: nothing of it stands, for
        certain."""
        if not self._finished:
            self._finished = True
            self._let_go(handles, void)

    def _let_go(self, handles: Handles, void: bool) -> None:
        """Give back what it holds."""


class WriteStep(Step):
    """Bytes at a claimed place: the system has them already, or the committer hands it `data` with those beside."""

    __slots__ = ("data", "handle", "owner", "refused", "rows")

    def __init__(
        self,
        owner: OwnedFile,
        handle: Handle,
        rows: Sequence[RawRow],
        size: int,
        epoch: int | None,
        answer: Any,
        data: bytes | None,
    ) -> None:
        super().__init__(size, epoch, answer)
        self.owner = owner
        self.handle = handle
        self.rows = rows
        self.data = data
        self.refused: SpileError | None = None
        """Why the system did not take them."""

    def run(self, ledger: Ledger) -> None:
        ledger.wrote(self.owner.file, self.rows)

    def _let_go(self, handles: Handles, void: bool) -> None:
        start, end = self.rows[0][0], self.rows[-1][0] + self.rows[-1][1]
        if void:
            self.owner.void(start, end, partial(punch, self.handle.fd))
        handles.give(self.handle)
        self.owner.release(start)


class TrimStep(Step):
    """A claimed range is given up. `rest` is what stays of the chunks at its edges; the answer is whether the file
    is removed with it."""

    __slots__ = ("claimed", "end", "owner", "rest", "start", "wholes")

    frees = True

    def __init__(
        self,
        owner: OwnedFile,
        start: int,
        end: int,
        claimed: tuple[int, int],
        rest: Sequence[RawRow],
        epoch: int | None,
    ) -> None:
        super().__init__(0, epoch, False)
        self.owner = owner
        self.start = start
        self.end = end
        self.claimed = claimed
        self.rest = rest
        self.wholes: list[tuple[int, int]] = []
        """The trimmed range that it is a part of, once it is done."""

    def run(self, ledger: Ledger) -> None:
        self.wholes = [ledger.trimmed(self.owner.file, self.start, self.end, *self.claimed, self.rest)]
        if self.owner.removable(*ledger.extent(self.owner.file)):
            ledger.removed(self.owner.file)
            self.answer = True

    def undo(self) -> None:
        if self.answer:
            self.answer = False
            self.owner.revive()

    def _let_go(self, handles: Handles, void: bool) -> None:
        self.owner.release(self.claimed[0])


class EndStep(Step):
    """Nothing more comes to a file that is claimed as a whole: ranges in which nothing was written are given up, or
    all of it (None). The answer is whether it is removed, since nothing of it is left."""

    __slots__ = ("high", "owner", "ranges", "wholes")

    frees = True

    def __init__(self, owner: OwnedFile, high: int, ranges: list[tuple[int, int]] | None, epoch: int | None) -> None:
        super().__init__(0, epoch, False)
        self.owner = owner
        self.high = high
        self.ranges = ranges
        self.wholes: list[tuple[int, int]] = []
        """The trimmed ranges that they are parts of, once it is done."""

    def run(self, ledger: Ledger) -> None:
        ledger.flush()
        file = self.owner.file
        end = ledger.extent(file)[1]
        ranges = ([(0, end)] if end else []) if self.ranges is None else self.ranges
        self.wholes = [ledger.trimmed(file, *each, *each, ()) for each in ranges]
        trimmed, end = ledger.extent(file)
        if trimmed == end:
            self.owner.condemn()
            ledger.removed(file)
            self.answer = True

    def undo(self) -> None:
        if self.answer:
            self.answer = False
            self.owner.revive()

    def _let_go(self, handles: Handles, void: bool) -> None:
        self.owner.release_all(self.high)


class Task(Step):
    """Something else that is written to the index; the answer is what it gives."""

    __slots__ = ("_run",)

    def __init__(self, run: Callable[[Ledger], Any], epoch: int | None) -> None:
        super().__init__(0, epoch)
        self._run = run

    def run(self, ledger: Ledger) -> None:
        ledger.flush()
        self.answer = self._run(ledger)
