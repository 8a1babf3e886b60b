"""The contents of attachments in a backup: pieces in a table of its file, so that one file is all.

Nothing may be removed while they are copied: see `Blobs.holding`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from hashlib import sha256

from feeds.blobs.contents import LOST, Contents
from feeds.blobs.unowned import Readable
from feeds.errors import Damaged
from feeds.storage.schema import DAMAGED

_COMMIT_BYTES = 64 * 1024 * 1024
_PAGE_BYTES = 4096  # as SQLite counts, so that progress is told in one measure


def pages_of(size: int) -> int:
    """How many pages of progress so many bytes are."""
    return -(-size // _PAGE_BYTES)


def sized(connection: sqlite3.Connection) -> int:
    """The bytes of all contents that a database knows."""
    return int(connection.execute("SELECT coalesce(sum(length), 0) FROM blobs").fetchone()[0])


def write_contents(copy: sqlite3.Connection, source: Readable | None, tell: Callable[[int], None]) -> list[str]:
    """Copy the bytes of every content that a copied database knows into it; the sha256 of those that are damaged,
    which are left out. `tell` is called with bytes.

    Raises what hinders reading the others: a backup without them would be none.
    """
    copy.execute("CREATE TABLE contents (digest TEXT, part INTEGER, data BLOB, PRIMARY KEY (digest, part))")
    damaged = []
    waiting = 0
    for digest, place, length in copy.execute("SELECT digest, place, length FROM blobs ORDER BY place").fetchall():
        parts = 0
        found = sha256()
        try:
            if source is None:
                raise Damaged("The place of the contents is not known")
            for piece in source.read(place, 0, length):
                copy.execute("INSERT INTO contents VALUES (?, ?, ?)", (digest, parts, piece))
                found.update(piece)
                parts += 1
                waiting += len(piece)
                tell(len(piece))
                if waiting >= _COMMIT_BYTES:
                    copy.commit()
                    waiting = 0
            if found.hexdigest() != digest:
                raise Damaged("The bytes are not what was written")
        except (*LOST, Damaged):
            copy.execute("DELETE FROM contents WHERE digest = ?", (digest,))
            damaged.append(digest)
    copy.commit()
    return damaged


def has_contents(copy: sqlite3.Connection) -> bool:
    """Whether a backup brings contents along."""
    return bool(copy.execute("SELECT count(*) FROM blobs").fetchone()[0])


def restore_contents(
    copy: sqlite3.Connection, source: sqlite3.Connection, contents: Contents, tell: Callable[[int], None]
) -> None:
    """Store the contents of a backup anew, and lead the restored database to them; `tell` is called with bytes.

    Those that were damaged already are known to be lost; attaching the same bytes again mends them.
    """
    damaged = set()
    for digest, length in copy.execute("SELECT digest, length FROM blobs").fetchall():
        with contents.begin(length) as incoming:
            for piece in _pieces(source, digest):
                incoming.write(piece)
                tell(len(piece))
            if incoming.size == length:
                stored = incoming.finish()
                place = stored.place
                if stored.sha256.hex() != digest:
                    raise Damaged(f"The backup is damaged: it has other bytes for sha256-{digest}")
            else:
                place = _lost(contents)
                damaged.add(digest)
        flags = DAMAGED if digest in damaged else 0
        copy.execute("UPDATE blobs SET place = ?, flags = ? WHERE digest = ?", (place, flags, digest))
    copy.execute("INSERT INTO meta (key, value) VALUES ('blobs', ?)", (contents.identity,))


def _pieces(source: sqlite3.Connection, digest: str) -> Iterator[bytes]:
    for (piece,) in source.execute("SELECT data FROM contents WHERE digest = ? ORDER BY part", (digest,)):
        yield piece


def _lost(contents: Contents) -> str:
    """A place that was used, and at which nothing is any more."""
    with contents.begin(1) as incoming:
        incoming.write(b"\0")
        place = incoming.finish().place
    contents.remove(place)
    return place
