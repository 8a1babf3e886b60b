"""The rows of contents: which bytes are stored, where, and until when they are kept without a reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import bindparam, func, literal_column, select, update

from feeds.attachments.stubs import Content
from feeds.errors import BadRequest
from feeds.storage.asking import rows_of
from feeds.storage.database import Database
from feeds.storage.schema import DAMAGED, blob_refs, blob_trash, blobs, meta, uploads
from feeds.storage.statements import Statements
from feeds.storage.transaction import Transaction
from feeds.storage.writer import Writer

_IDENTITY = "blobs"  # in meta: the identity of the store of contents
_PAGE = 500  # asked about in one statement


@dataclass(frozen=True, slots=True)
class Blob:
    """A content and where its bytes are."""

    content: Content
    place: str
    at: float
    """When it was stored last, as Unix time in seconds."""
    is_damaged: bool


class _Sql:
    """Texts for one dialect; parameters are positional as each comment says."""

    def __init__(self, statements: Statements) -> None:
        sql, among = statements.sql, statements.among
        columns = (blobs.c.digest, blobs.c.md5, blobs.c.length, blobs.c.place, blobs.c.at, blobs.c.flags)
        self.find = sql(select(*columns).where(among(blobs.c.digest, "digests")), "digests")
        self.upsert = statements.upsert(blobs, "at")
        self.move = sql(
            update(blobs)
            .values(place=bindparam("new_place"), flags=literal_column("0"))
            .where(blobs.c.digest == bindparam("digest")),
            *("new_place", "digest"),
        )
        # now, digests -> those that are kept from now on
        self.renew = sql(
            update(blobs)
            .values(at=bindparam("now"))
            .where(among(blobs.c.digest, "digests"), blobs.c.flags == literal_column("0"))
            .returning(blobs.c.digest),
            *("now", "digests"),
        )
        self.insert_trash = statements.insert_missing(blob_trash)
        self.mark = statements.many(
            lambda each: (
                update(blobs)
                .values(flags=blobs.c.flags.bitwise_or(literal_column(str(DAMAGED))))
                .where(blobs.c.place == each("place"))
            ),
            {"place": blobs.c.place},
        )
        self.unmark = statements.many(
            lambda each: update(blobs).values(flags=literal_column("0")).where(blobs.c.place == each("place")),
            {"place": blobs.c.place},
        )
        # names -> those that somebody knows
        self.known = [
            sql(select(column).where(among(column, "names")), "names")
            for column in (blobs.c.place, blob_trash.c.place, uploads.c.state)
        ]
        self.meta = sql(select(meta.c.value).where(meta.c.key == bindparam("key")), "key")
        self.insert_meta = statements.insert(meta)
        damaged = select(func.count()).select_from(blobs).where(blobs.c.flags != literal_column("0"))
        self.counts = sql(
            select(
                select(func.count()).select_from(blobs).scalar_subquery(),
                select(func.coalesce(func.sum(blobs.c.length), literal_column("0"))).scalar_subquery(),
                select(func.count()).select_from(blob_refs).scalar_subquery(),
                damaged.scalar_subquery(),
            )
        )


@cache
def _sql_of(statements: Statements) -> _Sql:
    return _Sql(statements)


class StoredBlobs:
    """The rows of contents of one store. Thread-safe."""

    def __init__(
        self, database: Database, statements: Statements, writer: Writer, clock: Callable[[], float]
    ) -> None:
        self._database = database
        self._statements = statements
        self._writer = writer
        self._clock = clock
        self._sql = _sql_of(statements)

    def find(self, digests: Iterable[str]) -> dict[str, Blob]:
        """Those of the contents that are there."""
        wanted = list(dict.fromkeys(digests))
        found: dict[str, Blob] = {}
        for begin in range(0, len(wanted), _PAGE):
            for row in self._rows(self._sql.find, wanted[begin : begin + _PAGE]):
                found[row[0]] = _blob(row)
        return found

    def keep(
        self, copies: Mapping[str, tuple[Content, str]], first: Callable[[Transaction], None] | None = None
    ) -> list[str]:
        """Remember these copies by their sha256, each with its place; the places that are not needed after all,
        since the content is there already. Whatever is kept stays a while without a reference.

        A copy of a content that is damaged takes the place of the damaged one. `first` is done in the same
        transaction; where it refuses, having changed nothing, no copy is kept.
        """

        def save(transaction: Transaction) -> list[str]:
            if first is not None:
                first(transaction)
            now = self._clock()
            rows = [
                (digest, content.md5, content.length, place, now, 0)
                for digest, (content, place) in sorted(copies.items())
            ]
            transaction.session.many(self._sql.upsert, rows)
            unneeded = []
            for row in transaction.execute(self._sql.find, self._statements.as_list(sorted(copies))):
                blob, mine = _blob(row), copies[row[0]][1]
                if blob.place == mine:
                    continue
                if blob.is_damaged:
                    transaction.execute(self._sql.move, mine, row[0])
                    transaction.session.many(self._sql.insert_trash, [(blob.place, now)])
                else:
                    unneeded.append(mine)
            return unneeded

        unneeded: list[str] = self._writer.call(save)
        return unneeded

    def renew(self, digests: Sequence[str]) -> set[str]:
        """Keep these contents from now on a while without a reference; those that are there, and sound."""

        def save(transaction: Transaction) -> set[str]:
            listed = self._statements.as_list(sorted(digests))
            return {row[0] for row in transaction.execute(self._sql.renew, self._clock(), listed)}

        renewed: set[str] = self._writer.call(save)
        return renewed

    def mark_damaged(self, places: Sequence[str]) -> int:
        """Say of the contents at these places that they cannot be read; how many there are."""
        if not places:
            return 0
        rows = [(place,) for place in places]
        return int(self._writer.call(lambda transaction: transaction.session.count(self._sql.mark, rows)))

    def mark_sound(self, places: Sequence[str]) -> int:
        """Say of the contents at these places that they can be read after all; how many there are."""
        if not places:
            return 0
        rows = [(place,) for place in places]
        return int(self._writer.call(lambda transaction: transaction.session.count(self._sql.unmark, rows)))

    def known(self, names: Sequence[str]) -> set[str]:
        """Which of these names of copies somebody knows of."""
        return {row[0] for statement in self._sql.known for row in self._rows(statement, list(names))}

    def belong_to(self, identity: str) -> None:
        """Refuse a store of contents that is another one than that which this database has used."""

        def compare(transaction: Transaction) -> str:
            rows = transaction.execute(self._sql.meta, _IDENTITY)
            if rows:
                return str(rows[0][0])
            transaction.execute(self._sql.insert_meta, _IDENTITY, identity)
            return identity

        if self._writer.call(compare) != identity:
            raise BadRequest(
                "The contents of this store's attachments are kept elsewhere: this is another place for them",
                hint="Open the store with the folder or the URL that it was used with, or put that folder back.",
            )

    def is_used(self) -> bool:
        """Whether attachments were ever stored."""
        with self._database.reading() as connection:
            return connection.exec_driver_sql(self._sql.meta, (_IDENTITY,)).first() is not None

    def counts(self) -> dict[str, int]:
        """How many contents and bytes there are, how many references, and how many are damaged."""
        with self._database.reading() as connection:
            row = connection.exec_driver_sql(self._sql.counts).one()
        return dict(zip(("blobs", "blob_bytes", "blob_refs", "blobs_damaged"), map(int, row), strict=True))

    def _rows(self, statement: str, values: Sequence[str]) -> list[Any]:
        with self._database.reading() as connection:
            return rows_of(connection, statement, (self._statements.as_list(values),))


def _blob(row: Any) -> Blob:
    return Blob(Content(row[0], row[1], int(row[2])), row[3], row[4], bool(row[5] & DAMAGED))
