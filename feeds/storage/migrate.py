"""Bringing a store's schema to the version of this Spile, and refusing one that is newer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from feeds.errors import Unavailable
from feeds.storage.asking import one_transaction
from feeds.storage.schema import metadata
from feeds.storage.statements import LOCK_CLASS, SCHEMA_LOCK
from feeds.storage.versions import Schema

STORE = Schema("The store", metadata, Path(__file__).with_name("migrations"), head="0001")


def migrate(connection: Connection, *, create: bool = True) -> None:
    """Bring the schema to the newest version in one transaction; NewerSchema when this Spile does not know what it
    finds, Unavailable where there is none and none is to be made.

    Of several processes that start at once one does it, and the others wait for it.
    """
    if _is_newest(connection, create):
        return
    if connection.dialect.name == "sqlite":
        with one_transaction(connection, "BEGIN IMMEDIATE"):
            STORE.lead_on(connection)
        return
    driver: Any = connection.connection.driver_connection
    with driver.patient(), one_transaction(connection, "BEGIN"):
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0").close()
        connection.exec_driver_sql("SET LOCAL lock_timeout = 0").close()
        # Between two statements Alembic may be read from the disk, or another thread's turn come first.
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0").close()
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK_CLASS}, {SCHEMA_LOCK})").close()
        STORE.lead_on(connection)


def _is_newest(connection: Connection, create: bool) -> bool:
    found = STORE.found(connection)
    if found is None and not create:
        raise Unavailable("There is no store in this database", hint="Check the URL, or let `spile serve` make one.")
    return found == STORE.head
