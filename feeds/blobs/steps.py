"""What the committer does for a caller: a write whose bytes the system has, a trim, or a task of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from feeds.blobs.checksums import RawRow
from feeds.blobs.handles import Handle, Handles
from feeds.blobs.ledger import Ledger
from feeds.blobs.owned import OwnedFile
from feeds.errors import SpileError


class Step:
    """One caller's part of a group."""

    __slots__ = ("_finished", "answer", "epoch", "future", "size")

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

    def finish(self, handles: Handles) -> None:
        """It is over, well or not, and holds nothing any more; called before the answer."""
        if not self._finished:
            self._finished = True
            self._let_go(handles)

    def _let_go(self, handles: Handles) -> None:
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

    def _let_go(self, handles: Handles) -> None:
        handles.give(self.handle)
        self.owner.release(self.rows[0][0])


class TrimStep(Step):
    """A claimed range is given up. `rest` is what stays of the chunks at its edges; the answer is whether the file
    is removed with it."""

    __slots__ = ("claimed", "end", "owner", "rest", "start")

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

    def run(self, ledger: Ledger) -> None:
        extent = ledger.trimmed(self.owner.file, self.start, self.end, *self.claimed, self.rest)
        if self.owner.removable(*extent):
            ledger.removed(self.owner.file)
            self.answer = True

    def undo(self) -> None:
        if self.answer:
            self.answer = False
            self.owner.revive()

    def _let_go(self, handles: Handles) -> None:
        self.owner.release(self.claimed[0])


class Task(Step):
    """Something else that is written to the index; the answer is what it gives."""

    __slots__ = ("_run",)

    def __init__(self, run: Callable[[Ledger], Any], epoch: int | None) -> None:
        super().__init__(0, epoch)
        self._run = run

    def run(self, ledger: Ledger) -> None:
        ledger.flush()
        self.answer = self._run(ledger)
