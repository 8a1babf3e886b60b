"""`_local` documents: beside the log, never replicated, for checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from feeds.body import check_local_id, draft, read_json
from feeds.errors import BadRequest, Conflict, Missing
from feeds.faults import shown
from feeds.storage.reading import Document
from feeds.storage.transaction import Transaction
from feeds.writes import Written, same

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
            row = connection.exec_driver_sql(
                self._store.statements.find_local, (self._barrel.key, check_local_id(id))
            ).first()
        if row is None:
            raise self._missing(id)
        return Document(_PREFIX + id, f"0-{row[0]}", False, row[1])

    def ids(self, prefix: str = "") -> list[str]:
        """The ids that begin with `prefix`."""
        with self._store.database.reading() as connection:
            rows = connection.exec_driver_sql(self._store.queries.locals_, (self._barrel.key,)).all()
        return [row[0] for row in rows if row[0].startswith(prefix)]

    def put(self, id: str, doc: bytes | str | Mapping[str, Any], *, rev: str | None = None) -> Written:
        """Write the document over what is there; with `rev` (or a `_rev` inside) only over that revision."""
        given = draft(_without_id(id, doc), bytes_max=self._store.settings.document_bytes_max)
        if given.deleted or given.revisions is not None or given.attachments is not None:
            raise BadRequest(
                "A local document has no _deleted, no _revisions and no _attachments",
                hint="Delete it with a delete; it has no history.",
            )
        base = same("_rev", rev, given.rev)
        body = given.body

        def write(transaction: Transaction) -> Written:
            transaction.work(self._barrel.key, self._barrel.name)
            number = _next(id, self._current(transaction, id), base)
            transaction.execute(
                self._store.statements.upsert_local, self._barrel.key, check_local_id(id), number, body
            )
            return Written(_PREFIX + id, f"0-{number}", 0, created=number == 1)

        written: Written = self._store.writer.call(write, self._barrel.key)
        return written

    def delete(self, id: str, *, rev: str | None = None) -> Written:
        """Remove the document; Missing if there is none."""

        def remove(transaction: Transaction) -> Written:
            current = self._current(transaction, id)
            if current == 0:
                raise self._missing(id)
            number = _next(id, current, rev)
            transaction.execute(self._store.statements.delete_local, self._barrel.key, check_local_id(id))
            return Written(_PREFIX + id, f"0-{number}", 0)

        removed: Written = self._store.writer.call(remove, self._barrel.key)
        return removed

    def _current(self, transaction: Transaction, id: str) -> int:
        """The number of the document's revision; 0 if there is none."""
        rows = transaction.execute(self._store.statements.find_local, self._barrel.key, check_local_id(id))
        return int(rows[0][0]) if rows else 0

    def _missing(self, id: str) -> Missing:
        return Missing(f"There is no {_PREFIX}{id} in {self._barrel.name!r}")


def _next(id: str, current: int, base: str | None) -> int:
    """The number that follows; Conflict where the caller means another revision than the current one."""
    if base is not None and base != f"0-{current}":
        if current == 0:
            raise Conflict(
                f"{_PREFIX}{id} was never written here, and you sent _rev {shown(base)}",
                hint="Leave _rev out to create the document.",
            )
        raise Conflict(f"{_PREFIX}{id} is at 0-{current}, not at {shown(base)}")
    return current + 1


def _without_id(id: str, doc: bytes | str | Mapping[str, Any]) -> bytes | str | Mapping[str, Any]:
    """The document without `_id`, which names what the caller named already."""
    value = read_json(doc, what="The document") if isinstance(doc, (bytes, bytearray, memoryview, str)) else doc
    if not isinstance(value, Mapping):
        return doc
    inside = value.get("_id", id)
    if inside != id:
        same("_id", _PREFIX + id, inside)
    return {key: inner for key, inner in value.items() if key != "_id"}
