"""A peer behind an HTTP address, of which it is found out who answers there: a Spile or a CouchDB."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

from feeds.errors import BadRequest, SpileError
from listeners.links.address import Address
from listeners.replication.checkpoints import Checkpoint
from listeners.replication.errors import BadPeer
from listeners.replication.filters import Filter
from listeners.replication.over_couch import CouchPeer
from listeners.replication.over_http import HttpPeer
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
from listeners.replication.requests import base_of, segment


class DetectingPeer:
    """The peer that is there. Found out when it is first used, and anew when who answers is another one."""

    def __init__(self, address: Address, *, token: str | None = None) -> None:
        """Nothing is sent yet: who is there may be away now."""
        self._shown = f"{base_of(address)}/{segment(address.barrel)}"
        self._kinds: list[HttpPeer | CouchPeer] = [HttpPeer(address, token=token), CouchPeer(address, token=token)]
        self._known = False  # that the first of them is the right one

    @property
    def name(self) -> str:
        return self._kinds[0].name if self._known else self._shown

    async def identity(self) -> Identity:
        if self._known:
            try:
                return await self._kinds[0].identity()
            except BadPeer:
                self._known = False  # another one answers there by now
        return await (await self._peer()).identity()

    async def _peer(self) -> HttpPeer | CouchPeer:
        """The right one of both."""
        if not self._known:
            strange: list[BadPeer] = []
            for peer in tuple(self._kinds):  # others who find it out meanwhile turn them round
                try:
                    await peer.store()
                    break
                except BadPeer as error:
                    strange.append(error)
            else:
                why = strange[0]
                raise BadPeer(f"{self._shown} is neither a Spile nor a CouchDB: {why.reason}", hint=why.hint)
            self._kinds.sort(key=lambda each: each is not peer)
            self._known = True
        return self._kinds[0]

    async def create(self) -> None:
        await (await self._peer()).create()

    async def behind(self, position: str) -> int | None:
        return await (await self._peer()).behind(position)

    async def changes(
        self, since: str | None, filter: Filter, *, docs: bool, follow: bool, told: Told
    ) -> AsyncGenerator[Page, None]:
        peer = await self._peer()
        async with aclosing(peer.changes(since, filter, docs=docs, follow=follow, told=told)) as pages:
            async for page in pages:
                yield page

    async def revs_diff(self, asked: Mapping[str, Sequence[str]]) -> Differences:
        return await (await self._peer()).revs_diff(asked)

    async def fetch(self, wanted: Sequence[Wanted]) -> list[Fetched | SpileError]:
        return await (await self._peer()).fetch(wanted)

    async def missing_blobs(self, digests: Sequence[str]) -> set[str]:
        return await (await self._peer()).missing_blobs(digests)

    async def read_blob(self, blob: Blob, offset: int = 0) -> AsyncGenerator[bytes, None]:
        peer = await self._peer()
        async with aclosing(peer.read_blob(blob, offset)) as pieces:
            async for piece in pieces:
                yield piece

    async def write_blob(self, blob: Blob, read: Read) -> str:
        return await (await self._peer()).write_blob(blob, read)

    async def write(self, docs: Sequence[Fetched], handles: Handles) -> list[bool | SpileError]:
        return await (await self._peer()).write(docs, handles)

    async def purge(self, revs: Mapping[str, Sequence[str]]) -> Refusals:
        return await (await self._peer()).purge(revs)

    async def checkpoint(self, id: str) -> Checkpoint | None:
        return await (await self._peer()).checkpoint(id)

    async def save_checkpoint(self, id: str, checkpoint: Checkpoint, rev: str | None) -> str:
        return await (await self._peer()).save_checkpoint(id, checkpoint, rev)

    async def ask(self, call: str, body: bytes) -> bytes:
        """As `HttpPeer.ask`; a CouchDB knows no such calls."""
        peer = await self._peer()
        if not isinstance(peer, HttpPeer):
            raise BadRequest(f"{self.name} is no Spile, and knows no {call!r}", hint="Name a Spile as peer.")
        return await peer.ask(call, body)

    async def close(self) -> None:
        for peer in self._kinds:
            await peer.close()
