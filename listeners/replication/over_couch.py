"""A peer that is a database of a server which speaks CouchDB's protocol, as a Spile also does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any

import msgspec

from feeds.attachments.given import read_digest
from feeds.errors import (
    BadRequest,
    Conflict,
    EpochChanged,
    Exists,
    NotFound,
    SpileError,
)
from listeners.links.address import Address, parse_address
from listeners.replication.answers import Diff
from listeners.replication.checkpoints import Checkpoint, checkpoint_in
from listeners.replication.errors import BadPeer, Unfit
from listeners.replication.filters import Filter
from listeners.replication.over_couch_changes import Feed
from listeners.replication.over_couch_contents import Contents
from listeners.replication.over_couch_reading import Reading
from listeners.replication.over_couch_session import SessionAuth
from listeners.replication.over_couch_words import (
    NotServed,
    couch_refusal,
    in_query,
    plain_number,
    seq_number,
    seq_text,
)
from listeners.replication.over_couch_writing import Writing
from listeners.replication.peer import (
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
from listeners.replication.requests import ABSENT_HINT, Requests, base_of, segment
from listeners.replication.spooled import Spool

_encode = msgspec.json.Encoder().encode
_WELCOMES = ("couchdb", "express-pouchdb")
"""Keys by which servers say which protocol they speak."""


class _Info(msgspec.Struct):
    update_seq: Any
    instance_start_time: str | int | None = None
    doc_count: int = 0
    doc_del_count: int = 0

    @property
    def made(self) -> str:
        """When it was made, as far as that is told: CouchDB before 3.3 tells 0."""
        return str(self.instance_start_time or "0")


class _Written(msgspec.Struct):
    rev: str


class _Committed(msgspec.Struct):
    instance_start_time: str | int | None = None


class _Purged(msgspec.Struct):
    purged: dict[str, list[str]] = {}


class _Pending(msgspec.Struct):
    pending: int | None = None


class CouchPeer:
    """A database behind `http(s)://[USER:PASSWORD@]HOST:PORT/[PATH/]DATABASE`."""

    def __init__(self, address: str | Address, *, token: str | None = None) -> None:
        """Nothing is sent yet. BadRequest for what is no such address."""
        parsed = parse_address(address) if isinstance(address, str) else address
        if not isinstance(parsed, Address) or parsed.kind != "websocket":
            raise BadRequest(f"{parsed} is not reached over HTTP", hint="Write http://HOST:PORT/DATABASE.")
        base = base_of(parsed)
        auth = None if parsed.user is None else SessionAuth(base, parsed.user, parsed.password or "")
        self._requests = Requests(parsed, token, auth=auth, refusal=couch_refusal, kind="a CouchDB")
        self._database = parsed.barrel
        self._place = f"/{segment(parsed.barrel)}"
        self._spool = Spool()
        self._contents = Contents(self._requests, self._place, self._spool)
        self._reading = Reading(self._requests, self._place, self._contents, self._info)
        self._writing = Writing(self._requests, self._place, self._spool, self._info)
        self._epoch = ""
        self._read_epoch = ""  # as the present feed began
        self._reached = 0  # the furthest that its log was seen
        self._lives = 0  # how often it was seen to have fallen back behind that
        self._tells_life = False
        self._uncommitted = False

    @property
    def name(self) -> str:
        return self._requests.base + self._place

    async def identity(self) -> Identity:
        store = await self.store()
        info = await self._info()
        self._epoch = self._life(info)
        # Those that count with numbers tell when their process began.
        self._tells_life = info.made != "0" and not isinstance(info.update_seq, int)
        never = not info.doc_count and not info.doc_del_count and not seq_number(info.update_seq)
        return Identity(store, self._database, self._epoch, never)

    async def store(self) -> str:
        """Which server answers there; BadPeer where it does not speak CouchDB's protocol."""
        welcome = await self._requests.json("GET", "/", dict[str, Any])
        if not any(key in welcome for key in _WELCOMES):
            raise BadPeer(f"{self._requests.base} is no CouchDB")
        uuid = welcome.get("uuid")
        return uuid if isinstance(uuid, str) and uuid else self._requests.base

    async def _info(self) -> _Info:
        try:
            return await self._requests.json("GET", self._place + "/", _Info)
        except NotFound as error:
            raise NotFound(
                f"There is no database {self._database!r} at {self._requests.base}: {error.reason}",
                hint=ABSENT_HINT,
            ) from error

    def _life(self, info: _Info) -> str:
        """What tells one life of the database from the next: when it was made, where the server tells that.

        Those that count with numbers (PouchDB's) do not: there a log that ends before where it was seen is another
        one. Not so with others, since of a cluster's nodes one may lag.
        """
        if isinstance(info.update_seq, int):
            self._lives += info.update_seq < self._reached
            self._reached = info.update_seq
        return info.made + (f"+{self._lives}" if self._lives else "")

    async def create(self) -> None:
        with suppress(Exists):
            await self._requests.send("PUT", self._place)

    async def behind(self, position: str) -> int | None:
        info = await self._info()
        if self._read_epoch not in ("", self._life(info)):
            raise self._anew()
        if seq_text(info.update_seq) == position:
            return 0
        at = plain_number(position)
        if isinstance(info.update_seq, int) and at is not None:
            return max(0, info.update_seq - at)
        path = f"{self._place}/_changes" + in_query(since=position, limit=0)
        with suppress(BadRequest):
            return (await self._requests.json("GET", path, _Pending)).pending
        return None

    async def changes(
        self, since: str | None, filter: Filter, *, docs: bool, follow: bool, told: Told
    ) -> AsyncGenerator[Page, None]:
        info = await self._info()
        self._read_epoch = self._life(info)
        at = None if since is None else plain_number(since)
        if at is not None and at > (seq_number(info.update_seq) or 0):
            since = None  # of another life
        feed = Feed(self._requests, self._place, filter, docs=docs and _pays(since, filter), follow=follow)
        async with aclosing(feed.pages(since, told)) as pages:
            async for page in pages:
                yield page

    async def revs_diff(self, asked: Mapping[str, Sequence[str]]) -> Differences:
        found = await self._requests.json("POST", f"{self._place}/_revs_diff", dict[str, Diff], _encode(asked))
        return {id: (told.missing, told.possible_ancestors) for id, told in found.items() if told.missing}

    async def fetch(self, wanted: Sequence[Wanted]) -> list[Fetched | SpileError]:
        return await self._reading.fetch(wanted)

    async def missing_blobs(self, digests: Sequence[str]) -> set[str]:
        """Those that are not at hand here: contents go with their documents, and each document brings its own."""
        return {digest for digest in digests if self._spool.find(digest) is None}

    async def read_blob(self, blob: Blob, offset: int = 0) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._contents.read(blob, offset)) as pieces:
            async for piece in pieces:
                yield piece

    async def write_blob(self, blob: Blob, read: Read) -> str:
        """Keep it at hand until its document is written."""
        sha256, _ = read_digest(blob.digest)
        if sha256 is None:
            raise BadRequest(f"{blob.digest} is no sha256", hint="The source names contents as this peer does not.")
        incoming = self._spool.incoming()
        try:
            async with aclosing(read(0)) as pieces:
                async for piece in pieces:
                    await incoming.write(piece)
                    if incoming.length > blob.length:
                        break
            content = await incoming.end()
            if (content.digest, content.length) != (blob.digest, blob.length):
                raise Unfit(f"The source gave something else than {blob.digest}")
        except BaseException:
            incoming.abort()
            raise
        self._spool.keep(content, awaited=True)
        return blob.digest

    async def write(self, docs: Sequence[Fetched], handles: Handles) -> list[bool | SpileError]:
        try:
            return await self._writing.write(docs)
        finally:
            self._uncommitted = True  # not before: a commit while it is on its way does not count for it

    async def purge(self, revs: Mapping[str, Sequence[str]]) -> Refusals:
        try:
            done = await self._requests.json("POST", f"{self._place}/_purge", _Purged, _encode(revs))
        except (NotServed, NotFound, BadRequest) as error:
            await self._info()
            raise BadRequest(
                f"{self.name} does not purge: {error.reason}", hint="Let what leaves the filter stay there."
            ) from None
        finally:
            self._uncommitted = True
        gone = Conflict("A named revision is no leaf any more")
        return {id: gone for id, asked in revs.items() if not set(asked) <= set(done.purged.get(id, ()))}

    async def checkpoint(self, id: str) -> Checkpoint | None:
        try:
            stored = await self._requests.json("GET", f"{self._place}/_local/{segment(id)}", dict[str, Any])
        except NotFound:
            await self._info()  # which says so where there is no database
            return None
        return checkpoint_in(stored)

    async def save_checkpoint(self, id: str, checkpoint: Checkpoint, rev: str | None) -> str:
        """What was written is durable first, in the life of the database in which it was written."""
        if self._uncommitted:
            self._uncommitted = False
            try:
                await self._commit()
            except BaseException:
                self._uncommitted = True
                raise
        told = {**checkpoint.stored(), "_id": f"_local/{id}"}
        if rev is not None:
            told["_rev"] = rev
            if not self._tells_life and await self.checkpoint(id) is None:
                raise self._anew()  # a checkpoint that is gone is all that tells it
        answer = await self._requests.json("PUT", f"{self._place}/_local/{segment(id)}", _Written, _encode(told))
        return answer.rev

    async def _commit(self) -> None:
        try:
            done = await self._requests.json("POST", f"{self._place}/_ensure_full_commit", _Committed, b"")
        except (NotFound, NotServed):
            pass  # a server that commits before it answers
        else:
            made = done.instance_start_time
            if made is not None and self._epoch.partition("+")[0] not in ("", str(made or "0")):
                raise self._anew()
        if self._life(await self._info()) != self._epoch != "":
            raise self._anew()

    def _anew(self) -> SpileError:
        return EpochChanged(
            f"{self.name} was created again while it was in use",
            hint="Nothing is to be done: the replication begins anew at what both sides still know.",
        )

    async def close(self) -> None:
        await self._requests.close()
        await asyncio.to_thread(self._spool.close)


def _pays(since: str | None, filter: Filter) -> bool:
    """Whether documents are worth being brought along: first revisions are taken from their rows, and most changes of
    a log that was read before are later ones."""
    return since is None or filter.needs_documents
