"""The one writer of a store: a thread that takes what waits, and commits it in one transaction.

Each caller is answered by itself: a refused write leaves no trace, and when the transaction as a whole fails, its
operations are tried one by one, so that a fault is told to the one who caused it.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from sqlalchemy.exc import DBAPIError

from feeds.body import DOCUMENT_BYTES_MAX
from feeds.errors import Damaged, NotFound, Overloaded, SpileError, Unavailable
from feeds.storage.database import Database, translate
from feeds.storage.shapes import ShapeNumbers
from feeds.storage.statements import Statements
from feeds.storage.transaction import Operation, Task, Transaction, Writes
from feeds.writes import Outcome, Token, Write

logger = logging.getLogger("spile.writer")

WAITING_MAX = 20_000  # writes in the queue; beyond it callers are told at once rather than made to wait
WAITING_BYTES_MAX = 128 * 1024 * 1024
_LARGE_GROUP = 200  # writes
GROUP_MAX = 2_000  # writes of one transaction: longer ones make everybody wait without being faster
GROUP_BYTES_MAX = 32 * 1024 * 1024

CommitHook = Callable[[str, int], None]


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
        self._connection = database.connect_writer()
        self._statements = statements
        self._clock = clock
        self._shapes = ShapeNumbers()
        self._waiting: deque[Operation] = deque()
        self._wake = threading.Condition()
        self._weight = 0
        self._size = 0
        self._stopping = False
        self._hooks: tuple[CommitHook, ...] = ()
        self.on_group: Callable[[], None] = lambda: None
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
        writes: Sequence[Write],
        token: Token | None,
        bytes_max: int = DOCUMENT_BYTES_MAX,
    ) -> Future[list[Outcome]]:
        """Queue writes to a barrel; the future gives an outcome for each, in order."""
        operation = Writes(barrel, name, writes, token, bytes_max)
        operation.size = sum(len(write.body) for write in writes)
        self.submit(operation)
        return operation.future

    def call(self, task: Callable[[Transaction], Any]) -> Any:
        """Run `task` inside a transaction and wait for its result."""
        operation = Task(task)
        self.submit(operation)
        return operation.future.result()

    def add_hook(self, hook: CommitHook) -> Callable[[], None]:
        """Call `hook(barrel, seq)` after each commit, on the writer's thread; it must be quick."""
        self._hooks = (*self._hooks, hook)

        def remove() -> None:
            self._hooks = tuple(each for each in self._hooks if each is not hook)

        return remove

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
            self._connection.close()

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
        transaction = Transaction(self._connection, self._statements, self._shapes, self._clock(), self._backlog_max)
        if not self._begin(group):
            return
        try:
            self._fetch(transaction, group)
            answers = [_run(operation, transaction) for operation in group]
            transaction.flush()
            self._connection.exec_driver_sql("COMMIT").close()
        except Exception as error:
            self._roll_back()
            if len(group) > 1:
                for operation in group:
                    self._commit([operation])
                return
            self.failures += 1
            if isinstance(error, DBAPIError):
                error = translate(error)
            elif not isinstance(error, SpileError):
                logger.error("a write failed: %s", error, exc_info=True)
            self.failure = str(error)
            _fail(group[0], error)
            return
        self.failure = None
        self._shapes.committed()
        self.operations += len(group)
        for operation, (answer, refusal) in zip(group, answers, strict=True):
            if refusal is not None:
                _fail(operation, refusal)
            else:
                operation.future.set_result(answer)
        self.on_group()
        self._tell(transaction)

    def _begin(self, group: list[Operation]) -> bool:
        """Open a transaction; where that fails it is nobody's fault, and one by one would fail as well."""
        try:
            self._connection.exec_driver_sql(self._statements.begin).close()
        except DBAPIError as error:
            self._roll_back()
            self.failures += 1
            self.failure = translate(error).reason
            for operation in group:
                _fail(operation, translate(error))
            return False
        return True

    def _fetch(self, transaction: Transaction, group: list[Operation]) -> None:
        """Read all documents of a group in one statement a barrel."""
        ids: dict[tuple[int, str], list[str]] = {}
        for operation in group:
            if isinstance(operation, Writes):
                key = (operation.barrel, operation.name)
                ids.setdefault(key, []).extend([write.id for write in operation.writes])
        for (barrel, name), wanted in ids.items():
            try:
                work = transaction.work(barrel, name)
            except NotFound:
                continue  # each operation is told so when it runs
            work.fetch(wanted)

    def _roll_back(self) -> None:
        self._shapes.rolled_back()
        try:
            self._connection.exec_driver_sql("ROLLBACK").close()
        except DBAPIError as error:
            if "no transaction is active" not in str(error.orig):
                logger.warning("rolling back failed: %s", error.orig)

    def _tell(self, transaction: Transaction) -> None:
        for work in (*transaction.released, *transaction.works.values()):
            if work.seq != work.head_before:
                for hook in self._hooks:
                    try:
                        hook(work.name, work.seq)
                    except Exception:
                        logger.exception("a commit hook failed")


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
