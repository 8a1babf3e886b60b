"""A peer that is a barrel of a Spile which is reached over MQTT alone: behind a firewall, with a broker in between.

Nothing is sent that is larger than a packet: more documents go in several calls, a large one and contents in parts.
Its changes come over a stream, on a connection of their own.
"""

from __future__ import annotations

import asyncio
import hashlib
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, TypeVar

import msgspec

from feeds.errors import BadRequest, Exists, Forbidden, NotFound, SpileError, TooLarge, Unauthorized
from listeners.links.address import Address, parse_address
from listeners.links.mqtt import MqttLink
from listeners.replication.answers import Diff, Outcome, Outcomes, ReadMany, fetched, outcome, refusals, with_uploads
from listeners.replication.checkpoints import Checkpoint, checkpoint_in
from listeners.replication.errors import BadPeer, Unfit
from listeners.replication.filters import Filter
from listeners.replication.local import NOT_THERE, behind_of
from listeners.replication.over_mqtt_blobs import Broken, blob_read, blob_written
from listeners.replication.over_mqtt_calls import TIMES, Calls, CallTimes
from listeners.replication.packets import DIGESTS_MAX, PACKET_BYTES, data_bytes, packets
from listeners.replication.peer import (
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
from listeners.replication.streamed import asked_stream, streamed_pages
from listeners.replication.verifying import verified_or_not

T = TypeVar("T")

_encode = msgspec.json.Encoder().encode


class _Identity(msgspec.Struct):
    service: str
    store: str
    barrel: str
    epoch: str
    seq: int
    replicate_expiry: bool = False


class _Head(msgspec.Struct):
    seq: int
    epoch: str


class _Missing(msgspec.Struct):
    missing: list[str]


class _Local(msgspec.Struct):
    doc: dict[str, Any]


class _Written(msgspec.Struct):
    rev: str


class _Range(msgspec.Struct):
    offset: int
    length: int
    total: int
    sha256: str
    data: str


class MqttPeer:
    """A barrel behind `mqtt(s)://[USER:PASSWORD@]HOST[:PORT]/[PREFIX/]BARREL`."""

    def __init__(
        self,
        address: str | Address,
        *,
        token: str | None = None,
        packet_bytes: int = PACKET_BYTES,
        times: CallTimes = TIMES,
    ) -> None:
        """Nothing is sent yet. `token` is sent as the password. `packet_bytes` is what the broker takes of one
        message; BadRequest for what is no such address."""
        parsed = parse_address(address) if isinstance(address, str) else address
        if not isinstance(parsed, Address) or parsed.kind != "mqtt":
            raise BadRequest(f"{parsed} is not reached over MQTT", hint="Write mqtt://HOST:PORT/BARREL.")
        if token is not None:
            parsed = replace(parsed, user=parsed.user or "replicator", password=token)
        self._address = parsed
        self._calls = Calls(parsed, times)
        self._packet_bytes = packet_bytes
        self._epoch = ""
        self._large = asyncio.Lock()
        self._broken = Broken()

    @property
    def name(self) -> str:
        return str(self._address)

    async def identity(self) -> Identity:
        told = await self._calls.ask("identity", b"{}", _Identity)
        if told.service != "spile":
            raise BadPeer(f"{self.name} is {told.service[:80]!r}, not a Spile")
        self._epoch = told.epoch
        return Identity(told.store, told.barrel, told.epoch, told.seq == 0, told.replicate_expiry)

    async def create(self) -> None:
        with suppress(Exists):
            await self._calls.ask("create", b"{}", _Head)

    async def behind(self, position: str) -> int | None:
        head = await self._calls.ask("head", b"{}", _Head)
        return behind_of(position, head.seq, head.epoch)

    async def changes(
        self, since: str | None, filter: Filter, *, docs: bool, follow: bool, told: Told
    ) -> AsyncGenerator[Page, None]:
        """Documents that are larger than the service publishes do not come along."""
        epoch = self._epoch or (await self.identity()).epoch
        wanted = asked_stream(since, epoch, filter, docs=docs, follow=follow)
        async with aclosing(streamed_pages(wanted, lambda: MqttLink(self._address), told)) as pages:
            async for page in pages:
                yield page

    async def revs_diff(self, asked: Mapping[str, Sequence[str]]) -> Differences:
        if not asked:
            return {}
        body = _encode(asked)
        if len(body) > self._packet_bytes:
            raise TooLarge(
                f"The question has {len(body)} bytes; a message to {self.name} takes {self._packet_bytes}."
            )
        found = await self._calls.ask("revs_diff", body, dict[str, Diff])
        return {id: (told.missing, told.possible_ancestors) for id, told in found.items()}

    # -- reading

    async def fetch(self, wanted: Sequence[Wanted]) -> list[Fetched | SpileError]:
        """As many come at a time as fit into a message."""
        asked = [_encode({"id": each.id, "rev": each.rev, "revs": True}) for each in wanted]
        found: list[Fetched | SpileError] = []
        size = 0
        while len(found) < len(wanted) and size < TOGETHER_BYTES:
            at = len(found)
            count = next(packets(asked[at:], self._packet_bytes))
            body = b'{"fit":true,"docs":[%b]}' % b",".join(asked[at : at + count])
            told = (await self._calls.ask("get", body, ReadMany)).results
            if not 1 <= len(told) <= count:
                raise BadPeer(f"{self.name} was asked for {count} documents, and gave {len(told)}")
            for each, one in zip(wanted[at:], told, strict=False):
                read = await self._in_ranges(each) if one.error == "too_large" else fetched(each, one)
                size += len(read.json) if isinstance(read, Fetched) else 0
                found.append(read)
        return found

    async def _in_ranges(self, wanted: Wanted) -> Fetched | SpileError:
        """A document that is larger than a message."""
        try:
            first = await self._range(wanted, 0)
        except NotFound as error:
            return error
        held = [_data(first)]
        size = len(held[0])
        if not size and first.total:
            raise BadPeer(f"{self.name} gives nothing of {wanted.id!r:.80}")
        rest = range(size, first.total, size or 1)
        held += map(_data, await _together([self._range(wanted, offset) for offset in rest]))
        whole = b"".join(held)
        if hashlib.sha256(whole).hexdigest() != first.sha256:
            return Unfit(f"What came for {wanted.rev} of {wanted.id!r} in ranges does not fit together")
        return verified_or_not(wanted.id, wanted.rev, whole)

    async def _range(self, wanted: Wanted, offset: int) -> _Range:
        asked = {"id": wanted.id, "rev": wanted.rev, "revs": True, "offset": offset}
        return await self._calls.ask("body", _encode(asked), _Range)

    async def missing_blobs(self, digests: Sequence[str]) -> set[str]:
        asked = [_encode(digest) for digest in digests]
        missing: set[str] = set()
        at = 0
        for count in packets(asked, self._packet_bytes, DIGESTS_MAX):
            body = b'{"digests":[%b]}' % b",".join(asked[at : at + count])
            missing.update((await self._calls.ask("blobs_diff", body, _Missing)).missing)
            at += count
        return missing

    async def read_blob(self, blob: Blob, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """A range that is lost is asked for again."""
        async with aclosing(blob_read(self._calls, blob, offset)) as pieces:
            async for piece in pieces:
                yield piece

    # -- writing

    async def write_blob(self, blob: Blob, read: Read) -> str:
        """An upload, in parts; what is there already of one that broke off is not sent again."""
        return await blob_written(self._calls, blob, read, data_bytes(self._packet_bytes), self._broken)

    async def write(self, docs: Sequence[Fetched], handles: Handles) -> list[bool | SpileError]:
        texts = [with_uploads(doc, handles) for doc in docs]
        writes: list[Coroutine[Any, Any, list[bool | SpileError]]] = []
        at = 0
        for count in packets(texts, self._packet_bytes):
            part, at = slice(at, at + count), at + count
            if count == 1 and len(texts[part.start]) > self._packet_bytes:
                writes.append(self._write_large(docs[part.start].id, texts[part.start]))
            else:
                writes.append(self._write_many(texts[part]))
        return [each for told in await _together(writes) for each in told]

    async def _write_many(self, texts: Sequence[bytes]) -> list[bool | SpileError]:
        body = b'{"new_edits":false,"docs":[%b]}' % b",".join(texts)
        told = (await self._calls.ask("bulk", body, Outcomes)).results
        if len(told) != len(texts):
            raise BadPeer(f"{self.name} was sent {len(texts)} documents, and answers for {len(told)}")
        return [outcome(each) for each in told]

    async def _write_large(self, id: str, text: bytes) -> list[bool | SpileError]:
        """A document in ranges; one at a time, since the service holds what has come of it."""
        digest, size = hashlib.sha256(text).hexdigest(), data_bytes(self._packet_bytes)
        about = {"upload": digest, "verb": "replicate", "id": id, "digest": digest, "total": len(text)}

        def part(offset: int) -> Coroutine[Any, Any, Outcome]:
            data = b64encode(text[offset : offset + size]).decode()
            return self._calls.ask("body_put", _encode({**about, "offset": offset, "data": data}), Outcome)

        try:
            async with self._large:
                told = await _together([part(offset) for offset in range(0, len(text), size)])
        except SpileError as error:
            if error.retryable or isinstance(error, (NotFound, Unauthorized, Forbidden, BadPeer)):
                raise
            return [error]
        done = [outcome(each) for each in told if each.id is not None]
        if not done:
            raise BadPeer(f"{self.name} was sent all of {id!r:.80}, and does not say that it has it")
        return done[:1]

    async def purge(self, revs: Mapping[str, Sequence[str]]) -> Refusals:
        ids, asked = list(revs), [_encode(id) + b":" + _encode(each) for id, each in revs.items()]
        refused: dict[str, SpileError] = {}
        at = 0
        for count in packets(asked, self._packet_bytes):
            part, at = slice(at, at + count), at + count
            told = await self._calls.ask("purge", b"{%b}" % b",".join(asked[part]), Outcomes)
            refused |= refusals(ids[part], told.results, self.name)
        return refused

    # -- checkpoints

    async def checkpoint(self, id: str) -> Checkpoint | None:
        try:
            stored = (await self._calls.ask("local", _encode({"id": id, "op": "get"}), _Local)).doc
        except NotFound:
            await self._calls.ask("head", b"{}", _Head)  # which says so where there is no barrel
            return None
        return checkpoint_in(stored)

    async def save_checkpoint(self, id: str, checkpoint: Checkpoint, rev: str | None) -> str:
        asked = {"id": id, "op": "put", "doc": checkpoint.stored(), "rev": rev or NOT_THERE}
        return (await self._calls.ask("local", _encode(asked), _Written)).rev

    async def ask(self, call: str, body: bytes) -> bytes:
        """The JSON that a call is answered with of which replication has no need; see `listeners.nested`."""
        return bytes(await self._calls.ask(call, body, msgspec.Raw))

    async def close(self) -> None:
        await self._calls.close()


def _data(told: _Range) -> bytes:
    try:
        return b64decode(told.data, validate=True)
    except ValueError as error:
        raise BadPeer(f"A range came that is not base64: {error}") from None


async def _together(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of several calls, in order; the first that failed is raised when none is on its way any more."""
    done = await asyncio.gather(*calls, return_exceptions=True)
    found: list[T] = []
    for each in done:
        if isinstance(each, BaseException):
            raise each
        found.append(each)
    return found
