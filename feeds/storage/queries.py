"""The SQL of readers, compiled once for a store's database; parameters are positional as each comment says."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, and_, bindparam, delete, func, insert, literal_column, select, tuple_, update

from feeds.storage.schema import barrels, docs, gone, locals_, log, meta, paths, publishers, revs, shapes
from feeds.storage.statements import Statements

DOC_COLUMNS = (
    docs.c.doc,
    docs.c.seq,
    docs.c.id,
    docs.c.generation,
    docs.c.digest,
    docs.c.flags,
    docs.c.others,
    docs.c.expires,
)

_NOTHING: Any = literal_column("0")
_COUNTS = ("seq", "live", "deleted", "bytes", "forgotten", "skipped_paths")


class Queries:
    """SQL texts for one dialect."""

    def __init__(self, statements: Statements) -> None:
        sql = statements.sql
        barrel: Any = bindparam("barrel")
        after: Any = bindparam("after")
        upto: Any = bindparam("upto")
        limit: Any = bindparam("row_limit")
        winner = and_(
            revs.c.barrel == docs.c.barrel,
            revs.c.doc == docs.c.doc,
            revs.c.generation == docs.c.generation,
            revs.c.digest == docs.c.digest,
        )
        with_body = select(*DOC_COLUMNS, revs.c.body).select_from(docs.outerjoin(revs, winner))

        def window(query: Select[Any], ascending: bool = True) -> Select[Any]:
            by = docs.c.seq if ascending else docs.c.seq.desc()
            return (
                query.where(docs.c.barrel == barrel, docs.c.seq > after, docs.c.seq <= upto)
                .order_by(by)
                .limit(limit)
                .offset(_NOTHING)
            )

        order = ("barrel", "after", "upto")
        # barrel, after, upto, limit -> documents by their newest seq
        self.changes = sql(window(select(*DOC_COLUMNS)), *order, "row_limit")
        self.changes_with_docs = sql(window(with_body), *order, "row_limit")
        self.changes_back = sql(window(select(*DOC_COLUMNS), False), *order, "row_limit")
        self.changes_back_with_docs = sql(window(with_body, False), *order, "row_limit")

        # barrel, doc numbers / ids -> documents
        self.docs_by_number = sql(
            with_body.where(docs.c.barrel == barrel, statements.among(docs.c.doc, "numbers")),
            "barrel",
            "numbers",
        )
        self.seqs_by_number = sql(
            select(docs.c.doc, docs.c.seq).where(docs.c.barrel == barrel, statements.among(docs.c.doc, "numbers")),
            *("barrel", "numbers"),
        )
        self.docs_by_id = statements.by_id(
            with_body.where(docs.c.barrel == barrel, statements.among(docs.c.id, "ids")),
            "barrel",
            "ids",
        )
        self.find_rev = statements.find_rev
        self.find_tree = sql(
            select(revs.c.generation, revs.c.digest, revs.c.parent, revs.c.flags, revs.c.body.is_(None)).where(
                revs.c.barrel == barrel, revs.c.doc == bindparam("doc")
            ),
            *("barrel", "doc"),
        )

        # barrel, after, limit -> entries of the log with the winner's body of then
        then = and_(
            revs.c.barrel == log.c.barrel,
            revs.c.doc == log.c.doc,
            revs.c.generation == log.c.generation,
            revs.c.digest == log.c.digest,
        )
        same_doc = and_(docs.c.barrel == log.c.barrel, docs.c.doc == log.c.doc)
        log_columns = (
            log.c.seq,
            docs.c.id,
            log.c.generation,
            log.c.digest,
            log.c.flags,
            log.c.others,
            log.c.entered,
            log.c.gone,
            log.c.at,
            docs.c.seq,
        )
        tail = (
            select(*log_columns, revs.c.body, log.c.doc)
            .select_from(log.outerjoin(docs, same_doc).outerjoin(revs, then))
            .where(log.c.barrel == barrel, log.c.seq > after, log.c.seq <= upto)
            .order_by(log.c.seq)
            .limit(limit)
            .offset(_NOTHING)
        )
        self.tail = sql(tail, *order, "row_limit")

        self.barrel = sql(
            select(barrels).where(barrels.c.name == bindparam("name"), barrels.c.dropped == _NOTHING), "name"
        )
        self.barrels = sql(select(barrels).where(barrels.c.dropped == _NOTHING).order_by(barrels.c.name))
        self.barrel_by_key = sql(
            select(barrels).where(barrels.c.barrel == barrel, barrels.c.dropped == _NOTHING), "barrel"
        )
        self.insert_barrel = sql(
            insert(barrels).values(
                name=bindparam("name"),
                epoch=bindparam("epoch"),
                **dict.fromkeys(_COUNTS, _NOTHING),
                settings=bindparam("settings"),
                created=bindparam("created"),
            ),
            *("name", "epoch", "settings", "created"),
        )
        self.save_settings = sql(
            update(barrels).values(settings=bindparam("new_settings")).where(barrels.c.barrel == barrel),
            *("new_settings", "barrel"),
        )
        self.drop_barrel = sql(
            update(barrels)
            .values(name=bindparam("new_name"), dropped=literal_column("1"))
            .where(barrels.c.barrel == barrel),
            *("new_name", "barrel"),
        )
        self.meta = sql(select(meta.c.value).where(meta.c.key == bindparam("key")), "key")
        self.meta_all = sql(select(meta.c.key, meta.c.value))
        self.delete_meta = sql(delete(meta).where(meta.c.key == bindparam("key")), "key")
        self.ids_after = sql(
            select(docs.c.id)
            .where(docs.c.barrel == barrel, docs.c.id > after)
            .order_by(docs.c.id)
            .limit(limit)
            .offset(_NOTHING),
            *("barrel", "after", "row_limit"),
        )
        self.insert_meta = statements.insert(meta)
        self.publisher = sql(
            select(publishers.c.seq).where(publishers.c.broker == bindparam("broker"), publishers.c.barrel == barrel),
            *("broker", "barrel"),
        )
        self.locals_ = sql(select(locals_.c.id).where(locals_.c.barrel == barrel).order_by(locals_.c.id), "barrel")
        self.count_after = sql(
            select(func.count()).select_from(docs).where(docs.c.barrel == barrel, docs.c.seq > after),
            *("barrel", "after"),
        )
        self.head = sql(
            select(barrels.c.seq, barrels.c.forgotten, barrels.c.epoch, barrels.c.settings).where(
                barrels.c.barrel == barrel, barrels.c.dropped == _NOTHING
            ),
            "barrel",
        )
        self.shapes_between = sql(
            select(shapes.c.shape, shapes.c.path).where(
                shapes.c.barrel == barrel,
                shapes.c.path >= bindparam("low"),
                shapes.c.path < bindparam("high"),
            ),
            *("barrel", "low", "high"),
        )
        self.shapes_all = sql(select(shapes.c.shape, shapes.c.path).where(shapes.c.barrel == barrel), "barrel")

        shape: Any = bindparam("shape")
        low: Any = bindparam("low")
        high: Any = bindparam("high")
        # shape, low, high[, after], limit -> documents that stand (stood) on the values between
        self.paths_between = sql(
            select(paths.c.doc, paths.c.seq)
            .where(paths.c.shape == shape, paths.c.value >= low, paths.c.value < high)
            .limit(limit)
            .offset(_NOTHING),
            *("shape", "low", "high", "row_limit"),
        )
        # shape, bound, value, doc, places, limit -> hits behind a place up to a bound, in value order and back.
        # Only one bound beside the place, or SQLite begins at the bound instead of the place.
        place = tuple_(paths.c.value, paths.c.doc, paths.c.places)
        mark: Any = tuple_(bindparam("value"), bindparam("doc"), bindparam("places"))
        hits = select(paths.c.value, paths.c.doc, paths.c.places).where(paths.c.shape == shape)
        # The plus takes the term out of the choice of an index.
        at_least = literal_column("+paths.value" if statements.is_sqlite else "paths.value") >= low
        keys = (paths.c.value, paths.c.doc, paths.c.places)
        ascending = hits.where(paths.c.value < high, place > mark).order_by(*keys)
        self.hits = sql(
            ascending.limit(limit).offset(_NOTHING), "shape", "high", "value", "doc", "places", "row_limit"
        )
        descending = hits.where(at_least, place < mark).order_by(*(key.desc() for key in keys))
        self.hits_back = sql(
            descending.limit(limit).offset(_NOTHING), "shape", "low", "value", "doc", "places", "row_limit"
        )
        self.gone_between = sql(
            select(gone.c.doc, gone.c.seq)
            .where(gone.c.shape == shape, gone.c.value >= low, gone.c.value < high, gone.c.seq > after)
            .limit(limit)
            .offset(_NOTHING),
            *("shape", "low", "high", "after", "row_limit"),
        )
