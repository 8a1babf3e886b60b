"""Whether the path index of a barrel is what its documents give, and which rows are not.

Both sides are reduced to a count and a sum of digests, which takes no memory and no look-ups; only where they differ
are rows compared one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from sqlalchemy import Connection, and_, func, select

from feeds.storage.schema import DELETED, docs, gone, paths, revs, shapes
from feeds.storage.session import streamed
from feeds.storage.state import decode, index_paths

Key = tuple[int, bytes, int, str]  # shape, value, doc, places

_ALL = (1 << 64) - 1
_SHOWN = 20  # rows told by name; the rest is counted


class IndexCheck:
    """The index of one barrel, against documents that are told one after the other."""

    def __init__(self, connection: Connection, barrel: int) -> None:
        self._connection = connection
        self._barrel = barrel
        self._count = 0
        self._sum = 0
        self.rows = 0

    def expect(self, document_id: str, doc: int, data: dict[str, Any]) -> None:
        """This document is live: its paths must be in the index."""
        for shape, value, places in index_paths(document_id, data)[0]:
            self._count += 1
            self._sum = (self._sum + hash((shape, value, doc, places))) & _ALL

    def problems(self, head: int) -> Iterator[str]:
        """What does not agree."""
        there = beyond = 0
        query = (
            select(shapes.c.path, paths.c.value, paths.c.doc, paths.c.places, paths.c.seq)
            .select_from(shapes.join(paths, paths.c.shape == shapes.c.shape))
            .where(shapes.c.barrel == self._barrel)
        )
        for path, value, doc, places, seq in streamed(self._connection, query):
            self.rows += 1
            there = (there + hash((path, value, doc, places))) & _ALL
            beyond += seq > head
        if (self.rows, there) != (self._count, self._sum):
            missing = list(missing_rows(self._connection, self._barrel, _SHOWN))
            extra = list(extra_rows(self._connection, self._barrel, _SHOWN))
            yield f"the index has {self.rows} rows, and {self._count} are right"
            for path, doc in missing:
                yield f"the index lacks {path!r} of document number {doc}"
            for shape, _, doc, _ in extra:
                yield f"the index has a row of shape {shape} that document number {doc} does not give"
        if beyond:
            yield f"{beyond} index rows came after the head {head}"
        both = self._connection.execute(select(func.count()).select_from(_standing_and_left(self._barrel))).scalar()
        if both:
            yield f"{both} paths stand in the index and are told as left"


def _standing_and_left(barrel: int) -> Any:
    same = and_(*(gone.c[name] == paths.c[name] for name in ("shape", "value", "doc", "places")))
    return (
        select(gone.c.shape, gone.c.value, gone.c.doc, gone.c.places)
        .select_from(shapes.join(gone, gone.c.shape == shapes.c.shape).join(paths, same))
        .where(shapes.c.barrel == barrel)
        .subquery()
    )


def standing_and_left(connection: Connection, barrel: int, limit: int) -> list[Key]:
    """Rows of `gone` whose path stands."""
    return [tuple(row) for row in connection.execute(select(_standing_and_left(barrel)).limit(limit))]


def given_rows(connection: Connection, barrel: int) -> Iterator[tuple[str, bytes, int, str, int]]:
    """Every (path of the shape, value, doc, places, seq of the document) that live documents give."""
    winner = and_(
        revs.c.barrel == docs.c.barrel,
        revs.c.doc == docs.c.doc,
        revs.c.generation == docs.c.generation,
        revs.c.digest == docs.c.digest,
    )
    live = (
        select(docs.c.id, docs.c.doc, docs.c.seq, revs.c.body)
        .select_from(docs.join(revs, winner))
        .where(docs.c.barrel == barrel, docs.c.flags.bitwise_and(DELETED) == 0, revs.c.body.isnot(None))
    )
    for document_id, doc, seq, body in streamed(connection, live):
        for path, value, places in _paths(document_id, body):
            yield path, value, doc, places, seq


def missing_rows(connection: Connection, barrel: int, limit: int) -> Iterator[tuple[str, int]]:
    """Up to so many rows that live documents give and the index lacks, as (path of the shape, doc)."""
    told = 0
    for path, value, doc, places, _ in given_rows(connection, barrel):
        shape = connection.execute(
            select(shapes.c.shape).where(shapes.c.barrel == barrel, shapes.c.path == path)
        ).scalar()
        if shape is not None and _has(connection, (shape, value, doc, places)):
            continue
        yield path, doc
        told += 1
        if told == limit:
            return


def _has(connection: Connection, key: Key) -> bool:
    columns = (paths.c.shape, paths.c.value, paths.c.doc, paths.c.places)
    query = select(paths.c.seq).where(*(column == part for column, part in zip(columns, key, strict=True)))
    return connection.execute(query).first() is not None


def extra_rows(connection: Connection, barrel: int, limit: int) -> Iterator[Key]:
    """Up to so many rows of the index that no live document gives."""
    query = (
        select(shapes.c.path, paths.c.shape, paths.c.value, paths.c.doc, paths.c.places)
        .select_from(shapes.join(paths, paths.c.shape == shapes.c.shape))
        .where(shapes.c.barrel == barrel)
    )
    told = 0
    for path, shape, value, doc, places in streamed(connection, query):
        if (path, value, places) in _given_by(connection, barrel, doc):
            continue
        yield shape, value, doc, places
        told += 1
        if told == limit:
            return


def _given_by(connection: Connection, barrel: int, doc: int) -> Any:
    row = connection.execute(
        select(docs.c.id, docs.c.flags, revs.c.body)
        .select_from(
            docs.join(
                revs,
                and_(
                    revs.c.barrel == docs.c.barrel,
                    revs.c.doc == docs.c.doc,
                    revs.c.generation == docs.c.generation,
                    revs.c.digest == docs.c.digest,
                ),
            )
        )
        .where(docs.c.barrel == barrel, docs.c.doc == doc)
    ).first()
    if row is None or row.flags & DELETED or row.body is None:
        return {}
    return _paths(row.id, row.body)


def _paths(document_id: str, body: bytes) -> Any:
    """The paths that a stored body gives; none if it cannot be read."""
    try:
        data = decode(body)
    except (msgspec.MsgspecError, ValueError):
        return {}
    return index_paths(document_id, data)[0] if type(data) is dict else {}
