"""A peer that is a barrel of a Spile elsewhere, over HTTP; its changes come over a WebSocket."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from base64 import b64encode
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any

import httpx
import msgspec

from feeds.attachments.given import read_digest
from feeds.errors import BadRequest, Conflict, Exists, NotFound, SpileError, Unavailable
from listeners.backoff import Backoff
from listeners.links.address import Address, parse_address
from listeners.links.websocket import WebSocketLink
from listeners.replication.answers import (
    Diff,
    Outcomes,
    ReadMany,
    fetched,
    outcome,
    parts,
    refusals,
    whole,
    with_uploads,
)
from listeners.replication.checkpoints import Checkpoint, checkpoint_in
from listeners.replication.errors import BadPeer, Unfit
from listeners.replication.filters import Filter
from listeners.replication.local import NOT_THERE, behind_of
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
from listeners.replication.requests import ABSENT_HINT, Requests, segment
from listeners.replication.streamed import asked_stream, streamed_pages

log = logging.getLogger("spile.replication")

PART_BYTES = 2 << 20  # of a content on its way: held in memory, and sent again where the link broke
_ASKED_AT_ONCE = 8
_RESUMES_MAX = 5  # of one content without getting any further
_RESTS_S = (0.2, 5.0)  # waits of a content that does not get any further, and for a target that is busy with it
_DAMAGED_MAX = 2  # times that a part is sent again which did not arrive as it was sent
_OFFSET_DIGITS_MAX = 18
_BROKEN_MAX = 100  # uploads that may be gone on with; of older ones the target forgets what came

_encode = msgspec.json.Encoder().encode


class _Welcome(msgspec.Struct):
    service: str
    store: str


class _Settings(msgspec.Struct, frozen=True):
    replicate_expiry: bool = False


class _Info(msgspec.Struct):
    name: str
    epoch: str
    seq: int
    settings: _Settings = _Settings()


class _Upload(msgspec.Struct):
    upload: str
    size: int
    complete: bool


class _Written(msgspec.Struct):
    rev: str


class HttpPeer:
    """A barrel behind `http(s)://[USER:PASSWORD@]HOST:PORT/BARREL`."""

    def __init__(self, address: str | Address, *, token: str | None = None) -> None:
        """Nothing is sent yet. BadRequest for what is no such address."""
        parsed = parse_address(address) if isinstance(address, str) else address
        if not isinstance(parsed, Address) or parsed.kind != "websocket":
            raise BadRequest(f"{parsed} is not reached over HTTP", hint="Write http://HOST:PORT/BARREL.")
        self._address = parsed
        self._token = token
        self._requests = Requests(parsed, token)
        self._place = f"/barrels/{segment(parsed.barrel)}"
        self._epoch = ""
        self._broken: dict[str, str] = {}  # uploads that broke off, by digest

    @property
    def name(self) -> str:
        return self._requests.base + self._place

    async def identity(self) -> Identity:
        store = await self.store()
        info = await self._info()
        return Identity(store, info.name, info.epoch, info.seq == 0, info.settings.replicate_expiry)

    async def store(self) -> str:
        """Which store answers there; BadPeer where that is no Spile."""
        welcome = await self._requests.json("GET", "/", _Welcome)
        if welcome.service != "spile":
            raise BadPeer(f"{self._requests.base} is {welcome.service[:80]!r}, not a Spile")
        return welcome.store

    async def _info(self) -> _Info:
        try:
            info = await self._requests.json("GET", self._place, _Info)
        except NotFound as error:
            raise NotFound(
                f"There is no barrel {self._address.barrel!r} at {self._requests.base}", hint=ABSENT_HINT
            ) from error
        self._epoch = info.epoch
        return info

    async def create(self) -> None:
        with suppress(Exists):
            await self._requests.send("POST", self._place)

    async def behind(self, position: str) -> int | None:
        info = await self._info()
        return behind_of(position, info.seq, info.epoch)

    async def changes(
        self, since: str | None, filter: Filter, *, docs: bool, follow: bool, told: Told
    ) -> AsyncGenerator[Page, None]:
        epoch = self._epoch or (await self._info()).epoch
        wanted = asked_stream(since, epoch, filter, docs=docs, follow=follow)

        def dial() -> WebSocketLink:
            return WebSocketLink(self._address, token=self._token)

        async with aclosing(streamed_pages(wanted, dial, told)) as pages:
            async for page in pages:
                yield page

    async def revs_diff(self, asked: Mapping[str, Sequence[str]]) -> Differences:
        found = await self._requests.json("POST", f"{self._place}/docs/_revs_diff", dict[str, Diff], _encode(asked))
        return {id: (told.missing, told.possible_ancestors) for id, told in found.items()}

    async def fetch(self, wanted: Sequence[Wanted]) -> list[Fetched | SpileError]:
        asked = _encode({"docs": [{"id": each.id, "rev": each.rev, "revs": True} for each in wanted]})
        answer = await self._requests.json("POST", f"{self._place}/docs/_get", ReadMany, asked)
        if len(answer.results) != len(wanted):
            raise BadPeer(f"{self.name} was asked for {len(wanted)} documents, and gave {len(answer.results)}")
        return [fetched(each, told) for each, told in zip(wanted, answer.results, strict=True)]

    async def missing_blobs(self, digests: Sequence[str]) -> set[str]:
        async def is_missing(digest: str) -> bool:
            try:
                await self._requests.send("HEAD", f"{self._place}/blobs/{segment(digest)}")
            except NotFound:
                return True
            return False

        missing: set[str] = set()
        for begin in range(0, len(digests), _ASKED_AT_ONCE):
            part = digests[begin : begin + _ASKED_AT_ONCE]
            told = await asyncio.gather(*map(is_missing, part))
            missing.update(digest for digest, gone in zip(part, told, strict=True) if gone)
        return missing

    async def read_blob(self, blob: Blob, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """A link that breaks is made again, and the rest asked for."""
        path = f"{self._place}/blobs/{segment(blob.digest)}"
        tries, rests = 0, Backoff(*_RESTS_S)
        while offset < blob.length:
            headers = {"Range": f"bytes={offset}-"} if offset else {}
            try:
                async with self._requests.streamed("GET", path, headers=headers) as answer:
                    if offset and answer.status_code != httpx.codes.PARTIAL_CONTENT:
                        raise BadPeer(f"{self.name} gives no part of {blob.digest}")
                    async with aclosing(self._requests.pieces(answer)) as pieces:
                        async for piece in pieces:
                            yield piece
                            offset += len(piece)
                            tries = 0
                            rests.reset()
                return
            except SpileError as error:
                tries += 1
                if not error.retryable or tries > _RESUMES_MAX:
                    raise
                await asyncio.sleep(rests.next())

    async def write_blob(self, blob: Blob, read: Read) -> str:
        """An upload, in parts; what is there already of one that broke off is not sent again."""
        sha256, _ = read_digest(blob.digest)
        if sha256 is None:
            raise BadRequest(f"{blob.digest} is no sha256", hint="The source names contents as the target does not.")
        headers = {
            "Upload-Length": str(blob.length),
            "Repr-Digest": f"sha-256=:{b64encode(bytes.fromhex(sha256)).decode()}:",
        }
        if blob.length <= PART_BYTES:
            return await self._send_whole(blob, await whole(read, blob), sha256, headers)
        upload = self._broken.pop(blob.digest, None)  # so that nobody else goes on with it meanwhile
        try:
            begun = None if upload is None else await self._stands(upload)
            if begun is None:
                begun = await self._requests.json("POST", f"{self._place}/uploads", _Upload, None, headers=headers)
            upload = begun.upload
            await self._send_parts(begun, blob, read)
        except SpileError as error:
            if error.retryable:
                self._broke_off(blob, upload)
            elif upload is not None:
                await self._give_up(upload, blob)
            raise
        except asyncio.CancelledError:
            self._broke_off(blob, upload)
            raise
        return upload

    async def _send_whole(self, blob: Blob, content: bytes, sha256: str, headers: dict[str, str]) -> str:
        if len(content) != blob.length or hashlib.sha256(content).hexdigest() != sha256:
            raise Unfit(f"What the source gave for {blob.digest} are other bytes")
        headers = headers | {"Upload-Complete": "?1", "Content-Type": "application/octet-stream"}
        for left in reversed(range(_DAMAGED_MAX + 1)):
            try:
                told = await self._requests.json("POST", f"{self._place}/uploads", _Upload, content, headers=headers)
            except BadRequest:  # the target got other bytes than were sent
                if not left:
                    raise
            else:
                break
        return told.upload

    def _broke_off(self, blob: Blob, upload: str | None) -> None:
        """Whoever sends this content the next time goes on with this upload."""
        if upload is not None:
            self._broken[blob.digest] = upload
            if len(self._broken) > _BROKEN_MAX:
                del self._broken[next(iter(self._broken))]

    async def _give_up(self, upload: str, blob: Blob) -> None:
        """Let the target forget what has come; it does so by itself, but later."""
        try:
            await self._requests.send("DELETE", self._upload(upload))
        except NotFound:
            return  # it has done so already
        except SpileError as error:
            log.info("%s may keep a part of %s for a while: %s", self.name, blob.digest, error.reason)

    def _upload(self, upload: str) -> str:
        return f"{self._place}/uploads/{segment(upload)}"

    async def _stands(self, upload: str) -> _Upload | None:
        """How far an upload is; None where there is none any more."""
        try:
            answer = await self._requests.send("HEAD", self._upload(upload))
        except NotFound:
            return None
        complete = answer.headers.get("upload-complete") == "?1"
        offset = answer.headers.get("upload-offset", "0")
        if not offset.isascii() or not offset.isdigit() or len(offset) > _OFFSET_DIGITS_MAX:
            raise BadPeer(f"{self.name} does not say how far an upload is: {offset!r:.80}")
        return _Upload(upload, int(offset), complete)

    async def _send_parts(self, begun: _Upload, blob: Blob, read: Read) -> None:
        place, offset, complete = self._upload(begun.upload), begun.size, begun.complete
        tries = damaged = 0
        reached, rests = offset, Backoff(*_RESTS_S)
        while not complete:
            try:
                async with aclosing(parts(read, offset, blob.length, PART_BYTES)) as pieces:
                    async for at, part in pieces:
                        last = at + len(part) >= blob.length
                        headers = {"Upload-Offset": str(at), "Upload-Complete": "?1" if last else "?0"}
                        headers |= {"Content-Type": "application/partial-upload"}
                        digest = b64encode(hashlib.sha256(part).digest()).decode()
                        if part:
                            headers["Content-Digest"] = f"sha-256=:{digest}:"
                        try:
                            told = await self._requests.json("PATCH", place, _Upload, part, headers=headers)
                        except NotFound as gone:
                            raise Unavailable(gone.reason) from None  # it was given up: it is begun anew
                        offset, complete = told.size, told.complete
                        if offset > reached:
                            reached, tries, damaged = offset, 0, 0
                            rests.reset()
                if not complete:
                    raise Unfit(f"The source gave {offset} of the {blob.length} bytes of {blob.digest}")
            except SpileError as error:
                tries += 1
                damaged += isinstance(error, BadRequest)
                # With a Conflict the target still has to do with a part of which the answer was lost, or stands
                # elsewhere; with a BadRequest a part did not arrive as it was sent, or all of it is something else.
                if not (error.retryable or isinstance(error, (Conflict, BadRequest))) or damaged > _DAMAGED_MAX:
                    raise
                if tries > _RESUMES_MAX:
                    raise error if error.retryable else Unavailable(error.reason) from None
                await asyncio.sleep(rests.next())
                stands = await self._stands(begun.upload)
                if stands is None:  # given up there: whatever it was, it is not gone on with
                    raise error if isinstance(error, BadRequest) else Unavailable(error.reason) from None
                offset, complete = stands.size, stands.complete

    async def write(self, docs: Sequence[Fetched], handles: Handles) -> list[bool | SpileError]:
        texts = [with_uploads(doc, handles) for doc in docs]
        body = b'{"new_edits":false,"docs":[' + b",".join(texts) + b"]}"
        answer = await self._requests.json("POST", f"{self._place}/docs/_bulk", Outcomes, body)
        if len(answer.results) != len(docs):
            raise BadPeer(f"{self.name} was sent {len(docs)} documents, and answers for {len(answer.results)}")
        return [outcome(told) for told in answer.results]

    async def purge(self, revs: Mapping[str, Sequence[str]]) -> Refusals:
        answer = await self._requests.json("POST", f"{self._place}/docs/_purge", Outcomes, _encode(revs))
        return refusals(revs, answer.results, self.name)

    async def checkpoint(self, id: str) -> Checkpoint | None:
        try:
            stored = await self._requests.json("GET", f"{self._place}/local/{segment(id)}", dict[str, Any])
        except NotFound:
            await self._info()  # which says so where there is no barrel
            return None
        return checkpoint_in(stored)

    async def save_checkpoint(self, id: str, checkpoint: Checkpoint, rev: str | None) -> str:
        told = {**checkpoint.stored(), "_rev": rev or NOT_THERE}
        answer = await self._requests.json("PUT", f"{self._place}/local/{segment(id)}", _Written, _encode(told))
        return answer.rev

    async def ask(self, call: str, body: bytes) -> bytes:
        """The JSON that a call is answered with of which replication has no need; see `listeners.nested`."""
        return (await self._requests.send("POST", f"{self._place}/docs/_{call}", body)).content

    async def close(self) -> None:
        await self._requests.close()
