"""The SQL of upkeep, compiled once for a store's database; parameters are positional as each comment says."""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, bindparam, delete, exists, literal_column, null, or_, select, tuple_, update

from feeds.storage.schema import DELETED, barrels, docs, gone, log, revs, shapes, tokens
from feeds.storage.statements import Each, Statements

_NOTHING: Any = literal_column("0")


class Upkeep:
    """SQL texts for one dialect."""

    def __init__(self, statements: Statements) -> None:
        sql = statements.sql
        self.told = statements.told
        barrel: Any = bindparam("barrel")
        limit: Any = bindparam("row_limit")

        # -> key, name, head, forgotten, settings of every barrel
        self.barrels = sql(
            select(barrels.c.barrel, barrels.c.name, barrels.c.seq, barrels.c.forgotten, barrels.c.settings)
            .where(barrels.c.dropped == _NOTHING)
            .order_by(barrels.c.barrel)
        )
        # barrel, now, limit -> ids of documents that have expired, the longest expired first
        self.expired = sql(
            select(docs.c.id)
            .where(
                docs.c.barrel == barrel,
                docs.c.expires <= bindparam("now"),
                docs.c.flags.bitwise_and(literal_column(str(DELETED))) == _NOTHING,
            )
            .order_by(docs.c.expires)
            .limit(limit)
            .offset(_NOTHING),
            *("barrel", "now", "row_limit"),
        )
        # barrel, after, upto, limit -> seq, time in ms, and the document
        self.log = sql(
            select(log.c.seq, log.c.at, log.c.doc)
            .where(log.c.barrel == barrel, log.c.seq > bindparam("after"), log.c.seq <= bindparam("upto"))
            .order_by(log.c.seq)
            .limit(limit)
            .offset(_NOTHING),
            *("barrel", "after", "upto", "row_limit"),
        )
        self.move_forgotten = sql(
            update(barrels)
            .values(forgotten=bindparam("seq"))
            .where(barrels.c.barrel == barrel, barrels.c.forgotten < bindparam("below")),
            *("seq", "barrel", "below"),
        )
        self.delete_log = sql(
            delete(log).where(log.c.barrel == barrel, log.c.seq <= bindparam("seq")), "barrel", "seq"
        )

        rev_key = {name: revs.c[name] for name in ("barrel", "doc", "generation", "digest")}
        no_winner = or_(docs.c.generation != revs.c.generation, docs.c.digest != revs.c.digest)
        same_doc = and_(docs.c.barrel == revs.c.barrel, docs.c.doc == revs.c.doc)

        def drop_body(each: Each) -> Any:
            this_rev = and_(*(column == each(name) for name, column in rev_key.items()))
            # Stored by then: it may have been purged since it was looked at, and be back as a leaf.
            return (
                update(revs).values(body=null()).where(this_rev, revs.c.seq <= each("told"), revs.c.body.isnot(None))
            )

        self.drop_body = statements.many(drop_body, rev_key | {"told": revs.c.seq})
        # The bodies of a document with one leaf that are another revision's, and stored by `upto`. Also those whose
        # own log row went long before, while they were the winner's.
        superseded = exists(select(docs.c.doc).where(same_doc, docs.c.others.is_(None), no_winner).correlate(revs))
        doc_key = {name: revs.c[name] for name in ("barrel", "doc")}
        self.drop_superseded = statements.many(
            lambda each: (
                update(revs)
                .values(body=null())
                .where(*(column == each(name) for name, column in doc_key.items()))
                .where(revs.c.seq <= each("upto"), revs.c.body.isnot(None), superseded)
            ),
            doc_key | {"upto": revs.c.seq},
        )
        # barrel, told, doc, generation, digest, limit -> bodies behind a place that are no winner's
        place = tuple_(revs.c.doc, revs.c.generation, revs.c.digest)
        mark: Any = tuple_(bindparam("doc"), bindparam("generation"), bindparam("digest"))
        self.superseded = sql(
            select(revs.c.doc, revs.c.generation, revs.c.digest, docs.c.others)
            .select_from(revs.join(docs, same_doc))
            .where(
                revs.c.barrel == barrel,
                revs.c.seq <= bindparam("told"),
                place > mark,
                revs.c.body.isnot(None),
                no_winner,
            )
            .order_by(revs.c.doc, revs.c.generation, revs.c.digest)
            .limit(limit)
            .offset(_NOTHING),
            *("barrel", "told", "doc", "generation", "digest", "row_limit"),
        )

        # shape, value, doc, places, limit -> left paths behind a place
        keys = (gone.c.shape, gone.c.value, gone.c.doc, gone.c.places)
        names = ("shape", "value", "doc", "places")
        behind: Any = tuple_(*(bindparam(name) for name in names))
        self.gone = sql(
            select(*keys, gone.c.seq).where(tuple_(*keys) > behind).order_by(*keys).limit(limit).offset(_NOTHING),
            *names,
            "row_limit",
        )
        # shapes -> shape, what its barrel has forgotten, and the barrel
        self.forgotten_by_shape = sql(
            select(shapes.c.shape, barrels.c.forgotten, barrels.c.barrel)
            .select_from(shapes.join(barrels, barrels.c.barrel == shapes.c.barrel))
            .where(statements.among(shapes.c.shape, "shapes")),
            "shapes",
        )
        gone_key = dict(zip(names, keys, strict=True))
        self.delete_gone = statements.many(
            lambda each: delete(gone).where(
                *(key == each(name) for name, key in gone_key.items()), gone.c.seq <= each("upto")
            ),
            gone_key | {"upto": gone.c.seq},
        )

        # before, limit -> keys of old tokens
        self.tokens = sql(
            select(tokens.c.barrel, tokens.c.scope, tokens.c.key)
            .where(tokens.c.at < bindparam("before"))
            .order_by(tokens.c.at)
            .limit(limit)
            .offset(_NOTHING),
            *("before", "row_limit"),
        )
        token_key = {name: tokens.c[name] for name in ("barrel", "scope", "key")}
        self.delete_token = statements.many(
            lambda each: delete(tokens).where(
                *(key == each(name) for name, key in token_key.items()), tokens.c.at < each("before")
            ),
            token_key | {"before": tokens.c.at},
        )
