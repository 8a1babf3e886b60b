"""A peer that is a barrel of a store in this process. What blocks runs on threads of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import TypeVar

import msgspec

from feeds.attachments.given import Given, read_digest
from feeds.attachments.held import held_content
from feeds.attachments.stubs import SHA256
from feeds.barrel import Barrel
from feeds.errors import BadRequest, Exists, NotFound, SpileError
from feeds.patterns import parse_patterns
from feeds.positions import Position, parse_since
from feeds.storage.bulk import bulk_writes
from feeds.store import Store
from feeds.writes import Outcome, Write
from listeners.replication.checkpoints import Checkpoint, checkpoint_in
from listeners.replication.filters import Filter
from listeners.replication.peer import (
    BATCH_BYTES,
    BATCH_ROWS,
    TOGETHER_BYTES,
    Blob,
    Differences,
    Fetched,
    Handles,
    Identity,
    Page,
    Read,
    Refusals,
    Told,
    Wanted,
)
from listeners.replication.verifying import verified_or_not

T = TypeVar("T")

NOT_THERE = "0-0"
"""What a `_local` document has for a revision before it is written for the first time."""

_THREADS = 4  # a replay, a comparison, a write, and one to spare: the writer is a thread of its own
_READ_TOGETHER = 16  # revisions, before it is looked at how large they are
_POLL_S = 1.0  # a commit is only a hint; this is the guarantee


class LocalPeer:
    """The barrel of this name, in whichever life it is."""

    def __init__(self, store: Store, barrel: str) -> None:
        """It need not be there yet; the store stays the caller's."""
        self._store = store
        self._name = barrel
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="spile-replicate")

    @property
    def name(self) -> str:
        return f"{self._name} in this process"

    def _barrel(self) -> Barrel:
        return self._store.barrel(self._name)

    async def _do(self, call: Callable[..., T], *given: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *given)

    async def identity(self) -> Identity:
        info = await self._do(lambda: self._barrel().info())
        return Identity(self._store.id, info.name, info.epoch, info.seq == 0, info.settings.replicate_expiry)

    async def create(self) -> None:
        with suppress(Exists):
            await self._do(lambda: self._store.create(self._name))

    async def behind(self, position: str) -> int | None:
        barrel = await self._do(self._barrel)
        return behind_of(position, await self._do(barrel.head), barrel.epoch)

    async def changes(
        self, since: str | None, filter: Filter, *, docs: bool, follow: bool, told: Told
    ) -> AsyncGenerator[Page, None]:
        patterns = parse_patterns(filter.asked)
        barrel = await self._do(self._barrel)
        loop, committed = asyncio.get_running_loop(), asyncio.Event()

        def hint(name: str, _seq: int) -> None:
            if name == barrel.name and not loop.is_closed():
                loop.call_soon_threadsafe(committed.set)

        forget = self._store.on_commit(hint)
        try:
            begin = parse_since(first_of(since, barrel.epoch, bool(patterns)))
            start = await self._do(lambda: barrel.resolve(begin, patterns=bool(patterns)))
            at, leaves, begun = start.after, start.leaves, False
            while True:
                committed.clear()
                replay = await self._do(
                    lambda at=at, leaves=leaves: barrel.replay(
                        at, patterns, docs=docs, leaves=leaves, deletions=filter.asks_for_deletions
                    )
                )
                caught_up = replay.upto <= at
                while not caught_up:
                    page = await self._do(replay.next, BATCH_ROWS, BATCH_BYTES)
                    at, caught_up, begun = page.seq, page.caught_up, True
                    yield Page(page.rows, barrel.position(at), caught_up)
                if not begun:
                    begun = True
                    yield Page([], barrel.position(at), True)
                if not follow:
                    return
                leaves = True
                try:
                    async with asyncio.timeout(_POLL_S):
                        await committed.wait()
                except TimeoutError:
                    continue
        finally:
            forget()

    async def revs_diff(self, asked: Mapping[str, Sequence[str]]) -> Differences:
        found = await self._do(lambda: self._barrel().revs_diff(asked))
        return {id: (told["missing"], told.get("possible_ancestors", [])) for id, told in found.items()}

    async def fetch(self, wanted: Sequence[Wanted]) -> list[Fetched | SpileError]:
        return await self._do(self._fetch, wanted)

    def _fetch(self, wanted: Sequence[Wanted]) -> list[Fetched | SpileError]:
        barrel, found, size = self._barrel(), list[Fetched | SpileError](), 0
        while len(found) < len(wanted) and size < TOGETHER_BYTES:
            part = wanted[len(found) : len(found) + _READ_TOGETHER]
            for each in barrel.get_many([(each.id, each.rev) for each in part], revs=True):
                read = each if isinstance(each, SpileError) else verified_or_not(each.id, each.rev, each.json())
                size += len(read.json) if isinstance(read, Fetched) else 0
                found.append(read)
        return found

    async def missing_blobs(self, digests: Sequence[str]) -> set[str]:
        return await self._do(self._missing_blobs, digests)

    def _missing_blobs(self, digests: Sequence[str]) -> set[str]:
        barrel, missing = self._barrel(), set()
        for digest in digests:
            try:
                held_content(barrel, digest)
            except NotFound:
                missing.add(digest)
        return missing

    async def read_blob(self, blob: Blob, offset: int = 0) -> AsyncGenerator[bytes, None]:
        content = await self._do(lambda: held_content(self._barrel(), blob.digest))
        pieces = await self._do(self._store.blobs.read, content.sha256, offset)
        while piece := await self._do(next, pieces, b""):
            yield piece

    async def write_blob(self, blob: Blob, read: Read) -> str:
        sha256 = _sha256(blob.digest)
        if sha256 is None:
            raise BadRequest(f"{blob.digest} is no sha256", hint="The source names contents as this store does not.")
        blobs = self._store.blobs
        incoming = await self._do(lambda: blobs.contents.begin(blob.length))
        try:
            async with aclosing(read(0)) as pieces:
                async for piece in pieces:
                    await self._do(incoming.write, piece)
            stored = await self._do(incoming.finish)
        except BaseException:
            await asyncio.shield(self._do(incoming.abort))
            raise
        given = Given(sha256=sha256, length=blob.length)
        await self._do(lambda: blobs.accept(stored, given, blob.name))
        return blob.digest

    async def write(self, docs: Sequence[Fetched], handles: Handles) -> list[bool | SpileError]:
        barrel = await self._do(self._barrel)
        prepared = await self._do(self._prepared, barrel, docs, handles)
        writes = [each for each in prepared if isinstance(each, Write)]
        submitted: list[Outcome] = await asyncio.wrap_future(barrel.submit(writes)) if writes else []
        outcomes = iter(submitted)
        done = [each if isinstance(each, SpileError) else next(outcomes) for each in prepared]
        return [each if isinstance(each, SpileError) else not each.repeated for each in done]

    def _prepared(self, barrel: Barrel, docs: Sequence[Fetched], handles: Handles) -> list[Write | SpileError]:
        prepared = bulk_writes((doc.json for doc in docs), False, False, self._store.settings.document_bytes_max)
        if handles:
            prepared = [
                self._with_contents(each, handles) if isinstance(each, Write) and each.attachments else each
                for each in prepared
            ]
        return barrel.absorb_each(prepared) if any(_is_waiting(each) for each in prepared) else prepared

    def _with_contents(self, write: Write, handles: Handles) -> Write:
        """The write, whose stubs of contents that were just sent are led to them."""
        given = dict(write.attachments or {})
        for name, each in given.items():
            if each is not None and each.sha256 is not None and SHA256 + each.sha256 in handles:
                given[name] = replace(each, content=self._store.blobs.find(each.sha256).content)
        return msgspec.structs.replace(write, attachments=given)

    async def purge(self, revs: Mapping[str, Sequence[str]]) -> Refusals:
        barrel = await self._do(self._barrel)
        writes = [Write.purge(id, tuple(each)) for id, each in revs.items()]
        done: list[Outcome] = await asyncio.wrap_future(barrel.submit(writes))
        return {id: told for id, told in zip(revs, done, strict=True) if isinstance(told, SpileError)}

    async def checkpoint(self, id: str) -> Checkpoint | None:
        try:
            document = await self._do(lambda: self._barrel().local_get(id))
        except NotFound:
            await self._do(self._barrel)  # which says so where there is no barrel
            return None
        return checkpoint_in(document.data)

    async def save_checkpoint(self, id: str, checkpoint: Checkpoint, rev: str | None) -> str:
        written = await self._do(lambda: self._barrel().local_put(id, checkpoint.stored(), rev=rev or NOT_THERE))
        return written.rev

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)


def behind_of(position: str, head: int, epoch: str) -> int:
    """How many changes there are behind a position at most; all of them for one of another life."""
    at = Position.parse(position)
    return max(0, head - at.seq) if at.epoch in (None, epoch) else head


def first_of(since: str | None, epoch: str, filtered: bool) -> str:
    """Where to begin. With patterns not at `first`, which tells no leaves: a deletion is one."""
    return since or (f"0-{epoch}" if filtered else "first")


def _is_waiting(prepared: Write | SpileError) -> bool:
    return isinstance(prepared, Write) and prepared.is_waiting


def _sha256(digest: str) -> str | None:
    return read_digest(digest)[0]
