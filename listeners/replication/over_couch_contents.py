"""Attachments as a CouchDB tells them, made those of Spile: read, checked, and named by their sha256.

A CouchDB tells the md5 of what it stores: of the gzip, where it has compressed a content. So both are looked at, what
came and what it stands for, and one of them has to be what the stub says.
"""

from __future__ import annotations

import asyncio
import hashlib
from base64 import b64encode
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import msgspec

from feeds.attachments.given import ATTACHMENTS_MAX, LINK_BYTES_MAX, read_digest
from feeds.attachments.inflating import Inflating
from feeds.attachments.links import is_link_type, type_of_link
from feeds.errors import BadRequest, NotFound, SpileError, TooLarge
from listeners.replication.ancestry import held_generation
from listeners.replication.errors import Unfit
from listeners.replication.over_couch_words import attachment_path, document_path, in_query
from listeners.replication.peer import Blob, Fetched, Wanted
from listeners.replication.requests import Requests
from listeners.replication.spooled import Spool, Spooled
from listeners.replication.together import together
from listeners.replication.verifying import verified_or_not

ASKED_AT_ONCE = 5  # as PouchDB does: a server gives each a process, and an open file
KNOWN_MAX = 10_000
_ATTACHMENTS = b'"_attachments"'
_MD5 = "md5-"

_encode = msgspec.json.Encoder().encode


class _Told(msgspec.Struct):
    """An attachment's stub; whatever else it says is of no use here."""

    digest: str
    length: int
    content_type: str | None = None
    revpos: int | None = None


class Contents:
    """The contents of one database's attachments."""

    def __init__(self, requests: Requests, place: str, spool: Spool) -> None:
        """`place` is the path of the database."""
        self._requests = requests
        self._place = place
        self._spool = spool
        self._known: OrderedDict[tuple[str, str, str, int], str] = OrderedDict()  # what was checked already
        self._asks = asyncio.Semaphore(ASKED_AT_ONCE)

    async def native(self, wanted: Wanted, doc: bytes) -> Fetched | SpileError:
        """A revision as a Spile would give it, verified; or what is wrong with it."""
        if _ATTACHMENTS not in doc:
            return verified_or_not(wanted.id, wanted.rev, doc)
        try:
            fields = msgspec.json.decode(doc, type=dict[str, msgspec.Raw])
            told = msgspec.json.decode(fields.pop("_attachments", b"{}"), type=dict[str, _Told])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return Unfit(f"The attachments of {wanted.rev} of {wanted.id!r:.80} cannot be read: {error}")
        checked = verified_or_not(wanted.id, wanted.rev, _encode(fields))
        if isinstance(checked, SpileError) or not told:
            return checked
        if len(told) > ATTACHMENTS_MAX:
            many = f"{wanted.rev} of {wanted.id!r:.80} has {len(told)} attachments"
            return TooLarge(f"{many}; a document may have {ATTACHMENTS_MAX}")
        held = held_generation(checked.json, wanted.known)
        calls = (self._stub_or_not(wanted, name, each, held) for name, each in told.items())
        stubs = dict(zip(told, await together(calls, "spile couch attachment"), strict=True))
        for stub in stubs.values():
            if isinstance(stub, SpileError):
                return stub
        fields["_attachments"] = msgspec.Raw(_encode(stubs))
        return verified_or_not(wanted.id, wanted.rev, _encode(fields))

    async def read(self, blob: Blob, offset: int) -> AsyncGenerator[bytes, None]:
        """The bytes of a content from an offset on; it is had again if it is not kept any more."""
        content = self._spool.find(blob.digest)
        if content is None:
            where = Wanted(blob.id, blob.rev)
            content = await self._had(where, blob.name, blob.length, lambda came, _: came.digest == blob.digest)
        async with aclosing(self._spool.read(content, offset)) as pieces:
            async for piece in pieces:
                yield piece

    async def _stub_or_not(self, wanted: Wanted, name: str, told: _Told, held: int) -> dict[str, Any] | SpileError:
        """What refuses this document alone is given, and what says more is raised."""
        try:
            return await self._stub(wanted, name, told, held)
        except (Unfit, NotFound) as error:
            return error

    async def _stub(self, wanted: Wanted, name: str, told: _Told, held: int) -> dict[str, Any]:
        """The attachment in Spile's words: one that an ancestor has by its name alone, unless more is known."""
        # A CouchDB that was not told when it came has 0, which says nothing.
        revpos = told.revpos if told.revpos is not None and told.revpos > 0 else None
        kept = {"content_type": told.content_type, "revpos": revpos}
        stub: dict[str, Any] = {key: value for key, value in kept.items() if value is not None}
        is_link = is_link_type(told.content_type) and told.length <= LINK_BYTES_MAX
        key = (wanted.id, name, told.digest, told.length)
        digest = self._known.get(key)
        if digest is None and revpos is not None and revpos <= held:
            # Of a link that was shown as a text the length is another one.
            return {**stub, "stub": True} if is_link else {**stub, "stub": True, "length": told.length}
        if is_link:
            return await self._link(wanted, name, told, stub)
        if digest is None:
            digest = (await self._checked(wanted, name, told)).digest
            self._known[key] = digest
            if len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)
        return {**stub, "stub": True, "digest": digest, "length": told.length}

    async def _link(self, wanted: Wanted, name: str, told: _Told, stub: dict[str, Any]) -> dict[str, Any]:
        """A link that Spile had shown as a small text."""
        content = await self._checked(wanted, name, told)
        kind = type_of_link(told.content_type)
        link = {"link": content.data.decode("utf-8", "replace"), "revpos": stub.get("revpos", 1)}
        return {**link, "content_type": kind} if kind else link

    async def _checked(self, wanted: Wanted, name: str, told: _Told) -> Spooled:
        try:
            _, md5 = read_digest(told.digest)
        except BadRequest:
            md5 = None
        if md5 is None:
            raise Unfit(f"The attachment {name!r:.80} of {wanted.id!r:.80} has no digest that can be checked")
        return await self._had(wanted, name, told.length, lambda came, coded: md5 in (came.md5, coded))

    async def _had(self, where: Wanted, name: str, length: int, fits: Callable[[Spooled, str], bool]) -> Spooled:
        """Read a content from the server, check it, and keep it."""
        path = self._place + attachment_path(where.id, name) + in_query(rev=where.rev)
        incoming = self._spool.incoming()
        coded = hashlib.md5(usedforsecurity=False)
        what = f"the attachment {name:.80} of {where.rev} of {where.id:.80}"
        try:
            async with (
                self._asks,
                self._requests.streamed("GET", path, headers={"Accept-Encoding": "gzip"}) as answer,
            ):
                encoding = answer.headers.get("content-encoding", "identity").lower()
                if encoding not in ("gzip", "identity"):
                    raise Unfit(f"The source sends {what} as {encoding:.40}")
                inflating = Inflating(what, length) if encoding == "gzip" else None
                async with aclosing(self._requests.pieces(answer)) as pieces:
                    async for piece in pieces:
                        coded.update(piece)
                        for plain in inflating.plain(piece) if inflating else (piece,):
                            await incoming.write(plain)
                        if incoming.length > length:
                            break
                if inflating is not None:
                    inflating.end()
            content = await incoming.end()
            if content.length != length or not fits(content, b64encode(coded.digest()).decode()):
                raise Unfit(f"The source gave something else than {what}: {content.length} bytes, md5-{content.md5}")
        except NotFound as error:
            incoming.abort()
            await self._requests.send("GET", self._place + document_path(where.id) + in_query(rev=where.rev))
            raise Unfit(f"The source does not have {what}: {error.reason}") from None
        except (BadRequest, TooLarge) as error:
            incoming.abort()
            raise Unfit(f"The source gave something else than {what}: {error.reason}") from None
        except BaseException:
            incoming.abort()
            raise
        self._spool.keep(content)
        return content
