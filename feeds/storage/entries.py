"""Rows of the database as changes: of the log as it was, and of documents as they are."""

from __future__ import annotations

from typing import Any

from feeds.rows import LogEntry, Row, read_moves, with_document
from feeds.storage.schema import CONFLICTS, DELETED, EXPIRED, FRESH, PURGED
from feeds.storage.state import change_names, live_count


def log_entry(row: Any) -> LogEntry | None:
    """An entry from a row of `tail`; None when its document was purged since."""
    seq, document_id, generation, digest, flags, others, entered, gone, at, newest, body, doc, attached = row
    purged = bool(flags & PURGED)
    if purged:
        document_id, others = others, None
    elif document_id is None:
        return None
    changes = change_names(generation, digest, others)
    return LogEntry(
        seq,
        document_id,
        changes[0],
        changes,
        live_count(flags, others) if others else int(not flags & DELETED),
        bool(flags & DELETED),
        bool(flags & EXPIRED),
        bool(flags & FRESH),
        bool(flags & CONFLICTS),
        purged,
        newest == seq,
        body,
        entered,
        gone,
        at,
        doc == seq,
        attached,
    )


def row_of(row: Any, docs: bool, bytes_max: int | None = None) -> Row:
    """The newest change of a document from a row of documents (with its body behind, if `docs`)."""
    flags = row[5]
    told = Row(
        row[1],
        row[2],
        f"{row[3]}-{row[4]}",
        change_names(row[3], row[4], row[6]) if row[6] else [f"{row[3]}-{row[4]}"],
        deleted=bool(flags & DELETED),
        expired=bool(flags & EXPIRED),
    )
    if row[8] is not None:
        told.attachments = read_moves(row[8])
    return with_document(told, row[9], bytes_max) if docs else told
