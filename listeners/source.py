"""What one listens to: turns a URL or a barrel into links, and holds what they need while it lasts.

Imports what an address needs only when it needs it: the database, paho and websockets each take a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from feeds.structs import prepare
from listeners.following import Link
from listeners.links.address import Address, StorePlace, parse_address

if TYPE_CHECKING:
    from feeds.barrel import Barrel
    from feeds.store import Store
    from listeners.stream.service import StreamService

Source: TypeAlias = "str | Path | Barrel | tuple[StreamService, str]"

# A replay and the log's reader, and one to spare for cursors: a source serves one listener.
_THREADS = 3


def checked(source: Source) -> Address | StorePlace | Barrel | tuple[StreamService, str]:
    """What the source names; BadRequest for text that names nothing."""
    if not isinstance(source, str | Path):
        from feeds.barrel import Barrel

        if isinstance(source, Barrel | tuple):
            return source
    return parse_address(str(source))


@asynccontextmanager
async def opened(
    place: Address | StorePlace | Barrel | tuple[StreamService, str], *, token: str | None = None
) -> AsyncIterator[Callable[[], Link]]:
    """What dials links to the place, on this event loop. A store that is opened for it is closed with it."""
    if isinstance(place, Address):
        dial = _dialler(place, token)
        prepare()  # a program may have listeners in several threads
        yield dial
        return
    from feeds.store import Store
    from listeners.links.inprocess import InProcessLink

    prepare()
    if isinstance(place, tuple):
        service, barrel = place
        yield lambda: InProcessLink(service, barrel)
        return
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="spile-listen")
    store = None
    try:
        if isinstance(place, StorePlace):
            target = place.store
            store = await loop.run_in_executor(executor, lambda: Store.open(target, create=False))
        async with _served(store or _store_of(place), executor) as service:
            yield lambda: InProcessLink(service, _name_of(place))
    finally:
        # What is still being read may take long, and others are on this loop.
        await loop.run_in_executor(None, _let_go, executor, store)


def _let_go(executor: ThreadPoolExecutor, store: Store | None) -> None:
    executor.shutdown()
    if store is not None:
        store.close()


@asynccontextmanager
async def _served(store: Store, executor: ThreadPoolExecutor) -> AsyncIterator[StreamService]:
    from listeners.stream.service import StreamService

    service = StreamService(store, executor)
    try:
        yield service
    finally:
        await service.stop()


def _store_of(place: StorePlace | Barrel) -> Store:
    assert not isinstance(place, StorePlace)
    return place._store


def _name_of(place: StorePlace | Barrel) -> str:
    return place.barrel if isinstance(place, StorePlace) else place.name


def _dialler(address: Address, token: str | None) -> Callable[[], Link]:
    if address.kind == "mqtt":
        from listeners.links.mqtt import MqttLink

        return lambda: MqttLink(address)
    from listeners.links.websocket import WebSocketLink

    return lambda: WebSocketLink(address, token=token)
