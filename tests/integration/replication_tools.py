"""Barrels and peers for tests of replication, and what two barrels have to have in common."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from external_tools import KINDS as BROKERS
from http_tools import served
from mqtt_tools import leave_no_client
from requests_tools import serving as over_embedded

from broker.serve import serving as over_external
from broker.settings import load_settings
from feeds import Barrel, SpileError, Store
from listeners.replication import CouchPeer, HttpPeer, LocalPeer, MqttPeer, Options, Page, Patience, Peer, Replicator
from listeners.replication.filters import EVERYTHING, Filter

KINDS = ("local", "http", "mqtt")
"""Spiles that need no other program; `mqtt` is over the embedded broker."""
ALL_KINDS = (*KINDS, *BROKERS)
QUICK = Patience(attempts=4, first_s=0.01, max_s=0.05)


@dataclass
class Subject:
    """A peer, and the barrel that it stands before."""

    kind: str
    peer: Peer
    store: Store
    barrel: Barrel


@asynccontextmanager
async def subject(kind: str, folder: Path, name: str = "geo") -> AsyncIterator[Subject]:
    """A new barrel and a peer before it, of any kind."""
    async with AsyncExitStack() as stack:
        peer, store = await _MADE.get(kind, _over_broker)(kind, folder, name, stack)
        stack.push_async_callback(peer.close)
        yield Subject(kind, peer, store, store.create(name))


async def _local(_kind: str, folder: Path, name: str, stack: AsyncExitStack) -> tuple[Peer, Store]:
    store = stack.enter_context(Store.open(folder))
    return LocalPeer(store, name), store


async def _over_http(_kind: str, folder: Path, name: str, stack: AsyncExitStack) -> tuple[Peer, Store]:
    service = await stack.enter_async_context(served(folder))
    return HttpPeer(f"{service.url}/{name}"), service.store


async def _over_couch(_kind: str, folder: Path, name: str, stack: AsyncExitStack) -> tuple[Peer, Store]:
    service = await stack.enter_async_context(served(folder))
    return CouchPeer(f"{service.url}/couch/{name}"), service.store


async def _over_mqtt(_kind: str, folder: Path, name: str, stack: AsyncExitStack) -> tuple[Peer, Store]:
    service = await stack.enter_async_context(over_embedded(folder))
    service.store.drop(service.barrel.name)
    return MqttPeer(f"mqtt://127.0.0.1:{service.broker.port}/{name}"), service.store


async def _over_broker(kind: str, folder: Path, name: str, stack: AsyncExitStack) -> tuple[Peer, Store]:
    process = BROKERS[kind](folder / "broker")
    stack.callback(process.kill)
    stack.push_async_callback(leave_no_client)
    settings = load_settings({"data": folder / "data", "http": "127.0.0.1:0", "broker": process.url})
    service = await stack.enter_async_context(over_external(settings))
    return MqttPeer(f"{process.url}/{name}"), service.store


_MADE = {"local": _local, "http": _over_http, "couch": _over_couch, "mqtt": _over_mqtt}


async def pages(
    peer: Peer, since: str | None = None, filter: Filter = EVERYTHING, *, docs: bool = True
) -> list[Page]:
    """Everything that there is now."""
    return [page async for page in peer.changes(since, filter, docs=docs, follow=False, told=lambda error: None)]


async def brought(source: Peer, target: Peer, **options: Any) -> dict[str, Any]:
    """Replicate once; what was done."""
    options.setdefault("patience", QUICK)
    return await Replicator(source, target, Options(**options)).run()


Leaves = dict[str, list[tuple[str, bool, dict[str, Any]]]]


def leaves(barrel: Barrel) -> Leaves:
    """Every leaf of every document, winner first, with its body."""
    found: Leaves = {}
    for row in barrel.changes().results:
        told = barrel.get_many([(row.id, rev) for rev in row.changes])
        found[row.id] = [
            (document.rev, document.deleted, document.data)
            for document in told
            if not isinstance(document, SpileError)
        ]
        assert len(found[row.id]) == len(row.changes), told
    return found


def alike(*barrels: Barrel) -> None:
    """All of them have the same leaves, winners, bodies and attachments."""
    first = leaves(barrels[0])
    for other in barrels[1:]:
        there = leaves(other)
        # Whole lists are too long to be compared in words.
        assert not [id for id in first.keys() | there.keys() if first.get(id) != there.get(id)][:20]
    for id, told in first.items():
        for rev, deleted, data in told:
            for name, stub in {} if deleted else data.get("_attachments", {}).items():
                if "digest" in stub:
                    read = [b"".join(each.attachment(id, name, rev=rev).read()) for each in barrels]
                    assert len(set(read)) == 1


def edit(chance: random.Random, barrels: Sequence[Barrel], ids: Sequence[str]) -> None:
    """One random edit, in a random barrel: a new body, a deletion, an attachment, or on a losing leaf."""
    barrel, id = chance.choice(barrels), chance.choice(ids)
    what = chance.random()
    try:
        if what < 0.5:
            barrel.put({"_id": id, "value": chance.randrange(1000)}, update=True)
        elif what < 0.65:
            barrel.delete(id, rev=barrel.get(id).rev)
        elif what < 0.8:
            barrel.attach(id, chance.choice("ab"), chance.randbytes(chance.randrange(1, 4)))
        else:
            row = next(row for row in barrel.changes().results if row.id == id)
            barrel.put({"_id": id, "_rev": chance.choice(row.changes), "value": chance.randrange(1000)})
    except (SpileError, StopIteration):
        return  # there is nothing to be deleted, or to be edited
