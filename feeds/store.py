"""A store: some barrels in one database, opened and held by one process.

Usable embedded, without any network: `Store.open("folder")`, `store.create("geo")`, `store.barrel("geo").put(…)`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from feeds.attachments.blobs import Blobs, Where
from feeds.attachments.uploads import Uploads
from feeds.barrel import Barrel
from feeds.barrels import BarrelInfo, BarrelSettings, barrel_info, check_barrel_name, new_epoch, settings_of
from feeds.directory import Directory
from feeds.errors import Exists
from feeds.findings import CheckReport, Progress
from feeds.limits import StoreSettings
from feeds.neighbours import Neighbours
from feeds.storage.anew import begin_anew
from feeds.storage.backup import Manifest, backup_of, restore_backup, write_backup
from feeds.storage.checkpoints import Checkpointer
from feeds.storage.cursors import StoredCursors
from feeds.storage.database import Database
from feeds.storage.lags import Lags
from feeds.storage.locks import Fence, Locks, open_locks
from feeds.storage.maintenance import Maintenance
from feeds.storage.migrate import migrate
from feeds.storage.notes import StoredNotes
from feeds.storage.publishers import StoredPublishers
from feeds.storage.queries import queries_of
from feeds.storage.repairs import checked
from feeds.storage.statements import Statements
from feeds.storage.transaction import NoBarrel, Transaction
from feeds.storage.watch import Watch
from feeds.storage.writer import CommitHook, Writer

log = logging.getLogger("spile.store")

BarrelHook = Callable[[str, str], None]


class Store:
    """The barrels of one database. Thread-safe; writes go through one writer, reads run beside it."""

    def __init__(
        self, database: Database, settings: StoreSettings, clock: Callable[[], float], blobs: Where | None = None
    ) -> None:
        """Use `Store.open`."""
        self.database = database
        self.settings = settings
        self.clock = clock
        self.statements = Statements.of(database.engine.dialect)
        self.queries = queries_of(self.statements)
        self.writer = Writer(database, self.statements, clock, settings.write_queue_max, settings.publish_backlog_max)
        self.merging = self.writer.merging
        """Functions that barrels may name as their merge rules, and what became of conflicts."""
        self.cursors = StoredCursors(database, self.statements, self.writer, clock)
        """How far listeners with a name have come."""
        self.blobs = Blobs(database, self.statements, self.writer, clock, blobs, settings.blobs_kept, lambda: self.id)
        """The contents of attachments."""
        self.uploads = Uploads(self.blobs, database, self.statements, self.writer, clock)
        """Contents on their way in, which clients go on with."""
        self.lags = Lags(database, self.statements, clock)
        """How far they and the publishers are behind."""
        self._checkpointer = Checkpointer(database) if database.path is not None else None
        if self._checkpointer is not None:
            self.writer.on_group = self._checkpointer.hint
        self.directory = Directory(self)
        self.publishers = StoredPublishers(database, self.statements, self.queries, self.writer, clock)
        """Up to where each broker was told."""
        self._notes = StoredNotes(database, self.queries, self.writer)
        self._guard = threading.Lock()
        self._barrel_hooks: tuple[BarrelHook, ...] = ()
        self._maintenance: Maintenance | None = None
        self._watch: Watch | None = None
        self.writer.on_gone = self.directory.gone
        try:
            self.id = self._notes.identity()
            if database.is_shared:
                self.directory.begin()
                neighbours = Neighbours(self, self.directory, self.publishers, self._tell)
                self._watch = Watch(database, self.queries.directory, neighbours)
                self.writer.on_commit = self._committed
        except BaseException:
            self._close_threads()
            raise

    @classmethod
    def open(
        cls,
        url: str | Path,
        settings: StoreSettings | None = None,
        *,
        create: bool = True,
        clock: Callable[[], float] = time.time,
        blobs: Where | None = None,
    ) -> Store:
        """Open the store at a database URL or in a folder, bringing its schema up to date.

        The contents of attachments are in `blobs`: a folder, or the URL of an object store. On SQLite it is the
        folder `blobs` beside the database if none is named; on PostgreSQL there are no attachments without it.

        Raises StoreLocked where another process holds it, NewerSchema where a newer Spile wrote it, Unavailable
        where it cannot be opened.
        """
        database = Database(str(url), create=create)
        try:
            with database.reading() as connection:
                migrate(connection, create=create)
            if blobs is None and database.path is not None:
                blobs = database.path.with_name("blobs")
            return cls(database, settings or StoreSettings(), clock, blobs)
        except BaseException:
            database.close()
            raise

    def close(self) -> None:
        """Commit what waits, and let the database go."""
        self._close_threads()
        self.database.close()

    def _close_threads(self) -> None:
        self.uploads.close()
        self.writer.close()
        self.blobs.close()
        if self._watch is not None:
            self._watch.close()
        if self._checkpointer is not None:
            self._checkpointer.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- barrels

    def barrels(self) -> list[BarrelInfo]:
        """Every barrel, by name."""
        with self.database.reading() as connection:
            rows = connection.exec_driver_sql(self.queries.barrels).all()
        return [barrel_info(row) for row in rows]

    def create(self, name: str, settings: BarrelSettings | Mapping[str, Any] | None = None) -> Barrel:
        """Make a barrel; Exists if there is one of that name."""
        check_barrel_name(name)
        if not isinstance(settings, BarrelSettings):
            settings = BarrelSettings.parse(settings)
        else:
            settings.check()
        text = msgspec.json.encode(settings).decode()
        created = datetime.fromtimestamp(self.clock(), UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

        def make(transaction: Transaction) -> None:
            if transaction.execute(self.queries.barrel, name):
                raise Exists(f"There is a barrel {name!r} already")
            transaction.execute(self.queries.insert_barrel, name, new_epoch(), text, created)
            ((key, *_),) = transaction.execute(self.queries.barrel, name)
            brokers = {row[0] for row in transaction.execute(self.queries.brokers)} if self._watch else set()
            self.publishers.begin(transaction, key, brokers | self.publishers.here)

        with self.directory.changing:
            self.writer.call(make)
            barrel = self.barrel(name)
            self.directory.stands(barrel, text)
        self._did("created", name)
        return barrel

    def barrel(self, name: str) -> Barrel:
        """The barrel of this name; NotFound if there is none."""
        return self.directory.barrel(name)

    def configure(self, name: str, changes: Mapping[str, Any] | BarrelSettings) -> BarrelInfo:
        """Change settings of a barrel; those not named stay as they are."""
        barrel = self.barrel(name)

        def change(transaction: Transaction) -> tuple[int, str]:
            key, before = self._found(transaction, name)
            settings = changes
            if not isinstance(settings, BarrelSettings):
                settings = BarrelSettings.parse(settings, settings_of(before))
            settings.check()
            text = msgspec.json.encode(settings).decode()
            transaction.release(key)
            transaction.execute(self.queries.save_settings, text, key)
            self.merging.forget(key)
            return key, text

        with self.directory.changing:
            key, text = self.writer.call(change, barrel.key)
            if key != barrel.key:
                self.directory.forget(name)
                barrel = self.barrel(name)
            self.directory.stands(barrel, text)
        self._did("configured", name)
        return barrel.info()

    def drop(self, name: str) -> None:
        """Remove a barrel and all that is in it; its name is free at once, its rows go in the background."""
        barrel = self.barrel(name)

        def mark(transaction: Transaction) -> None:
            key, _ = self._found(transaction, name)
            transaction.release(key)
            transaction.execute(self.queries.drop_barrel, f"!dropped-{key}", key)
            self.writer.forget_barrel(key)

        with self.directory.changing, self.directory.leaving(name):
            self.writer.call(mark, barrel.key, store_wide=True)
        self._did("dropped", name)

    def _found(self, transaction: Transaction, name: str) -> tuple[int, str]:
        """Key and settings of the barrel that has this name now: another process may have made it anew."""
        rows = transaction.execute(self.queries.barrel, name)
        if not rows:
            raise NoBarrel(f"There is no barrel {name!r}", hint="Create it first, or check the name.")
        return rows[0][0], rows[0][9]

    # -- hints

    def on_commit(self, hook: CommitHook) -> Callable[[], None]:
        """Call `hook(barrel, seq)` after each commit, on the writer's thread: a hint to look, never the truth.

        Returns what takes the hook away again.
        """
        return self.writer.add_hook(hook)

    def on_barrel(self, hook: BarrelHook) -> Callable[[], None]:
        """Call `hook(what, barrel)` when a barrel is created, configured or dropped, on the caller's thread."""
        self._barrel_hooks = (*self._barrel_hooks, hook)

        def remove() -> None:
            self._barrel_hooks = tuple(each for each in self._barrel_hooks if each is not hook)

        return remove

    def _committed(self, name: str, seq: int) -> None:
        """On the writer's thread, where other processes want to know of it."""
        self.directory.committed(name, seq)
        if self._watch is not None:
            self._watch.committed(name, seq)

    def _did(self, what: str, name: str) -> None:
        """A barrel was made, configured or dropped here."""
        if self._watch is not None:
            self._watch.changed()
        self._tell(what, name)

    def _tell(self, what: str, name: str) -> None:
        for hook in self._barrel_hooks:
            try:
                hook(what, name)
            except Exception:
                who = getattr(hook, "__qualname__", repr(hook))
                log.exception("the hook %s failed, told that the barrel %r was %s", who, name, what)

    # -- publishers

    def add_publisher(self, broker: str, fence: Fence | None = None) -> None:
        """From now on every barrel keeps what `broker` has not been told yet; call it before telling anything, and
        every hour or so, since a broker that is away for as long as a barrel's log is kept is forgotten.

        With `fence` only while that lock is held: LockLost otherwise. Afterwards no earlier holder moves positions.
        """
        self.publishers.add(broker, fence)

    def publisher_position(self, broker: str, barrel: Barrel) -> int | None:
        """Up to where a broker was told of a barrel's changes; None if never."""
        return self.publishers.position(broker, barrel)

    def move_publisher(self, broker: str, seqs: Mapping[Barrel, int], fence: Fence | None = None) -> None:
        """Remember durably up to where a broker was told; barrels whose life ended are passed over.

        With `fence` only while that lock is held: LockLost otherwise.
        """
        self.publishers.move(broker, seqs, fence)

    def locks(self) -> Locks:
        """The locks that this process and others of the store share; the caller closes them."""
        return open_locks(self.database, self.statements, self.writer)

    # -- notes

    def notes(self, prefix: str) -> dict[str, str]:
        """Every small text stored under a key that begins with `prefix`."""
        return self._notes.all(prefix)

    def dropped_barrel(self, key: int, name: str) -> Barrel:
        """What is left of a barrel that was dropped under this name, for clearing up behind it."""
        return Barrel(self, key, name, "", BarrelSettings())

    def note(self, key: str) -> str | None:
        """A small text that was stored under `key` (64 characters at most) with `set_note`."""
        return self._notes.get(key)

    def set_note(self, key: str, text: str | None) -> None:
        """Store a small text durably; None removes it."""
        self._notes.set(key, text)

    # -- the whole

    @property
    def failure(self) -> str | None:
        """Why writes fail at present; None while they are taken."""
        if not self.writer.alive:
            return "the writer has ended; restart the service"
        if self._watch is not None and not self._watch.alive:
            return "the watch for other processes has ended; restart the service"
        return self.database.reach.away or self.writer.failure

    def collect(self) -> dict[str, int]:
        """Give up at once every content that no document names and nobody stored lately; what it did, in rows."""
        return self.blobs.collector.collect()

    def maintain(self, *, contents: bool = True) -> dict[str, int]:
        """One bounded round of upkeep, to be called every so often; what it did, in rows.

        `expired` documents were deleted, conflicts `settled` by merge rules; of the `log` and of `gone` paths what is
        older than `log_kept` was forgotten as far as every publisher has told it (or lags too far), with the `bodies`
        that it superseded; `tokens` are older than a day; `dropped` are rows of dropped barrels; `uploads` were given
        up, as were `blobs` that nobody names, and `blobs_removed` are copies whose bytes are gone. The rest is for
        the next round. Without `contents` those of attachments are left out, for who calls `blobs.round` itself.
        """
        return self._upkeep().round(contents)

    def expire(self, barrel: Barrel | None = None) -> int:
        """Delete what has expired in a barrel, or in all; how many documents. Cheap where nothing can expire."""
        return self._upkeep().expire(None if barrel is None else barrel.key)

    def compact(self, name: str) -> int:
        """Drop the bodies of every superseded revision of a barrel, as far as publishers have told them; how many.

        Bodies only: revisions stay known, and every leaf keeps its body.
        """
        return self._upkeep().compact(self.barrel(name).key)

    def _upkeep(self) -> Maintenance:
        with self._guard:
            if self._maintenance is None:
                self._maintenance = Maintenance(self)
            return self._maintenance

    def check(self, repair: bool = False, progress: Progress | None = None) -> CheckReport:
        """Whether everything fits together: the file, trees, leaves, bodies, digests, the index, the log, counts.

        Reads the whole store at one moment while it is used; `progress(done, total)` counts documents. With `repair`
        leaves, index and counts are worked out again from the revisions, a damaged log begins behind its damage,
        and `repaired` says how many problems are gone; bodies are never invented.
        """
        return checked(self, repair, progress)

    def backup(self, target: str | Path, progress: Progress | None = None) -> Manifest:
        """Copy the store as it is at one moment into a new file, while it is used; `progress` counts pages.

        Raises Exists where the file is there already, Unavailable or StorageFull where it cannot be written.
        """
        with self.blobs.readable() as contents:
            return write_backup(self.database, self.id, Path(target), progress, self.clock, contents)

    @classmethod
    def backup_of(
        cls, url: str | Path, target: str | Path, progress: Progress | None = None, blobs: Path | str | None = None
    ) -> Manifest:
        """As `backup`, of a store that this process has not opened; a service may hold and use it meanwhile."""
        return backup_of(str(url), Path(target), progress, blobs)

    @classmethod
    def restore(
        cls, backup: str | Path, folder: str | Path, blobs: Path | str | None = None, progress: Progress | None = None
    ) -> Manifest:
        """Make a store in `folder` of a backup: with a new id, and a new epoch for every barrel.

        Seqs stay; what brokers were told, and tokens, are forgotten. Raises Exists where the folder holds a store,
        BadRequest where the file is no backup, Damaged where it is not sound, NewerSchema where it is a newer one's.
        """
        return restore_backup(Path(backup), Path(folder), blobs, progress)

    @classmethod
    def begin_anew(cls, url: str | Path) -> int:
        """Make the store at a URL another one, after its database was put back from a dump; how many barrels it has.

        As `restore` does: a new id, a new epoch for every barrel, and nothing told to brokers. StoreLocked while a
        process has it open, Unavailable where there is none.
        """
        return begin_anew(str(url))

    def stats(self) -> dict[str, int]:
        """Depths of queues and counts of what was done."""
        return {**self.writer.stats(), **self.merging.stats()}
