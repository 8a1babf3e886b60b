"""The one thread that makes blobs durable: it takes what waits, syncs each file once, commits the rows, and answers.

Data is on disk before its row is committed, so that a row never speaks of bytes that a crash could take. Many writers
share the two syncs of a group.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from sqlalchemy.exc import DBAPIError

from feeds.blobs.handles import Handles, refusal, write_vector
from feeds.blobs.index import Index
from feeds.blobs.ledger import Ledger
from feeds.blobs.lingering import Lingering
from feeds.blobs.owned import failed
from feeds.blobs.reserve import Reserve
from feeds.blobs.steps import Step, Task, WriteStep
from feeds.blobs.values import BlobSettings
from feeds.errors import BadEpoch, SpileError, StorageFull, Unavailable
from feeds.storage.refusals import translate
from feeds.storage.session import SqliteSession

logger = logging.getLogger("spile.blobs")

_VECTOR_MAX = 256  # chunks of one call; Linux takes 1,024


class Committer:
    """The committer's thread and its queue, which is bounded: who finds it full waits."""

    def __init__(
        self,
        index: Index,
        session: SqliteSession,
        handles: Handles,
        reserve: Reserve,
        settings: BlobSettings,
        epoch: int,
    ) -> None:
        self.epoch = epoch
        self._index = index
        self._session = session
        self._handles = handles
        self._reserve = reserve
        self._settings = settings
        self._guard = threading.Lock()
        self._wake = threading.Condition(self._guard)
        self._room = threading.Condition(self._guard)
        self._queue: deque[Step] = deque()
        self._admitted = self._admitted_bytes = self._blocked = 0
        self._stopping = False
        self._lingering = Lingering()
        self._enough = 1  # steps in the queue for which the committer is woken
        self.groups = self.syncs = self.steps = self.bytes = self.failures = 0
        self._thread = threading.Thread(target=self._loop, name="spile-blobs", daemon=True)
        self._thread.start()

    # -- for callers

    def admit(self, size: int) -> None:
        """Wait until a step of that many bytes may be begun; it ends with `submit` or `withdraw`."""
        settings = self._settings
        with self._guard:
            while self._admitted and (
                self._admitted >= settings.waiting_max or self._admitted_bytes + size > settings.waiting_bytes_max
            ):
                self._blocked += 1
                self._room.wait()
                self._blocked -= 1
            if self._stopping:
                raise closed()
            self._admitted += 1
            self._admitted_bytes += size

    def withdraw(self, size: int) -> None:
        """What was admitted does not come."""
        with self._guard:
            self._leave(1, size)

    def submit(self, step: Step) -> None:
        """Queue a step that was admitted."""
        with self._guard:
            if self._stopping:
                self._leave(1, step.size)
                raise closed()
            self._queue.append(step)
            if len(self._queue) == self._enough:
                self._wake.notify()

    def call(self, run: Callable[[Ledger], Any], *, epoch: int | None = None) -> Any:
        """Run something inside a transaction, and wait for what it gives.

        It does not wait for room: those who take it may be waiting for this.
        """
        task = Task(run, epoch)
        with self._guard:
            if self._stopping:
                raise closed()
            self._push(task)
        return task.future.result()

    def tell(self, run: Callable[[Ledger], Any], afterwards: Callable[[], None] | None = None) -> None:
        """Run something inside a transaction some time; it never waits, and gives nothing. A failure is logged."""
        task = Task(run, None)

        def end(future: Future[Any]) -> None:
            error = future.exception()
            if error is not None:
                logger.warning("the index of the blob files could not be kept: %s", error)
            elif afterwards is not None:
                afterwards()

        task.future.add_done_callback(end)
        with self._guard:
            if not self._stopping:
                self._push(task)

    def regain(self) -> None:
        """Keep room in reserve again some time, since some was given back."""
        if not self._reserve.is_there:
            self.tell(lambda _ledger: None)

    def _push(self, task: Task) -> None:
        self._admitted += 1
        self._queue.append(task)
        self._wake.notify()

    def check_epoch(self, epoch: int | None) -> None:
        """BadEpoch where it is given and not the present one."""
        if epoch is not None and epoch != self.epoch:
            raise BadEpoch(f"The blob files are in epoch {self.epoch}, and not {epoch}", epoch=self.epoch)

    @property
    def alive(self) -> bool:
        """Whether it takes steps."""
        return self._thread.is_alive() and not self._stopping

    def stats(self) -> dict[str, int]:
        """The queue's depth, and what was done."""
        return {
            "blobs_waiting": self._admitted,
            "blobs_waiting_bytes": self._admitted_bytes,
            "blobs_blocked": self._blocked,
            "blobs_groups": self.groups,
            "blobs_syncs": self.syncs,
            "blobs_steps": self.steps,
            "blobs_bytes": self.bytes,
            "blobs_failures": self.failures,
        }

    def close(self) -> None:
        """Commit what waits, and end the thread."""
        with self._guard:
            self._stopping = True
            self._wake.notify()
            self._room.notify_all()
        self._thread.join()
        self._session.close()

    # -- the thread

    def _loop(self) -> None:
        group: list[Step] = []
        try:
            while group := self._take():
                began = time.perf_counter()
                size = sum(step.size for step in group)
                self._write(group)
                self._sync(group)
                self._commit(group)
                self._lingering.answered(len(group), size, time.perf_counter() - began)
        except BaseException as error:
            logger.critical("the committer of the blob files died: %s", error, exc_info=True)
            with self._guard:
                self._stopping = True
                group += self._queue
                self._queue.clear()
            death = Unavailable(f"The committer of the blob files died: {error}", hint="Restart the service.")
            left = [step for step in group if not step.future.done()]
            self._answer_all(left, [death] * len(left), void=False)

    def _take(self) -> list[Step]:
        """All that waits; nothing at the end."""
        with self._guard:
            while not self._queue:
                if self._stopping:
                    return []
                self._wake.wait()
            self._linger()
            group = list(self._queue)
            self._queue.clear()
            return group

    def _linger(self) -> None:
        """Wait a moment for those who were just answered."""
        limit_s = self._lingering.limit_s()
        if limit_s and not self._stopping:
            before = len(self._queue)
            self._enough = before + self._lingering.wanted
            self._wake.wait(limit_s)
            self._enough = 1
            self._lingering.came(len(self._queue) - before)

    def _write(self, group: list[Step]) -> None:
        """Give the system what it does not have yet, in as few calls as can be."""
        held = [step for step in group if isinstance(step, WriteStep) and step.data is not None]
        held.sort(key=lambda step: (step.owner.file, step.rows[0][0]))
        first = 0
        for at in range(1, len(held) + 1):
            if at < len(held) and at - first < _VECTOR_MAX and _is_behind(held[at], held[at - 1]):
                continue
            run, first = held[first:at], at
            try:
                write_vector(run[0].handle.fd, [step.data or b"" for step in run], run[0].rows[0][0])
            except OSError as error:
                for step in run:
                    step.refused = refusal(error, "a write")

    def _sync(self, group: list[Step]) -> None:
        """Bring the data of the group to the disk. Of a file that cannot be synced nothing counts from then on: the
        system tells a lost page once, and forgets it."""
        written = {step.owner: step.handle for step in group if isinstance(step, WriteStep) and not step.refused}
        for owner, handle in written.items():
            try:
                os.fdatasync(handle.fd)
                self.syncs += 1
            except OSError as error:
                logger.error("%s cannot be synced: %s", owner.name, error)
                owner.fail(refusal(error, "a sync").reason)

    def _commit(self, group: list[Step]) -> None:
        self.groups += 1
        ledger = Ledger(self._session, self.epoch)
        refused: list[SpileError | None] = []
        try:
            self._session.begin(())
            refused = [self._run(step, ledger) for step in group]
            ledger.flush()
            self._session.commit()
        except DBAPIError as error:
            self._undo(group, translate(error))
            return
        self.epoch = ledger.epoch
        self.syncs += 1
        self.steps += len(group)
        self.bytes += sum(step.size for step in group)
        self._answer_all(group, refused)
        if not self._reserve.is_there:
            self._reserve.fill()

    def _run(self, step: Step, ledger: Ledger) -> SpileError | None:
        if step.epoch is not None and step.epoch != ledger.epoch:
            return BadEpoch(f"The blob files went to epoch {ledger.epoch} meanwhile", epoch=ledger.epoch)
        if isinstance(step, WriteStep):
            if step.refused is not None:
                return step.refused
            if step.owner.failure is not None:
                return failed(step.owner.name, step.owner.failure)
        try:
            step.run(ledger)
        except SpileError as error:  # a task refuses before it changes anything
            return error
        return None

    def _undo(self, group: list[Step], error: SpileError) -> None:
        """Nothing of the transaction stands. Where that may be for one step's sake, each is tried by itself."""
        for step in group:
            step.undo()
        try:
            self._session.rollback()
        except DBAPIError as other:
            logger.warning("rolling back failed: %s", other.orig)
        if isinstance(error, StorageFull):
            self._without_room(group, error)
            return
        if len(group) > 1:
            for step in group:
                self._commit([step])
            return
        self._refuse(group, error)

    def _without_room(self, group: list[Step], error: StorageFull) -> None:
        """The disk is full: only what gives room back is done, with the room that was kept for it."""
        freeing = [step for step in group if step.frees]
        if freeing and self._reserve.release():
            self._refuse([step for step in group if not step.frees], error)
            self._commit(freeing)
        else:
            self._refuse(group, error)

    def _refuse(self, group: list[Step], error: SpileError) -> None:
        self.failures += 1
        self._answer_all(group, [error] * len(group), void=isinstance(error, StorageFull))

    def _answer_all(self, group: list[Step], refused: Sequence[SpileError | None], *, void: bool = True) -> None:
        """Give back all that the steps held, and only then wake who waits for them. `void`: of those that are refused
        nothing stands; after a commit that failed for another reason than room it may yet."""
        for step, error in zip(group, refused, strict=True):
            step.finish(self._handles, void=void and error is not None)
        with self._guard:
            self._leave(len(group), sum(step.size for step in group))
        for step, error in zip(group, refused, strict=True):
            if error is not None:
                step.future.set_exception(error)
            else:
                step.future.set_result(step.answer)

    def _leave(self, count: int, size: int) -> None:
        self._admitted -= count
        self._admitted_bytes -= size
        if self._blocked:
            self._room.notify_all()


def _is_behind(step: WriteStep, before: WriteStep) -> bool:
    return step.owner is before.owner and step.rows[0][0] == before.rows[0][0] + before.size


def closed() -> Unavailable:
    """Nothing more is taken."""
    return Unavailable("The blob files are closed")


def done(answer: Any = None) -> Future[Any]:
    """A future that has its answer."""
    future: Future[Any] = Future()
    future.set_result(answer)
    return future
