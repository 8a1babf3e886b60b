"""Bringing the index of the blob files to the schema of this Spile, and refusing one that is newer.

Alembic is imported only where there is something to migrate: it costs a fifth of a second.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from feeds.errors import NewerSchema
from feeds.storage.migrate import ONE_AT_A_TIME, schema_version

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0001"  # the newest file in migrations/versions; a test keeps it true
_FOLDER = Path(__file__).with_name("migrations")


def migrate(connection: Connection) -> None:
    """Bring the schema to HEAD in one transaction; NewerSchema when this Spile does not know what it finds."""
    found = schema_version(connection)
    if found == HEAD:
        return
    if found is not None and not (_FOLDER / "versions" / f"v{Path(found).name}.py").exists():
        raise NewerSchema(
            f"The blob files have schema {found}, and this Spile knows schemas up to {HEAD}. Nothing was changed."
        )
    from alembic import command

    connection.exec_driver_sql("BEGIN IMMEDIATE").close()
    try:
        config = alembic_config()
        config.attributes["connection"] = connection
        with ONE_AT_A_TIME:
            command.upgrade(config, "head")
    except BaseException:
        connection.exec_driver_sql("ROLLBACK").close()
        raise
    connection.exec_driver_sql("COMMIT").close()


def alembic_config() -> Config:
    """Alembic's configuration for the migrations that ship with the package."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.set_main_option("path_separator", "os")
    return config
