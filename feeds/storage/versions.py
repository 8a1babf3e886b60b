"""A schema and its versions: one that is missing is made from its tables, an older one is led on by its migrations.

Alembic is imported only where there is something to migrate: it costs most of a second, which nobody who starts for
the first time has to wait for. A test holds what the tables make against what the migrations lead to.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Dialect, MetaData, inspect
from sqlalchemy.schema import CreateIndex, CreateTable

from feeds.errors import NewerSchema

if TYPE_CHECKING:
    from alembic.config import Config

_ONE_AT_A_TIME = threading.Lock()  # what Alembic runs in belongs to the whole process


class Schema:
    """The tables of a database of ours, and the folder of the migrations that lead to them.

    `what` names in an error who has the schema, `head` is the newest file in `versions` of the folder.
    """

    def __init__(self, what: str, metadata: MetaData, folder: Path, head: str) -> None:
        self.what = what
        self.metadata = metadata
        self.folder = folder
        self.head = head
        self._statements: dict[str, list[str]] = {}  # that make it, by the kind of database

    def found(self, connection: Connection) -> str | None:
        """The version of the schema that is there, None where there is none yet; NewerSchema for one not known."""
        version = schema_version(connection)
        if version is not None and not self.knows(version):
            raise NewerSchema(
                f"{self.what} has schema {version}, and this Spile knows schemas up to {self.head}."
                " Nothing was changed."
            )
        return version

    def knows(self, version: str) -> bool:
        """Whether this Spile has the migration that leads to this version."""
        return (self.folder / "versions" / f"v{Path(version).name}.py").exists()

    def lead_on(self, connection: Connection) -> None:
        """Make what is missing or older into the newest version, inside the caller's transaction."""
        version = self.found(connection)
        if version is None:
            self.make(connection)
        elif version != self.head:
            self.upgrade(connection)

    def make(self, connection: Connection) -> None:
        """The newest version, from its tables."""
        for statement in self._making(connection.dialect):
            connection.exec_driver_sql(statement).close()
        connection.exec_driver_sql(_VERSION_TABLE).close()
        connection.exec_driver_sql(f"INSERT INTO alembic_version VALUES ('{self.head}')").close()

    def _making(self, dialect: Dialect) -> list[str]:
        """What makes the tables and their indexes, each table after those that it refers to."""
        if dialect.name not in self._statements:
            tables = [str(CreateTable(table).compile(dialect=dialect)) for table in self.metadata.sorted_tables]
            indexes = [
                str(CreateIndex(index).compile(dialect=dialect))
                for table in self.metadata.sorted_tables
                for index in sorted(table.indexes, key=lambda index: str(index.name))
            ]
            self._statements[dialect.name] = tables + indexes
        return self._statements[dialect.name]

    def upgrade(self, connection: Connection) -> None:
        """The newest version, through every migration that is missing."""
        from alembic import command

        config = self.config()
        config.attributes["connection"] = connection
        with _ONE_AT_A_TIME:
            command.upgrade(config, "head")

    def config(self) -> Config:
        """Alembic's configuration for these migrations."""
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(self.folder))
        config.set_main_option("path_separator", "os")
        return config


def schema_version(connection: Connection) -> str | None:
    """The version that stands in a database, None where there is no schema."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


_VERSION_TABLE = (
    "CREATE TABLE alembic_version ( version_num VARCHAR(32) NOT NULL, "
    "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num) )"
)  # as Alembic makes it
