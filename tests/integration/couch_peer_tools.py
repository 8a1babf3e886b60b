"""A barrel in this process, and a fake CouchDB of which a test wants something."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from couch_words import Fault
from fake_couch import FakeCouch, fake_couch
from replication_tools import leaves
from store_tools import revisions

from feeds import Barrel, Store
from listeners.replication import CouchPeer, LocalPeer, Patience

NUMBERS = itertools.count()
BUSY = Fault(503, b'{"error":"service_unavailable","reason":"busy"}', {"retry-after": "0"})
SLOWER = Fault(429, b'{"error":"too_many_requests","reason":"slower"}', {"retry-after": "0"})
HALF = Fault(200, b'{"results":[', cut=True)
PATIENT = Patience(attempts=20, first_s=0.01, max_s=0.05)
TEXT = b"text that shrinks " * 200


class Ends:
    """Both, with a peer before each."""

    def __init__(self, barrel: Barrel, couch: FakeCouch) -> None:
        self.couch = couch
        self.barrel = barrel
        self.local = LocalPeer(barrel.store, barrel.name)
        self.peer = CouchPeer(couch.url)


@asynccontextmanager
async def fake_ends(store: Store) -> AsyncIterator[Ends]:
    """A new barrel of the store and a new server."""
    async with fake_couch() as couch:
        made = Ends(store.create(f"here{next(NUMBERS)}"), couch)
        yield made
        await made.local.close()
        await made.peer.close()


def fill(couch: FakeCouch, count: int = 5) -> None:
    """Documents d0, d1, …"""
    for number in range(count):
        couch.put(revisions(f"d{number}", "aa", n=number))


def ids(barrel: Barrel) -> set[str]:
    """The documents that arrived."""
    return set(leaves(barrel))
