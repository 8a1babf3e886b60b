"""Nested calls of a store that a command opened itself; its peers are those of SPILE_PEERS, as the service's are."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from broker.cli.backend import Beyond
from broker.nested import reach_of, search_of, shown
from feeds import Barrel, Written
from listeners.nested import Neighbours, Nest, Reach, ReadTold, Search
from listeners.nested.seeking import not_found

__all__ = ["asked_reach", "asked_search", "looked_up", "passed_on"]

T = TypeVar("T")


def asked_reach(beyond: Beyond) -> Reach | None:
    """How far a write is to go, checked before it is done."""
    return reach_of(beyond.write, beyond.depth, beyond.timeout_ms)


def asked_search(beyond: Beyond, *, here_only: bool) -> Search | None:
    """How a document is looked for."""
    return search_of(beyond.read, beyond.depth, beyond.timeout_ms, keep=beyond.keep, here_only=here_only)


def passed_on(barrel: Barrel, written: Written, reach: Reach) -> Any:
    """Pass a write on; what came of it."""
    told = _with_nest(barrel, lambda nest: nest.pass_on(barrel, written.id, written.rev, reach))
    return msgspec.to_builtins(told)


def looked_up(barrel: Barrel, id: str, rev: str | None, search: Search, revs: bool) -> bytes | None:
    """A document from a peer; None where it was kept, and can be read here. NotFound tells who was asked."""
    told: ReadTold = _with_nest(barrel, lambda nest: nest.look_further(barrel, id, rev, search))
    if not isinstance(told.doc, msgspec.Raw):
        raise not_found(id, told)
    return None if told.kept else shown(told, revs)


def _with_nest(barrel: Barrel, call: Callable[[Nest], Awaitable[T]]) -> T:
    peers = [each for each in os.environ.get("SPILE_PEERS", "").split(",") if each.strip()]

    async def run() -> T:
        nest = Nest(barrel.store, Neighbours.of(peers))
        try:
            return await call(nest)
        finally:
            await nest.close()

    return asyncio.run(run())
