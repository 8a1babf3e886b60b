"""Up to where each broker was told of each barrel's changes, as it is stored.

Compaction spares what a broker was not told yet. A broker whose process never comes back must not hold it up for
ever: one that was not there for as long as a barrel keeps its log is forgotten, and told anew if it does come back.
For the same time the rows of a dropped barrel wait for a broker that retains some of them: what is to be cleared
there is read from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import Text, bindparam, cast, delete, func, literal_column, select, update

from feeds.storage.database import Database
from feeds.storage.locks import Fence, check_fence
from feeds.storage.queries import Queries
from feeds.storage.schema import barrels, meta, publishers
from feeds.storage.statements import Statements
from feeds.storage.transaction import Transaction
from feeds.storage.writer import Writer

if TYPE_CHECKING:
    from feeds.barrel import Barrel

ABSENT_S = 24 * 3600.0  # a broker that was there within it is never forgotten, however short a barrel's log is kept
WATCHED_S = 3600.0  # a store that was closed for weeks gives those who were told from it so long to come back
RETAINED_NOTES = "retained:"  # what brokers were given to retain, by broker and barrel; gone when that is cleared


class StoredPublishers:
    """The positions of one store. Thread-safe."""

    def __init__(
        self,
        database: Database,
        statements: Statements,
        queries: Queries,
        writer: Writer,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._queries = queries
        self._writer = writer
        self._clock = clock
        self._since = clock()
        sql = statements.sql
        barrel: Any = bindparam("barrel")
        self._upsert = statements.upsert(publishers, "seq", "at")
        self._seen = sql(
            update(publishers).values(at=bindparam("new_at")).where(publishers.c.broker == bindparam("broker")),
            *("new_at", "broker"),
        )
        absent = (publishers.c.barrel == barrel, publishers.c.at < bindparam("before"))
        self._count_absent = sql(select(func.count()).select_from(publishers).where(*absent), "barrel", "before")
        self._delete_absent = sql(delete(publishers).where(*absent), "barrel", "before")
        note = literal_column(f"'{RETAINED_NOTES}'").op("||")(publishers.c.broker).op("||")(literal_column("':'"))
        self._owed = sql(
            select(barrels.c.barrel)
            .distinct()
            .select_from(
                barrels.join(publishers, publishers.c.barrel == barrels.c.barrel).join(
                    meta, meta.c.key == note.op("||")(cast(barrels.c.barrel, Text))
                )
            )
            .where(barrels.c.dropped != literal_column("0"))
        )
        self.here: frozenset[str] = frozenset()
        """The brokers that this process has told something."""

    def add(self, broker: str, fence: Fence | None) -> None:
        """See `Store.add_publisher`."""

        def add(transaction: Transaction) -> None:
            if fence is not None:
                check_fence(transaction, fence)
            for key, *_ in transaction.execute(self._queries.barrels):
                if not transaction.execute(self._queries.publisher, broker, key):
                    transaction.execute(self._upsert, broker, key, 0, transaction.now)
            transaction.execute(self._seen, transaction.now, broker)
            self.here |= {broker}

        self._writer.call(add)

    def begin(self, transaction: Transaction, barrel: int, brokers: Iterable[str]) -> None:
        """A new barrel keeps everything for these brokers."""
        for broker in sorted(brokers):
            transaction.execute(self._upsert, broker, barrel, 0, transaction.now)

    def position(self, broker: str, barrel: Barrel) -> int | None:
        """See `Store.publisher_position`."""
        with self._database.reading() as connection:
            found = connection.exec_driver_sql(self._queries.publisher, (broker, barrel.key)).scalar()
        return None if found is None else int(found)

    def owed(self) -> set[int]:
        """The dropped barrels of which a broker that is not forgotten may still retain something."""
        with self._database.reading() as connection:
            return {row[0] for row in connection.exec_driver_sql(self._owed).all()}

    def move(self, broker: str, seqs: Mapping[Barrel, int], fence: Fence | None) -> None:
        """See `Store.move_publisher`."""

        def move(transaction: Transaction) -> None:
            if fence is not None:
                check_fence(transaction, fence)
            for barrel, seq in seqs.items():
                found = transaction.execute(self._queries.head, barrel.key)
                if found and found[0][2] == barrel.epoch:
                    transaction.execute(self._upsert, broker, barrel.key, seq, transaction.now)

        self._writer.call(move)

    def forget_absent(self, barrel: int, log_kept: float) -> int:
        """Forget the positions in a barrel of brokers that were away for longer than its log is kept; how many."""
        now = self._clock()
        if now - self._since < WATCHED_S:
            return 0
        before = now - max(log_kept, ABSENT_S)
        with self._database.reading() as connection:
            found = int(connection.exec_driver_sql(self._count_absent, (barrel, before)).scalar() or 0)
        if found:
            self._writer.call(lambda transaction: transaction.execute(self._delete_absent, barrel, before))
        return found
