"""Databases with the tables of a store in them, on a PostgreSQL of the tests' own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from postgres import Cluster

from feeds.storage.database import Database
from feeds.storage.migrate import migrate
from feeds.storage.schema import metadata


class Databases:
    """Makes databases, and uses them again: emptying one takes milliseconds, making one a tenth of a second."""

    def __init__(self, server: Cluster) -> None:
        self._server = server
        self._free: list[str] = []
        self._template: str | None = None

    def fresh(self) -> str:
        """The URL of a database of the caller's own, which is not used again."""
        return self._server.url(self._server.database(self._made()))

    @contextmanager
    def lent(self) -> Iterator[str]:
        """The URL of an empty one for the length of the block."""
        name = self._free.pop() if self._free else self._server.database(self._made())
        yield self._server.url(name)
        with closing(self._server.connect(name)) as connection:
            tables = [f'DELETE FROM "{table.name}"' for table in reversed(metadata.sorted_tables)]
            sequences = [f"ALTER SEQUENCE {name} RESTART" for name in ("barrels_barrel_seq", "shapes_shape_seq")]
            connection.execute("; ".join(tables + sequences))
        self._free.append(name)

    def _made(self) -> str:
        if self._template is None:
            made = self._server.database()
            with closing(Database(self._server.url(made))) as database, database.reading() as connection:
                migrate(connection)
            self._template = made
        return self._template
