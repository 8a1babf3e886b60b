"""A peer that is a barrel of a Spile elsewhere, over HTTP; its changes come over a WebSocket."""

from __future__ import annotations

import asyncio
import hashlib
from base64 import b64encode
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import httpx
import msgspec
from msgspec import UNSET, Raw, UnsetType

from feeds.attachments.given import read_digest
from feeds.errors import BadRequest, NotFound, SpileError
from feeds.positions import parse_since
from listeners.errors import error_of
from listeners.links.address import Address, parse_address
from listeners.links.websocket import WebSocketLink
from listeners.replication.checkpoints import Checkpoint, read_checkpoint
from listeners.replication.errors import BadPeer, Unfit
from listeners.replication.filters import Filter
from listeners.replication.local import NOT_THERE, behind_of, first_of
from listeners.replication.peer import Blob, Differences, Fetched, Handles, Identity, Page, Read, Told, Wanted
from listeners.replication.requests import Requests, segment
from listeners.replication.streamed import WINDOW_BYTES, WINDOW_ROWS, streamed_pages
from listeners.replication.verifying import verified_or_not
from listeners.stream.actions import Wanted as WantedStream

PART_BYTES = 2 << 20  # of a content on its way: held in memory, and sent again where the link broke
_ASKED_AT_ONCE = 8
_RESUMES_MAX = 5  # of one content without getting any further

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


class _Diff(msgspec.Struct):
    missing: list[str]
    possible_ancestors: list[str] = []


class _Read(msgspec.Struct):
    doc: Raw | UnsetType = UNSET
    error: str | None = None
    reason: str | None = None
    hint: str | None = None


class _ReadMany(msgspec.Struct):
    results: list[_Read]


class _Outcome(msgspec.Struct):
    id: str | None = None
    repeated: bool = False
    error: str | None = None
    reason: str | None = None
    hint: str | None = None


class _Outcomes(msgspec.Struct):
    results: list[_Outcome]


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

    @property
    def name(self) -> str:
        return self._requests.base + self._place

    async def identity(self) -> Identity:
        welcome = await self._requests.json("GET", "/", _Welcome)
        if welcome.service != "spile":
            raise BadPeer(f"{self._requests.base} is {welcome.service[:80]!r}, not a Spile")
        info = await self._info()
        return Identity(welcome.store, info.name, info.epoch, info.seq == 0, info.settings.replicate_expiry)

    async def _info(self) -> _Info:
        info = await self._requests.json("GET", self._place, _Info)
        self._epoch = info.epoch
        return info

    async def behind(self, position: str) -> int | None:
        info = await self._info()
        return behind_of(position, info.seq, info.epoch)

    async def changes(
        self, since: str | None, filter: Filter, *, docs: bool, follow: bool, told: Told
    ) -> AsyncGenerator[Page, None]:
        epoch = self._epoch or (await self._info()).epoch
        wanted = WantedStream(
            patterns=filter.asked,
            since=parse_since(first_of(since, epoch, bool(filter.asked))),
            window=WINDOW_ROWS,
            bytes=WINDOW_BYTES,
            docs=docs,
            follow=follow,
        )

        def dial() -> WebSocketLink:
            return WebSocketLink(self._address, token=self._token)

        async with aclosing(streamed_pages(wanted, dial, told)) as pages:
            async for page in pages:
                yield page

    async def revs_diff(self, asked: Mapping[str, Sequence[str]]) -> Differences:
        found = await self._requests.json("POST", f"{self._place}/docs/_revs_diff", dict[str, _Diff], _encode(asked))
        return {id: (told.missing, told.possible_ancestors) for id, told in found.items()}

    async def fetch(self, wanted: Sequence[Wanted]) -> list[Fetched | SpileError]:
        asked = _encode({"docs": [{"id": each.id, "rev": each.rev, "revs": True} for each in wanted]})
        answer = await self._requests.json("POST", f"{self._place}/docs/_get", _ReadMany, asked)
        if len(answer.results) != len(wanted):
            raise BadPeer(f"{self.name} was asked for {len(wanted)} documents, and gave {len(answer.results)}")
        return [_fetched(each, told) for each, told in zip(wanted, answer.results, strict=True)]

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
        tries = 0
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
                return
            except SpileError as error:
                tries += 1
                if not error.retryable or tries > _RESUMES_MAX:
                    raise

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
            headers |= {"Upload-Complete": "?1", "Content-Type": "application/octet-stream"}
            whole = await _whole(read, blob)
            return (
                await self._requests.json("POST", f"{self._place}/uploads", _Upload, whole, headers=headers)
            ).upload
        begun = await self._requests.json("POST", f"{self._place}/uploads", _Upload, None, headers=headers)
        place = f"{self._place}/uploads/{segment(begun.upload)}"
        try:
            await self._send_parts(place, blob, read)
        except SpileError as error:
            if not error.retryable:
                await self._requests.send("DELETE", place)
            raise
        return begun.upload

    async def _send_parts(self, place: str, blob: Blob, read: Read) -> None:
        offset, complete, tries = 0, False, 0
        while not complete:
            try:
                async with aclosing(_parts(read, offset, blob.length)) as parts:
                    async for at, part in parts:
                        last = at + len(part) >= blob.length
                        headers = {"Upload-Offset": str(at), "Upload-Complete": "?1" if last else "?0"}
                        headers |= {"Content-Type": "application/partial-upload"}
                        digest = b64encode(hashlib.sha256(part).digest()).decode()
                        if part:
                            headers["Content-Digest"] = f"sha-256=:{digest}:"
                        told = await self._requests.json("PATCH", place, _Upload, part, headers=headers)
                        offset, complete, tries = told.size, told.complete, 0
                if not complete:
                    raise Unfit(f"The source gave {offset} of the {blob.length} bytes of {blob.digest}")
            except SpileError as error:
                tries += 1
                if not error.retryable or tries > _RESUMES_MAX:
                    raise
                answer = await self._requests.send("HEAD", place)
                offset = int(answer.headers.get("upload-offset", "0"))
                complete = answer.headers.get("upload-complete") == "?1"

    async def write(self, docs: Sequence[Fetched], handles: Handles) -> list[bool | SpileError]:
        texts = [_with_uploads(doc, handles) for doc in docs]
        body = b'{"new_edits":false,"docs":[' + b",".join(texts) + b"]}"
        answer = await self._requests.json("POST", f"{self._place}/docs/_bulk", _Outcomes, body)
        if len(answer.results) != len(docs):
            raise BadPeer(f"{self.name} was sent {len(docs)} documents, and answers for {len(answer.results)}")
        return [not told.repeated if told.error is None else _error(told) for told in answer.results]

    async def purge(self, revs: Mapping[str, Sequence[str]]) -> None:
        await self._requests.json("POST", f"{self._place}/docs/_purge", _Outcomes, _encode(revs))

    async def checkpoint(self, id: str) -> Checkpoint | None:
        try:
            stored = await self._requests.json("GET", f"{self._place}/local/{segment(id)}", dict[str, Any])
        except NotFound:
            await self._info()  # which says so where there is no barrel
            return None
        rev = stored.get("_rev")
        told = {key: value for key, value in stored.items() if key[:1] != "_"}
        return read_checkpoint(told, rev if isinstance(rev, str) else None)

    async def save_checkpoint(self, id: str, checkpoint: Checkpoint, rev: str | None) -> str:
        told = {**checkpoint.stored(), "_rev": rev or NOT_THERE}
        answer = await self._requests.json("PUT", f"{self._place}/local/{segment(id)}", _Written, _encode(told))
        return answer.rev

    async def close(self) -> None:
        await self._requests.close()


def _fetched(wanted: Wanted, told: _Read) -> Fetched | SpileError:
    if not isinstance(told.doc, Raw):
        return _error(told)
    return verified_or_not(wanted.id, wanted.rev, bytes(told.doc))


def _error(told: _Read | _Outcome) -> SpileError:
    return error_of(told.error or "error", told.reason, told.hint)


def _with_uploads(doc: Fetched, handles: Handles) -> bytes:
    """The document, whose stubs of contents that were just sent name their uploads."""
    if not any(blob.digest in handles for blob in doc.blobs):
        return doc.json
    fields = msgspec.json.decode(doc.json, type=dict[str, Raw])
    stubs = msgspec.json.decode(fields["_attachments"], type=dict[str, dict[str, Any]])
    for stub in stubs.values():
        upload = handles.get(stub.get("digest", ""))
        if upload is not None and stub.pop("stub", False):
            stub["upload"] = upload
    fields["_attachments"] = Raw(_encode(stubs))
    return _encode(fields)


async def _whole(read: Read, blob: Blob) -> bytes:
    """All of a small content; Unfit where there is more of it."""
    held = bytearray()
    async with aclosing(read(0)) as pieces:
        async for piece in pieces:
            held += piece
            if len(held) > blob.length:
                raise Unfit(f"The source gave more than the {blob.length} bytes of {blob.digest}")
    return bytes(held)


async def _parts(read: Read, offset: int, length: int) -> AsyncGenerator[tuple[int, bytes], None]:
    """The bytes from an offset on, in parts of a size to be sent; an empty one where none are left."""
    held = bytearray()
    if offset >= length:
        yield offset, b""
        return
    async with aclosing(read(offset)) as pieces:
        async for piece in pieces:
            held += piece
            while len(held) >= PART_BYTES:
                yield offset, bytes(held[:PART_BYTES])
                del held[:PART_BYTES]
                offset += PART_BYTES
    if held:
        yield offset, bytes(held)
