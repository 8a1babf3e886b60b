"""Contents as a transaction sees them: which are there, and which revision holds which.

A revision's references are written with its body, in its own transaction, and locked against the collector until that
stands. Nothing else adds any: when bodies go, `collector` finds what is left of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from sqlalchemy import and_, bindparam, literal_column, select

from feeds.attachments.stubs import Content, contents_of, stubs_of
from feeds.storage.schema import blob_refs, blobs, docs
from feeds.storage.session import Session
from feeds.storage.statements import Statements
from feeds.tree import Key


class HoldingStatements:
    """SQL texts for one dialect; parameters are positional as each comment says."""

    def __init__(self, statements: Statements) -> None:
        sql = statements.sql
        content = (blobs.c.digest, blobs.c.md5, blobs.c.length)
        barrel: Any = bindparam("barrel")
        # digests -> those that are there, which stay until the transaction ends
        self.hold = sql(
            select(*content)
            .where(statements.among(blobs.c.digest, "digests"))
            .order_by(blobs.c.digest)
            .with_for_update(read=True, key_share=True),
            "digests",
        )
        self.find = sql(select(*content).where(blobs.c.digest == bindparam("digest")), "digest")
        # barrel, digest / md5 -> a content that a revision of the barrel has
        held = (
            select(*content)
            .select_from(blobs.join(blob_refs, blob_refs.c.blob == blobs.c.digest))
            .where(blob_refs.c.barrel == barrel)
            .limit(literal_column("1"))
            .offset(literal_column("0"))
        )
        self.held_by_digest = sql(held.where(blobs.c.digest == bindparam("digest")), "barrel", "digest")
        self.held_by_md5 = sql(held.where(blobs.c.md5 == bindparam("md5")), "barrel", "md5")
        # barrel, digest, id -> that content, if a revision of this document has it
        self.held_by_doc = sql(
            held.join(docs, and_(docs.c.barrel == blob_refs.c.barrel, docs.c.doc == blob_refs.c.doc)).where(
                blobs.c.digest == bindparam("digest"), docs.c.id == bindparam("id")
            ),
            *("barrel", "digest", "id"),
        )
        self.insert_ref = statements.insert_missing(blob_refs)


@cache
def holding_statements(statements: Statements) -> HoldingStatements:
    """Those for a dialect, compiled once."""
    return HoldingStatements(statements)


class BarrelHoldings:
    """The contents that the revisions of one barrel hold, during one transaction."""

    def __init__(self, session: Session, statements: Statements, barrel: int) -> None:
        self._session = session
        self._statements = statements
        self._sql = holding_statements(statements)
        self._barrel = barrel
        self._there: dict[str, Content] = {}
        self._refs: list[tuple[Any, ...]] = []

    def hold(self, digests: Iterable[str]) -> None:
        """Look whether these contents are there, and keep them there until the transaction ends."""
        wanted = [digest for digest in dict.fromkeys(digests) if digest not in self._there]
        if wanted:
            self._take(self._session.rows(self._sql.hold, (self._statements.as_list(wanted),)))

    def is_held(self, digest: str) -> bool:
        """Whether a content was there when it was asked for with `hold`."""
        return digest in self._there

    def md5_of(self, sha256: str) -> str | None:
        if sha256 not in self._there:
            self._take(self._session.rows(self._sql.find, (sha256,)))
        found = self._there.get(sha256)
        return None if found is None else found.md5

    def held(self, sha256: str | None, md5: str | None) -> Content | None:
        self.flush()
        if sha256 is not None:
            rows = self._session.rows(self._sql.held_by_digest, (self._barrel, sha256))
        elif md5 is not None:
            rows = self._session.rows(self._sql.held_by_md5, (self._barrel, md5))
        else:
            return None
        return Content(*rows[0]) if rows else None

    def refer(self, doc: int, revision: Key, body: bytes) -> None:
        """The revision has this body from now on."""
        for digest in sorted(contents_of(stubs_of(body))):
            self._refs.append((self._barrel, doc, *revision, digest))

    def flush(self) -> None:
        """Write what was collected."""
        if self._refs:
            self._session.many(self._sql.insert_ref, list(dict.fromkeys(self._refs)))
            self._refs.clear()

    def _take(self, rows: Iterable[Any]) -> None:
        for row in rows:
            self._there[row[0]] = Content(*row)
