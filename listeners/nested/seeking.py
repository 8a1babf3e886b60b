"""A read that looks further: at one's own peers first, then at theirs, until somebody knows the document."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing

import msgspec
from msgspec import Raw

from feeds.errors import Deleted, Missing, NotFound, SpileError, Timeout, TooLarge
from listeners.nested.bringing import brought, persistent
from listeners.nested.messages import (
    HERE,
    PEER_TEXT_MAX,
    SEEN_MAX,
    TOLD_MAX,
    Holder,
    Miss,
    ReadAsked,
    ReadTold,
    below,
    missed_below,
    read_told,
)
from listeners.nested.moving import carry_out
from listeners.nested.neighbours import Neighbour, Neighbours
from listeners.nested.passing import PASSED_ON
from listeners.nested.planning import AT_ONCE_MAX, Move, Plan
from listeners.nested.reach import Search
from listeners.replication.errors import BadPeer
from listeners.replication.filters import Filter
from listeners.replication.peer import Fetched, Peer, Wanted
from listeners.replication.progress import Progress
from listeners.replication.verifying import verified

_NAMED_MAX = 10  # in a sentence; all of them are in the details
_encode = msgspec.json.Encoder().encode


class _Head(msgspec.Struct):
    rev: str = msgspec.field(name="_rev")


_head = msgspec.json.Decoder(_Head).decode


class Seeking:
    """One document that is looked for."""

    def __init__(
        self, here: Holder, neighbours: Neighbours, id: str, rev: str | None, search: Search, seen: Sequence[str]
    ) -> None:
        self._neighbours = neighbours
        self._id = id
        self._rev = rev
        self._search = search
        self._here = here
        self._seen = {*seen, here.key}
        self._told = ReadTold([], [])
        self._deadline = asyncio.get_running_loop().time() + search.seconds

    async def run(self, plan: Plan, into: Peer) -> ReadTold:
        """Look for it as planned, and bring what is found `into` the barrel here, if it is to be kept."""
        self._plan = plan
        self._into = into
        await carry_out(plan, self._make, self._room, self._deadline)
        if not self._told.is_found:
            for move in plan.in_flight:
                self._fail(move.peer, Timeout("No answer came in the time that was given."))
            for move in plan.waiting:
                self._fail(move.peer, Timeout("There was no time left to ask."))
        return self._told

    def _room(self) -> tuple[int, int]:
        if self._told.is_found:
            return 0, 0
        return (AT_ONCE_MAX, AT_ONCE_MAX) if self._search.order == "first" else (1, 1)

    async def _make(self, move: Move) -> None:
        try:
            async with self._neighbours.at(move.peer, self._here.barrel) as neighbour:
                await self._look(neighbour, beyond=move.beyond)
        except SpileError as error:
            self._fail(move.peer, error)

    async def _look(self, neighbour: Neighbour, *, beyond: bool) -> None:
        who = await persistent(neighbour.identity)
        at = Holder(neighbour.name, who.store, who.barrel)
        if not beyond and at.key in self._seen:
            return
        left_s = self._deadline - asyncio.get_running_loop().time()
        asking = neighbour.asking
        if asking is None:
            told = await self._looked_up(neighbour.peer)
        else:
            asked = ReadAsked(
                self._id,
                self._rev,
                self._search.order,
                self._search.depth - 1 if beyond else 0,
                max(0, int(left_s * PASSED_ON * 1000)),
                sorted(self._seen - {at.key})[:SEEN_MAX],
                self._search.keep,
            )
            try:
                body = await persistent(lambda: asking.ask("p2p_read", _encode(asked)))
            except TooLarge:  # for a message: replication reads it in parts
                told = await self._looked_up(neighbour.peer)
            else:
                told = read_told(body, ReadTold, neighbour.name)
        self._seen.add(at.key)
        await self._hear(told, neighbour, at, beyond)

    async def _looked_up(self, peer: Peer) -> ReadTold:
        """What a peer that knows only replication has."""
        told, rev = ReadTold([], []), self._rev
        if rev is None:
            pages = peer.changes(None, Filter.of(ids=[self._id]), docs=False, follow=False, told=lambda error: None)
            async with aclosing(pages):
                async for page in pages:
                    for row in page.rows:
                        if row.id == self._id:
                            rev, told.deleted = row.rev, row.deleted
        if rev is None or told.deleted:
            return told
        (found,) = await persistent(lambda: peer.fetch([Wanted(self._id, rev)]))
        if isinstance(found, Fetched):
            told.doc, told.peer = Raw(found.json), HERE
        elif not isinstance(found, NotFound):
            raise found
        return told

    async def _hear(self, told: ReadTold, neighbour: Neighbour, at: Holder, beyond: bool) -> None:
        name = neighbour.name
        if isinstance(told.doc, Raw):
            await self._take(told, neighbour)
            return
        if told.deleted:
            self._told.deleted, self._told.peer = (
                True,
                f"{name}/{told.peer}" if told.peer not in (None, HERE) else name,
            )
            return
        if not beyond:
            self._told.answered.append(at)
            if self._search.depth > 1 and neighbour.asking is not None:
                self._plan.go_beyond(name)
            return
        farther = [below(name, each) for each in told.answered[:TOLD_MAX] if each.peer != HERE]
        self._seen.update(each.key for each in farther)
        self._told.answered += farther
        self._told.failed += [missed_below(name, miss) for miss in told.failed[:TOLD_MAX]]

    async def _take(self, told: ReadTold, neighbour: Neighbour) -> None:
        """A document that came, if it is the one that was asked for."""
        assert isinstance(told.doc, Raw)
        doc = bytes(told.doc)
        try:
            rev = _head(doc).rev
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise BadPeer(f"{neighbour.name} answers with what is no document: {str(error)[:120]}") from None
        fetched = verified(self._id, self._rev or rev, doc)
        found = ReadTold(self._told.answered, self._told.failed, told.doc, peer=_way(neighbour.name, told.peer))
        if self._search.keep:
            try:
                await self._keep(fetched, neighbour.peer)
                found.kept = True
            except SpileError as error:
                found.kept, found.not_kept = False, error.reason
        if not self._told.is_found:
            self._told = found

    async def _keep(self, fetched: Fetched, source: Peer) -> None:
        if fetched.blobs:
            refusal = await brought(source, self._into, fetched.id, fetched.rev, Progress(time.monotonic))
            if refusal is not None:
                raise SpileError(refusal[1])
            return
        (outcome,) = await self._into.write([fetched], {})
        if isinstance(outcome, SpileError):
            raise outcome

    def _fail(self, name: str, error: SpileError) -> None:
        self._told.failed.append(Miss(name, "read", error.code, error.reason))


def _way(name: str, peer: str | None) -> str:
    return name if peer in (None, HERE) else f"{name}/{peer}"[:PEER_TEXT_MAX]


def not_found(id: str, told: ReadTold) -> NotFound:
    """What whoever asked for a document is told that nobody has, or that somebody knows to be deleted."""
    asked = {"answered": msgspec.to_builtins(told.answered), "failed": msgspec.to_builtins(told.failed)}
    if told.deleted:
        return Deleted(f"{id!r} was deleted, as {told.peer} tells", p2p=asked)
    having_not = ", ".join(each.peer for each in told.answered[:_NAMED_MAX]) or "nobody"
    reason = f"{id!r} is not here. Asked, and without it: {having_not}."
    if not told.failed:
        return Missing(reason, p2p=asked)
    silent = ", ".join(f"{miss.peer} ({miss.error})" for miss in told.failed[:_NAMED_MAX])
    return Missing(
        f"{reason} These did not say: {silent}.",
        hint="`p2p` says why they did not; ask again when they can answer.",
        p2p=asked,
    )
