"""The changes of a CouchDB: pages of `_changes`, and then whatever comes, by long-poll.

Ids and selectors are the server's to look at, where it can; patterns are matched here, on the documents.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from msgspec import Raw

from feeds.errors import BadRequest, NotFound, TooLarge
from feeds.matching import PathFilter
from feeds.patterns import parse_patterns
from feeds.rows import Row
from listeners.backoff import Backoff
from listeners.replication.errors import BadPeer
from listeners.replication.filters import Filter
from listeners.replication.options import A_WHILE, FOREVER
from listeners.replication.over_couch_words import NotServed, in_query, seq_number, seq_text
from listeners.replication.peer import BATCH_ROWS, Page, Told
from listeners.replication.requests import Requests
from listeners.replication.retrying import persistently

ROWS_WITH_DOCS = 100
"""Rows that bring their documents, in one answer; fewer, where those are large."""
PAGE_BYTES_MAX = 32 << 20
HEARTBEAT_MS = 10_000
_RESTS_S = (0.5, 10.0)  # before a server is asked again that answers at once that there is nothing
FIRST = "0"

_ATTACHMENTS = b'"_attachments"'
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class _Leaf(msgspec.Struct):
    rev: str


class _Told(msgspec.Struct):
    seq: Any
    id: str
    changes: list[_Leaf]
    deleted: bool = False
    doc: Raw = Raw(b"")


class _Answer(msgspec.Struct):
    results: list[_Told]
    last_seq: Any = None
    pending: int | None = None


class _Head(msgspec.Struct):
    rev: str = msgspec.field(name="_rev")


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is asked of the server."""

    docs: bool
    ids: list[str] | None = None
    selector: Any = None


class Feed:
    """The changes behind a position. Run `pages` once."""

    def __init__(self, requests: Requests, place: str, filter: Filter, *, docs: bool, follow: bool) -> None:
        """`place` is the path of the database."""
        self._requests = requests
        self._place = place
        self._filter = filter
        self._follow = follow
        self._patterns = PathFilter(parse_patterns(filter.patterns)) if filter.patterns else None
        looked_at = bool(filter.patterns) or (docs and filter.selector is not None)
        self._wish = _Wish(docs=docs or looked_at)
        if filter.ids is not None:
            self._wish = replace(self._wish, ids=sorted(filter.ids))
        elif filter.selector is not None and not filter.patterns:
            # Deletions are judged by what was deleted, which the server does not look at.
            selector = Raw(filter.selector.canonical.encode())
            self._wish = replace(self._wish, selector={"$or": [selector, {"_deleted": True}]})
        self._rows = self._rows_max
        self._leaves = False

    @property
    def _rows_max(self) -> int:
        return ROWS_WITH_DOCS if self._wish.docs or self._wish.selector is not None else BATCH_ROWS

    async def pages(self, since: str | None, hears: Told) -> AsyncGenerator[Page, None]:
        """As `Peer.changes`."""
        self._leaves = since is not None
        at, level = since or FIRST, False
        patience = FOREVER if self._follow else A_WHILE
        rests, clock = Backoff(*_RESTS_S), asyncio.get_running_loop().time
        while True:
            asked_at, waits = clock(), level

            async def once(at: str = at, waits: bool = waits) -> tuple[Page, str]:
                return await self._page(at, waits=waits)

            page, at_then = await persistently(once, patience, hears)
            moved, at = at_then != at, at_then
            if page.rows or moved or not level:
                yield page
            if page.rows:
                rests.reset()
            elif waits and clock() - asked_at < _RESTS_S[0]:
                await asyncio.sleep(rests.next())  # it does not wait until there is something to tell
            level = page.caught_up or (level and not page.rows)
            if level:
                self._leaves = True
                if not self._follow:
                    return

    async def _page(self, since: str, *, waits: bool) -> tuple[Page, str]:
        """What is behind a position; with `waits` the next that comes."""
        answer, at = await self._asked(since, waits)
        told = answer.results
        last = seq_text(answer.last_seq if answer.last_seq is not None or not told else told[-1].seq)
        if answer.last_seq is None and not told:
            last = at
        if told and last == at:
            raise BadPeer(f"The source tells of changes behind {at:.80}, and stays there")
        if self._wish.selector is not None and told:
            told = await self._whole([each.id for each in told])
        level = not answer.results
        if answer.pending is not None:
            level = level or answer.pending == 0
        else:
            level = level or len(answer.results) < self._rows
        self._rows = min(self._rows_max, self._rows * 2)
        rows = [row for each in told if (row := self._row(each)) is not None]
        return Page(rows, last, level), last

    async def _asked(self, since: str, waits: bool) -> tuple[_Answer, str]:
        """An answer, and behind which position it is: one that the server does not know is the beginning."""
        while True:
            try:
                return await self._read(self._wish, since, waits), since
            except TooLarge:
                if self._rows == 1:
                    raise
                self._rows = max(1, self._rows // 4)
            except (BadRequest, NotServed, NotFound):
                if self._wish.selector is not None:
                    self._wish = replace(self._wish, selector=None, docs=True)
                    self._rows = self._rows_max
                elif self._wish.ids is not None:
                    self._wish = replace(self._wish, ids=None)
                elif since != FIRST:
                    since = FIRST
                else:
                    raise

    async def _read(self, wish: _Wish, since: str, waits: bool, limit: int | None = None) -> _Answer:
        options: dict[str, Any] = {
            "feed": "longpoll" if waits else "normal",
            "style": "all_docs",
            "since": since,
            "limit": limit or self._rows,
            "heartbeat": HEARTBEAT_MS,
        }
        body: bytes | None = None
        if wish.ids is not None:
            options["filter"], body = "_doc_ids", _encode({"doc_ids": wish.ids})
        elif wish.selector is not None:
            options["filter"], body = "_selector", _encode({"selector": wish.selector})
        if wish.docs and wish.selector is None:
            options["include_docs"] = True
        path = f"{self._place}/_changes" + in_query(**options)
        most = PAGE_BYTES_MAX if (limit or self._rows) > 1 else None
        answer = await self._requests.send("GET" if body is None else "POST", path, body, bytes_max=most)
        return self._requests.read(answer.content, _Answer)

    async def _whole(self, ids: list[str]) -> list[_Told]:
        """These documents with all their leaves: a selector leaves those out that it does not match."""
        try:
            answer = await self._read(_Wish(self._wish.docs, ids), FIRST, waits=False, limit=len(ids))
        except TooLarge:
            if len(ids) == 1:
                raise
            half = len(ids) // 2
            return await self._whole(ids[:half]) + await self._whole(ids[half:])
        return answer.results

    def _row(self, told: _Told) -> Row | None:
        """The row as a Spile tells it; None of what the patterns leave out."""
        leaves = [leaf.rev for leaf in told.changes]
        if not leaves:
            return None
        row = Row(seq_number(told.seq) or 0, told.id, leaves[0], leaves, deleted=told.deleted)
        doc: bytes | None = bytes(told.doc)
        if doc in (b"", b"null"):
            doc = None
        if doc is not None:
            row.rev = self._requests.read(doc, _Head).rev
        if row.rev in leaves:
            row.changes = [row.rev, *(rev for rev in leaves if rev != row.rev)]
        if doc is not None and not (row.rev.startswith("1-") and _ATTACHMENTS in doc):
            row.doc = Raw(doc)  # a first revision with attachments would be taken as it is, with stubs of CouchDB's
        if self._patterns is not None:
            return self._matched(row, doc)
        return row

    def _matched(self, row: Row, doc: bytes | None) -> Row | None:
        assert self._patterns is not None
        row.paths = []
        if row.deleted:
            return row  # nobody can tell from here what was deleted
        try:
            body = {key: value for key, value in _decode(doc or b"{}").items() if key[:1] != "_"}
            row.paths = self._patterns.matching(row.id, _encode(body), False)
        except (msgspec.MsgspecError, RecursionError):
            row.paths = list(self._filter.patterns)  # what no Spile takes: the target says why, and it is named
        row.removed = not row.paths
        return row if row.paths or self._leaves else None
