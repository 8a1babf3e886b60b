"""What waits for the writer, and the transaction that it is done in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
from sqlalchemy import Connection

from feeds.errors import Damaged, NotFound, SpileError, TokenReused
from feeds.merging.functions import Merging
from feeds.storage.apply import apply
from feeds.storage.session import Read, Session
from feeds.storage.settling import settle_all
from feeds.storage.shapes import ShapeNumbers
from feeds.storage.state import decode
from feeds.storage.statements import Statements
from feeds.storage.work import BarrelWork
from feeds.writes import Outcome, Token, Write, Written


class Operation(Protocol):
    """Something that waits for the writer."""

    future: Future[Any]
    size: int

    @property
    def weight(self) -> int: ...

    @property
    def barrels(self) -> Sequence[int]:
        """The barrels that it writes to, as far as they are known before."""

    @property
    def store_wide(self) -> bool:
        """Whether it writes to what is no barrel's own."""

    def run(self, transaction: Transaction) -> Any: ...


@dataclass(slots=True, eq=False)
class Writes:
    """Writes of one caller to one barrel; the result is an outcome for each.

    What was refused before stands in its place among them, so that a token answers every document with its own.
    """

    barrel: int
    name: str
    writes: Sequence[Write | SpileError]
    token: Token | None
    bytes_max: int
    future: Future[list[Outcome]] = field(default_factory=Future)
    size: int = 0
    asked: list[Write] = field(init=False)
    """Those of the writes that are to be done."""

    def __post_init__(self) -> None:
        self.asked = [write for write in self.writes if isinstance(write, Write)]

    @property
    def weight(self) -> int:
        return len(self.writes)

    @property
    def barrels(self) -> Sequence[int]:
        return (self.barrel,)

    @property
    def store_wide(self) -> bool:
        return False

    def run(self, transaction: Transaction) -> list[Outcome]:
        work = transaction.work(self.barrel, self.name)
        if self.token is not None:
            answered = transaction.answered(self.barrel, self.token)
            if answered is not None:
                return answered
        writes = self.asked
        work.fetch([write.id for write in writes])  # read already, unless the work was begun anew meanwhile
        attached = [write.attachments for write in writes if write.attachments is not None]
        if attached:
            given = [each for attachments in attached for each in attachments.values()]
            work.holdings.hold(each.content.sha256 for each in given if each is not None and each.content is not None)
        outcomes: list[Outcome] = []
        for write in self.writes:
            if isinstance(write, SpileError):
                outcomes.append(write)
                continue
            try:
                outcomes.append(apply(work, write, self.bytes_max))
            except Damaged:
                raise  # half of the write may be collected already: the whole transaction goes
            except SpileError as refusal:
                outcomes.append(refusal)
        if work.unsettled:
            settle_all(work, self.bytes_max)
        if self.token is not None and (len(writes) > 1 or any(isinstance(each, Written) for each in outcomes)):
            transaction.remember(self.barrel, self.token, outcomes)
        return outcomes


@dataclass(slots=True, eq=False)
class Task:
    """Anything else that is done inside a transaction."""

    call: Callable[[Transaction], Any]
    barrels: Sequence[int] = ()
    store_wide: bool = True
    future: Future[Any] = field(default_factory=Future)
    size: int = 0

    @property
    def weight(self) -> int:
        return 1

    def run(self, transaction: Transaction) -> Any:
        return self.call(transaction)


class Transaction:
    """The writer's connection during one transaction, and the barrels it touches."""

    def __init__(
        self,
        session: Session,
        statements: Statements,
        shapes: ShapeNumbers,
        now: float,
        backlog_max: int,
        merging: Merging,
    ) -> None:
        self.backlog_max = backlog_max
        self.merging = merging
        self.session = session
        self.statements = statements
        self.shapes = shapes
        self.now = now
        self.works: dict[int, BarrelWork] = {}
        self.released: list[BarrelWork] = []
        self._locked: dict[int, Sequence[Any]] = {}  # rows of barrels, as long as nothing was written to them

    @property
    def connection(self) -> Connection:
        """For what is asked seldom, and in SQLAlchemy's words."""
        return self.session.connection

    def begin(self, group: Sequence[Operation]) -> None:
        """Open the transaction for these operations: lock what they write to, and read the documents of writes.

        Everyone locks in one order: what is store-wide, then barrels by their keys, then rows of these barrels. So
        two processes never wait for each other.
        """
        barrels = sorted({barrel for operation in group for barrel in operation.barrels})
        ids: dict[int, list[str]] = {}
        names: dict[int, str] = {}
        for operation in group:
            if isinstance(operation, Writes):
                names[operation.barrel] = operation.name
                ids.setdefault(operation.barrel, []).extend([write.id for write in operation.asked])
        wanted = {barrel: list(dict.fromkeys(found)) for barrel, found in ids.items()}
        statements, reads = self.statements, list[Read]()
        if statements.lock_store is not None and any(operation.store_wide for operation in group):
            reads.append((statements.lock_store, ()))
        if barrels:
            reads.append((statements.lock_barrels, (statements.as_list(barrels),)))
        reads += [(statements.find_docs, (barrel, statements.as_list(found))) for barrel, found in wanted.items()]
        results = self.session.begin(reads)
        if barrels:
            self._locked = {row[0]: row[1:] for row in results[-1 - len(wanted)]}
        for (barrel, found), rows in zip(wanted.items(), results[len(results) - len(wanted) :], strict=True):
            if barrel in self._locked:  # else each operation is told so when it runs
                self.work(barrel, names[barrel]).take(found, rows)

    def execute(self, statement: str, *parameters: Any) -> list[Any]:
        """The rows of a statement (none of one that gives none)."""
        return self.session.rows(statement, parameters)

    def work(self, barrel: int, name: str) -> BarrelWork:
        """The work on one barrel, its row locked; NotFound if it was dropped."""
        found = self.works.get(barrel)
        if found is None:
            row = self._locked.pop(barrel, None)
            if row is None:
                rows = self.execute(self.statements.lock_barrels, self.statements.as_list([barrel]))
                if not rows:
                    raise NoBarrel(f"There is no barrel {name!r}", hint="Create it first, or check the name.")
                row = rows[0][1:]
            found = BarrelWork(
                *(self.session, self.statements, self.shapes, barrel, name, row),
                *(self.now, self.backlog_max, self.merging),
            )
            self.works[barrel] = found
        return found

    def answered(self, barrel: int, token: Token) -> list[Outcome] | None:
        """What was answered to this token before; TokenReused if that was another request."""
        rows = self.execute(self.statements.find_token, barrel, token.scope, token.key)
        if not rows:
            return None
        digest, answer = rows[0]
        if digest != token.digest:
            raise TokenReused(f"The token {token.key!r} was already used for another request")
        return [_outcome(item) for item in decode(answer)]

    def remember(self, barrel: int, token: Token, outcomes: Sequence[Outcome]) -> None:
        """Keep the answer to a token, in the transaction of the write itself."""
        answer = msgspec.json.encode([_told(outcome) for outcome in outcomes])
        row = (barrel, token.scope, token.key, token.digest, answer, self.now)
        self.execute(self.statements.insert_token, *row)

    def release(self, barrel: int) -> None:
        """Write what one barrel collected, and read its row again before it is worked on again."""
        work = self.works.pop(barrel, None)
        if work is not None:
            work.flush()
            self.released.append(work)
        self._locked.pop(barrel, None)

    def flush(self) -> None:
        """Write what the barrels collected."""
        for work in self.works.values():
            work.flush()


class NoBarrel(NotFound):
    """There is no such barrel, or not any more."""


class RememberedRefusal(SpileError):
    """The request was refused before, and it is refused again."""

    @classmethod
    def of(cls, told: dict[str, Any]) -> RememberedRefusal:
        """The refusal as it was told then."""
        details = {key: value for key, value in told.items() if key not in ("error", "reason", "hint")}
        refusal = cls(told["reason"], hint=told["hint"], **details)
        refusal.code = told["error"]  # type: ignore[misc]
        return refusal


def _told(outcome: Outcome) -> Any:
    if isinstance(outcome, Written):
        return [outcome.id, outcome.rev, outcome.seq, outcome.created]
    return outcome.as_dict()


def _outcome(item: Any) -> Outcome:
    if isinstance(item, list):
        return Written(item[0], item[1], item[2], created=item[3], repeated=True)
    return RememberedRefusal.of(item)
