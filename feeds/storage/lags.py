"""How far a position is behind the head of its barrel's log, in changes and in seconds.

Costs a look at the barrels and one row of the log for each position, however far it is behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, literal_column, select

from feeds.barrels import settings_of
from feeds.positions import Position
from feeds.storage.database import Database
from feeds.storage.schema import barrels, log, publishers
from feeds.storage.statements import Statements

_MS = 1000


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a position is behind the head: `seq` changes, the oldest of them `seconds` old.

    `snapshot`: the position does not hold, as it is of another epoch or of no barrel, beyond the head, or older than
    the log. Whoever comes back with it is told everything (one without patterns, whose position is only older than
    the log: what has changed). Counted are all changes then, and `seconds` is at least so much.
    """

    seq: int
    seconds: float
    snapshot: bool = False


@dataclass(frozen=True, slots=True)
class PublisherLag:
    """How far one broker is from having been told all of one barrel, by the stored position."""

    barrel: str
    broker: str
    position: Position
    lag: Lag


@dataclass(frozen=True, slots=True)
class _Head:
    key: int
    epoch: str
    seq: int
    forgotten: int
    settings: str

    def counted_from(self, position: Position) -> int:
        """The seq after which changes are to be told."""
        return position.seq if self.knows(position) else 0

    def knows(self, position: Position) -> bool:
        """Whether the position is one of this log."""
        return position.epoch in (None, self.epoch) and position.seq <= self.seq


class Lags:
    """The lags of one store. Thread-safe; every call reads."""

    def __init__(self, database: Database, statements: Statements, clock: Callable[[], float]) -> None:
        self._database = database
        self._statements = statements
        self._clock = clock
        present = barrels.c.dropped == literal_column("0")
        columns = (
            barrels.c.name,
            barrels.c.barrel,
            barrels.c.epoch,
            barrels.c.seq,
            barrels.c.forgotten,
            barrels.c.settings,
        )
        self._heads = statements.sql(select(*columns).where(present))
        barrel: Any = bindparam("barrel")
        self._written = statements.sql(
            select(log.c.seq, log.c.at).where(log.c.barrel == barrel, statements.among(log.c.seq, "seqs")),
            *("barrel", "seqs"),
        )
        self._told = statements.sql(
            select(barrels.c.name, publishers.c.broker, publishers.c.seq, barrels.c.epoch)
            .select_from(publishers.join(barrels, publishers.c.barrel == barrels.c.barrel))
            .where(present)
            .order_by(barrels.c.name, publishers.c.broker)
        )

    def of(self, places: Iterable[tuple[str, Position]]) -> list[Lag]:
        """The lag of each place, given as the barrel's name and a position, in order."""
        with self._database.snapshot() as connection:
            return self._of(connection, list(places))

    def publishers(self, barrel: str | None = None) -> list[PublisherLag]:
        """The lag of every broker that is told the changes, of all barrels or of one, by barrel and broker.

        By what is stored, which is a moment behind what the broker has acknowledged.
        """
        with self._database.snapshot() as connection:
            rows = connection.exec_driver_sql(self._told).all()
            told = [
                (name, broker, Position(seq, epoch)) for name, broker, seq, epoch in rows if barrel in (None, name)
            ]
            lags = self._of(connection, [(name, position) for name, _, position in told])
        return [PublisherLag(*each, lag) for each, lag in zip(told, lags, strict=True)]

    def _of(self, connection: Connection, places: list[tuple[str, Position]]) -> list[Lag]:
        if not places:
            return []
        wanted = {name for name, _ in places}
        rows = connection.exec_driver_sql(self._heads).all()
        heads = {row[0]: _Head(*row[1:]) for row in rows if row[0] in wanted}
        asked: dict[str, set[int]] = {name: set() for name in heads}
        for name, position in places:
            if name in heads:
                asked[name].add(_oldest_kept(heads[name], position))
        written = {name: self._written_at(connection, heads[name], seqs) for name, seqs in asked.items()}
        now = self._clock()  # one for all, so that they can be compared
        return [_lag(heads.get(name), position, written.get(name, {}), now) for name, position in places]

    def _written_at(self, connection: Connection, head: _Head, seqs: set[int]) -> Mapping[int, float]:
        """When these changes were written, in seconds of Unix time; those beyond the head are left out."""
        listed = self._statements.as_list(sorted(seq for seq in seqs if seq <= head.seq))
        rows = connection.exec_driver_sql(self._written, (head.key, listed)).all()
        return {seq: at / _MS for seq, at in rows}


def _lag(head: _Head | None, position: Position, written: Mapping[int, float], now: float) -> Lag:
    if head is None:
        return Lag(0, 0.0, True)
    after = head.counted_from(position)
    snapshot = not head.knows(position) or after < head.forgotten
    if after >= head.seq:
        return Lag(0, 0.0, snapshot)
    at = written.get(_oldest_kept(head, position))
    seconds = 0.0 if at is None else max(0.0, now - at)
    if after < head.forgotten:  # what is forgotten was older than this
        seconds = max(seconds, settings_of(head.settings).log_kept)
    return Lag(head.seq - after, seconds, snapshot)


def _oldest_kept(head: _Head, position: Position) -> int:
    """The seq of the oldest change after a position that the log still has; seqs have no gaps."""
    return max(head.counted_from(position), head.forgotten) + 1
