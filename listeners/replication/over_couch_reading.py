"""Reading revisions from a CouchDB: many at once (`_bulk_get`), else document by document (`open_revs`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from feeds.errors import BadRequest, NotFound, SpileError, TooLarge
from listeners.replication.errors import BadPeer, Unfit
from listeners.replication.over_couch_contents import ASKED_AT_ONCE, Contents
from listeners.replication.over_couch_parts import MIXED, texts_in
from listeners.replication.over_couch_words import NotServed, document_path, document_refusal, in_query
from listeners.replication.peer import Fetched, Wanted
from listeners.replication.requests import Requests
from listeners.replication.together import together
from listeners.replication.verifying import verified_or_not

ANSWER_BYTES_MAX = 32 << 20
"""What is fetched together; of more the halves are asked for. One document may be four times as large."""
URL_BYTES_MAX = 7000  # as CouchDB's own replicator: more is refused by many servers

_encode = msgspec.json.Encoder().encode
_JSON = {"Accept": "application/json"}


class _Each(msgspec.Struct):
    ok: Raw | UnsetType = UNSET
    error: Any = None
    reason: Any = None
    missing: str | None = None

    @property
    def refusal(self) -> tuple[str | None, SpileError]:
        """Of which revision, where that is said, and why."""
        if self.missing is not None:
            return self.missing, NotFound("missing")
        told = self.error if isinstance(self.error, dict) else {"error": self.error, "reason": self.reason}
        rev, name = told.get("rev"), told.get("error")
        return rev if isinstance(rev, str) and "-" in rev else None, document_refusal(str(name), told.get("reason"))


class _Of(msgspec.Struct):
    id: str
    docs: list[_Each]


class _Bulk(msgspec.Struct):
    results: list[_Of]


class _Named(msgspec.Struct):
    id: str = msgspec.field(name="_id", default="")
    rev: str = msgspec.field(name="_rev", default="")


_named = msgspec.json.Decoder(_Named).decode


class Reading:
    """Reads revisions of one database."""

    def __init__(
        self, requests: Requests, place: str, contents: Contents, exists: Callable[[], Awaitable[object]]
    ) -> None:
        """`exists` raises NotFound where there is no such database."""
        self._requests = requests
        self._place = place
        self._contents = contents
        self._exists = exists
        self._has_bulk = True
        self._asks = asyncio.Semaphore(ASKED_AT_ONCE)

    async def fetch(self, wanted: Sequence[Wanted]) -> list[Fetched | SpileError]:
        """As `Peer.fetch`."""
        found: dict[tuple[str, str], bytes | SpileError] | None = None
        if self._has_bulk:
            found = await self._in_bulk(wanted)
        if found is None:
            found = await self._one_by_one(wanted)
        for each in found.values():
            if isinstance(each, SpileError) and each.retryable:
                raise each  # it says nothing of the document: all are asked for again
        return await together(
            (self._native(each, found[each.id, each.rev]) for each in wanted), "spile couch revision"
        )

    async def _native(self, wanted: Wanted, found: bytes | SpileError) -> Fetched | SpileError:
        return found if isinstance(found, SpileError) else await self._contents.native(wanted, found)

    async def _in_bulk(self, wanted: Sequence[Wanted]) -> dict[tuple[str, str], bytes | SpileError] | None:
        """All of them; None where the server cannot do that."""
        asked = {"docs": [{"id": each.id, "rev": each.rev} for each in wanted]}
        bytes_max = ANSWER_BYTES_MAX if len(wanted) > 1 else 4 * ANSWER_BYTES_MAX
        path = f"{self._place}/_bulk_get" + in_query(revs=True, attachments=False)
        try:
            answer = await self._requests.send("POST", path, _encode(asked), headers=_JSON, bytes_max=bytes_max)
            told = self._requests.read(answer.content, _Bulk)
        except (BadRequest, NotServed, NotFound, BadPeer):
            await self._exists()
            self._has_bulk = False
            return None
        by_id: dict[str, list[_Each]] = {}
        for each in told.results:
            by_id.setdefault(each.id, []).extend(each.docs)
        if any(each.id not in by_id for each in wanted):
            raise BadPeer(f"{self._requests.base} was asked for {len(wanted)} documents, and does not tell of all")
        return self._chosen(wanted, by_id)

    def _chosen(
        self, wanted: Sequence[Wanted], by_id: dict[str, list[_Each]]
    ) -> dict[tuple[str, str], bytes | SpileError]:
        """For each that was asked for what was answered."""
        docs: dict[tuple[str, str], bytes] = {}
        others: dict[str, bytes] = {}
        refusals: dict[tuple[str, str | None], SpileError] = {}
        names = {(each.id, each.rev) for each in wanted}
        for id, answers in by_id.items():
            for each in answers:
                if isinstance(each.ok, Raw):
                    text = bytes(each.ok)
                    name = _name_of(text)
                    if name in names and name[0] == id:
                        docs[name] = text
                    else:
                        others[id] = text
                else:
                    rev, error = each.refusal
                    refusals[id, rev] = error
        return {(each.id, each.rev): _answer_to(each, docs, refusals, others.get(each.id)) for each in wanted}

    async def _one_by_one(self, wanted: Sequence[Wanted]) -> dict[tuple[str, str], bytes | SpileError]:
        revs: dict[str, list[Wanted]] = {}
        for each in wanted:
            revs.setdefault(each.id, []).append(each)
        found: dict[tuple[str, str], bytes | SpileError] = {}
        for part in await together((self._open(each) for each in revs.values()), "spile couch document"):
            found |= part
        return found

    async def _open(self, wanted: Sequence[Wanted]) -> dict[tuple[str, str], bytes | SpileError]:
        """Some revisions of one document; in halves where they are too many for a URL, or too large."""
        asked = in_query(open_revs=[each.rev for each in wanted], revs=True)
        path = self._place + document_path(wanted[0].id) + asked
        half = len(wanted) // 2
        try:
            if half and len(path) > URL_BYTES_MAX:
                raise TooLarge("The URL is too long")
            async with self._asks:
                texts = await self._texts(path)
        except TooLarge as error:
            if not half:
                return {(wanted[0].id, wanted[0].rev): error}
            return await self._open(wanted[:half]) | await self._open(wanted[half:])
        except NotFound as error:
            await self._exists()
            return {(each.id, each.rev): error for each in wanted}
        return self._chosen(wanted, {wanted[0].id: texts})

    async def _texts(self, path: str) -> list[_Each]:
        async with self._requests.streamed("GET", path, headers=_JSON) as answer:
            kind = answer.headers.get("content-type", "")
            async with aclosing(self._requests.pieces(answer)) as pieces:
                if kind.lower().startswith(MIXED):
                    parts = await texts_in(pieces, kind, ANSWER_BYTES_MAX)
                    return [_part(text) for text in parts]
                body = bytearray()
                async for piece in pieces:
                    body += piece
                    if len(body) > 4 * ANSWER_BYTES_MAX:
                        raise TooLarge(f"{self._requests.base} answers with more than {4 * ANSWER_BYTES_MAX} bytes")
        return self._requests.read(bytes(body), list[_Each])


def _answer_to(
    wanted: Wanted,
    docs: dict[tuple[str, str], bytes],
    refusals: dict[tuple[str, str | None], SpileError],
    other: bytes | None,
) -> bytes | SpileError:
    doc = docs.get((wanted.id, wanted.rev))
    if doc is not None:
        return doc
    told = refusals.get((wanted.id, wanted.rev)) or refusals.get((wanted.id, None))
    if told is not None:
        return told
    if other is not None:  # it is not what was asked for, and that is what is told
        strange = verified_or_not(wanted.id, wanted.rev, other)
        if isinstance(strange, SpileError):
            return strange
    return Unfit(f"{wanted.rev} of {wanted.id!r:.80} was asked for, and nothing was said of it")


def _part(text: bytes) -> _Each:
    """A part of a multipart answer: a document, or the name of one that is missing."""
    name = _name_of(text)
    if name[0]:
        return _Each(ok=Raw(text))
    try:
        return msgspec.json.decode(text, type=_Each)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadPeer(f"A part of an answer cannot be read: {error}") from None


def _name_of(text: bytes) -> tuple[str, str]:
    try:
        named = _named(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "", ""
    return named.id, named.rev
