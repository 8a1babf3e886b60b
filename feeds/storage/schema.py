"""The tables of a store, for every database alike.

`doc` is a document's number within its barrel: the seq at which it was first written, so that no counter of its own
is needed. Text that is compared or sorted is compared by bytes. See docs/concepts/storage.md for a picture.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    literal_column,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
    }
)

# SQLite compares TEXT by bytes as it is; PostgreSQL does so in the collation "C".
Bytewise = Text().with_variant(Text(collation="C"), "postgresql")
BarrelKey = Integer

meta = Table(
    "meta",
    metadata,
    Column("key", String(64).with_variant(Text(collation="C"), "postgresql"), primary_key=True),
    Column("value", Text, nullable=False),
)

barrels = Table(
    "barrels",
    metadata,
    Column("barrel", BarrelKey, primary_key=True),
    Column("name", Bytewise, nullable=False, unique=True),
    Column("epoch", String(32), nullable=False),
    Column("seq", BigInteger, nullable=False),  # the head of the log
    Column("live", BigInteger, nullable=False),  # documents whose winner lives
    Column("deleted", BigInteger, nullable=False),  # documents whose winner is a deletion
    Column("bytes", BigInteger, nullable=False),  # of the winners' bodies
    Column("forgotten", BigInteger, nullable=False),  # log rows and leaves up to this seq are gone
    Column("skipped_paths", BigInteger, nullable=False),  # left out of index and topics for their size
    Column("settings", Text, nullable=False),
    Column("created", Text, nullable=False),
    Column("dropped", SmallInteger, nullable=False, server_default=text("0")),
    sqlite_autoincrement=True,  # a number is never used again, so that leftovers of a drop belong to nobody
)

docs = Table(
    "docs",
    metadata,
    Column("barrel", BarrelKey, primary_key=True, autoincrement=False),
    Column("doc", BigInteger, primary_key=True, autoincrement=False),
    Column("id", Bytewise, nullable=False),
    Column("seq", BigInteger, nullable=False),  # of its newest change
    Column("generation", Integer, nullable=False),  # of the winner
    Column("digest", Bytewise, nullable=False),  # of the winner
    Column("flags", SmallInteger, nullable=False),  # DELETED, EXPIRED, CONFLICTS
    Column("others", Text),  # the leaves beside the winner, as JSON [[generation, digest, deleted], …]
    Column("expires", Float),  # Unix time in seconds
    Column("attached", LargeBinary),  # JSON of the attachments that came, changed and went with the newest change
    sqlite_with_rowid=False,
)
Index("uq_docs_barrel_id", docs.c.barrel, docs.c.id, unique=True)
Index("uq_docs_barrel_seq", docs.c.barrel, docs.c.seq, unique=True)
Index(
    "ix_docs_barrel_expires",
    docs.c.barrel,
    docs.c.expires,
    sqlite_where=docs.c.expires.isnot(None),
    postgresql_where=docs.c.expires.isnot(None),
)

# A comparison, and not a bit, so that both databases see that a query is about this index.
in_conflict = docs.c.flags >= literal_column("16")
Index(
    "ix_docs_conflicts",
    docs.c.barrel,
    docs.c.id,
    sqlite_where=in_conflict,
    postgresql_where=in_conflict,
)

# Deletions by themselves, so that whoever has to look through all of them passes over what lives.
is_deleted = docs.c.flags.op("&")(literal_column("1")) == literal_column("1")
Index(
    "ix_docs_deleted",
    docs.c.barrel,
    docs.c.seq,
    sqlite_where=is_deleted,
    postgresql_where=is_deleted,
)

revs = Table(
    "revs",
    metadata,
    Column("barrel", BarrelKey, primary_key=True, autoincrement=False),
    Column("doc", BigInteger, primary_key=True, autoincrement=False),
    Column("generation", Integer, primary_key=True, autoincrement=False),
    Column("digest", Bytewise, primary_key=True),
    Column("parent", Bytewise),  # digest of the parent, one generation below; it may be stemmed away
    Column("flags", SmallInteger, nullable=False),  # DELETED, MISSING, OWN
    Column("seq", BigInteger, nullable=False),  # at which it was stored here
    Column("body", LargeBinary),  # see feeds/attachments/stubs.py; NULL when missing or compacted
    sqlite_with_rowid=False,
)

log = Table(
    "log",
    metadata,
    Column("barrel", BarrelKey, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("doc", BigInteger, nullable=False),
    Column("generation", Integer, nullable=False),  # of the winner after this change
    Column("digest", Bytewise, nullable=False),
    Column("flags", SmallInteger, nullable=False),  # DELETED, EXPIRED, FRESH, CONFLICTS, PURGED
    Column("others", Text),  # leaves beside the winner, or the id of a purged document
    Column("entered", LargeBinary),  # JSON [path, …] new with this change; NULL with FRESH: all of them
    Column("gone", LargeBinary),  # JSON [[path, value], …] that stood before, and no more
    Column("at", BigInteger, nullable=False),  # Unix time in milliseconds
    Column("attached", LargeBinary),  # as in `docs`, of this change
    sqlite_with_rowid=False,
)

shapes = Table(
    "shapes",
    metadata,
    Column("shape", Integer, primary_key=True),
    Column("barrel", BarrelKey, nullable=False),
    Column("path", Bytewise, nullable=False),  # key path with array positions as "+"
)
Index("uq_shapes_barrel_path", shapes.c.barrel, shapes.c.path, unique=True)


def _path_table(name: str, shape_key: list[Column[int]]) -> Table:
    return Table(
        name,
        metadata,
        *shape_key,
        Column("value", LargeBinary, primary_key=True),  # ordered bytes, see feeds/values.py
        Column("doc", BigInteger, primary_key=True, autoincrement=False),
        Column("places", Bytewise, primary_key=True),  # array positions on the way, "" without arrays
        Column("seq", BigInteger, nullable=False),  # at which it came, or in `gone` at which it left
        sqlite_with_rowid=False,
    )


# What stands now, and what left within `log_kept`.
paths = _path_table("paths", [Column("shape", Integer, primary_key=True, autoincrement=False)])
gone = _path_table("gone", [Column("shape", Integer, primary_key=True, autoincrement=False)])

locals_ = Table(
    "locals",
    metadata,
    Column("barrel", BarrelKey, primary_key=True, autoincrement=False),
    Column("id", Bytewise, primary_key=True),
    Column("rev", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

# By the barrel's name: they outlive a drop, so that whoever comes back is told of the new barrel.
cursors = Table(
    "cursors",
    metadata,
    Column("barrel", Bytewise, primary_key=True),
    Column("listener", Bytewise, primary_key=True),
    Column("position", Text, nullable=False),
    Column("at", Float, nullable=False),  # Unix time in seconds at which it moved last
    sqlite_with_rowid=False,
)

tokens = Table(
    "tokens",
    metadata,
    Column("barrel", BarrelKey, primary_key=True, autoincrement=False),
    Column("scope", Bytewise, primary_key=True),
    Column("key", Bytewise, primary_key=True),
    Column("digest", Text, nullable=False),  # of the request's body
    Column("answer", LargeBinary, nullable=False),
    Column("at", Float, nullable=False),
    sqlite_with_rowid=False,
)
Index("ix_tokens_at", tokens.c.at)

publishers = Table(
    "publishers",
    metadata,
    Column("broker", Bytewise, primary_key=True),
    Column(
        "barrel",
        BarrelKey,
        ForeignKey("barrels.barrel", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("seq", BigInteger, nullable=False),
    Column("at", Float, nullable=False),  # Unix time in seconds at which the broker's process was there last
    sqlite_with_rowid=False,
)

# Who does for all processes of a store what only one may do. See `feeds.storage.locks`.
locks = Table(
    "locks",
    metadata,
    Column("name", Bytewise, primary_key=True),
    Column("holder", Text, nullable=False),  # "" where nobody has it
    Column("term", BigInteger, nullable=False),  # how often it was taken
    Column("beats", BigInteger, nullable=False),  # how often its holders said that they live
    Column("at", Float, nullable=False),  # Unix time in seconds of the last one, by the database's clock
    Column("session", Text),  # the name of all of the holder's sessions in the database, where they can be seen
    sqlite_with_rowid=False,
)

# Replications that the service runs, until they are cancelled. See `feeds.storage.replications`.
replications = Table(
    "replications",
    metadata,
    Column("id", Bytewise, primary_key=True),
    Column("task", Text, nullable=False),  # JSON of what is replicated, without secrets
    Column("secrets", Text),  # JSON of what it signs in with
    Column("wanted", Bytewise, nullable=False),  # what is to become of it
    Column("version", BigInteger, nullable=False),  # how often somebody changed what is wanted, or its secrets
    Column("report", Text),  # JSON of how far it is
    Column("who", Bytewise, nullable=False),
    Column("created", Float, nullable=False),  # Unix time in seconds
    sqlite_with_rowid=False,
)

# Documents that describe replications, as CouchDB's users write them. See `feeds.storage.replicator`.
replicator = Table(
    "replicator",
    metadata,
    Column("id", Bytewise, primary_key=True),
    Column("rev", Bytewise, nullable=False),
    Column("seq", BigInteger, nullable=False, unique=True),  # of its newest change
    Column("task", Bytewise, unique=True),  # the replication that it describes, if it does
    Column("body", Text),  # JSON without secrets; none of a deletion
    Column("outcome", Text),  # JSON of what became of its replication, or why it had none
    Column("at", Float, nullable=False),  # Unix time in seconds of its newest change
    sqlite_with_rowid=False,
)

# The contents of attachments: one row for the same bytes, wherever they are attached.
blobs = Table(
    "blobs",
    metadata,
    Column("digest", Bytewise, primary_key=True),  # sha256, 64 lower hex digits
    Column("md5", Bytewise, nullable=False),  # base64
    Column("length", BigInteger, nullable=False),
    Column("place", Bytewise, nullable=False, unique=True),  # where `feeds.blobs` has them; never used again
    Column("at", Float, nullable=False),  # Unix time in seconds at which they were stored last
    Column("flags", SmallInteger, nullable=False),  # DAMAGED
    sqlite_with_rowid=False,
)
Index("ix_blobs_md5", blobs.c.md5)

# Which revision's body names which content. Rows may outlive the body, and never come later than it.
blob_refs = Table(
    "blob_refs",
    metadata,
    Column("barrel", BarrelKey, primary_key=True, autoincrement=False),
    Column("doc", BigInteger, primary_key=True, autoincrement=False),
    Column("generation", Integer, primary_key=True, autoincrement=False),
    Column("digest", Bytewise, primary_key=True),  # of the revision
    Column("blob", Bytewise, ForeignKey("blobs.digest"), primary_key=True),
    sqlite_with_rowid=False,
)
Index("ix_blob_refs_blob_barrel", blob_refs.c.blob, blob_refs.c.barrel)

# Copies that nobody is led to any more, until their bytes are gone.
blob_trash = Table(
    "blob_trash",
    metadata,
    Column("place", Bytewise, primary_key=True),
    Column("at", Float, nullable=False),  # Unix time in seconds
    sqlite_with_rowid=False,
)

# Contents on their way in, so that a client may go on with one later.
uploads = Table(
    "uploads",
    metadata,
    Column("id", Bytewise, primary_key=True),
    Column("barrel", BarrelKey, nullable=False),
    Column("who", Bytewise, nullable=False),
    Column("doc", Bytewise),  # the id of the only document that may name it; NULL: any may
    Column("label", Bytewise),  # the client's own text, by which it finds it again
    Column("created", Float, nullable=False),  # Unix time in seconds
    Column("touched", Float, nullable=False),
    Column("length", BigInteger),  # as announced
    Column("sha256", Bytewise),  # as announced
    Column("state", Bytewise, nullable=False, unique=True),  # by which `feeds.blobs` goes on with it
    Column("blob", Bytewise),  # the content, once it is finished
    sqlite_with_rowid=False,
)
Index("ix_uploads_touched", uploads.c.touched)
Index("ix_uploads_barrel_who_id", uploads.c.barrel, uploads.c.who, uploads.c.id)
Index(
    "ix_uploads_unfinished",
    uploads.c.barrel,
    uploads.c.who,
    sqlite_where=uploads.c.blob.is_(None),
    postgresql_where=uploads.c.blob.is_(None),
)

DELETED = 1
EXPIRED = 2
MISSING = 4
FRESH = 8  # no winner lived before: every path of the new one came with this change
CONFLICTS = 16  # in the log: the set of live leaves beside the winner changed; of a document: there are such leaves
PURGED = 32
DAMAGED = 1  # of a content: its copy cannot be read
OWN = 64  # a revision that was made here, so that its digest can be worked out again
