"""The way of one batch: what is missing at the target, fetched, its contents first, then written.

It ends when everything of the batch is durably at the target, or was refused there and is named. What fails as a
whole is raised, and nothing of the batch counts then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence

from feeds.errors import BadRequest, Forbidden, MissingStub, NotFound, SpileError, TooLarge, Unauthorized
from feeds.rows import Row
from listeners.errors import Unreached
from listeners.replication.ancestry import beside_held
from listeners.replication.comparing import compared
from listeners.replication.errors import BadPeer, Unfit
from listeners.replication.knowing import Known
from listeners.replication.peer import BATCH_ROWS, Blob, Fetched, Handles, Peer, Wanted
from listeners.replication.progress import Progress
from listeners.replication.retrying import Attempt
from listeners.replication.verifying import check_revisions, of_row

FETCH_BYTES = 2 << 20
"""What is fetched, and written, together: documents of 8 MiB and of 200 bytes take the same memory."""
CONTENTS_BYTES = 64 << 20
"""Of contents that documents written together have: until then the target keeps them by themselves."""

DIRECT_MAX = 20
"""Rows of a batch that is written without comparing first: of so few, asking costs more than sending in vain."""
SENDS_MAX = 4
"""Contents on their way at once: each may hold some MiB."""


class Batches:
    """Brings batches from one peer to another. Several may be on their way at once."""

    def __init__(self, source: Peer, target: Peer, progress: Progress, attempt: Attempt) -> None:
        """Nothing is asked yet."""
        self._source = source
        self._target = target
        self._progress = progress
        self._try = attempt
        self._known = Known()
        self._sending: dict[str, asyncio.Future[str]] = {}  # contents on their way, by digest
        self._sends = asyncio.Semaphore(SENDS_MAX)
        self._each = 16  # documents fetched together: more while they are small

    async def bring(self, rows: Sequence[Row]) -> None:
        """Bring what these rows tell of."""
        asked: dict[str, list[str]] = {}
        ready: dict[tuple[str, str], Fetched] = {}
        for row in rows:
            try:
                check_revisions(row.id, row.changes)
                found = of_row(row)
            except Unfit as error:
                self._progress.refuse(row.id, row.rev, error)
                continue
            leaves = asked.setdefault(row.id, [])
            leaves.extend(rev for rev in row.changes if rev not in leaves)
            if found is not None:
                ready[found.id, found.rev] = found
        if not asked:
            return
        if len(rows) <= DIRECT_MAX and sum(map(len, asked.values())) == len(ready):
            await self._write_at_once(list(ready.values()))
            return
        missing = await compared(self._target, asked, self._try, self._progress.refuse)
        at_hand: list[Fetched] = []
        wanted: list[Wanted] = []
        for id, (revs, ancestors) in missing.items():
            for rev in revs:
                if rev not in asked.get(id, ()):
                    continue  # it was not asked about
                self._progress.missing += 1
                found = ready.get((id, rev))
                if found is not None:
                    at_hand.append(found)
                else:
                    wanted.append(Wanted(id, rev, tuple(ancestors)))
        self._progress.fetched += len(at_hand)
        await self._write(at_hand)
        rest: Sequence[Wanted] = wanted
        while rest:
            whole, rest = await self._fetch(rest)
            self._progress.fetched += len(whole)
            await self._write(whole)

    async def _write_at_once(self, docs: Sequence[Fetched]) -> None:
        """Write what is at hand without asking for it: a few documents, which mostly are new."""
        self._progress.fetched += len(docs)
        new = await self._write(docs)
        self._progress.missing += new

    # -- fetching

    async def look(self, wanted: Sequence[Wanted]) -> AsyncGenerator[Fetched, None]:
        """These revisions, to be looked into; those that are not there are left out."""
        while wanted:
            whole, wanted = await self._fetch(wanted, is_counted=False)
            for each in whole:
                yield each

    async def _fetch(
        self, wanted: Sequence[Wanted], is_counted: bool = True
    ) -> tuple[list[Fetched], Sequence[Wanted]]:
        """The first of these revisions, as far as the source has them, and the rest, to be fetched when these are
        done with; of what is too large together the first half."""
        part = wanted[: self._each]
        try:
            found = await self._try(lambda: self._source.fetch(part))
        except TooLarge as error:
            if len(part) > 1:
                self._each = len(part) // 2
                return [], wanted
            self._progress.refuse(part[0].id, part[0].rev, error)
            return [], wanted[1:]
        whole: list[Fetched] = []
        for asked, told in zip(part, found, strict=False):
            if isinstance(told, Fetched):
                whole.append(beside_held(told, asked.known))
            elif isinstance(told, NotFound):
                self._progress.gone += is_counted  # superseded or purged meanwhile: a later change tells
            else:
                self._progress.refuse(asked.id, asked.rev, told)
        size = sum(len(each.json) for each in whole)
        if size > FETCH_BYTES:
            self._each = max(1, self._each // 2)
        elif size < FETCH_BYTES // 4 and len(found) == self._each:
            self._each = min(BATCH_ROWS, self._each * 2)
        return whole, wanted[len(found) :]

    # -- writing

    async def _write(self, docs: Sequence[Fetched], again: bool = True) -> int:
        """Write these in parts, their contents first; how many were new."""
        return sum([await self._write_part(*await self._send_blobs(part), again) for part in _parts(docs)])

    async def _write_part(self, docs: Sequence[Fetched], handles: dict[str, str], again: bool) -> int:
        if not docs:
            return 0
        try:
            outcomes = await self._try(lambda: self._written(docs, handles))
        except (TooLarge, BadRequest) as error:
            # Told of all of them together: one by one only those are refused that are to blame.
            if len(docs) == 1:
                self._progress.refuse(docs[0].id, docs[0].rev, error)
                return 0
            half = len(docs) // 2
            first = await self._write_part(docs[:half], handles, again)
            return first + await self._write_part(docs[half:], handles, again)
        lost: list[Fetched] = []
        good = size = 0
        for doc, refusal in zip(docs, outcomes, strict=True):
            if isinstance(refusal, bool):
                good += refusal
                size += len(doc.json) * refusal
                # From now on a document has them: what a handle stands for is kept for a while only.
                self._known.are_held(blob.digest for blob in doc.blobs)
            elif again and (isinstance(refusal, MissingStub) or (isinstance(refusal, NotFound) and doc.blobs)):
                lost.append(doc)
            else:
                self._progress.refuse(doc.id, doc.rev, refusal)
        self._progress.wrote(good, size)
        rest: Sequence[Wanted] = [Wanted(doc.id, doc.rev) for doc in lost]
        while rest:  # what was known to be there was given up meanwhile
            whole, rest = await self._fetch(rest)
            self._known.forget(blob.digest for doc in whole for blob in doc.blobs)
            good += await self._write(whole, again=False)
        return good

    async def _written(self, docs: Sequence[Fetched], handles: dict[str, str]) -> list[bool | SpileError]:
        """The outcomes of a write; raises where one cannot be told yet, as then all is to be sent again."""
        outcomes = await sent(self._target, docs, handles, self._progress)
        for refusal in outcomes:
            if isinstance(refusal, SpileError) and refusal.retryable:
                raise refusal
        return outcomes

    # -- contents

    async def _send_blobs(self, docs: Sequence[Fetched]) -> tuple[list[Fetched], dict[str, str]]:
        """See that the target has the contents of these documents: which can be written, and what the target calls
        the contents that were just sent.

        Each goes over once. A document of which one cannot go over is refused.
        """
        blobs = {blob.digest: blob for doc in docs for blob in doc.blobs}
        if not blobs:
            return list(docs), {}
        handles = {digest: handle for digest in blobs if (handle := self._known.handle(digest)) is not None}
        asked = [digest for digest in blobs if not self._known.has(digest)]
        missing = await self._try(lambda: self._target.missing_blobs(asked)) if asked else set()
        self._known.are_held(set(asked) - missing)
        refused: dict[str, SpileError] = {}

        async def send(digest: str) -> None:
            try:
                handles[digest] = await self._send_once(blobs[digest])
            except SpileError as error:
                if error.retryable or isinstance(error, (Unauthorized, Forbidden, BadPeer)):
                    raise
                if isinstance(error, NotFound):  # a content, unless it is a barrel
                    await self._try(self._target.identity)
                    await self._try(self._source.identity)
                refused[digest] = error

        async with asyncio.TaskGroup() as group:
            for digest in missing & blobs.keys():
                group.create_task(send(digest), name=f"spile replication {digest[:20]}")
        return [doc for doc in docs if not self._is_refused(doc, refused)], handles

    def _is_refused(self, doc: Fetched, refused: Mapping[str, SpileError]) -> bool:
        for blob in doc.blobs:
            why = refused.get(blob.digest)
            if why is not None:
                told = f"The attachment {blob.name!r:.80} cannot go over: {why.reason}"
                self._progress.refuse(doc.id, doc.rev, type(why)(told))
                return True
        return False

    async def _send_once(self, blob: Blob) -> str:
        """Send a content, or wait for whoever sends it already."""
        going = self._sending.get(blob.digest)
        if going is None:
            going = self._sending[blob.digest] = asyncio.ensure_future(self._send(blob))
            going.add_done_callback(lambda _: self._sending.pop(blob.digest, None))
        try:
            return await asyncio.shield(going)
        except asyncio.CancelledError:
            going.cancel()
            raise

    async def _send(self, blob: Blob) -> str:
        def read(offset: int) -> AsyncGenerator[bytes, None]:
            return self._source.read_blob(blob, offset)

        async with self._sends:
            handle = await self._try(lambda: self._target.write_blob(blob, read))
        self._known.is_sent(blob.digest, handle)
        self._progress.blobs += 1
        self._progress.blob_bytes += blob.length
        return handle


async def sent(
    target: Peer, docs: Sequence[Fetched], handles: Handles, progress: Progress
) -> list[bool | SpileError]:
    """The outcomes of a write; that it was asked for is counted, since it may be done though no answer comes."""
    progress.sent += len(docs)
    try:
        return await target.write(docs, handles)
    except Unreached:
        progress.sent -= len(docs)
        raise


def _parts(docs: Sequence[Fetched]) -> list[list[Fetched]]:
    """The documents in parts that are written together."""
    parts: list[list[Fetched]] = []
    size = contents = 0
    for doc in docs:
        if not parts or size + len(doc.json) > FETCH_BYTES or contents + _contents(doc) > CONTENTS_BYTES:
            parts.append([])
            size = contents = 0
        parts[-1].append(doc)
        size += len(doc.json)
        contents += _contents(doc)
    return parts


def _contents(doc: Fetched) -> int:
    return sum(blob.length for blob in doc.blobs)
