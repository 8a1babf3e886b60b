"""The service: every part put together in one process, started in order, watched, and stopped in order.

The only place that knows all parts. When one of them dies the process stops cleanly instead of limping.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

import uvloop
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

from broker.access import TokenAccess, TokenGate
from broker.addresses import without_password
from broker.cli.version import version_text
from broker.http.application import Application
from broker.http.server import HttpServer, serve_http
from broker.http.services import Access, HttpLimits, OpenAccess, Services
from broker.maintenance import Maintenance
from broker.mqtt.contract import Message
from broker.mqtt.embedded import EmbeddedBroker
from broker.mqtt.gate import OpenGate
from broker.mqtt.limits import BrokerLimits
from broker.packages import check_packages
from broker.publishing.publisher import LogPublisher
from broker.requests.limits import RequestLimits
from broker.requests.service import RequestService
from broker.settings import Settings
from feeds import Store, StoreSettings
from listeners.stream.service import ServiceLimits, StreamService

log = logging.getLogger("spile.service")

SWITCH_S = 0.001  # between threads: with Python's 5 ms the writer and the loop would wait for each other
_GC_THRESHOLD = 20_000  # allocations between collections; rows and messages are many, and hold no cycles


@dataclass(slots=True)
class Service:
    """A running service and where it listens."""

    settings: Settings
    store: Store
    mqtt: EmbeddedBroker
    streams: StreamService
    publisher: LogPublisher
    maintenance: Maintenance
    requests: RequestService
    http: HttpServer

    def watched(self) -> dict[str, asyncio.Future[Any]]:
        """The parts whose end ends the service."""
        return {
            "mqtt": asyncio.create_task(self._mqtt_failed(), name="spile-mqtt-watch"),
            "publisher": self.publisher.task,
            "http": self.http.finished,
            "maintenance": self.maintenance.task,
        }

    async def _mqtt_failed(self) -> None:
        raise await self.mqtt.failed()

    def health(self) -> dict[str, dict[str, Any]]:
        """The state of every part."""
        return _health(self.store, self.mqtt, self.publisher, self.maintenance)


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Service]:
    """Start every part, in the order in which they lean on each other; stop them in reverse.

    Stopping: HTTP and its feeds first, then what is committed is published, then the streams end, then MQTT with its
    requests under way (what those commit is told after the next start), and the store last.
    """
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        store = Store.open(
            settings.database_url,
            StoreSettings(settings.document_bytes_max, settings.publish_backlog_max, settings.write_queue_max),
        )
        stack.callback(store.close)
        readers = ThreadPoolExecutor(settings.readers, thread_name_prefix="spile-reader")
        stack.callback(readers.shutdown)
        followers = ThreadPoolExecutor(settings.readers + 2, thread_name_prefix="spile-follower")
        stack.callback(followers.shutdown)

        streams = StreamService(store, followers, loop, limits=ServiceLimits(streams_per_owner=settings.streams_max))
        mqtt: EmbeddedBroker

        async def answer(client: str, message: Message) -> bool:
            return await mqtt.publish_to(client, message)

        requests = RequestService(
            store,
            streams,
            answer,
            readers,
            RequestLimits(answer_bytes_max=settings.publish_bytes_max, publish_bytes_max=settings.publish_bytes_max),
        )
        stack.callback(requests.close)
        mqtt = EmbeddedBroker(
            host=settings.mqtt.host,
            port=settings.mqtt.port,
            websocket=(settings.mqtt_ws.host, settings.mqtt_ws.port) if settings.mqtt_ws else None,
            origins=settings.allowed_origins,
            gate=OpenGate() if settings.token is None else TokenGate(settings.token.get_secret_value()),
            requests=requests,
            state=settings.data,
            limits=BrokerLimits(
                packet_bytes=settings.packet_bytes_max,
                connections=settings.connections_max,
                queue_messages=settings.session_messages_max,
                queue_bytes=settings.session_bytes_max,
            ),
        )
        await mqtt.start()
        stack.push_async_callback(mqtt.stop)
        stack.push_async_callback(streams.stop)
        publisher = LogPublisher(store, mqtt, followers, publish_bytes_max=settings.publish_bytes_max)
        stack.push_async_callback(publisher.stop)
        maintenance = Maintenance(store, readers, settings.maintain_every)
        stack.push_async_callback(maintenance.stop)

        access: Access = OpenAccess()
        if settings.token is not None:
            access = TokenAccess(settings.token.get_secret_value())
        app = Application(
            Services(
                store=store,
                streams=streams,
                readers=readers,
                access=access,
                health=lambda: _health(store, mqtt, publisher, maintenance),
                registry=_registry(),
                version=version_text(),
                limits=HttpLimits(
                    document_bytes_max=settings.document_bytes_max,
                    bulk_bytes_max=settings.bulk_bytes_max,
                    requests_max=settings.requests_max,
                    bytes_max=settings.request_bytes_max,
                    hosts=frozenset(settings.allowed_hosts),
                    origins=frozenset(settings.allowed_origins),
                ),
                gauges={
                    "store": store.stats,
                    "mqtt": lambda: asdict(mqtt.stats()),
                    "publisher": publisher.stats,
                    "streams": streams.stats,
                    "requests": requests.stats,
                    "maintenance": maintenance.stats,
                },
            )
        )
        http = await serve_http(app, settings.http.host, settings.http.port, stop_s_max=int(settings.stop_timeout))
        stack.push_async_callback(http.stop)
        yield Service(settings, store, mqtt, streams, publisher, maintenance, requests, http)


def _registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


def _health(
    store: Store, mqtt: EmbeddedBroker, publisher: LogPublisher, maintenance: Maintenance
) -> dict[str, dict[str, Any]]:
    told = mqtt.stats()
    lag = publisher.stats()
    return {
        "store": {"ok": store.failure is None, "failure": store.failure, **store.stats()},
        "mqtt": {"ok": told.failure is None, "connections": told.connections, "failure": told.failure},
        "publisher": {
            "ok": lag["failure"] is None and not publisher.task.done(),
            "behind": sum(lag["behind"].values()),
            "set_aside": lag["set_aside"],
            "failure": lag["failure"],
        },
        "maintenance": {"ok": maintenance.failure is None, "failure": maintenance.failure},
    }


def run(settings: Settings, announce: Callable[[Service], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, or until a part dies (then the exception comes out)."""
    check_packages()
    sys.setswitchinterval(SWITCH_S)
    gc.set_threshold(_GC_THRESHOLD, 20, 50)
    uvloop.run(_run(settings, announce or _announce))


async def _run(settings: Settings, announce: Callable[[Service], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving(settings) as service:
        gc.collect()
        gc.freeze()
        announce(service)
        ended = asyncio.create_task(stop.wait(), name="spile-stop")
        watched = service.watched()
        done, _ = await asyncio.wait({ended, *watched.values()}, return_when=asyncio.FIRST_COMPLETED)
        watched["mqtt"].cancel()
        for name, part in watched.items():
            if part in done:
                error = None if part.cancelled() else part.exception()
                log.critical("%s ended: %s", name, error or "without a word", exc_info=error)
                raise SystemExit(70)
        log.info("stopping")
    log.info("stopped")


def _announce(service: Service) -> None:
    """Say where the service listens, and what to try next."""
    settings = service.settings
    http = f"http://{settings.http.host}:{service.http.port}"
    port = service.mqtt.port
    url = "" if service.http.port == 8000 else f" --url {http}"
    print(
        f"Spile {version_text()} is running.\n"
        f"  HTTP   {http}\n"
        f"  MQTT   mqtt://{settings.mqtt.host}:{port}\n"
        f"  store  {without_password(settings.database_url)}\n"
        "\n"
        "Try, in a second terminal:\n"
        f"  mosquitto_sub -p {port} -v -t 'barrels/#'                   # hear every change\n"
        "\n"
        "and in a third:\n"
        f"  spile create demo{url}\n"
        f'  echo \'{{"country": "France"}}\' | spile put demo paris{url}     # write a document\n'
        f"  spile find demo country/France{url}                         # find it by what it holds\n",
        flush=True,
    )
