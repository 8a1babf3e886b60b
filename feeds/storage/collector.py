"""Collecting contents that no document names any more.

In three steps, each in bounded pages: references whose revision has no body any more go; contents without references,
which nobody stored within `kept` seconds, move to the trash; and what has lain there a while is removed for good.

No writer is raced. References go in a transaction that has locked their barrel; a content goes in one that holds its
row, on which no new reference can hang by then: whoever refers to it locks the row first (`holdings`), and finds it
gone otherwise. The database itself refuses to drop a content that is referred to.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, delete, exists, literal_column, select, tuple_, update

from feeds.storage.database import Database
from feeds.storage.schema import blob_refs, blob_trash, blobs, revs
from feeds.storage.statements import Each, Statements
from feeds.storage.transaction import Transaction
from feeds.storage.writer import Writer

if TYPE_CHECKING:
    from feeds.attachments.blobs import Blobs
    from feeds.attachments.removing import Removed

PAGE = 2_000  # rows looked at together
STEP = 500  # rows of one transaction
TRASH_KEPT_MAX = 600.0  # seconds: another process that was led to a copy before has read it by then
ROUND_STEPS = 40  # pages of one kind in one round
LAP_EVERY = 600.0  # seconds between the beginnings of two laps over references and contents

_FIRST_REF = (-1, -1, 0, "", "")


class _Sql:
    """Texts for one dialect; parameters are positional as each comment says."""

    def __init__(self, statements: Statements) -> None:
        sql = statements.sql
        limit: Any = bindparam("row_limit")
        names = ("barrel", "doc", "generation", "digest", "blob")
        key = {name: blob_refs.c[name] for name in names}
        revision = and_(*(revs.c[name] == blob_refs.c[name] for name in names[:-1]))
        place = tuple_(*key.values())
        mark: Any = tuple_(*(bindparam(name) for name in names))
        # barrel, doc, generation, digest, blob, limit -> references behind a place, and whether a body is behind each
        self.refs = sql(
            select(*key.values(), revs.c.body.isnot(None))
            .select_from(blob_refs.outerjoin(revs, revision))
            .where(place > mark)
            .order_by(*key.values())
            .limit(limit)
            .offset(literal_column("0")),
            *(*names, "row_limit"),
        )
        body = exists(select(revs.c.doc).where(revision, revs.c.body.isnot(None)).correlate(blob_refs))

        def drop_ref(each: Each) -> Any:
            return delete(blob_refs).where(*(column == each(name) for name, column in key.items()), ~body)

        self.drop_ref = statements.many(drop_ref, key)
        referred = exists(select(blob_refs.c.doc).where(blob_refs.c.blob == blobs.c.digest).correlate(blobs))
        # digest, limit -> contents behind one, when each was stored last, and whether it is referred to
        self.blobs = sql(
            select(blobs.c.digest, blobs.c.at, referred)
            .where(blobs.c.digest > bindparam("digest"))
            .order_by(blobs.c.digest)
            .limit(limit)
            .offset(literal_column("0")),
            *("digest", "row_limit"),
        )
        among = statements.among(blobs.c.digest, "digests")
        self.lock = sql(
            select(blobs.c.digest).where(among, blobs.c.at <= bindparam("before")).with_for_update(skip_locked=True),
            *("digests", "before"),
        )
        self.drop_blobs = sql(delete(blobs).where(among, ~referred).returning(blobs.c.place), "digests")
        self.insert_trash = statements.insert_missing(blob_trash)
        # before, limit -> places
        self.trash = sql(
            select(blob_trash.c.place)
            .where(blob_trash.c.at <= bindparam("before"))
            .order_by(blob_trash.c.at)
            .limit(limit)
            .offset(literal_column("0")),
            *("before", "row_limit"),
        )
        self.drop_trash = statements.many(
            lambda each: delete(blob_trash).where(blob_trash.c.place == each("place")),
            {"place": blob_trash.c.place},
        )
        # now, places
        self.postpone = sql(
            update(blob_trash).values(at=bindparam("now")).where(statements.among(blob_trash.c.place, "places")),
            *("now", "places"),
        )


@cache
def _sql_of(statements: Statements) -> _Sql:
    return _Sql(statements)


class Collector:
    """Collects for one store; one pass at a time, from any thread."""

    def __init__(
        self,
        blobs_: Blobs,
        database: Database,
        statements: Statements,
        writer: Writer,
        clock: Callable[[], float],
        kept: float,
    ) -> None:
        self._blobs = blobs_
        self._database = database
        self._statements = statements
        self._writer = writer
        self._clock = clock
        self._kept = kept
        self._sql = _sql_of(statements)
        self._running = threading.Lock()
        self._ref_mark: tuple[Any, ...] | None = None  # how far the present lap is; None between two
        self._blob_mark: str | None = None
        self._lap_began: float | None = None

    def collect(self) -> dict[str, int]:
        """A whole pass from the beginning: rows of references, contents given up, and copies removed."""
        with self._running:
            self._ref_mark, self._blob_mark = _FIRST_REF, None
            done = {"blob_refs": 0, "blobs": 0, "blobs_removed": 0}
            while self._ref_mark is not None:
                done["blob_refs"] += self._refs(ROUND_STEPS)
            self._blob_mark = ""
            while self._blob_mark is not None:
                done["blobs"] += self._contents(ROUND_STEPS)
            done["blobs_removed"] = self._empty(None)
            return done

    def round(self) -> dict[str, int]:
        """A bounded part of a pass, which goes on where the last one ended; a new one begins every ten minutes."""
        with self._running:
            done = {"blob_refs": 0, "blobs": 0}
            now = self._clock()
            if self._ref_mark is None and self._blob_mark is None and self._is_due(now):
                self._ref_mark, self._lap_began = _FIRST_REF, now
            if self._ref_mark is not None:
                done["blob_refs"] = self._refs(ROUND_STEPS)
                if self._ref_mark is None:
                    self._blob_mark = ""
            if self._blob_mark is not None:
                done["blobs"] = self._contents(ROUND_STEPS)
            done["blobs_removed"] = self._empty(ROUND_STEPS)
            return done

    def _is_due(self, now: float) -> bool:
        return self._lap_began is None or not 0 <= now - self._lap_began < LAP_EVERY

    def _refs(self, steps: int) -> int:
        """Go on with the references; those that lead from no body any more go."""
        dropped = 0
        for _ in range(steps):
            assert self._ref_mark is not None
            rows = self._rows(self._sql.refs, *self._ref_mark, PAGE)
            stale: dict[int, list[tuple[Any, ...]]] = {}
            for *key, has_body in rows:
                if not has_body:
                    stale.setdefault(key[0], []).append(tuple(key))
            for barrel, keys in stale.items():
                for begin in range(0, len(keys), STEP):
                    dropped += self._drop_refs(barrel, keys[begin : begin + STEP])
            if len(rows) < PAGE:
                self._ref_mark = None
                break
            self._ref_mark = tuple(rows[-1][:5])
        return dropped

    def _drop_refs(self, barrel: int, keys: list[tuple[Any, ...]]) -> int:
        def drop(transaction: Transaction) -> int:
            transaction.flush()  # bodies may have come back in this very transaction
            return transaction.session.count(self._sql.drop_ref, keys)

        return int(self._writer.call(drop, barrel))

    def _contents(self, steps: int) -> int:
        """Go on with the contents; those that nobody refers to, and nobody stored lately, move to the trash."""
        dropped = 0
        for _ in range(steps):
            assert self._blob_mark is not None
            rows = self._rows(self._sql.blobs, self._blob_mark, PAGE)
            before = self._clock() - self._kept
            free = [digest for digest, at, referred in rows if not referred and at <= before]
            for begin in range(0, len(free), STEP):
                dropped += self._drop_blobs(free[begin : begin + STEP], before)
            if len(rows) < PAGE:
                self._blob_mark = None
                break
            self._blob_mark = rows[-1][0]
        return dropped

    def _drop_blobs(self, digests: list[str], before: float) -> int:
        def drop(transaction: Transaction) -> int:
            transaction.flush()  # with the references that this very transaction collected
            locked = [row[0] for row in transaction.execute(self._sql.lock, self._listed(digests), before)]
            if not locked:
                return 0
            places = [row[0] for row in transaction.execute(self._sql.drop_blobs, self._listed(locked))]
            transaction.session.many(self._sql.insert_trash, [(place, self._clock()) for place in places])
            return len(places)

        return int(self._writer.call(drop))

    def _empty(self, steps: int | None) -> int:
        """Remove the copies that have lain in the trash for a while, but for those that are being read. One that
        cannot be removed lies there as long again, so that it is in nobody's way."""
        removed = 0
        before = self._clock() - min(self._kept, TRASH_KEPT_MAX)
        passed: set[str] = set()
        while steps is None or steps > 0:
            places = [row[0] for row in self._rows(self._sql.trash, before, STEP + len(passed))]
            places = [place for place in places if place not in passed]
            if not places:
                break
            done = self._blobs.remove(places)
            if done.gone or done.failed:
                self._writer.call(partial(self._settle_trash, done))
            removed += len(done.gone)
            if done.is_stopped:
                break
            passed.update({*places}.difference(done.gone))
            steps = None if steps is None else steps - 1
        return removed

    def _settle_trash(self, done: Removed, transaction: Transaction) -> None:
        transaction.session.many(self._sql.drop_trash, [(place,) for place in done.gone])
        if done.failed:
            transaction.execute(self._sql.postpone, self._clock(), self._listed(done.failed))

    def _listed(self, values: list[str]) -> Any:
        return self._statements.as_list(values)

    def _rows(self, statement: str, *parameters: Any) -> list[Any]:
        with self._database.reading() as connection:
            return list(connection.exec_driver_sql(statement, parameters).all())
