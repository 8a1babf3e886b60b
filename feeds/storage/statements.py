"""The SQL of the write path, compiled once for a store's database.

Written with SQLAlchemy Core and run at driver level: a Core execution costs several times the driver's.
Parameters are positional, in the order that each statement's comment or its table's columns give.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Dialect,
    Table,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal_column,
    null,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.sql import ClauseElement

from feeds.storage.schema import barrels, docs, gone, locals_, log, paths, publishers, revs, shapes, tokens

BODY_BYTES_READ_AHEAD: Any = literal_column("16384")


class Statements:
    """SQL texts for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self.is_sqlite = dialect.name == "sqlite"
        self.begin = "BEGIN IMMEDIATE" if dialect.name == "sqlite" else "BEGIN"

        barrel: Any = bindparam("barrel")
        doc: Any = bindparam("doc")
        generation: Any = bindparam("generation")
        digest: Any = bindparam("digest")
        # barrel -> seq, live, deleted, bytes, forgotten, skipped_paths, settings, epoch
        lock_barrel = select(
            barrels.c.seq,
            barrels.c.live,
            barrels.c.deleted,
            barrels.c.bytes,
            barrels.c.forgotten,
            barrels.c.skipped_paths,
            barrels.c.settings,
            barrels.c.epoch,
        ).where(barrels.c.barrel == barrel, barrels.c.dropped == literal_column("0"))
        self.lock_barrel = self.sql(lock_barrel.with_for_update(), "barrel")
        self.save_barrel = self.sql(
            update(barrels)
            .values({name: bindparam("new_" + name) for name in ("seq", "live", "deleted", "bytes", "skipped_paths")})
            .where(barrels.c.barrel == barrel),
            *("new_seq", "new_live", "new_deleted", "new_bytes", "new_skipped_paths", "barrel"),
        )

        # barrel, ids -> the document and its winner's body
        known = (
            docs.c.id,
            docs.c.doc,
            docs.c.seq,
            docs.c.generation,
            docs.c.digest,
            docs.c.flags,
            docs.c.others,
            docs.c.expires,
            # Large ones are read one by one when they are needed, as a group may hold thousands of documents.
            case((func.length(revs.c.body) <= BODY_BYTES_READ_AHEAD, revs.c.body)),
        )
        winner = and_(
            revs.c.barrel == docs.c.barrel,
            revs.c.doc == docs.c.doc,
            revs.c.generation == docs.c.generation,
            revs.c.digest == docs.c.digest,
        )
        self.find_docs = self.by_id(
            select(*known)
            .select_from(docs.outerjoin(revs, winner))
            .where(docs.c.barrel == barrel, self.among(docs.c.id, "ids")),
            *("barrel", "ids"),
        )
        self.find_rev = self.sql(
            select(revs.c.parent, revs.c.flags, revs.c.seq, revs.c.body).where(
                revs.c.barrel == barrel,
                revs.c.doc == doc,
                revs.c.generation == generation,
                revs.c.digest == digest,
            ),
            *("barrel", "doc", "generation", "digest"),
        )
        self.find_tree = self.sql(
            select(revs.c.generation, revs.c.digest, revs.c.parent, revs.c.flags).where(
                revs.c.barrel == barrel, revs.c.doc == doc
            ),
            *("barrel", "doc"),
        )

        self.oldest = self.sql(
            select(func.min(revs.c.generation)).where(revs.c.barrel == barrel, revs.c.doc == doc), "barrel", "doc"
        )

        self.insert_doc = self.insert(docs)
        self.update_doc = self.sql(
            update(docs)
            .values(
                {
                    name: bindparam("new_" + name)
                    for name in ("seq", "generation", "digest", "flags", "others", "expires")
                }
            )
            .where(docs.c.barrel == barrel, docs.c.doc == doc),
            *(
                "new_seq",
                "new_generation",
                "new_digest",
                "new_flags",
                "new_others",
                "new_expires",
                "barrel",
                "doc",
            ),
        )
        self.delete_doc = self.sql(delete(docs).where(docs.c.barrel == barrel, docs.c.doc == doc), "barrel", "doc")
        self.insert_rev = self.insert(revs)
        self.upsert_rev = self.upsert(revs, "parent", "flags", "seq", "body")
        self.link_rev = self.sql(
            update(revs)
            .values(parent=bindparam("new_parent"))
            .where(
                revs.c.barrel == barrel,
                revs.c.doc == doc,
                revs.c.generation == generation,
                revs.c.digest == digest,
            ),
            *("new_parent", "barrel", "doc", "generation", "digest"),
        )
        self.delete_rev = self.sql(
            delete(revs).where(
                revs.c.barrel == barrel,
                revs.c.doc == doc,
                revs.c.generation == generation,
                revs.c.digest == digest,
            ),
            *("barrel", "doc", "generation", "digest"),
        )
        self.delete_told_rev = self.sql(
            delete(revs).where(
                revs.c.barrel == barrel,
                revs.c.doc == doc,
                revs.c.generation == generation,
                revs.c.digest == digest,
                revs.c.seq <= bindparam("told"),
            ),
            *("barrel", "doc", "generation", "digest", "told"),
        )
        self.delete_revs = self.sql(delete(revs).where(revs.c.barrel == barrel, revs.c.doc == doc), "barrel", "doc")
        # Of a document with one leaf: what lies deeper than revs_limit, and has been told.
        self.stem_line = self.sql(
            delete(revs).where(
                revs.c.barrel == barrel,
                revs.c.doc == doc,
                revs.c.generation <= generation,
                revs.c.seq <= bindparam("told"),
            ),
            *("barrel", "doc", "generation", "told"),
        )
        # Of a document with one leaf: superseded bodies that the publisher has told.
        self.compact_line = self.sql(
            update(revs)
            .values(body=null())
            .where(
                revs.c.barrel == barrel,
                revs.c.doc == doc,
                revs.c.generation <= generation,
                revs.c.seq <= bindparam("told"),
                revs.c.body.isnot(None),
            ),
            *("barrel", "doc", "generation", "told"),
        )
        self.insert_log = self.insert(log)

        self.find_shape = self.sql(
            select(shapes.c.shape).where(shapes.c.barrel == barrel, shapes.c.path == bindparam("path")),
            *("barrel", "path"),
        )
        self.insert_shape = self.sql(
            insert(shapes).values(barrel=barrel, path=bindparam("path")).returning(shapes.c.shape),
            *("barrel", "path"),
        )
        self.insert_path = self.insert(paths)
        self.upsert_path = self.upsert(paths, "seq")
        self.delete_path = self._delete_path(paths)
        self.upsert_gone = self.upsert(gone, "seq")
        self.delete_gone = self._delete_path(gone)

        self.find_token = self.sql(
            select(tokens.c.digest, tokens.c.answer).where(
                tokens.c.barrel == barrel,
                tokens.c.scope == bindparam("scope"),
                tokens.c.key == bindparam("key"),
            ),
            *("barrel", "scope", "key"),
        )
        self.insert_token = self.upsert(tokens, "digest", "answer", "at")
        self.find_local = self.sql(
            select(locals_.c.rev, locals_.c.body).where(locals_.c.barrel == barrel, locals_.c.id == bindparam("id")),
            *("barrel", "id"),
        )
        self.upsert_local = self.upsert(locals_, "rev", "body")
        self.delete_local = self.sql(
            delete(locals_).where(locals_.c.barrel == barrel, locals_.c.id == bindparam("id")), "barrel", "id"
        )
        self.upsert_publisher = self.upsert(publishers, "seq")
        self.told = self.sql(select(func.min(publishers.c.seq)).where(publishers.c.barrel == barrel), "barrel")

    def sql(self, statement: ClauseElement, *order: str) -> str:
        """The text of a statement whose parameters come in this order (checked)."""
        compiled = statement.compile(dialect=self._dialect)
        found = tuple(compiled.positiontup or compiled.params)  # type: ignore[attr-defined]
        assert found == order, f"parameters stand in the order {found}, not {order}"
        return str(compiled)

    def by_id(self, statement: ClauseElement, *order: str) -> str:
        """As `sql`, of a statement that looks documents up by a list of ids.

        Without statistics SQLite would read the whole barrel for it, and SQLAlchemy has no word for this hint.
        """
        found = self.sql(statement, *order)
        if self._dialect.name != "sqlite":
            return found
        hinted = found.replace("FROM docs ", "FROM docs INDEXED BY uq_docs_barrel_id ", 1)
        assert hinted != found, "the statement reads docs first"
        return hinted

    def insert(self, table: Table) -> str:
        """Insert a row given as a tuple of all columns."""
        return self.sql(
            insert(table).values({column.name: bindparam(column.name) for column in table.c}),
            *(column.name for column in table.c),
        )

    def upsert(self, table: Table, *changed: str) -> str:
        """Insert a row of all columns, or change these columns of the one that is there."""
        make: Any = sqlite_insert if self._dialect.name == "sqlite" else postgresql_insert
        statement = make(table).values({column.name: bindparam(column.name) for column in table.c})
        statement = statement.on_conflict_do_update(
            index_elements=list(table.primary_key.columns),
            set_={name: statement.excluded[name] for name in changed},
        )
        return self.sql(statement, *(column.name for column in table.c))

    def insert_missing(self, table: Table) -> str:
        """Insert a row given as a tuple of all columns, unless one of its key is there."""
        make: Any = sqlite_insert if self._dialect.name == "sqlite" else postgresql_insert
        statement = make(table).values({column.name: bindparam(column.name) for column in table.c})
        return self.sql(statement.on_conflict_do_nothing(), *(column.name for column in table.c))

    def among(self, column: Any, name: str) -> Any:
        """The column is one of a list that is bound as one parameter, in the form of `as_list`."""
        if self._dialect.name == "sqlite":
            each = func.json_each(bindparam(name)).table_valued("value")
            return column.in_(select(each.c.value))
        return column == func.any(bindparam(name))

    def _delete_path(self, table: Table) -> str:
        key = ("shape", "value", "doc", "places")
        return self.sql(delete(table).where(*(table.c[name] == bindparam(name) for name in key)), *key)
