"""The one writer of a store: a thread that takes what waits, and commits it in one transaction.

Each caller is answered by itself: a refused write leaves no trace, and when the transaction as a whole fails, its
operations are tried one by one, so that a fault is told to the one who caused it. What is nobody's fault is told to
all: a database that is away, or one that went away before it told whether the commit stands.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import DBAPIError

from feeds.body import DOCUMENT_BYTES_MAX
from feeds.errors import Damaged, Overloaded, SpileError, Unavailable
from feeds.limits import WAITING_MAX
from feeds.merging.functions import Merging
from feeds.storage.database import Database
from feeds.storage.refusals import LOST, is_lost, is_repeatable, translate
from feeds.storage.session import Session
from feeds.storage.shapes import ShapeNumbers
from feeds.storage.statements import Statements
from feeds.storage.transaction import NoBarrel, Operation, Task, Transaction, Writes
from feeds.writes import Outcome, Token, Write

logger = logging.getLogger("spile.writer")

WAITING_BYTES_MAX = 128 * 1024 * 1024
_LARGE_GROUP = 200  # writes
GROUP_MAX = 2_000  # writes of one transaction: longer ones make everybody wait without being faster
GROUP_BYTES_MAX = 32 * 1024 * 1024

TRIES_MAX = 4  # of a transaction that lost against another process's, or whose connection was lost before the commit

CommitHook = Callable[[str, int], None]
BarrelGone = Callable[[int, str], SpileError | None]


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a transaction did not come to stand, and whom that concerns."""

    error: BaseException
    again: bool = False  # it may be done again as it is: nothing of it was stored
    everyone: bool = False  # it is not for one operation's sake, and would meet each by itself as well
    lost: bool = False  # the way to the database is at fault, which `Reach` tells of


class Writer:
    """The writer's thread and its queue."""

    def __init__(
        self,
        database: Database,
        statements: Statements,
        clock: Callable[[], float],
        waiting_max: int = WAITING_MAX,
        backlog_max: int = 1_000_000,
    ) -> None:
        self._waiting_max = waiting_max
        self._backlog_max = backlog_max
        self._database = database
        self._session: Session | None = database.connect_writer()
        self._statements = statements
        self._clock = clock
        self._shapes = ShapeNumbers()
        self._waiting: deque[Operation] = deque()
        self.merging = Merging()
        """The functions that barrels may name as their merge rules."""
        self._wake = threading.Condition()
        self._weight = 0
        self._size = 0
        self._stopping = False
        self._hooks: tuple[CommitHook, ...] = ()
        self.on_group: Callable[[], None] = lambda: None
        self.on_commit: CommitHook = lambda barrel, seq: None
        self.on_gone: BarrelGone = lambda barrel, name: None
        """Told of a barrel that is not there any more; what it gives is told to the caller instead."""
        self.groups = 0
        self.operations = 0
        self.failures = 0
        self.failure: str | None = None
        """Why the last transaction failed, None once one is committed."""
        self.last_group = 0
        self._thread = threading.Thread(target=self._loop, name="spile-writer", daemon=True)
        self._thread.start()

    # -- for callers

    def submit(self, operation: Operation) -> None:
        """Queue an operation; Overloaded when too much waits already."""
        with self._wake:
            if self._stopping:
                raise Unavailable("The store is closed")
            if self._weight + operation.weight > self._waiting_max and self._waiting:
                raise Overloaded(f"{self._weight} writes wait already; {self._waiting_max} may")
            if self._size + operation.size > WAITING_BYTES_MAX and self._waiting:
                raise Overloaded(f"{self._size} bytes of writes wait already; {WAITING_BYTES_MAX} may")
            self._waiting.append(operation)
            self._weight += operation.weight
            self._size += operation.size
            self._wake.notify()

    def write(
        self,
        barrel: int,
        name: str,
        writes: Sequence[Write | SpileError],
        token: Token | None,
        bytes_max: int = DOCUMENT_BYTES_MAX,
    ) -> Future[list[Outcome]]:
        """Queue writes to a barrel; the future gives an outcome for each, in order."""
        operation = Writes(barrel, name, writes, token, bytes_max)
        operation.size = sum(len(write.body) for write in operation.asked)
        self.submit(operation)
        return operation.future

    def call(self, task: Callable[[Transaction], Any], *barrels: int, store_wide: bool | None = None) -> Any:
        """Run `task` inside a transaction and wait for its result.

        `barrels` are those that it writes to. Without any it is `store_wide`: it writes to what is no barrel's own.
        """
        operation = Task(task, barrels, not barrels if store_wide is None else store_wide)
        self.submit(operation)
        return operation.future.result()

    def add_hook(self, hook: CommitHook) -> Callable[[], None]:
        """Call `hook(barrel, seq)` after each commit, on the writer's thread; it must be quick."""
        self._hooks = (*self._hooks, hook)

        def remove() -> None:
            self._hooks = tuple(each for each in self._hooks if each is not hook)

        return remove

    def tell(self, barrel: str, seq: int) -> None:
        """Tell the hooks that a barrel was written to."""
        for hook in self._hooks:
            try:
                hook(barrel, seq)
            except Exception:
                logger.exception("a commit hook failed")

    def stats(self) -> dict[str, int]:
        """The queue's depth and what was done."""
        return {
            "writer_waiting": self._weight,
            "writer_waiting_bytes": self._size,
            "writer_groups": self.groups,
            "writer_operations": self.operations,
            "writer_failures": self.failures,
            "writer_last_group": self.last_group,
        }

    @property
    def alive(self) -> bool:
        """Whether the thread runs and takes operations."""
        return self._thread.is_alive() and not self._stopping

    def forget_barrel(self, barrel: int) -> None:
        """Drop what is remembered of a barrel; call it on the writer's thread."""
        self._shapes.forget(barrel)

    def close(self) -> None:
        """Commit what waits, and end the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    # -- the thread

    def _loop(self) -> None:
        group: list[Operation] | None = []
        try:
            while (group := self._take()) is not None:
                if group:
                    with _no_collections(group):
                        self._commit(group)
        except BaseException as error:
            logger.critical("the writer died: %s", error, exc_info=True)
            self._die(error, group or [])
        finally:
            self._let_go()

    def _die(self, error: BaseException, taken: list[Operation]) -> None:
        with self._wake:
            self._stopping = True
            left, self._waiting = self._waiting, deque()
        for operation in (*taken, *left):
            if not operation.future.done():
                _fail(operation, Unavailable(f"The writer died: {error}", hint="Restart the service."))

    def _take(self) -> list[Operation] | None:
        """What is done next, without those whose callers gave up meanwhile; None at the end."""
        with self._wake:
            while not self._waiting:
                if self._stopping:
                    return None
                self._wake.wait()
            group: list[Operation] = []
            weight = size = 0
            while self._waiting and weight < GROUP_MAX and size < GROUP_BYTES_MAX:
                operation = self._waiting.popleft()
                if operation.future.set_running_or_notify_cancel():
                    group.append(operation)
                weight += operation.weight
                size += operation.size
            self._weight -= weight
            self._size -= size
            return group

    def _commit(self, group: list[Operation]) -> None:
        self.groups += 1
        self.last_group = len(group)
        fault = self._try(group)
        for _ in range(1, TRIES_MAX):
            if fault is None or not fault.again:
                break
            fault = self._try(group)
        if fault is None:
            self.failure = None
            return
        if len(group) > 1 and not fault.everyone:
            for operation in group:
                self._commit([operation])
            return
        self.failures += 1
        error = fault.error
        if isinstance(error, DBAPIError):
            error = translate(error)
        if not fault.lost:
            self.failure = str(error)
        for operation in group:
            _fail(operation, error)

    def _try(self, group: list[Operation]) -> Fault | None:
        """Do the operations in one transaction, and answer each; or tell why nothing of it is done."""
        try:
            session = self._connected()
        except SpileError as error:
            return Fault(error, everyone=True, lost=self._database.is_shared)
        transaction = Transaction(
            session, self._statements, self._shapes, self._clock(), self._backlog_max, self.merging
        )
        begun = False
        try:
            transaction.begin(group)
            begun = True
            answers = [_run(operation, transaction) for operation in group]
            transaction.flush()
        except DBAPIError as error:
            # Beginning is nobody's fault, and would fail one by one as well.
            return self._failed(error, everyone=not begun)
        except SpileError as error:
            return self._failed(error)
        except Exception as error:
            logger.error("a write failed: %s", error, exc_info=True)
            return self._failed(error)
        try:
            session.commit()
        except DBAPIError as error:
            fault = self._failed(error)
            return Fault(_unknown(), everyone=True, lost=True) if fault.lost else fault
        self._shapes.committed()
        self.operations += len(group)
        for operation, (answer, refusal) in zip(group, answers, strict=True):
            if refusal is not None:
                _fail(operation, self._refused(operation, refusal))
            else:
                operation.future.set_result(answer)
        self.on_group()
        self._tell(transaction)
        return None

    def _connected(self) -> Session:
        """The session, made anew if it was lost; Unavailable while the database is away."""
        if self._session is not None and not self._session.is_usable():
            self._let_go()
        if self._session is None:
            self._session = self._database.connect_writer()
        return self._session

    def _failed(self, error: Exception, everyone: bool = False) -> Fault:
        """Undo what was begun."""
        self._shapes.rolled_back()
        lost = isinstance(error, DBAPIError) and is_lost(error)
        if not lost and self._session is not None:
            try:
                self._session.rollback()
            except DBAPIError as other:
                logger.warning("rolling back failed: %s", other.orig)
                lost = self._database.is_shared
        if lost:
            self._let_go()
            self._database.reach.on_lost()
            return Fault(error, again=True, everyone=True, lost=True)
        return Fault(error, again=isinstance(error, DBAPIError) and is_repeatable(error), everyone=everyone)

    def _let_go(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _refused(self, operation: Operation, refusal: SpileError) -> SpileError:
        if isinstance(refusal, NoBarrel) and isinstance(operation, Writes):
            return self.on_gone(operation.barrel, operation.name) or refusal
        return refusal

    def _tell(self, transaction: Transaction) -> None:
        for work in (*transaction.released, *transaction.works.values()):
            if work.attempts:
                self.merging.note(work.attempts)
            if work.seq != work.head_before:
                self.on_commit(work.name, work.seq)
                self.tell(work.name, work.seq)


@contextmanager
def _no_collections(group: list[Operation]) -> Iterator[None]:
    """Let Python's garbage collector rest during a large group: it would look through a hundred thousand short-lived
    rows, which hold no cycles, again and again (a tenth of a bulk write)."""
    pause = gc.isenabled() and sum(operation.weight for operation in group) >= _LARGE_GROUP
    if pause:
        gc.disable()
    try:
        yield
    finally:
        if pause:
            gc.enable()


def _unknown() -> Unavailable:
    """Nobody knows whether the commit stands: the database went away before it said so."""
    return Unavailable(
        f"{LOST} during the commit: whether this was stored is not known",
        hint="Repeat the request. With its token (Idempotency-Key, _token) or its _rev that does no harm in either "
        "case; without them read first.",
        outcome="unknown",
    )


def _run(operation: Operation, transaction: Transaction) -> tuple[Any, SpileError | None]:
    try:
        return operation.run(transaction), None
    except Damaged:
        raise
    except SpileError as refusal:
        return None, refusal


def _fail(operation: Operation, error: BaseException) -> None:
    if operation.future.running() or operation.future.set_running_or_notify_cancel():
        operation.future.set_exception(error)
