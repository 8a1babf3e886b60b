"""One session of a replication: from where both sides stand to its end, or to the error that ends it.

The tasks of a session end with it. A checkpoint is written for a prefix of batches that the target has answered as
durable, at the target first, and counts only in the life of the target in which all of it was written.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from itertools import count
from typing import TypeVar

from feeds.errors import Conflict, Forbidden, SpileError, Timeout
from feeds.rows import Row
from listeners.replication.batches import Batches
from listeners.replication.checkpoints import Checkpoint, newest_of, resume_at, with_session
from listeners.replication.checkpoints import Session as Record
from listeners.replication.errors import PeerChanged
from listeners.replication.judging import judged
from listeners.replication.leaving import purge_left
from listeners.replication.options import Options
from listeners.replication.peer import Identity, Page, Peer
from listeners.replication.progress import Prefix, Progress
from listeners.replication.retrying import persistently

log = logging.getLogger("spile.replication")
T = TypeVar("T")

_TICK_S = 1.0
_STOP_S_MAX = 10.0  # for what is on its way; a target that does not answer must not keep us from ending
_CONFLICTS_MAX = 3


class Session:
    """Run it once."""

    def __init__(self, source: Peer, target: Peer, options: Options, progress: Progress, stop: asyncio.Event) -> None:
        """`stop` lets it end early, in order."""
        self._source = source
        self._target = target
        self._options = options
        self._progress = progress
        self._stop = stop
        self._batches = Batches(source, target, progress, self._try)
        # A purge must not overtake what the source tells later: that the document came back.
        self._in_flight = 1 if options.leaves == "purge" else max(1, options.in_flight)
        self._slots = asyncio.Semaphore(self._in_flight)
        self._prefix = Prefix(None)
        self._id = ""
        self._session_id = uuid.uuid4().hex
        self._began_at = _now(progress.clock())
        self._counted = (progress.read, progress.written, progress.refused)
        self._checkpoints: dict[str, Checkpoint | None] = {}
        self._saved: str | None = None
        self._numbers = count(1)  # of the records
        self._taken = 0  # the newest of them that is at the target
        self._target_only = False
        self._ends: tuple[Identity, Identity] | None = None

    async def identities(self) -> tuple[Identity, Identity]:
        """Who both ends are."""
        return await self._try(self._source.identity), await self._try(self._target.identity)

    async def run(self, id: str, source: Identity, target: Identity) -> None:
        """Replicate from where both sides know that they stand."""
        self._id, self._ends = id, (source, target)
        at_source = await self._try(lambda: self._source.checkpoint(id))
        at_target = await self._try(lambda: self._target.checkpoint(id))
        self._checkpoints = {"source": at_source, "target": at_target}
        since = resume_at(at_source, at_target, target.epoch)
        self._prefix = Prefix(since)
        self._saved = self._progress.position = self._progress.began = since
        self._progress.session = self._session_id
        self._progress.caught_up = False
        self._progress.become("running")
        try:
            async with asyncio.TaskGroup() as group:
                ticking = group.create_task(self._tick(), name="spile replication checkpoints")
                reading = group.create_task(self._read(since, group), name="spile replication reader")
                await self._until_read(reading)
                await self._all_done()
                ticking.cancel()
        except BaseExceptionGroup as failed:
            error = first_error(failed)
            await self._save_what_is_done(error)
            raise error from None
        await self._save()
        if self._progress.caught_up:
            self._progress.behind = 0

    async def _try(self, call: Callable[[], Awaitable[T]]) -> T:
        return await persistently(call, self._options.patient, self._told, self._stop)

    def _told(self, error: SpileError | None) -> None:
        if error is None:
            self._progress.become("running")
        else:
            self._progress.retries += 1
            self._progress.become("waiting", error)

    # -- reading

    async def _until_read(self, reading: asyncio.Task[None]) -> None:
        """Until everything is read, or the session is to stop."""
        stopping = asyncio.create_task(self._stop.wait(), name="spile replication stop")
        try:
            await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if not reading.done():
            reading.cancel()

    async def _read(self, since: str | None, group: asyncio.TaskGroup) -> None:
        assert self._ends is not None
        filter = self._options.filter
        docs = since is not None or self._ends[1].is_empty or filter.needs_documents
        pages = self._source.changes(since, filter, docs=docs, follow=self._options.continuous, told=self._told)
        async with aclosing(pages):
            async for page in pages:
                await self._slots.acquire()
                number = self._prefix.begin(page.position)
                self._progress.caught_up = page.caught_up
                if page.rows:
                    group.create_task(self._bring(number, page), name=f"spile replication batch {number}")
                else:
                    self._finish(number)

    async def _bring(self, number: int, page: Page) -> None:
        assert self._ends is not None
        self._progress.read += len(page.rows)
        if self._progress.state == "idle":
            self._progress.become("running")
        rows = page.rows if self._ends[0].tells_expiry else _without_expiry(page.rows)
        going, left = await judged(rows, self._options.filter, self._batches)
        await self._batches.bring(going)
        newest = {row.id: row for row in rows}  # a document may have come back behind the row by which it left
        await self._tell_left([row for row in left if newest[row.id] is row])
        self._finish(number)

    def _finish(self, number: int) -> None:
        self._prefix.done(number)
        self._slots.release()
        self._rest()

    def _rest(self) -> None:
        """It is idle where there is nothing to be done."""
        if self._progress.caught_up and self._prefix.is_all_done and self._progress.state == "running":
            self._progress.become("idle")

    async def _tell_left(self, rows: list[Row]) -> None:
        self._progress.left += len(rows)
        if self._options.leaves == "ignore":
            return
        if self._options.leaves == "purge":
            await purge_left(rows, self._source, self._target, self._try, self._progress)
        if self._options.on_leave is not None:
            for row in rows:
                self._options.on_leave(row)

    async def _all_done(self) -> None:
        """Until no batch is on its way any more; when it is to stop, for a while only."""
        try:
            async with asyncio.timeout(_STOP_S_MAX if self._stop.is_set() else None) as patience:
                for _ in range(self._in_flight):
                    await self._slots.acquire()
        except TimeoutError:
            assert patience.expired()
            raise Timeout("What was on its way did not arrive in time; it is brought again the next time.") from None

    # -- checkpoints

    async def _tick(self) -> None:
        clock = asyncio.get_running_loop().time
        saved_at, seen = clock(), self._prefix.position
        while True:
            self._progress.behind = await self._behind()
            self._rest()
            await asyncio.sleep(min(_TICK_S, self._options.checkpoint_s))
            at = self._prefix.position
            rests = at == seen and self._prefix.is_all_done
            seen = at
            if at != self._saved and (rests or clock() - saved_at >= self._options.checkpoint_s):
                await self._save()
                saved_at = clock()

    async def _behind(self) -> int | None:
        at = self._prefix.position
        return None if at is None else await self._try(lambda: self._source.behind(at))

    async def _save(self) -> None:
        """Record the prefix that is done: at the target, then at the source."""
        position = self._prefix.position
        if position is None or position == self._saved:
            return
        assert self._ends is not None
        record = self._record(position)
        await self._save_at("target", self._target, record)
        now = await self._try(self._target.identity)
        if now.epoch != self._ends[1].epoch:
            raise PeerChanged(f"{self._target.name} was created again while it was written to")
        if not self._target_only:
            try:
                await self._save_at("source", self._source, record)
            except Forbidden as error:
                log.info("%s takes no checkpoints, so that only the target has them: %s", self._source.name, error)
                self._target_only = True
                await self._save_at("target", self._target, self._record(position))
        self._saved = self._progress.position = position
        self._progress.checkpoints += 1

    def _record(self, position: str) -> Record:
        assert self._ends is not None
        read, written, refused = self._counted
        return Record(
            session_id=self._session_id,
            recorded_seq=position,
            start_time=self._began_at,
            end_time=_now(self._progress.clock()),
            docs_read=self._progress.read - read,
            docs_written=self._progress.written - written,
            doc_write_failures=self._progress.refused - refused,
            target_only=self._target_only,
            target_epoch=self._ends[1].epoch,
            number=next(self._numbers),
        )

    async def _save_at(self, side: str, peer: Peer, record: Record) -> None:
        """Save over what is there; what another session saved meanwhile stays in the history."""
        for _ in range(_CONFLICTS_MAX):
            made = with_session(self._checkpoints[side], record)
            try:
                rev = await self._try(lambda made=made: peer.save_checkpoint(self._id, made, made.rev))  # type: ignore[misc]
            except Conflict:
                found = await self._try(lambda: peer.checkpoint(self._id))
                if side == "target" and newest_of(found, self._session_id) < self._taken:
                    raise PeerChanged(
                        f"{peer.name} has lost what it had taken, and is put back to before it"
                    ) from None
                self._checkpoints[side] = found
                continue
            self._checkpoints[side] = Checkpoint(
                session_id=made.session_id, source_last_seq=made.source_last_seq, history=made.history, rev=rev
            )
            if side == "target":
                self._taken = record.number
            return
        raise Conflict(f"Others write the checkpoint {self._id} of {peer.name} all the time")

    async def _save_what_is_done(self, error: SpileError) -> None:
        """A last checkpoint of a session that failed, if that is still possible."""
        if isinstance(error, PeerChanged):
            return
        try:
            async with asyncio.timeout(_TICK_S):
                await self._save()
        except (SpileError, TimeoutError) as other:
            log.info("No last checkpoint of %s: %s", self._id, other)


def _without_expiry(rows: list[Row]) -> list[Row]:
    """The rows without deletions by expiry, which every replica does for itself."""
    kept = []
    for row in rows:
        if row.expired:
            row.changes = [rev for rev in row.changes if rev != row.rev]
        if row.changes:
            kept.append(row)
    return kept


def first_error(failed: BaseExceptionGroup[BaseException]) -> SpileError:
    """What a session failed by; anything but an error of ours comes out as it is."""
    for error in failed.exceptions:
        if isinstance(error, BaseExceptionGroup):
            return first_error(error)
        if not isinstance(error, SpileError):
            raise error
    first = failed.exceptions[0]
    assert isinstance(first, SpileError)
    return first


def _now(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
