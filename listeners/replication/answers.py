"""What a Spile answers a replicator, over HTTP and MQTT alike, and contents cut into parts to be sent.

Pure, but for the contents, which are read as they are needed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from feeds.errors import SpileError
from listeners.errors import error_of
from listeners.replication.errors import BadPeer, Unfit
from listeners.replication.peer import Blob, Fetched, Handles, Read, Refusals, Wanted
from listeners.replication.verifying import verified_or_not

_encode = msgspec.json.Encoder().encode


class Diff(msgspec.Struct):
    """What is missing of one document."""

    missing: list[str]
    possible_ancestors: list[str] = []


class ReadOne(msgspec.Struct):
    """One document of many that were asked for, or why there is none."""

    doc: Raw | UnsetType = UNSET
    error: str | None = None
    reason: str | None = None
    hint: str | None = None


class ReadMany(msgspec.Struct):
    """Documents in the order they were asked for."""

    results: list[ReadOne]


class Outcome(msgspec.Struct):
    """What became of one write."""

    id: str | None = None
    repeated: bool = False
    error: str | None = None
    reason: str | None = None
    hint: str | None = None


class Outcomes(msgspec.Struct):
    """What became of many, in order."""

    results: list[Outcome]


def fetched(wanted: Wanted, told: ReadOne) -> Fetched | SpileError:
    """The revision that was asked for, verified; or why there is none."""
    if not isinstance(told.doc, Raw):
        return _error(told)
    return verified_or_not(wanted.id, wanted.rev, bytes(told.doc))


def outcome(told: Outcome) -> bool | SpileError:
    """Whether a revision is new, or what refused it."""
    return not told.repeated if told.error is None else _error(told)


def refusals(asked: Iterable[str], told: Sequence[Outcome], name: str) -> Refusals:
    """What refused some of the documents that were asked about, in order; BadPeer where others are answered for."""
    ids = list(asked)
    if len(told) != len(ids):
        raise BadPeer(f"{name} was asked about {len(ids)} documents, and answers for {len(told)}")
    return {id: _error(each) for id, each in zip(ids, told, strict=True) if each.error is not None}


def _error(told: ReadOne | Outcome) -> SpileError:
    return error_of(told.error or "error", told.reason, told.hint)


def with_uploads(doc: Fetched, handles: Handles) -> bytes:
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


async def whole(read: Read, blob: Blob) -> bytes:
    """All of a small content; Unfit where there is more of it."""
    held = bytearray()
    async with aclosing(read(0)) as pieces:
        async for piece in pieces:
            held += piece
            if len(held) > blob.length:
                raise Unfit(f"The source gave more than the {blob.length} bytes of {blob.digest}")
    return bytes(held)


async def parts(read: Read, offset: int, length: int, size: int) -> AsyncGenerator[tuple[int, bytes], None]:
    """The bytes from an offset on, in parts of a `size` to be sent; an empty one where none are left."""
    held = bytearray()
    if offset >= length:
        yield offset, b""
        return
    async with aclosing(read(offset)) as pieces:
        async for piece in pieces:
            held += piece
            while len(held) >= size:
                yield offset, bytes(held[:size])
                del held[:size]
                offset += size
    if held:
        yield offset, bytes(held)
