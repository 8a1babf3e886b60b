"""The rows of uploads: whose each is, for which document, and by what `feeds.blobs` goes on with it."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import bindparam, delete, func, literal_column, select, update

from feeds.storage.schema import uploads
from feeds.storage.statements import Statements


class UploadStatements:
    """SQL texts for one dialect; parameters are positional as each comment says."""

    def __init__(self, statements: Statements) -> None:
        sql = statements.sql
        id_: Any = bindparam("id")
        unbound: Any = literal_column("0")
        self.insert = statements.insert(uploads)
        self.find = sql(select(uploads).where(uploads.c.id == id_), "id")
        own = (uploads.c.barrel == bindparam("barrel"), uploads.c.who == bindparam("who"))
        page = select(uploads).where(*own, uploads.c.id > bindparam("after")).order_by(uploads.c.id)
        # barrel, who, after, limit / the same for one document -> the caller's uploads, the oldest first
        self.all_own = sql(
            page.limit(bindparam("row_limit")).offset(unbound), *("barrel", "who", "after", "row_limit")
        )
        self.own_of_doc = sql(
            page.where(uploads.c.doc == bindparam("doc")).limit(bindparam("row_limit")).offset(unbound),
            *("barrel", "who", "after", "doc", "row_limit"),
        )
        # barrel, who -> how many of the caller's are not finished
        self.unfinished = sql(
            select(func.count()).select_from(uploads).where(*own, uploads.c.blob.is_(None)), "barrel", "who"
        )
        # now, id -> the id, if it is there
        self.touch = sql(
            update(uploads).values(touched=bindparam("now")).where(uploads.c.id == id_).returning(uploads.c.id),
            *("now", "id"),
        )
        # now, content, id -> the id, if it was there and not finished
        self.finish = sql(
            update(uploads)
            .values(touched=bindparam("now"), blob=bindparam("new_blob"))
            .where(uploads.c.id == id_, uploads.c.blob.is_(None))
            .returning(uploads.c.id),
            *("now", "new_blob", "id"),
        )
        # id -> what it was finished into, if it was there
        self.delete = sql(delete(uploads).where(uploads.c.id == id_).returning(uploads.c.blob), "id")
        # id, before -> the same, if nobody has touched it since
        self.delete_old = sql(
            delete(uploads)
            .where(uploads.c.id == id_, uploads.c.touched < bindparam("before"))
            .returning(uploads.c.blob),
            *("id", "before"),
        )
        # before, limit -> uploads that nobody touched
        self.old = sql(
            select(uploads.c.id, uploads.c.state)
            .where(uploads.c.touched < bindparam("before"))
            .order_by(uploads.c.touched)
            .limit(bindparam("row_limit"))
            .offset(unbound),
            *("before", "row_limit"),
        )


@cache
def upload_statements(statements: Statements) -> UploadStatements:
    """Those for a dialect, compiled once."""
    return UploadStatements(statements)
