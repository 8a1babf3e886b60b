"""The SQL of the write path, compiled once for a store's database.

Written with SQLAlchemy Core and run at driver level: a Core execution costs several times the driver's.
Parameters are positional, in the order that each statement's comment or its table's columns give.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    Dialect,
    Integer,
    Select,
    Table,
    Text,
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

from feeds.storage.asking import PAGE_BYTES_MAX
from feeds.storage.batches import Many, copy_of
from feeds.storage.schema import barrels, docs, gone, locals_, log, paths, publishers, revs, shapes, tokens

BODY_BYTES_READ_AHEAD: Any = literal_column("16384")

# Advisory locks of PostgreSQL: "Spil", and which.
LOCK_CLASS = 0x5370696C
STORE_LOCK, USE_LOCK, SCHEMA_LOCK = 1, 2, 3

Each = Callable[[str], Any]  # the expression for one of a row's parameters

_NOTHING: Any = literal_column("0")
_encode = msgspec.json.Encoder().encode


class Statements:
    """SQL texts for one dialect."""

    _known: ClassVar[dict[str, Statements]] = {}

    @classmethod
    def of(cls, dialect: Dialect) -> Statements:
        """Those for a dialect, compiled once in a process."""
        return cls._known.setdefault(dialect.name, cls._known.get(dialect.name) or cls(dialect))

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self.is_sqlite = dialect.name == "sqlite"

        barrel: Any = bindparam("barrel")
        doc: Any = bindparam("doc")
        generation: Any = bindparam("generation")
        digest: Any = bindparam("digest")
        # barrels -> barrel, seq, live, deleted, bytes, forgotten, skipped_paths, settings, epoch: locked in the order
        # of their keys, so that two processes never wait for each other.
        lock_barrels = (
            select(
                barrels.c.barrel,
                barrels.c.seq,
                barrels.c.live,
                barrels.c.deleted,
                barrels.c.bytes,
                barrels.c.forgotten,
                barrels.c.skipped_paths,
                barrels.c.settings,
                barrels.c.epoch,
            )
            .where(self.among(barrels.c.barrel, "barrels"), barrels.c.dropped == literal_column("0"))
            .order_by(barrels.c.barrel)
        )
        self.lock_barrels = self.sql(lock_barrels.with_for_update(key_share=True), "barrels")
        # What is no barrel's own (names, notes, cursors, publishers) is changed by one process at a time.
        self.lock_store = None if self.is_sqlite else f"SELECT pg_advisory_xact_lock({LOCK_CLASS}, {STORE_LOCK})"
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
        changed = [docs.c[name] for name in ("seq", "generation", "digest", "flags", "others", "expires", "attached")]
        self.update_doc = self.many(
            lambda each: (
                update(docs)
                .values({column.name: each(f"new_{column.name}") for column in changed})
                .where(docs.c.barrel == each("barrel"), docs.c.doc == each("doc"))
            ),
            {f"new_{column.name}": column for column in changed} | {"barrel": docs.c.barrel, "doc": docs.c.doc},
        )
        self.delete_doc = self.sql(delete(docs).where(docs.c.barrel == barrel, docs.c.doc == doc), "barrel", "doc")
        self.insert_rev = self.insert(revs)
        self.upsert_rev = self.upsert(revs, "parent", "flags", "seq", "body")
        rev_key = {name: revs.c[name] for name in ("barrel", "doc", "generation", "digest")}

        def this_rev(each: Each) -> Any:
            return and_(*(column == each(name) for name, column in rev_key.items()))

        self.link_rev = self.many(
            lambda each: update(revs).values(parent=each("new_parent")).where(this_rev(each)),
            {"new_parent": revs.c.parent} | rev_key,
        )
        self.delete_rev = self.many(lambda each: delete(revs).where(this_rev(each)), rev_key)
        self.delete_told_rev = self.many(
            lambda each: delete(revs).where(this_rev(each), revs.c.seq <= each("told")),
            rev_key | {"told": revs.c.seq},
        )
        self.delete_revs = self.sql(delete(revs).where(revs.c.barrel == barrel, revs.c.doc == doc), "barrel", "doc")
        line = {"barrel": revs.c.barrel, "doc": revs.c.doc, "generation": revs.c.generation, "told": revs.c.seq}

        def old_of(each: Each) -> Any:
            return and_(
                revs.c.barrel == each("barrel"),
                revs.c.doc == each("doc"),
                revs.c.generation <= each("generation"),
                revs.c.seq <= each("told"),
            )

        # Of a document with one leaf: what lies deeper than revs_limit, and has been told.
        self.stem_line = self.many(lambda each: delete(revs).where(old_of(each)), line)
        # Of a document with one leaf: superseded bodies that the publisher has told.
        self.compact_line = self.many(
            lambda each: update(revs).values(body=null()).where(old_of(each), revs.c.body.isnot(None)), line
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
        self.told = self.sql(select(func.min(publishers.c.seq)).where(publishers.c.barrel == barrel), "barrel")

    def sql(self, statement: ClauseElement, *order: str) -> str:
        """The text of a statement whose parameters come in this order (checked)."""
        compiled = statement.compile(dialect=self._dialect)
        found = tuple(compiled.positiontup or compiled.params)  # type: ignore[attr-defined]
        assert found == order, f"parameters stand in the order {found}, not {order}"
        return str(compiled)

    def by_id(self, statement: ClauseElement, *order: str, index: str = "uq_docs_barrel_id") -> str:
        """As `sql`, of a statement that looks documents up by a list of ids, or in another index.

        Without statistics SQLite would read the whole barrel for it, and SQLAlchemy has no word for this hint.
        """
        found = self.sql(statement, *order)
        if self._dialect.name != "sqlite":
            return found
        hinted = found.replace("FROM docs ", f"FROM docs INDEXED BY {index} ", 1)
        assert hinted != found, "the statement reads docs first"
        return hinted

    def many(self, make: Callable[[Each], Any], parameters: Mapping[str, Column[Any]]) -> Many:
        """A statement that is run for many rows. `make` builds it of an expression for each of a row's parameters,
        which come in the order that is given here, of the types of these columns."""
        one = self.sql(make(lambda name: bindparam(name, type_=parameters[name].type)), *parameters)
        if self.is_sqlite:
            return Many(one)
        rows = self._rows(parameters)
        return Many(one, self.sql(make(lambda name: rows.c[name]), *parameters))

    def insert(self, table: Table) -> Many:
        """Insert rows given as tuples of all columns."""
        return self._insert(table, copied=True)

    def upsert(self, table: Table, *changed: str) -> Many:
        """Insert rows of all columns, or change these columns of those that are there."""
        return self._insert(table, changed=changed)

    def insert_missing(self, table: Table) -> Many:
        """Insert rows given as tuples of all columns, unless one of its key is there."""
        return self._insert(table, missing=True)

    def _insert(
        self, table: Table, *, changed: Sequence[str] = (), missing: bool = False, copied: bool = False
    ) -> Many:
        make: Any = sqlite_insert if self.is_sqlite else postgresql_insert
        columns = {column.name: column for column in table.c}

        def whole(statement: Any) -> Any:
            if missing:
                return statement.on_conflict_do_nothing()
            if changed:
                return statement.on_conflict_do_update(
                    index_elements=list(table.primary_key.columns),
                    set_={name: statement.excluded[name] for name in changed},
                )
            return statement

        binds = {name: bindparam(name, type_=column.type) for name, column in columns.items()}
        one = self.sql(whole(make(table).values(binds)), *columns)
        if self.is_sqlite:
            return Many(one)
        rows = self._rows(columns)
        arrays = whole(make(table).from_select(list(columns), select(*(rows.c[name] for name in columns))))
        return Many(one, self.sql(arrays, *columns), copy_of(table) if copied else None)

    def _rows(self, parameters: Mapping[str, Column[Any]]) -> Any:
        """Rows given as an array for each of their columns."""
        arrays = [bindparam(name, type_=ARRAY(_plain(column))) for name, column in parameters.items()]
        return func.unnest(*arrays).table_valued(*parameters, name="given").render_derived()

    def as_list(self, values: Sequence[Any]) -> Any:
        """A list in the form in which it is bound for `among`."""
        return _encode(values).decode() if self.is_sqlite else list(values)

    def among(self, column: Any, name: str) -> Any:
        """The column is one of a list that is bound as one parameter, in the form of `as_list`."""
        if self.is_sqlite:
            each = func.json_each(bindparam(name)).table_valued("value")
            return column.in_(select(each.c.value))
        return column == func.any(bindparam(name, type_=ARRAY(_plain(column))))

    def page(self, query: Select[Any], body: Any, by: Any, *order: str, back: bool = False) -> str:
        """As `sql`, of a query for a page of rows with a body each, in the order of `by` or back.

        psycopg reads a result as a whole: the server has to stop at the bound on bytes that `entries.bounded` knows.
        """
        if self.is_sqlite:
            return self.sql(query, *order)
        asked = list(query.selected_columns)
        rows = query.add_columns(
            by.label("place"), func.coalesce(func.length(body), _NOTHING).label("size")
        ).subquery()
        *columns, place, size = rows.c
        placed = place.desc() if back else place
        before = func.sum(size).over(order_by=placed) - size
        *columns, place, _, so_far = select(*rows.c, before.label("so_far")).subquery().c
        assert len(columns) == len(asked)
        fitting = select(*columns).where(so_far < literal_column(str(PAGE_BYTES_MAX)))
        return self.sql(fitting.order_by(place.desc() if back else place), *order)

    def _delete_path(self, table: Table) -> Many:
        key = {name: table.c[name] for name in ("shape", "value", "doc", "places")}
        return self.many(
            lambda each: delete(table).where(*(column == each(name) for name, column in key.items())), key
        )


def _plain(column: Any) -> Any:
    """The type of a column without its collation, which an array cannot have."""
    kind = column.type
    if isinstance(kind, Text):
        return Text()
    return BigInteger() if isinstance(kind, Integer) else kind
