"""A barrel's documents in the order of their ids: without bodies, page by page, with how many stand before; and
as many of them as fit into memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, case, func, literal_column, select

from feeds.errors import SpileError
from feeds.storage.asking import PAGE_BYTES_MAX, rows_of
from feeds.storage.ids import LAST
from feeds.storage.reading import Document, Reader, Wanted
from feeds.storage.schema import DELETED, docs
from feeds.storage.statements import Statements
from feeds.tree import Node

if TYPE_CHECKING:
    from feeds.barrel import Barrel

PAGE = 500


@dataclass(frozen=True, slots=True)
class Listed:
    """A document as it stands in a list."""

    id: str
    rev: str
    deleted: bool
    """Or expired, and not swept yet."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some documents in order, and whether there are more behind them."""

    documents: list[Listed]
    more: bool


class ListingStatements:
    """SQL texts for one dialect; parameters are positional as each comment says."""

    def __init__(self, statements: Statements) -> None:
        lives = docs.c.flags.bitwise_and(literal_column(str(DELETED))) == literal_column("0")
        # barrel, low, high, limit -> of so many documents whose ids are in [low, high): how many, and how many live
        some = (
            select(lives.label("lives"))
            .where(docs.c.barrel == bindparam("barrel"), docs.c.id >= bindparam("low"), docs.c.id < bindparam("high"))
            .limit(bindparam("row_limit"))
            .offset(literal_column("0"))
            .subquery()
        )
        self.live_between = statements.by_id(
            select(func.count(), func.count(case((some.c.lives, literal_column("1"))))).select_from(some),
            *("barrel", "low", "high", "row_limit"),
        )


@cache
def listing_statements(statements: Statements) -> ListingStatements:
    """Those for a dialect, compiled once."""
    return ListingStatements(statements)


def list_documents(
    barrel: Barrel, low: str = "", high: str = LAST, *, descending: bool = False, limit: int = PAGE
) -> Page:
    """Up to `limit` documents with ids in [low, high), in the byte order of their ids or back; deleted ones too."""
    queries, now = barrel.store.queries, barrel.store.clock()
    statement = queries.docs_between_back if descending else queries.docs_between
    with barrel.store.database.reading() as connection:
        rows = rows_of(connection, statement, (barrel.key, low, high, limit))
    return Page([_listed(row, now) for row in rows], len(rows) == limit)


def find_documents(barrel: Barrel, ids: Sequence[str]) -> dict[str, Listed]:
    """Those of these documents that were ever written here."""
    queries, now = barrel.store.queries, barrel.store.clock()
    with barrel.store.database.reading() as connection:
        rows = rows_of(connection, queries.docs_by_id, (barrel.key, queries.as_list(list(ids))))
    return {row[2]: _listed(row, now) for row in rows}


def count_documents(barrel: Barrel, low: str = "", high: str = LAST, *, most: int) -> int | None:
    """How many documents live whose ids are in [low, high); None where more than `most` stand there, deleted ones
    too: more than that are not looked at."""
    sql = listing_statements(barrel.store.statements).live_between
    with barrel.store.database.reading() as connection:
        stand, live = connection.exec_driver_sql(sql, (barrel.key, low, high, most + 1)).one()
    return int(live) if stand <= most else None


def read_some(
    barrel: Barrel, wanted: Sequence[Wanted], bytes_max: int = PAGE_BYTES_MAX
) -> list[Document | SpileError]:
    """The first of these documents, as many as reach so many bytes together: one at least."""
    with barrel.store.database.snapshot() as connection:
        reader = Reader(connection, barrel.store.queries, barrel.key, barrel.store.clock())
        return reader.documents(wanted, bytes_max)


def leaves_of(barrel: Barrel, ids: Sequence[str]) -> dict[str, list[Node]]:
    """Every leaf of these documents, the winner first; those that were never written here are left out."""
    with barrel.store.database.reading() as connection:
        return Reader(connection, barrel.store.queries, barrel.key, barrel.store.clock()).leaves(ids)


def _listed(row: Any, now: float) -> Listed:
    expires = row[7]
    deleted = bool(row[5] & DELETED) or (expires is not None and expires <= now)
    return Listed(row[2], f"{row[3]}-{row[4]}", deleted)
