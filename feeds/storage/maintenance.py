"""The upkeep of a store, in steps so small that writers are never held up for long.

Expired documents are deleted, what the log need not remember is forgotten, and what was dropped is cleared away.
When a round is due is the caller's business.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from feeds.barrels import settings_of
from feeds.errors import Damaged, NotFound
from feeds.storage.clearing import Clearing
from feeds.storage.conflicts import settle_waiting
from feeds.storage.state import other_leaves
from feeds.storage.transaction import Transaction
from feeds.storage.undamaged import write_undamaged
from feeds.storage.upkeep import Upkeep
from feeds.writes import Outcome, Write, Written

if TYPE_CHECKING:
    from feeds.store import Store

log = logging.getLogger("spile.store")

TOKENS_KEPT = 24 * 3600.0  # seconds; what the design promises a client that repeats itself
STEP = 500  # rows of one transaction: some milliseconds
ROUND_STEPS = 40  # of one kind in one round, so that a round ends and the next kind has its turn
GONE_PAGE = 5_000  # left paths looked at together; most of them stay

_FIRST_GONE = (-1, b"", -1, "")

Barrels = Sequence[tuple[int, str, int, int, str]]  # key, name, head, forgotten, settings


class Maintenance:
    """Rounds of upkeep for one store; one at a time, from any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sql = Upkeep(store.statements)
        self._clearing = Clearing(store.database, store.statements, store.writer, store.publishers)
        self._running = threading.Lock()
        self._gone_mark: tuple[Any, ...] | None = None  # how far the present lap over `gone` is
        self._gone_due = True
        self._damaged: set[tuple[int, str]] = set()  # documents that cannot expire, of which it was told

    def round(self, contents: bool = True) -> dict[str, int]:
        """One bounded round; what it did, in rows: expired, settled, log, bodies, gone, tokens, dropped, uploads, and
        with `contents` what `Blobs.round` tells."""
        with self._running:
            barrels = self._rows(self._sql.barrels)
            done = {"expired": self._expire(barrels)}
            done["settled"] = self._settle(barrels)
            done["log"], done["bodies"] = self._forget(barrels)
            done["gone"] = self._forget_gone()
            done["tokens"] = self._forget_tokens()
            done["dropped"] = self._clearing.round(ROUND_STEPS)
            done["uploads"] = self._store.uploads.expire()
            if contents:
                done.update(self._store.blobs.round())
            return done

    def expire(self, key: int | None = None) -> int:
        """Sweep what has expired, in one barrel or in all; how many documents."""
        barrels = [row for row in self._rows(self._sql.barrels) if key is None or row[0] == key]
        return self._expire([row for row in barrels if _expires(row[4])])

    def compact(self, barrel: int) -> int:
        """Drop every superseded body of a barrel that the publishers have told; how many went."""
        dropped = 0
        mark: tuple[Any, ...] = (-1, 0, "")
        heads = self._rows(self._store.queries.head, barrel)
        if not heads:
            raise NotFound("The barrel was dropped meanwhile")
        (told,) = self._rows(self._sql.told, barrel)[0]
        if told is None:
            told = heads[0][0]
        while rows := self._rows(self._sql.superseded, barrel, told, *mark, STEP):
            mark = tuple(rows[-1][:3])
            keys = [(barrel, *row[:3], told) for row in rows if (row[1], row[2]) not in _others(row[3])]
            if keys:
                self._many(self._sql.drop_body, keys, barrel)
            dropped += len(keys)
        return dropped

    # -- what a round does

    def _settle(self, barrels: Barrels) -> int:
        """Ask merge rules about conflicts that were there before the rule was; not twice about the same leaves."""
        settled = 0
        rules = {row[1]: rule for row in barrels if (rule := settings_of(row[4]).merge) is not None}
        self._store.merging.needs({name: rule.name for name, rule in rules.items() if rule.name is not None})
        for key, name, *_ in barrels:
            if name not in rules or name in self._store.merging.missing:
                continue
            try:
                settled += settle_waiting(self._store, key, name)
            except NotFound:
                continue  # dropped meanwhile
        return settled

    def _expire(self, barrels: Barrels) -> int:
        expired = 0
        for key, name, *_ in barrels:
            for _step in range(ROUND_STEPS):
                ids = [row[0] for row in self._rows(self._sql.expired, key, self._store.clock(), STEP)]
                if not ids:
                    break
                try:
                    outcomes = write_undamaged(self._store, key, name, [Write.expire(id) for id in ids])
                except NotFound:
                    break  # dropped meanwhile
                self._tell_damaged(key, name, ids, outcomes)
                written = [each for each in outcomes if isinstance(each, Written) and not each.unchanged]
                expired += len(written)
                if not written:
                    break  # somebody renewed them all meanwhile
        return expired

    def _tell_damaged(self, key: int, name: str, ids: Sequence[str], outcomes: Sequence[Outcome]) -> None:
        """Log it once of each document that cannot expire."""
        for id, damage in zip(ids, outcomes, strict=True):
            if isinstance(damage, Damaged) and (key, id) not in self._damaged:
                self._damaged.add((key, id))
                log.error("%r in %s has expired, and cannot be deleted: %s", id, name, damage.reason)

    def _forget(self, barrels: Barrels) -> tuple[int, int]:
        log = bodies = 0
        for key, _, head, forgotten, settings in barrels:
            log_kept = settings_of(settings).log_kept
            oldest = int((self._store.clock() - log_kept) * 1000)
            self._store.publishers.forget_absent(key, log_kept)
            (told,) = self._rows(self._sql.told, key)[0]
            upto = head if told is None else max(told, head - self._store.settings.publish_backlog_max)
            for _step in range(ROUND_STEPS):
                rows = [row for row in self._rows(self._sql.log, key, forgotten, upto, STEP) if row[1] <= oldest]
                if not rows:
                    break
                forgotten = rows[-1][0]
                superseded = [(key, doc, forgotten) for doc in dict.fromkeys(row[2] for row in rows)]

                def forget(
                    transaction: Transaction,
                    key: int = key,
                    upto: int = forgotten,
                    superseded: list[Any] = superseded,
                ) -> int:
                    transaction.execute(self._sql.move_forgotten, upto, key, upto)
                    transaction.execute(self._sql.delete_log, key, upto)
                    return _many(transaction, self._sql.drop_superseded, superseded)

                bodies += self._store.writer.call(forget, key)
                log += len(rows)
                self._gone_due = True
        return log, bodies

    def _forget_gone(self) -> int:
        """Go on with the lap over the paths that were left, and drop those that are older than the log."""
        if self._gone_mark is None:
            if not self._gone_due:
                return 0
            self._gone_mark, self._gone_due = _FIRST_GONE, False
        forgotten = 0
        for _step in range(ROUND_STEPS):
            rows = self._rows(self._sql.gone, *self._gone_mark, GONE_PAGE)
            shapes = self._store.statements.as_list(sorted({row[0] for row in rows}))
            ends = {row[0]: row[1:] for row in self._rows(self._sql.forgotten_by_shape, shapes)}
            old = [(*row[:4], ends[row[0]][0]) for row in rows if row[0] in ends and row[4] <= ends[row[0]][0]]
            for at in range(0, len(old), STEP):
                step = old[at : at + STEP]
                barrels = {ends[row[0]][1] for row in step}
                forgotten += self._many(self._sql.delete_gone, step, *barrels)
            if len(rows) < GONE_PAGE:
                self._gone_mark = None
                break
            self._gone_mark = tuple(rows[-1][:4])
        return forgotten

    def _forget_tokens(self) -> int:
        forgotten = 0
        before = self._store.clock() - TOKENS_KEPT
        for _step in range(ROUND_STEPS):
            keys = [(*row, before) for row in self._rows(self._sql.tokens, before, STEP)]
            if not keys:
                break
            forgotten += self._many(self._sql.delete_token, keys, *{key[0] for key in keys})
        return forgotten

    def _many(self, statement: str, rows: list[Any], *barrels: int) -> int:
        """Run a statement for each row, which are of these barrels, in a transaction of its own; how many."""
        return int(self._store.writer.call(lambda transaction: _many(transaction, statement, rows), *barrels))

    def _rows(self, statement: str, *parameters: Any) -> list[Any]:
        with self._store.database.reading() as connection:
            return list(connection.exec_driver_sql(statement, parameters).all())


def _others(column: str | None) -> set[tuple[int, str]]:
    return {leaf.key for leaf in other_leaves(column)}


def _many(transaction: Transaction, statement: str, rows: list[Any]) -> int:
    """Run a statement for each row of parameters; how many rows of the table it touched."""
    return transaction.session.count(statement, rows)


def _expires(settings: str) -> bool:
    parsed = settings_of(settings)
    return parsed.ttl is not None or parsed.ttl_field is not None
