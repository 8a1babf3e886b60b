"""The SQL of readers, compiled once for a store's database; parameters are positional as each comment says."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import Select, and_, bindparam, case, delete, func, insert, literal_column, select, tuple_, update

from feeds.storage.schema import (
    barrels,
    docs,
    gone,
    in_conflict,
    is_deleted,
    locals_,
    log,
    meta,
    paths,
    publishers,
    revs,
    shapes,
)
from feeds.storage.statements import BODY_BYTES_READ_AHEAD, Statements

DOC_COLUMNS = (
    docs.c.doc,
    docs.c.seq,
    docs.c.id,
    docs.c.generation,
    docs.c.digest,
    docs.c.flags,
    docs.c.others,
    docs.c.expires,
    docs.c.attached,
)

_NOTHING: Any = literal_column("0")
_COUNTS = ("seq", "live", "deleted", "bytes", "forgotten", "skipped_paths")


class Queries:
    """SQL texts for one dialect."""

    def __init__(self, statements: Statements) -> None:
        sql, page = statements.sql, statements.page
        self.as_list = statements.as_list
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
        self.changes_with_docs = page(window(with_body), revs.c.body, docs.c.seq, *order, "row_limit")
        self.changes_back = sql(window(select(*DOC_COLUMNS), False), *order, "row_limit")
        self.changes_back_with_docs = page(
            window(with_body, False), revs.c.body, docs.c.seq, *order, "row_limit", back=True
        )

        # barrel, after, upto, limit -> deleted documents; behind the body, the paths that their deletion left
        deletion = and_(log.c.barrel == docs.c.barrel, log.c.seq == docs.c.seq)
        deleted = select(*DOC_COLUMNS, revs.c.body, log.c.gone).select_from(
            docs.outerjoin(revs, winner).outerjoin(log, deletion)
        )
        self.deletions = statements.by_id(
            window(deleted.where(is_deleted)), *order, "row_limit", index="ix_docs_deleted"
        )

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
        of_ids = (docs.c.barrel == barrel, statements.among(docs.c.id, "ids"))
        self.docs_by_id = statements.by_id(with_body.where(*of_ids), "barrel", "ids")
        # The same without large bodies, which are read one by one then.
        small = select(*DOC_COLUMNS, case((func.length(revs.c.body) <= BODY_BYTES_READ_AHEAD, revs.c.body)))
        self.docs_by_id_small = statements.by_id(
            small.select_from(docs.outerjoin(revs, winner)).where(*of_ids), "barrel", "ids"
        )
        # barrel, after, limit -> documents in conflict, by id
        self.conflicts = statements.by_id(
            select(*DOC_COLUMNS)
            .where(docs.c.barrel == barrel, docs.c.id > after, in_conflict)
            .order_by(docs.c.id)
            .limit(limit)
            .offset(_NOTHING),
            *("barrel", "after", "row_limit"),
            index="ix_docs_conflicts",
        )
        self.find_rev = statements.find_rev
        of_tree = (revs.c.generation, revs.c.digest, revs.c.parent, revs.c.flags, revs.c.body.is_(None), revs.c.doc)
        self.find_trees = sql(
            select(*of_tree).where(revs.c.barrel == barrel, statements.among(revs.c.doc, "numbers")),
            *("barrel", "numbers"),
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
            select(*log_columns, revs.c.body, log.c.doc, log.c.attached)
            .select_from(log.outerjoin(docs, same_doc).outerjoin(revs, then))
            .where(log.c.barrel == barrel, log.c.seq > after, log.c.seq <= upto)
            .order_by(log.c.seq)
            .limit(limit)
            .offset(_NOTHING)
        )
        self.tail = page(tail, revs.c.body, log.c.seq, *order, "row_limit")

        self.barrel = sql(
            select(barrels).where(barrels.c.name == bindparam("name"), barrels.c.dropped == _NOTHING), "name"
        )
        self.barrels = sql(select(barrels).where(barrels.c.dropped == _NOTHING).order_by(barrels.c.name))
        self.barrel_by_key = sql(
            select(barrels).where(barrels.c.barrel == barrel, barrels.c.dropped == _NOTHING), "barrel"
        )
        # -> name, key, epoch, head, settings of every barrel
        self.directory = sql(
            select(barrels.c.name, barrels.c.barrel, barrels.c.epoch, barrels.c.seq, barrels.c.settings)
            .where(barrels.c.dropped == _NOTHING)
            .order_by(barrels.c.name)
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
        self.brokers = sql(select(publishers.c.broker).distinct())
        self.publisher = sql(
            select(publishers.c.seq).where(publishers.c.broker == bindparam("broker"), publishers.c.barrel == barrel),
            *("broker", "barrel"),
        )
        self.locals_ = sql(select(locals_.c.id).where(locals_.c.barrel == barrel).order_by(locals_.c.id), "barrel")
        counted = select(func.count()).select_from(docs)
        self.count_after = sql(counted.where(docs.c.barrel == barrel, docs.c.seq > after), "barrel", "after")
        self.count_upto = sql(counted.where(docs.c.barrel == barrel, docs.c.seq <= after), "barrel", "after")
        self.counts = sql(
            select(barrels.c.seq, barrels.c.live + barrels.c.deleted).where(barrels.c.barrel == barrel), "barrel"
        )
        self.head = sql(
            select(barrels.c.seq, barrels.c.forgotten, barrels.c.epoch, barrels.c.settings).where(
                barrels.c.barrel == barrel, barrels.c.dropped == _NOTHING
            ),
            "barrel",
        )
        low: Any = bindparam("low")
        high: Any = bindparam("high")
        # barrel, low, high, limit -> documents, or shapes, whose text is in [low, high), in its order and back
        named = select(*DOC_COLUMNS).where(docs.c.barrel == barrel, docs.c.id >= low, docs.c.id < high)
        shaped = select(shapes.c.shape, shapes.c.path).where(
            shapes.c.barrel == barrel, shapes.c.path >= low, shapes.c.path < high
        )
        between = ("barrel", "low", "high", "row_limit")
        self.docs_between = statements.by_id(named.order_by(docs.c.id).limit(limit).offset(_NOTHING), *between)
        self.docs_between_back = statements.by_id(
            named.order_by(docs.c.id.desc()).limit(limit).offset(_NOTHING), *between
        )
        self.shapes_between = sql(shaped.order_by(shapes.c.path).limit(limit).offset(_NOTHING), *between)
        self.shapes_between_back = sql(shaped.order_by(shapes.c.path.desc()).limit(limit).offset(_NOTHING), *between)

        # numbers of shapes, low, high[, after], limit -> documents that stand (stood) on the values between
        standing = (statements.among(paths.c.shape, "numbers"), paths.c.value >= low, paths.c.value < high)
        self.paths_between = sql(
            select(paths.c.doc, paths.c.seq).where(*standing).limit(limit).offset(_NOTHING),
            *("numbers", "low", "high", "row_limit"),
        )
        self.gone_between = sql(
            select(gone.c.doc, gone.c.seq)
            .where(
                statements.among(gone.c.shape, "numbers"),
                gone.c.value >= low,
                gone.c.value < high,
                gone.c.seq > after,
            )
            .limit(limit)
            .offset(_NOTHING),
            *("numbers", "low", "high", "after", "row_limit"),
        )
        # numbers of shapes, low, high, limit -> hits on them, in no order
        self.hits_among = sql(
            select(paths.c.shape, paths.c.value, paths.c.doc, paths.c.places)
            .where(*standing)
            .limit(limit)
            .offset(_NOTHING),
            *("numbers", "low", "high", "row_limit"),
        )
        # low, high, numbers of shapes -> the least (greatest) value between on each, NULL where there is none
        values = select(paths.c.value).where(
            paths.c.shape == shapes.c.shape, paths.c.value >= low, paths.c.value < high
        )
        values = values.limit(literal_column("1")).offset(_NOTHING)

        def outermost(by: Any) -> str:
            least = values.order_by(by).scalar_subquery()
            query = select(shapes.c.shape, least).where(statements.among(shapes.c.shape, "numbers"))
            return sql(query, "low", "high", "numbers")

        self.first_values = outermost(paths.c.value)
        self.last_values = outermost(paths.c.value.desc())

        shape: Any = bindparam("shape")
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


@cache
def queries_of(statements: Statements) -> Queries:
    """Those for a dialect, compiled once in a process."""
    return Queries(statements)
