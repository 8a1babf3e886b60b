"""The write-once register: append-only files whose every byte is written once, checksummed, and trimmed once.

The way in for callers. Who may write where is `sequencer`, `owned` and `register`; making it durable is `committer`;
the index beside the files is `index`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Self

from feeds.blobs.committer import Committer, closed, done
from feeds.blobs.handles import Handles, refusal, sync_folder
from feeds.blobs.index import ROWS_MAX, FileRow, Index
from feeds.blobs.ledger import Ledger
from feeds.blobs.migrate import migrate
from feeds.blobs.names import check_name, check_range
from feeds.blobs.reading import Reader
from feeds.blobs.recovery import Recovered, recover
from feeds.blobs.register import Register
from feeds.blobs.registry import Registry
from feeds.blobs.reserve import Reserve
from feeds.blobs.scrubbing import Scrubber
from feeds.blobs.sequencer import Sequencer
from feeds.blobs.values import (
    Appending,
    BlobSettings,
    Chunk,
    Damage,
    FileInfo,
    Placed,
    Row,
    Scrubbed,
    State,
    Tag,
)
from feeds.errors import BadEpoch, BadRequest, NotFound, TooLarge
from feeds.findings import CheckReport
from feeds.storage.refusals import translated
from feeds.storage.session import SqliteSession

NOTE_BYTES_MAX = 64 * 1024
FILES_LISTED_MAX = ROWS_MAX
DEFAULTS = BlobSettings()
_EPOCH_MAX = (1 << 63) - 1


class BlobFiles:
    """The blob files of one folder, `files/` and `index.db`, which one process holds. Thread-safe.

    Every method may raise Unavailable once closed, StorageFull when the disk is full, and those with `epoch` BadEpoch
    when that is given and is not the present one.
    """

    def __init__(self, folder: Path, settings: BlobSettings, clock: Callable[[], float]) -> None:
        """Use `open`."""
        try:
            (folder / "files").mkdir(parents=True, exist_ok=True)
            self._index = Index(folder / "index.db")
        except OSError as error:
            raise refusal(error, "making the folder") from error
        session: SqliteSession | None = None
        try:
            reserve = Reserve(folder / "reserve")
            reserve.release()  # so that a folder on a full disk can be opened
            session = self._writing()
            self.identity = self._identified(session)
            """Random, made with the folder and kept in it."""
            self.recovered: Recovered = recover(session, folder / "files", clock())
            """What was put in order when it was opened."""
            reserve.fill()
            sync_folder(folder)
        except BaseException:
            if session is not None:
                session.close()
            self._index.close()
            raise
        self.settings = settings
        self._closed = False
        self._handles = Handles(folder / "files", settings.handles_max)
        self._committer = Committer(
            self._index, session, self._handles, reserve, settings, int(self._index.meta("epoch") or 0)
        )
        self._registry = Registry(self._index, self._committer, self._handles)
        self._sequencer = Sequencer(self._registry, self._committer, settings)
        self._reader = Reader(self._index, self._registry, self._handles, self._committer, clock)
        self._register = Register(
            self._index, self._registry, self._sequencer, self._handles, self._committer, self._reader
        )
        self._scrubber = Scrubber(self._index, self._registry, self._handles, self._committer, self._reader, clock)

    def _writing(self) -> SqliteSession:
        """The committer's connection to an index with the schema of this Spile."""
        with translated(), self._index.reading() as connection:
            migrate(connection)
        session = self._index.database.connect_writer()
        assert isinstance(session, SqliteSession), "the index is a file"
        return session

    def _identified(self, session: SqliteSession) -> str:
        with translated():
            session.run("INSERT INTO meta VALUES ('identity', ?) ON CONFLICT DO NOTHING", (uuid.uuid4().hex,))
            identity: str = session.rows("SELECT value FROM meta WHERE key = 'identity'", ())[0][0]
            return identity

    @classmethod
    def open(cls, folder: Path, settings: BlobSettings = DEFAULTS, *, clock: Callable[[], float] = time.time) -> Self:
        """Open the folder, made where it is missing, and put what a crash left in order.

        StoreLocked where another process holds it, Damaged where the index is.
        """
        with translated():
            return cls(folder, settings, clock)

    def close(self) -> None:
        """Make durable what is on its way, and let the folder go."""
        if self._closed:
            return
        self._closed = True
        self._committer.close()
        self._handles.close()
        self._index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- epochs

    @property
    def epoch(self) -> int:
        """The present epoch; 0 at first."""
        return self._committer.epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to a later epoch, durably: nothing that was sent for an earlier one is stored after this, and appends
        go to new files. BadEpoch for an earlier one."""
        if not 0 <= epoch <= _EPOCH_MAX:
            raise BadRequest(f"{epoch} is no epoch")

        def go(ledger: Ledger) -> bool:
            if epoch < ledger.epoch:
                raise BadEpoch(
                    f"The blob files are in epoch {ledger.epoch}, which {epoch} comes before", epoch=ledger.epoch
                )
            changed, ledger.epoch = epoch != ledger.epoch, epoch
            ledger.meta("epoch", str(epoch))
            return changed

        if self._committer.call(go):
            self._registry.retire_all()

    # -- writing

    def append(
        self, prefix: str, chunk: bytes, *, extra: int = 0, checksum: int | None = None, epoch: int | None = None
    ) -> Placed:
        """Write a chunk at a place found for it, behind everything else, and wait until it is durable.

        `extra` bytes behind it stay reserved for `write`, until the process ends. `checksum` is the crc32c of the
        chunk; BadChecksum where it is not.
        """
        return self.append_soon(prefix, chunk, extra=extra, checksum=checksum, epoch=epoch).done.result()

    def append_soon(
        self, prefix: str, chunk: bytes, *, extra: int = 0, checksum: int | None = None, epoch: int | None = None
    ) -> Appending:
        """As `append`, without waiting for it to be durable; it waits only where too much is on its way already.

        Callbacks of the future run on the committer's thread: they must be quick, and must not call the blob files.
        """
        if extra < 0:
            raise BadRequest(f"There is no room of {extra} bytes")
        return self._register.append(prefix, bytes(chunk), extra, checksum, epoch)

    def reserve(self, prefix: str, size: int, *, epoch: int | None = None) -> Placed:
        """Room for `write` that nothing else is appended to, until the process ends. Nothing is stored by it.

        It keeps its file from being removed: whoever does not fill it trims what is left.
        """
        check_range(0, size)
        self._committer.check_epoch(epoch)
        if self._closed:
            raise closed()
        owner, start = self._sequencer.place(prefix, 0, size)
        return Placed(owner.name, start, size)

    def write(
        self, file: str, offset: int, chunk: bytes, *, checksum: int | None = None, epoch: int | None = None
    ) -> None:
        """Write a chunk at a given place, and wait until it is durable.

        Where the very same bytes stand already it is done. Trimmed where any byte of the range was trimmed, else
        AlreadyWritten where any was written. A file of an unknown name is made, BadRequest for one that is no name.
        """
        self.write_soon(file, offset, chunk, checksum=checksum, epoch=epoch).result()

    def write_soon(
        self, file: str, offset: int, chunk: bytes, *, checksum: int | None = None, epoch: int | None = None
    ) -> Future[None]:
        """As `write`, without waiting for it to be durable; refusals are raised at once. See `append_soon`."""
        step = self._register.write(file, offset, bytes(chunk), checksum, epoch)
        return done() if step is None else step.future

    def trim(self, file: str, offset: int, size: int, *, epoch: int | None = None) -> None:
        """Give up a range, written or not, durably, and its room on disk. What is trimmed already stays so.

        A file that is trimmed from its beginning to its end, and not appended to any more (one that `write` made
        never is), is removed; its name never comes back. BadChecksum where a damaged chunk would have to be divided.
        """
        self._register.trim(file, offset, size, epoch)

    def seal(self, file: str, *, epoch: int | None = None) -> None:
        """Append nothing to a file any more, and give up what was never written up to its end; waits for writes that
        are on their way. Room that was reserved in it is lost. A file of which nothing can be read is removed then,
        as by `trim`. Nothing is done for an unknown file."""
        self._register.end(file, epoch, all_of_it=False)

    def remove(self, file: str, *, epoch: int | None = None) -> None:
        """Give up the whole of a file, whatever is in it: it is removed, and its name never comes back. As `seal`."""
        self._register.end(file, epoch, all_of_it=True)

    # -- reading

    def read(self, file: str, offset: int, size: int) -> bytes:
        """A range, verified. See `pieces` for what is raised."""
        return self._reader.read(file, offset, size)

    def pieces(self, file: str, offset: int, size: int) -> Iterator[bytes]:
        """A range in verified pieces of at most CHUNK_BYTES_MAX; it ends exactly, or raises.

        Trimmed where any byte was given up, else NotWritten (with the `ranges` [offset, size] that are there, at most
        100) where any never was written; PartialRead where the file is short or gone; BadChecksum for damaged bytes.
        """
        return self._reader.pieces(file, offset, size)

    def read_chunks(self, file: str, offset: int, size: int) -> list[Chunk]:
        """Every whole chunk that has a byte in the range, verified; holes and trimmed bytes are left out."""
        return self._reader.chunks(file, offset, size)

    # -- what is there

    def list_files(self, after: str = "", limit: int = FILES_LISTED_MAX, *, removed: bool = False) -> list[FileInfo]:
        """The first files by name that come after one, at most `limit`; with `removed` also those whose names alone
        are kept. BadRequest for more than `FILES_LISTED_MAX` at once."""
        if not 1 <= limit <= FILES_LISTED_MAX:
            raise BadRequest(f"{limit} files cannot be listed at once", hint=f"Ask for 1 to {FILES_LISTED_MAX}.")
        return [self._info(row) for row in self._index.files(after, limit, removed=removed)]

    def every_file(self, *, removed: bool = False) -> Iterator[FileInfo]:
        """All files by name, listed a page at a time as they are asked for."""
        return map(self._info, self._index.every_file(removed=removed))

    def file(self, name: str) -> FileInfo | None:
        """One file, also a removed one; None where it was never made."""
        row = self._index.file(check_name(name))
        return None if row is None else self._info(row)

    def checksum_list(self, file: str, offset: int = 0, size: int | None = None) -> Iterator[Row]:
        """What the index has for a file, or a range of it, in order: chunks with their checksums, trimmed ranges."""
        row = self._index.file(check_name(file))
        end = 0 if row is None else row[3] if size is None else check_range(offset, size)
        while row is not None and offset < end and (rows := self._index.rows(row[0], offset, end)):
            for at, length, state, checksum, tag in rows:
                yield Row(at, length, State(state), checksum, None if tag is None else Tag(tag))
            offset = rows[-1][0] + rows[-1][1]

    def notes(self, file: str) -> dict[str, str]:
        """The file's metadata; none of a file that is not there."""
        row = self._index.file(check_name(file))
        return {} if row is None else self._index.notes(row[0])

    def set_note(self, file: str, key: str, value: str | None, *, epoch: int | None = None) -> None:
        """Store a text by its key with a file, durably; None removes it. NotFound for an unknown file."""
        if len(key.encode()) + len((value or "").encode()) > NOTE_BYTES_MAX:
            raise TooLarge(f"A note has at most {NOTE_BYTES_MAX} bytes")
        self._committer.check_epoch(epoch)
        owner = self._registry.find(file)
        if owner is None:
            raise NotFound(f"There is no file {file}", hint="Write to it first.")
        number = owner.file
        self._committer.call(lambda ledger: ledger.noted(number, key, value), epoch=epoch)

    # -- damage

    def scrub(self, bytes_max: int = 8 * 1024 * 1024) -> Scrubbed:
        """Verify the next chunks behind where the last step ended, also after a restart."""
        return self._scrubber.step(bytes_max)

    def damage(self) -> list[Damage]:
        """What is known to be damaged."""
        return self._index.damage()

    def check(self, progress: Callable[[int, int], None] | None = None) -> CheckReport:
        """Verify the index, the files and every chunk; `progress(done, total)` counts bytes."""
        return self._scrubber.check(progress)

    def stats(self) -> dict[str, int]:
        """Plain counts for metrics."""
        return {
            **self._committer.stats(),
            "blobs_handles": len(self._handles),
            "blobs_punched_bytes": self._register.punched,
            "blobs_scrubbed_bytes": self._scrubber.verified,
            "blobs_epoch": self.epoch,
        }

    @property
    def alive(self) -> bool:
        """Whether it takes writes."""
        return self._committer.alive

    def _info(self, row: FileRow) -> FileInfo:
        _, name, removed, end, written, trimmed, epoch_written, epoch_noted = row
        current = self._registry.is_current(name)
        return FileInfo(name, end, written, trimmed, current, bool(removed), epoch_written, epoch_noted)
