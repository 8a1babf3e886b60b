"""A whole HTTP service on a free port over a store of its own, and clients that see bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from prometheus_client import CollectorRegistry

from broker.couch import couch_routes
from broker.health import PartHealth, Parts
from broker.http import Access, Application, HttpLimits, HttpServer, OpenAccess, Services, create_app, serve_http
from broker.http.services import anyone
from broker.regulation import Regulator
from broker.replication.tasks import Tasks
from feeds import Barrel, Store
from listeners.nested import Neighbours, Nest
from listeners.stream.service import StreamService

PATIENCE_S = 30.0


@dataclass
class Served:
    """The running service. `client` is for ordinary requests, `raw` for odd ones."""

    store: Store
    streams: StreamService
    app: Application
    server: HttpServer
    client: httpx.AsyncClient

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    @property
    def at_the_head(self) -> int:
        """How many streams have begun where they were to, and wait for what comes next."""
        hubs = self.streams.stats()["hubs"]
        assert isinstance(hubs, dict)
        return sum(hub["live"] for hub in hubs.values())

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A bare connection."""
        return await asyncio.open_connection("127.0.0.1", self.server.port)

    async def raw(self, request: bytes) -> bytes:
        """The bytes of the answer to exactly these bytes, up to the connection's end."""
        reader, writer = await self.connect()
        writer.write(request)
        await writer.drain()
        async with asyncio.timeout(PATIENCE_S):
            answer = await reader.read()
        writer.close()
        return answer

    async def plain(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body of a request whose path goes out as it is."""
        head = f"{method} {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        answer = await self.raw(head.encode() + body)
        first, _, rest = answer.partition(b"\r\n\r\n")
        return int(first.split()[1]), rest


@asynccontextmanager
async def served(
    folder: Path | str,
    *,
    limits: HttpLimits | None = None,
    access: Access | None = None,
    health: Callable[[], Parts] | None = None,
    regulator: Regulator | None = None,
    blobs: Path | None = None,
    peers: Iterable[str] = (),
    hesitates_s: float = 60.0,
    sign_in: Callable[[str, str], str | None] = anyone,
    stop_s_max: int = 2,
) -> AsyncIterator[Served]:
    """A service on a new store (a folder, or a database's URL), stopped in order at the end.

    `peers` are those of its nested calls, which wait so long for one before they ask the next beside it.
    """
    with Store.open(folder, blobs=blobs) as store, ThreadPoolExecutor(8) as readers:
        streams = StreamService(store, readers)
        nest = Nest(store, Neighbours.of(peers), hesitates_s=hesitates_s)
        services = Services(
            store=store,
            streams=streams,
            readers=readers,
            access=access or OpenAccess(),
            health=health or (lambda: {"store": PartHealth("running")}),
            registry=CollectorRegistry(),
            version="0.test",
            limits=limits or HttpLimits(),
            gauges={"store": store.stats, "streams": streams.stats},
            regulator=regulator or Regulator(),
            replications=Tasks(store, readers),
            nest=nest,
            sign_in=sign_in,
        )
        app = create_app(services, couch_routes())
        server = await serve_http(app, "127.0.0.1", 0, stop_s_max=stop_s_max)
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
                yield Served(store, streams, app, server, client)
        finally:
            await server.stop()
            await nest.close()
            await streams.stop()


async def eventually(holds: Callable[[], bool | Awaitable[bool]], seconds: float = PATIENCE_S) -> None:
    """Wait until `holds` does; fail when it does not in time."""
    async with asyncio.timeout(seconds):
        while True:
            found = holds()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.01)


def fill(barrel: Barrel, count: int, start: int = 0) -> None:
    """Documents d0, d1, …, each with its number and one of three regions."""
    barrel.bulk(
        [
            {"_id": f"d{number}", "number": number, "region": ("north", "south", "east")[number % 3]}
            for number in range(start, start + count)
        ]
    )
