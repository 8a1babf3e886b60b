"""Bringing a store's schema to the version of this Spile, and refusing one that is newer.

Alembic is imported only where there is something to migrate: it costs a fifth of a second.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect

from feeds.errors import NewerSchema, Unavailable
from feeds.storage.statements import LOCK_CLASS, SCHEMA_LOCK

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0001"  # the newest file in migrations/versions; a test keeps it true
ONE_AT_A_TIME = threading.Lock()  # what Alembic runs in belongs to the whole process
_FOLDER = Path(__file__).with_name("migrations")


def schema_version(connection: Connection) -> str | None:
    """The version of the schema found, None where there is none yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


def migrate(connection: Connection, *, create: bool = True) -> None:
    """Bring the schema to HEAD in one transaction; NewerSchema when this Spile does not know what it finds.

    Of several processes that start at once one does it, and the others wait for it.
    """
    if _is_at_head(connection, create):
        return
    from alembic import command

    is_sqlite = connection.dialect.name == "sqlite"
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_sqlite else "BEGIN").close()
    try:
        if not is_sqlite:
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0").close()
            connection.exec_driver_sql("SET LOCAL lock_timeout = 0").close()
            # Between two statements Alembic may be read from the disk, or another thread's turn come first.
            connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0").close()
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK_CLASS}, {SCHEMA_LOCK})").close()
        if not _is_at_head(connection, create):
            config = alembic_config()
            config.attributes["connection"] = connection
            with ONE_AT_A_TIME:
                command.upgrade(config, "head")
    except BaseException:
        connection.exec_driver_sql("ROLLBACK").close()
        raise
    connection.exec_driver_sql("COMMIT").close()


def _is_at_head(connection: Connection, create: bool) -> bool:
    found = schema_version(connection)
    if found is None and not create:
        raise Unavailable("There is no store in this database", hint="Check the URL, or let `spile serve` make one.")
    if found is not None and not knows(found):
        raise NewerSchema(
            f"The store has schema {found}, and this Spile knows schemas up to {HEAD}. Nothing was changed."
        )
    return found == HEAD


def knows(version: str) -> bool:
    """Whether this Spile has the migration that leads to this version."""
    return (_FOLDER / "versions" / f"v{Path(version).name}.py").exists()


def alembic_config() -> Config:
    """Alembic's configuration for the migrations that ship with the package."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.set_main_option("path_separator", "os")
    return config
