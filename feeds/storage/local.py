"""`_local` documents: beside the log, never replicated, for checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from feeds.body import check_id, draft
from feeds.errors import BadRequest, Conflict, Missing
from feeds.storage.reading import Document
from feeds.storage.transaction import Transaction
from feeds.writes import Written

if TYPE_CHECKING:
    from feeds.barrel import Barrel
    from feeds.store import Store

_PREFIX = "_local/"


class LocalDocuments:
    """The `_local` documents of one barrel; ids are given without the prefix."""

    def __init__(self, store: Store, barrel: Barrel) -> None:
        self._store = store
        self._barrel = barrel

    def get(self, id: str) -> Document:
        """The document; Missing if there is none."""
        with self._store.database.reading() as connection:
            row = connection.exec_driver_sql(self._store.statements.find_local, (self._barrel.key, _name(id))).first()
        if row is None:
            raise Missing(f"There is no {_PREFIX}{id} in {self._barrel.name!r}")
        return Document(_PREFIX + id, f"0-{row[0]}", False, row[1])

    def ids(self, prefix: str = "") -> list[str]:
        """The ids that begin with `prefix`."""
        with self._store.database.reading() as connection:
            rows = connection.exec_driver_sql(self._store.queries.locals_, (self._barrel.key,)).all()
        return [row[0] for row in rows if row[0].startswith(prefix)]

    def put(self, id: str, doc: bytes | str | Mapping[str, Any], *, rev: str | None = None) -> Written:
        """Write the document over what is there; with `rev` (or a `_rev` inside) only over that revision."""
        given = draft(_without_id(doc), bytes_max=self._store.settings.document_bytes_max)
        base = rev if rev is not None else given.rev
        body = given.body

        def write(transaction: Transaction) -> Written:
            transaction.work(self._barrel.key, self._barrel.name)
            number = self._next(transaction, id, base)
            transaction.execute(self._store.statements.upsert_local, self._barrel.key, _name(id), number, body)
            return Written(_PREFIX + id, f"0-{number}", 0, created=number == 1)

        written: Written = self._store.writer.call(write)
        return written

    def delete(self, id: str, *, rev: str | None = None) -> Written:
        """Remove the document; Missing if there is none."""

        def remove(transaction: Transaction) -> Written:
            number = self._next(transaction, id, rev)
            if number == 1:
                raise Missing(f"There is no {_PREFIX}{id} in {self._barrel.name!r}")
            transaction.execute(self._store.statements.delete_local, self._barrel.key, _name(id))
            return Written(_PREFIX + id, f"0-{number}", 0)

        removed: Written = self._store.writer.call(remove)
        return removed

    def _next(self, transaction: Transaction, id: str, base: str | None) -> int:
        rows = transaction.execute(self._store.statements.find_local, self._barrel.key, _name(id))
        current = rows[0][0] if rows else 0
        if base is not None and base != f"0-{current}":
            raise Conflict(f"{_PREFIX}{id} is at 0-{current}, not at {base}")
        return int(current) + 1


def _name(id: str) -> str:
    if id.startswith("_"):
        raise BadRequest(f"A local id cannot begin with _: {id!r}")
    return check_id(id)


def _without_id(doc: bytes | str | Mapping[str, Any]) -> bytes | str | Mapping[str, Any]:
    """The document without `_id`, which names what the caller named already."""
    from feeds.body import read_json

    value = read_json(doc, what="The document") if isinstance(doc, (bytes, bytearray, str)) else doc
    if isinstance(value, Mapping):
        return {key: inner for key, inner in value.items() if key != "_id"}
    return doc
