"""Copies of a store: written while it is used, and made into a store again.

A backup is one SQLite file that says in `meta` what it is. It is written aside, synced and renamed, so that a file
of the final name is whole.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from feeds.attachments.removing import folder_of, hold
from feeds.barrels import new_epoch
from feeds.blobs.contents import Contents
from feeds.blobs.opening import open_contents
from feeds.blobs.unowned import Readable, UnownedFolder
from feeds.errors import BadRequest, Damaged, Exists, NewerSchema, NotFound, StorageFull, Unavailable
from feeds.storage.backup_contents import has_contents, pages_of, restore_contents, sized, write_contents
from feeds.storage.database import Database
from feeds.storage.lockfile import LockFile
from feeds.storage.migrate import STORE
from feeds.storage.replications import RESTORED, RUN
from feeds.storage.versions import schema_version

_PAGES = 1_000  # copied between two calls of the progress callback: 4 MB
_MANIFEST = "backup"


class Manifest(msgspec.Struct, frozen=True):
    """What a backup says of itself."""

    schema: str
    store: str
    """The id of the store that it was taken from."""
    at: str
    """When, as an RFC 3339 time."""
    damaged: list[str] = []
    """The sha256 of contents of attachments that could not be read, and are not in it."""


def write_backup(
    database: Database,
    store_id: str,
    target: Path,
    progress: Callable[[int, int], None] | None = None,
    clock: Callable[[], float] = time.time,
    contents: Readable | None = None,
) -> Manifest:
    """Copy the database as it is at one moment into a new file, with the contents of attachments; writers go on
    meanwhile. Nobody may remove any of `contents`: see `Blobs.holding`.

    `progress(done, total)` counts pages. Exists where the file is there already, Unavailable or StorageFull where it
    cannot be written; what was written of it is taken away then.
    """
    target = Path(target)
    _file_of(database)
    if target.exists():
        raise Exists(f"There is a file {target} already", hint="Choose another name for the backup.")
    if not target.parent.is_dir():
        raise NotFound(f"There is no folder {target.parent} for the backup", hint="Make it, or choose another one.")
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    at = datetime.fromtimestamp(clock(), UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    try:
        with database.snapshot() as connection:
            schema = schema_version(connection) or STORE.head
            # The snapshot begins with this read. Without it every write of others would begin the copy again.
            with closing(sqlite3.connect(aside)) as copy:
                copy.execute("PRAGMA synchronous = OFF")  # synced as a whole below
                driver = connection.connection.driver_connection
                assert isinstance(driver, sqlite3.Connection)
                told = _Told(progress, pages_of(sized(driver)))
                driver.backup(copy, pages=_PAGES, progress=told.of_database)
        with closing(sqlite3.connect(aside)) as copy:
            copy.execute("PRAGMA synchronous = OFF")
            damaged = write_contents(copy, contents, told.of_contents) if has_contents(copy) else []
            manifest = Manifest(schema, store_id, at, damaged)
            _finish(copy, manifest)
        _keep(aside, target)
    except (OSError, sqlite3.Error) as error:
        raise _refusal(f"The backup {target} cannot be written", error) from error
    finally:
        aside.unlink(missing_ok=True)
    return manifest


def backup_of(
    url: str,
    target: Path,
    progress: Callable[[int, int], None] | None = None,
    blobs: str | Path | None = None,
) -> Manifest:
    """As `write_backup`, of a store that another process may hold and use meanwhile; its contents are in `blobs`, or
    beside the database."""
    database = Database(url, create=False, exclusive=False)
    try:
        with database.reading() as connection:
            known = schema_version(connection) is not None
            store_id = known and connection.exec_driver_sql("SELECT value FROM meta WHERE key = 'store'").scalar()
        if not isinstance(store_id, str):
            raise BadRequest(f"There is no store of Spile at {database.path}", hint="Check the path.")
        beside = _file_of(database).with_name("blobs")
        with _readable(blobs if blobs is not None else beside) as contents:
            return write_backup(database, store_id, target, progress, contents=contents)
    finally:
        database.close()


def _file_of(database: Database) -> Path:
    if database.path is None:
        raise BadRequest(
            "Only a store on SQLite is backed up like this",
            hint="Use pg_dump, copy the contents of attachments after it, and let what is restored begin anew.",
        )
    return database.path


@contextmanager
def _readable(where: str | Path) -> Iterator[Readable | None]:
    """Contents as another process may hold them, none of which is removed meanwhile."""
    folder = folder_of(where)
    if folder is None:
        with closing(open_contents(where)) as contents:
            yield contents
    elif folder.is_dir():
        with hold(folder, fcntl.LOCK_SH):
            yield UnownedFolder(folder)
    else:
        yield None


class _Told:
    """Progress of both parts in one measure: pages of the database, and as many bytes of contents."""

    def __init__(self, progress: Callable[[int, int], None] | None, more: int) -> None:
        self._progress = progress
        self._more = more
        self._pages = 0
        self._bytes = 0

    def of_database(self, _status: int, remaining: int, total: int) -> None:
        self._pages = total
        self._tell(total - remaining)

    def of_contents(self, size: int) -> None:
        self._bytes += size
        self._tell(self._pages + pages_of(self._bytes))

    def _tell(self, done: int) -> None:
        total = self._pages + self._more
        if self._progress is not None:
            self._progress(min(done, total), total)


def _finish(copy: sqlite3.Connection, manifest: Manifest) -> None:
    """Make the copy one file that needs no log beside it, and let it say what it is."""
    copy.execute("PRAGMA journal_mode = DELETE")
    with copy:
        copy.execute("DELETE FROM meta WHERE key = ?", (_MANIFEST,))
        copy.execute(
            "INSERT INTO meta (key, value) VALUES (?, ?)", (_MANIFEST, msgspec.json.encode(manifest).decode())
        )


def restore_backup(
    backup: Path,
    folder: Path,
    blobs: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Make a store in `folder` of a backup, with the contents of its attachments in `blobs`, or else beside it.

    It is another store from then on, with a new id, and every barrel begins a new epoch: whoever followed the old
    ones is sent a snapshot, since what was written after the backup is not here. Seqs stay. What brokers were told
    is forgotten for the same reason, so that a publisher begins anew and puts right what they retained. Tokens go
    as well: an answer from before may name a revision that is not here. `progress(done, total)` counts pages.

    Exists where the folder holds a store already, BadRequest where the file is no backup, Damaged where it is not
    sound, NewerSchema where a newer Spile wrote it.
    """
    backup, folder = Path(backup), Path(folder)
    target = folder / "spile.db"
    if not backup.is_file():
        raise BadRequest(f"There is no backup {backup}", hint="Name a file that `spile backup` wrote.")
    manifest = _verified(backup)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = LockFile(folder / "spile.lock")
    except OSError as error:
        raise _refusal(f"The folder {folder} cannot be written", error) from error
    aside = folder / ".spile.db.part"
    try:
        for name in ("spile.db", "spile.db-wal", "spile.db-shm", "spile.db-journal"):
            # A log that was left behind would be played over the restored file.
            if (folder / name).exists():
                raise Exists(f"{folder} holds a store already: {name}", hint="Restore into another folder.")
        aside.unlink(missing_ok=True)
        place = blobs if blobs is not None else folder / "blobs"
        with _or_nothing(place), closing(_opened(backup)) as source, closing(sqlite3.connect(aside)) as copy:
            copy.execute("PRAGMA synchronous = OFF")
            told = _Told(progress, pages_of(sized(source)))
            source.backup(copy, pages=_PAGES, progress=told.of_database)
            _begin_anew(copy)
            if has_contents(copy):
                with closing(_new_contents(place)) as contents:
                    restore_contents(copy, source, contents, told.of_contents)
                copy.execute("DROP TABLE contents")
                copy.commit()
                copy.execute("VACUUM")
        _keep(aside, target)
    except (OSError, sqlite3.Error) as error:
        raise _refusal(f"The store in {folder} cannot be written", error) from error
    finally:
        aside.unlink(missing_ok=True)
        lock.release()
    return manifest


@contextmanager
def _or_nothing(where: str | Path) -> Iterator[None]:
    """A folder of contents that holds none yet holds none again where the block fails: one that was begun would be
    in the way of the next attempt."""
    folder = folder_of(where)
    is_new = folder is not None and not (folder.exists() and any(folder.iterdir()))
    try:
        yield
    except BaseException:
        if folder is not None and is_new and folder.is_dir():
            for each in folder.iterdir():
                shutil.rmtree(each) if each.is_dir() else each.unlink()
        raise


def _new_contents(where: str | Path) -> Contents:
    """A place for contents that holds none yet; Exists where it does."""
    folder = folder_of(where)
    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise Exists(f"{folder} holds contents already", hint="Restore into another folder.")
    return open_contents(where)


def _opened(backup: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{backup.absolute().as_uri()}?mode=ro", uri=True)


def _verified(backup: Path) -> Manifest:
    """What the backup says of itself, if it is one, is sound and is not from the future."""
    try:
        with closing(_opened(backup)) as source:
            row = source.execute("SELECT value FROM meta WHERE key = ?", (_MANIFEST,)).fetchone()
            if row is None:
                raise BadRequest(f"{backup} is no backup", hint="Name a file that `spile backup` wrote.")
            manifest = msgspec.json.decode(row[0], type=Manifest)
            if not STORE.knows(manifest.schema):
                raise NewerSchema(
                    f"The backup has schema {manifest.schema}, and this Spile knows up to {STORE.head}."
                )
            (verdict,) = source.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                raise Damaged(f"The backup {backup} is damaged: {verdict}", hint="Use another backup.")
    except (sqlite3.OperationalError, msgspec.MsgspecError) as error:
        raise BadRequest(f"{backup} is no backup: {error}", hint="Name a file that `spile backup` wrote.") from error
    except sqlite3.DatabaseError as error:
        raise Damaged(f"The backup {backup} is damaged: {error}", hint="Use another backup.") from error
    return manifest


def _begin_anew(copy: sqlite3.Connection) -> None:
    with copy:
        for (barrel,) in copy.execute("SELECT barrel FROM barrels").fetchall():
            copy.execute("UPDATE barrels SET epoch = ? WHERE barrel = ?", (new_epoch(), barrel))
        copy.execute("UPDATE meta SET value = ? WHERE key = 'store'", (uuid.uuid4().hex,))
        copy.execute("DELETE FROM meta WHERE key = ?", (_MANIFEST,))
        copy.execute("DELETE FROM publishers")
        copy.execute("DELETE FROM meta WHERE key LIKE 'retained:%'")
        copy.execute("DELETE FROM tokens")
        # A copy beside the original must not write elsewhere before somebody says so.
        copy.execute("UPDATE replications SET wanted = ? WHERE wanted = ?", (RESTORED, RUN))
        # Copies of bytes are made anew; uploads on their way are not in the backup.
        copy.execute("DELETE FROM blob_trash")
        copy.execute("DELETE FROM uploads")
        copy.execute("DELETE FROM meta WHERE key = 'blobs'")


def _keep(aside: Path, target: Path) -> None:
    """Give a file its final name once it is on the disk; never over another."""
    with aside.open("rb") as written:
        os.fsync(written.fileno())
    if target.exists():
        raise Exists(f"There is a file {target} already", hint="Choose another name.")
    aside.rename(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _refusal(what: str, error: OSError | sqlite3.Error) -> Unavailable:
    text = str(error)
    if "disk is full" in text or "No space left" in text:
        return StorageFull(f"{what}: {text}")
    return Unavailable(f"{what}: {text}", hint="Check the folder, its permissions and its disk.")
