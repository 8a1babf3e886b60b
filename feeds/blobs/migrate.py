"""Bringing the index of the blob files to the schema of this Spile, and refusing one that is newer."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection

from feeds.blobs.schema import metadata
from feeds.storage.asking import one_transaction
from feeds.storage.versions import Schema

INDEX = Schema("The index of the blob files", metadata, Path(__file__).with_name("migrations"), head="0001")


def migrate(connection: Connection) -> None:
    """Bring the schema to the newest version in one transaction; NewerSchema when this Spile does not know it."""
    if INDEX.found(connection) == INDEX.head:
        return
    with one_transaction(connection, "BEGIN IMMEDIATE"):
        INDEX.lead_on(connection)
