"""The first schema: barrels, documents, revisions, the log, the path index, and what stands beside them."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def bytewise() -> sa.types.TypeEngine[str]:
    """Text compared by bytes, as `feeds.storage.schema` has it."""
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "barrels",
        sa.Column("barrel", sa.Integer(), nullable=False),
        sa.Column("name", bytewise(), nullable=False),
        sa.Column("epoch", sa.String(length=32), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("live", sa.BigInteger(), nullable=False),
        sa.Column("deleted", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("forgotten", sa.BigInteger(), nullable=False),
        sa.Column("skipped_paths", sa.BigInteger(), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("created", sa.Text(), nullable=False),
        sa.Column("dropped", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("barrel", name="pk_barrels"),
        sa.UniqueConstraint("name", name="uq_barrels_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "docs",
        sa.Column("barrel", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("doc", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", bytewise(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("digest", bytewise(), nullable=False),
        sa.Column("flags", sa.SmallInteger(), nullable=False),
        sa.Column("others", sa.Text(), nullable=True),
        sa.Column("expires", sa.Float(), nullable=True),
        sa.Column("attached", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("barrel", "doc", name="pk_docs"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_docs_barrel_expires",
        "docs",
        ["barrel", "expires"],
        unique=False,
        sqlite_where=sa.text("expires IS NOT NULL"),
        postgresql_where=sa.text("expires IS NOT NULL"),
    )
    op.create_index(
        "ix_docs_conflicts",
        "docs",
        ["barrel", "id"],
        unique=False,
        sqlite_where=sa.text("flags >= 16"),
        postgresql_where=sa.text("flags >= 16"),
    )
    op.create_index(
        "ix_docs_deleted",
        "docs",
        ["barrel", "seq"],
        unique=False,
        sqlite_where=sa.text("(flags & 1) = 1"),
        postgresql_where=sa.text("(flags & 1) = 1"),
    )
    op.create_index("uq_docs_barrel_id", "docs", ["barrel", "id"], unique=True)
    op.create_index("uq_docs_barrel_seq", "docs", ["barrel", "seq"], unique=True)
    op.create_table(
        "gone",
        sa.Column("shape", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("doc", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("places", bytewise(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("shape", "value", "doc", "places", name="pk_gone"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "locals",
        sa.Column("barrel", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("id", bytewise(), nullable=False),
        sa.Column("rev", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("barrel", "id", name="pk_locals"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "log",
        sa.Column("barrel", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("doc", sa.BigInteger(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("digest", bytewise(), nullable=False),
        sa.Column("flags", sa.SmallInteger(), nullable=False),
        sa.Column("others", sa.Text(), nullable=True),
        sa.Column("entered", sa.LargeBinary(), nullable=True),
        sa.Column("gone", sa.LargeBinary(), nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("attached", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("barrel", "seq", name="pk_log"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "meta",
        sa.Column("key", sa.String(length=64).with_variant(sa.Text(collation="C"), "postgresql"), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_meta"),
    )
    op.create_table(
        "paths",
        sa.Column("shape", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("doc", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("places", bytewise(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("shape", "value", "doc", "places", name="pk_paths"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "revs",
        sa.Column("barrel", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("doc", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("generation", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", bytewise(), nullable=False),
        sa.Column("parent", bytewise(), nullable=True),
        sa.Column("flags", sa.SmallInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("barrel", "doc", "generation", "digest", name="pk_revs"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "shapes",
        sa.Column("shape", sa.Integer(), nullable=False),
        sa.Column("barrel", sa.Integer(), nullable=False),
        sa.Column("path", bytewise(), nullable=False),
        sa.PrimaryKeyConstraint("shape", name="pk_shapes"),
    )
    op.create_index("uq_shapes_barrel_path", "shapes", ["barrel", "path"], unique=True)
    op.create_table(
        "cursors",
        sa.Column("barrel", bytewise(), nullable=False),
        sa.Column("listener", bytewise(), nullable=False),
        sa.Column("position", sa.Text(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("barrel", "listener", name="pk_cursors"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "locks",
        sa.Column("name", bytewise(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("term", sa.BigInteger(), nullable=False),
        sa.Column("beats", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("session", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_locks"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "replications",
        sa.Column("id", bytewise(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("secrets", sa.Text(), nullable=True),
        sa.Column("wanted", bytewise(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("report", sa.Text(), nullable=True),
        sa.Column("who", bytewise(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_replications"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "replicator",
        sa.Column("id", bytewise(), nullable=False),
        sa.Column("rev", bytewise(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("task", bytewise(), nullable=True),
        sa.Column("body", sa.Text(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_replicator"),
        sa.UniqueConstraint("seq", name="uq_replicator_seq"),
        sa.UniqueConstraint("task", name="uq_replicator_task"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "tokens",
        sa.Column("barrel", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("scope", bytewise(), nullable=False),
        sa.Column("key", bytewise(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("barrel", "scope", "key", name="pk_tokens"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_tokens_at", "tokens", ["at"], unique=False)
    op.create_table(
        "publishers",
        sa.Column("broker", bytewise(), nullable=False),
        sa.Column("barrel", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["barrel"], ["barrels.barrel"], name="fk_publishers_barrel", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("broker", "barrel", name="pk_publishers"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "blobs",
        sa.Column("digest", bytewise(), nullable=False),
        sa.Column("md5", bytewise(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("place", bytewise(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("flags", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_blobs"),
        sa.UniqueConstraint("place", name="uq_blobs_place"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_blobs_md5", "blobs", ["md5"], unique=False)
    op.create_table(
        "blob_refs",
        sa.Column("barrel", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("doc", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("generation", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", bytewise(), nullable=False),
        sa.Column("blob", bytewise(), nullable=False),
        sa.ForeignKeyConstraint(["blob"], ["blobs.digest"], name="fk_blob_refs_blob"),
        sa.PrimaryKeyConstraint("barrel", "doc", "generation", "digest", "blob", name="pk_blob_refs"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_blob_refs_blob_barrel", "blob_refs", ["blob", "barrel"], unique=False)
    op.create_table(
        "blob_trash",
        sa.Column("place", bytewise(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("place", name="pk_blob_trash"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "uploads",
        sa.Column("id", bytewise(), nullable=False),
        sa.Column("barrel", sa.Integer(), nullable=False),
        sa.Column("who", bytewise(), nullable=False),
        sa.Column("doc", bytewise(), nullable=True),
        sa.Column("label", bytewise(), nullable=True),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("touched", sa.Float(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=True),
        sa.Column("sha256", bytewise(), nullable=True),
        sa.Column("state", bytewise(), nullable=False),
        sa.Column("blob", bytewise(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_uploads"),
        sa.UniqueConstraint("state", name="uq_uploads_state"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_uploads_touched", "uploads", ["touched"], unique=False)
    op.create_index("ix_uploads_barrel_who_id", "uploads", ["barrel", "who", "id"], unique=False)
    op.create_index(
        "ix_uploads_unfinished",
        "uploads",
        ["barrel", "who"],
        unique=False,
        sqlite_where=sa.text("blob IS NULL"),
        postgresql_where=sa.text("blob IS NULL"),
    )
