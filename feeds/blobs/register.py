"""The write-once rule: what may be written where, and how a range is given up.

A byte goes from unwritten to written to trimmed, or from unwritten to trimmed, and never back. Whoever works on a
range has claimed it with the file's owner; what the index says of it stays true meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

from feeds.blobs.checksums import RawRow, crc32c, cut
from feeds.blobs.committer import Committer
from feeds.blobs.handles import Handles, punch, read_all, refusal, write_all
from feeds.blobs.index import Index
from feeds.blobs.names import check_range
from feeds.blobs.owned import OwnedFile
from feeds.blobs.reading import Reader
from feeds.blobs.registry import Registry
from feeds.blobs.sequencer import Sequencer
from feeds.blobs.steps import EndStep, TrimStep, WriteStep
from feeds.blobs.values import Appending, Placed, State, Tag
from feeds.errors import AlreadyWritten, Trimmed

# Up to it the committer writes what stands side by side at once: a third less work for many small appends.
HELD_BYTES_MAX = 16 * 1024
_W = State.WRITTEN.value

_Range = tuple[int, int]  # from, to


class Register:
    """Takes writes and trims. Thread-safe."""

    def __init__(
        self,
        index: Index,
        registry: Registry,
        sequencer: Sequencer,
        handles: Handles,
        committer: Committer,
        reader: Reader,
    ) -> None:
        self._index = index
        self._registry = registry
        self._sequencer = sequencer
        self._handles = handles
        self._committer = committer
        self._reader = reader
        self.punched = 0

    def append(self, prefix: str, data: bytes, extra: int, checksum: int | None, epoch: int | None) -> Appending:
        """A chunk behind everything else."""
        size = len(data)
        check_range(0, size + extra)
        rows = cut(0, data, checksum)
        self._committer.check_epoch(epoch)
        self._committer.admit(size)
        try:
            owner, start = self._sequencer.place(prefix, size, extra)
            if start:
                rows = [(start + at, length, state, sum_, tag) for at, length, state, sum_, tag in rows]
            placed = Placed(owner.name, start, size)
            step = self._written(owner, start, data, rows, epoch, placed)
        except BaseException:
            self._committer.withdraw(size)
            raise
        self._submit(step)
        return Appending(placed, step.future)

    def write(self, name: str, start: int, data: bytes, checksum: int | None, epoch: int | None) -> WriteStep | None:
        """A chunk at a place of the caller's; None where the very bytes stand there already."""
        size = len(data)
        end = check_range(start, size)
        rows = cut(start, data, checksum)
        self._committer.check_epoch(epoch)
        self._committer.admit(size)
        try:
            owner = self._registry.obtain(name)
            fresh = owner.claim(start, end)
            try:
                same = not fresh and self._is_same(owner, start, end, data)
            except BaseException:
                owner.release(start)
                raise
            if same:
                owner.release(start)
                self._committer.withdraw(size)
                return None
            step = self._written(owner, start, data, rows, epoch, None)
        except BaseException:
            self._committer.withdraw(size)
            raise
        self._submit(step)
        return step

    def trim(self, name: str, start: int, size: int, epoch: int | None) -> None:
        """Give a range up, and its room on disk."""
        end = check_range(start, size)
        self._committer.check_epoch(epoch)
        self._committer.admit(0)
        try:
            owner = self._registry.obtain(name)
            claimed, edges = self._claim_chunks(owner, start, end)
            try:
                rest = [row for edge in edges for row in self._kept(owner, edge, start, end)]
            except BaseException:
                owner.release(claimed[0])
                raise
        except BaseException as error:
            self._committer.withdraw(0)
            if isinstance(error, Trimmed):
                return  # removed, and all of the range with it
            raise
        step = TrimStep(owner, start, end, claimed, rest, epoch)
        self._submit(step)
        self._give_back(step, [(start, end)])

    def end(self, name: str, epoch: int | None, *, all_of_it: bool) -> None:
        """Let nothing more come to a file: what was never written goes, or all of it."""
        self._committer.check_epoch(epoch)
        self._committer.admit(0)
        try:
            owner = self._registry.find(name)
            if owner is None:
                self._committer.withdraw(0)
                return
            high = owner.claim_all()
            try:
                ranges = None if all_of_it else list(self._holes(owner))
            except BaseException:
                owner.release_all(high)
                raise
        except BaseException as error:
            self._committer.withdraw(0)
            if isinstance(error, Trimmed):
                return  # removed already
            raise
        step = EndStep(owner, high, ranges, epoch)
        self._submit(step)
        self._give_back(step, ranges or [])

    # -- parts of them

    def _written(
        self, owner: OwnedFile, start: int, data: bytes, rows: list[RawRow], epoch: int | None, answer: Placed | None
    ) -> WriteStep:
        """The step for bytes whose range is claimed; the system has them by then, unless they are few."""
        try:
            handle = self._handles.take(owner.name, create=True)
            try:
                held = len(data) <= HELD_BYTES_MAX
                if not held:
                    write_all(handle.fd, data, start)
            except BaseException:
                owner.void(start, start + len(data), partial(punch, handle.fd))  # a part of it may have found room
                self._handles.give(handle)
                raise
        except BaseException as error:
            owner.release(start)
            if isinstance(error, OSError):
                raise refusal(error, "a write") from error
            raise
        return WriteStep(owner, handle, rows, len(data), epoch, answer, data if held else None)

    def _submit(self, step: WriteStep | TrimStep | EndStep) -> None:
        try:
            self._committer.submit(step)
        except BaseException:
            step.finish(self._handles, void=True)
            raise

    def _is_same(self, owner: OwnedFile, start: int, end: int, data: bytes) -> bool:
        """Whether the very bytes stand in a claimed range; False where none was written, else an error."""
        rows = self._index.rows(owner.file, start, end)
        if not rows:
            return False
        if self._index.has_trimmed(owner.file, start, end):
            raise Trimmed(f"Bytes of {owner.name} between {start} and {end} were trimmed")
        position = start
        while rows:
            for row in rows:
                if row[0] > position or not self._holds(owner, row, start, end, data):
                    raise written(owner, start, end)
                position = row[0] + row[1]
            rows = self._index.rows(owner.file, position, end) if position < end else []
        if position < end:
            raise written(owner, start, end)
        return True

    def _holds(self, owner: OwnedFile, row: RawRow, start: int, end: int, data: bytes) -> bool:
        """Whether a chunk has the bytes that are to be written over it. A damaged one is healed by its own bytes."""
        first, last = max(row[0], start), min(row[0] + row[1], end)
        wanted = data[first - start : last - start]
        handle = self._handles.take(owner.name, create=True)
        try:
            found = read_all(handle.fd, row[1], row[0])
            if len(found) == row[1] and crc32c(found) == row[3]:
                return found[first - row[0] : last - row[0]] == wanted
            if len(wanted) == row[1] and crc32c(wanted) == row[3]:
                write_all(handle.fd, wanted, row[0])
                os.fdatasync(handle.fd)
                self._reader.healthy(owner, row)
                return True
        except OSError as error:
            raise refusal(error, "comparing what is there") from error
        finally:
            self._handles.give(handle)
        self._reader.verified(owner, [row])
        return False

    def _claim_chunks(self, owner: OwnedFile, start: int, end: int) -> tuple[_Range, list[RawRow]]:
        """Claim a range together with the chunks that reach beyond it, and those chunks."""
        first, last = start, end
        while True:
            owner.claim(first, last, gives_up=True)
            try:
                touching = [
                    *self._index.rows(owner.file, start, start + 1, 1),
                    *self._index.rows(owner.file, end - 1, end, 1),
                ]
                edges = {
                    row[0]: row for row in touching if row[2] == _W and (row[0] < start or row[0] + row[1] > end)
                }
                wide = (min(first, start, *edges), max(last, *(row[0] + row[1] for row in edges.values()), end))
            except BaseException:
                owner.release(first)
                raise
            if wide == (first, last):
                return wide, list(edges.values())
            owner.release(first)
            first, last = wide

    def _kept(self, owner: OwnedFile, row: RawRow, start: int, end: int) -> list[RawRow]:
        """What stays of a chunk of which a range goes, with sums of its own."""
        [(_, data)] = self._reader.verified(owner, [row])
        kept: list[RawRow] = []
        if row[0] < start:
            kept += cut(row[0], data[: start - row[0]], None, Tag.SPLIT)
        if row[0] + row[1] > end:
            kept += cut(end, data[end - row[0] :], None, Tag.SPLIT)
        return kept

    def _holes(self, owner: OwnedFile) -> Iterator[_Range]:
        """The ranges before the end of a claimed file in which nothing was ever written."""
        row = self._index.file(owner.name)
        position, end = 0, 0 if row is None else row[3]
        while position < end and (rows := self._index.rows(owner.file, position, end)):
            for start, size, *_ in rows:
                if start > position:
                    yield position, start
                position = start + size

    def _give_back(self, step: TrimStep | EndStep, ranges: list[_Range]) -> None:
        """Wait until ranges are given up, and give their room back."""
        owner = step.owner
        if step.future.result():
            self._registry.removed(owner)
        else:
            try:
                with self._handles.borrowed(owner.name) as fd:
                    parts = zip(ranges, step.wholes, strict=True)
                    self.punched += sum(punch(fd, *each, whole) for each, whole in parts)
            except FileNotFoundError:
                pass  # removed meanwhile, and all of its room with it
        self._committer.regain()


def written(owner: OwnedFile, start: int, end: int) -> AlreadyWritten:
    """Something else stands there."""
    return AlreadyWritten(f"Bytes of {owner.name} between {start} and {end} were written already")
