"""The tables of the index beside the blob files.

A row of `chunks` covers a range of a file; ranges of one file never overlap, and bytes that no row covers were never
written. What is told about it is in docs/concepts/blob-files.md.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Integer, MetaData, SmallInteger, Table, Text

metadata = MetaData(naming_convention={"uq": "uq_%(table_name)s_%(column_0_N_name)s", "pk": "pk_%(table_name)s"})

meta = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

files = Table(
    "files",
    metadata,
    Column("file", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("removed", SmallInteger, nullable=False),  # 1: all of it was trimmed, and the name alone is kept
    Column("end", BigInteger, nullable=False),  # behind the last written or trimmed byte
    Column("written", BigInteger, nullable=False),  # bytes
    Column("trimmed", BigInteger, nullable=False),  # bytes
    Column("epoch_written", BigInteger, nullable=False),
    Column("epoch_noted", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

chunks = Table(
    "chunks",
    metadata,
    Column("file", Integer, primary_key=True, autoincrement=False),
    Column("offset", BigInteger, primary_key=True, autoincrement=False),
    Column("size", BigInteger, nullable=False),
    Column("state", SmallInteger, nullable=False),  # feeds.blobs.values.State
    Column("checksum", BigInteger),  # crc32c; none of trimmed ranges
    Column("tag", SmallInteger),  # feeds.blobs.values.Tag
    sqlite_with_rowid=False,
)

notes = Table(
    "notes",
    metadata,
    Column("file", Integer, primary_key=True, autoincrement=False),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    sqlite_with_rowid=False,
)

damage = Table(
    "damage",
    metadata,
    Column("file", Integer, primary_key=True, autoincrement=False),
    Column("offset", BigInteger, primary_key=True, autoincrement=False),
    Column("size", BigInteger, nullable=False),
    Column("code", Text, nullable=False),  # of the error that a reader gets
    Column("found", Float, nullable=False),  # Unix time in seconds
    sqlite_with_rowid=False,
)
