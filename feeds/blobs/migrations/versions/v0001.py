"""The first schema: files, their chunks, their notes, and what is known to be damaged."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "meta",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_meta"),
    )
    op.create_table(
        "files",
        sa.Column("file", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("removed", sa.SmallInteger(), nullable=False),
        sa.Column("end", sa.BigInteger(), nullable=False),
        sa.Column("written", sa.BigInteger(), nullable=False),
        sa.Column("trimmed", sa.BigInteger(), nullable=False),
        sa.Column("epoch_written", sa.BigInteger(), nullable=False),
        sa.Column("epoch_noted", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("file", name="pk_files"),
        sa.UniqueConstraint("name", name="uq_files_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "chunks",
        sa.Column("file", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("checksum", sa.BigInteger(), nullable=True),
        sa.Column("tag", sa.SmallInteger(), nullable=True),
        sa.PrimaryKeyConstraint("file", "offset", name="pk_chunks"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "notes",
        sa.Column("file", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("file", "key", name="pk_notes"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "damage",
        sa.Column("file", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("found", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("file", "offset", name="pk_damage"),
        sqlite_with_rowid=False,
    )
