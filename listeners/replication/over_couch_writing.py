"""Writing revisions to a CouchDB as they are: plain documents together, those with attachments one by one.

A content goes behind its document (`multipart/related`) where it is at hand. Where an ancestor that is there has it,
a stub says enough, which the server takes by name and `revpos`.
"""

from __future__ import annotations

import asyncio
import secrets
from base64 import b64encode
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from feeds.attachments.links import link_type
from feeds.attachments.stubs import DEFAULT_TYPE
from feeds.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    MissingStub,
    NotFound,
    PreconditionFailed,
    SpileError,
    TooLarge,
    Unauthorized,
)
from listeners.replication.errors import BadPeer
from listeners.replication.over_couch_words import NotServed, document_path, document_refusal, in_query
from listeners.replication.peer import Fetched
from listeners.replication.requests import Requests
from listeners.replication.spooled import Spool, Spooled
from listeners.replication.together import together

WRITES_AT_ONCE = 4
MD5S_MAX = 10_000
_ATTACHMENTS = b'"_attachments"'
_PASSING = (BadRequest, Conflict, Forbidden, NotServed, PreconditionFailed, TooLarge)
"""What refuses one document, and says nothing about the others."""

_encode = msgspec.json.Encoder().encode


class _Row(msgspec.Struct):
    id: str | None = None
    rev: str | None = None
    error: Any = None
    reason: Any = None
    message: Any = None


class Writing:
    """Writes revisions to one database."""

    def __init__(self, requests: Requests, place: str, spool: Spool, exists: Callable[[], Awaitable[object]]) -> None:
        """`exists` raises NotFound where there is no such database."""
        self._requests = requests
        self._place = place
        self._spool = spool
        self._exists = exists
        self._md5s: OrderedDict[str, str] = OrderedDict()  # of contents that were sent, by their sha256
        self._writes = asyncio.Semaphore(WRITES_AT_ONCE)

    async def write(self, docs: Sequence[Fetched]) -> list[bool | SpileError]:
        """As `Peer.write`. Which of them were there already is not told by a CouchDB."""
        plain = [doc for doc in docs if _ATTACHMENTS not in doc.json]
        calls = [self._alone(doc) for doc in docs if _ATTACHMENTS in doc.json]
        refused, *alone = await together([self._in_bulk(plain), *calls], "spile couch writing")
        for each in alone:
            refused |= each
        return [refused.get((doc.id, doc.rev), True) for doc in docs]

    async def _in_bulk(self, docs: Sequence[Fetched]) -> dict[tuple[str, str], SpileError]:
        """What refused some of them."""
        if not docs:
            return {}
        body = b'{"new_edits":false,"docs":[' + b",".join(doc.json for doc in docs) + b"]}"
        answer = await self._requests.send("POST", f"{self._place}/_bulk_docs", body)
        refused: dict[tuple[str, str], SpileError] = {}
        for row in self._requests.read(answer.content, list[_Row]):
            if not row.error:
                continue
            error = document_refusal(str(row.error), row.reason or row.message)
            named = [doc for doc in docs if doc.id == row.id and row.rev in (None, doc.rev)]
            if not named and len(docs) > 1:
                raise BadRequest(f"One of {len(docs)} documents is refused, and not said which: {error.reason}")
            refused |= {(doc.id, doc.rev): error for doc in named or docs}
        return refused

    async def _alone(self, doc: Fetched) -> dict[tuple[str, str], SpileError]:
        """Write a document with its contents; what refused it, if anything did."""
        async with self._writes:
            refusal = await self._refusal(doc)
        for blob in doc.blobs:
            self._spool.taken(blob.digest)
        return {} if refusal is None else {(doc.id, doc.rev): refusal}

    async def _refusal(self, doc: Fetched) -> SpileError | None:
        try:
            try:
                await self._put(doc)
            except Unauthorized:
                await self._put(doc)  # the cookie was renewed meanwhile, and a body that is read once is sent again
        except (NotFound, Unauthorized) as error:
            await self._exists()  # where it is there, and we are let in, this document alone is meant
            return error
        except _PASSING as error:
            return error
        return None

    async def _put(self, doc: Fetched) -> None:
        path = self._place + document_path(doc.id) + in_query(new_edits=False)
        text, contents = self._told(doc)
        if not contents:
            answer = await self._requests.send("PUT", path, text)
        else:
            related = _Related(text, contents, self._spool)
            async with aclosing(related.pieces()) as body:
                answer = await self._requests.send("PUT", path, body, headers=related.headers)
        told = answer.content
        if not told.lstrip().startswith(b"["):
            told = b"[%b]" % told  # PouchDB's says as little as of many, which is no more than what was refused
        for row in self._requests.read(told, list[_Row]):
            if row.error:
                raise document_refusal(str(row.error), row.reason or row.message)
            if row.rev != doc.rev:
                raise BadPeer(f"{self._requests.base} was sent {doc.rev} of {doc.id!r:.80}, and took {row.rev!r:.80}")

    def _told(self, doc: Fetched) -> tuple[bytes, list[tuple[str, str, Spooled]]]:
        """The document in CouchDB's words, and the contents that follow it: (name, type, content).

        MissingStub where one is to follow that is not at hand.
        """
        fields = msgspec.json.decode(doc.json, type=dict[str, msgspec.Raw])
        if "_attachments" not in fields:
            return doc.json, []  # what is called so stands deeper
        stubs = msgspec.json.decode(fields["_attachments"], type=dict[str, dict[str, Any]])
        follow = {blob.name for blob in doc.blobs}
        contents = []
        for name, stub in stubs.items():
            if stub.get("link") is not None:
                stubs[name] = {
                    "content_type": link_type(stub.get("content_type")),
                    "revpos": stub.get("revpos", 1),
                    "data": b64encode(stub["link"].encode()).decode(),
                }
                continue
            kind = stub["content_type"] = stub.get("content_type") or DEFAULT_TYPE
            digest = stub.pop("digest", None) or ""
            content = self._spool.find(digest) if name in follow else None
            if name in follow and content is None:
                raise MissingStub(f"{name!r:.80} of {doc.id!r:.80} is not at hand", name=name, digest=digest)
            if content is None:
                md5 = self._md5s.get(digest)
            else:
                md5 = self._md5s[digest] = content.md5
                contents.append((name, kind, content))
                del stub["stub"]
                stub |= {"follows": True, "length": content.length}
            if md5 is not None:
                stub["digest"] = "md5-" + md5
        while len(self._md5s) > MD5S_MAX:
            self._md5s.popitem(last=False)
        fields["_attachments"] = msgspec.Raw(_encode(stubs))
        return _encode(fields), contents


class _Related:
    """A document and the contents behind it, of which none is held whole."""

    def __init__(self, text: bytes, contents: Sequence[tuple[str, str, Spooled]], spool: Spool) -> None:
        boundary = secrets.token_hex(16)
        self._between = b"\r\n--%b" % boundary.encode()
        self._begin = b"--%b\r\nContent-Type: application/json\r\n\r\n%b" % (boundary.encode(), text)
        self._contents = contents
        self._spool = spool
        self._heads = [_head(*each) for each in contents]
        length = len(self._begin) + len(self._between) * (len(contents) + 1) + len(b"--")
        length += sum(map(len, self._heads)) + sum(content.length for _, _, content in contents)
        self.headers = {
            "Content-Type": f'multipart/related; boundary="{boundary}"',
            "Content-Length": str(length),
            "Accept": "application/json",
        }

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body."""
        yield self._begin
        for head, (_, _, content) in zip(self._heads, self._contents, strict=True):
            yield self._between + head
            async with aclosing(self._spool.read(content)) as pieces:
                async for piece in pieces:
                    yield piece
        yield self._between + b"--"


def _head(name: str, kind: str, content: Spooled) -> bytes:
    """What stands before a content. Names are taken in the document's order; this one is for those who look at it."""
    shown = name.replace("\\", "\\\\").replace('"', '\\"').encode()
    return b'\r\nContent-Disposition: attachment; filename="%b"\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n' % (
        shown,
        kind.encode("latin-1", "replace"),
        content.length,
    )
