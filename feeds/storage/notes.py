"""Small texts that are stored by a key beside the barrels, such as the store's own id."""

from __future__ import annotations

import uuid

from feeds.storage.database import Database
from feeds.storage.queries import Queries
from feeds.storage.transaction import Transaction
from feeds.storage.writer import Writer

_STORE = "store"


class StoredNotes:
    """The notes of one store. Thread-safe."""

    def __init__(self, database: Database, queries: Queries, writer: Writer) -> None:
        self._database = database
        self._queries = queries
        self._writer = writer

    def identity(self) -> str:
        """The store's id; made at the first call."""

        def read(transaction: Transaction) -> str:
            rows = transaction.execute(self._queries.meta, _STORE)
            if rows:
                return str(rows[0][0])
            made = uuid.uuid4().hex
            transaction.execute(self._queries.insert_meta, _STORE, made)
            return made

        return str(self._writer.call(read))

    def all(self, prefix: str) -> dict[str, str]:
        """Every note whose key begins with `prefix`."""
        with self._database.reading() as connection:
            rows = connection.exec_driver_sql(self._queries.meta_all).all()
        return {key: value for key, value in rows if key.startswith(prefix)}

    def get(self, key: str) -> str | None:
        """One note; None if there is none."""
        with self._database.reading() as connection:
            return connection.exec_driver_sql(self._queries.meta, (key,)).scalar()

    def set(self, key: str, text: str | None) -> None:
        """Store a note durably; None removes it."""

        def save(transaction: Transaction) -> None:
            transaction.execute(self._queries.delete_meta, key)
            if text is not None:
                transaction.execute(self._queries.insert_meta, key, text)

        self._writer.call(save)
