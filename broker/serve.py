"""The service: every part put together in one process, started in order, watched, and stopped in order.

The only place that knows all parts. When one of them dies the process stops cleanly instead of limping.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import uvloop
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

from broker.access import TokenAccess
from broker.addresses import without_password
from broker.brokers import Broker, broker_figures, broker_health, broker_url, make_broker, publisher_name
from broker.cli.version import version_text
from broker.contents import ContentsPart, open_contents_of
from broker.couch import couch_routes
from broker.election import Election
from broker.external import ExternalBroker
from broker.health import Health
from broker.http.application import Application
from broker.http.server import HttpServer, serve_http
from broker.http.services import Access, HttpLimits, OpenAccess, Services, anyone
from broker.instance import Instance
from broker.lags import Lags, here
from broker.maintenance import Maintenance
from broker.merging import merging_health, register_merge_functions
from broker.mqtt.contract import Message, Publisher
from broker.nested import make_nest
from broker.packages import check_packages
from broker.publishing.lag import LagTopics
from broker.publishing.publisher import LogPublisher
from broker.publishing.turns import Turns
from broker.regulation import Regulation, Regulator
from broker.replication.tasks import LOCK, Tasks
from broker.requests.limits import RequestLimits
from broker.requests.service import RequestService
from broker.settings import Settings
from broker.store_trial import StoreTrial
from feeds import Store, StoreSettings
from feeds.storage.locks import Fence
from feeds.storage.writer import WAITING_BYTES_MAX
from listeners.stream.service import ServiceLimits, StreamService

log = logging.getLogger("spile.service")

SWITCH_S = 0.001  # between threads: with Python's 5 ms the writer and the loop would wait for each other
_GC_THRESHOLD = 20_000  # allocations between collections; rows and messages are many, and hold no cycles


@dataclass(slots=True)
class Service:
    """A running service and where it listens."""

    settings: Settings
    store: Store
    mqtt: Broker
    streams: StreamService
    publisher: LogPublisher | Turns
    election: Election | None
    maintenance: Maintenance
    contents: ContentsPart
    requests: RequestService
    replications: Tasks
    health: Health
    http: HttpServer

    def watched(self) -> dict[str, asyncio.Future[Any]]:
        """The parts whose end ends the service."""
        return {
            **self._those_that_run(),
            "mqtt": asyncio.create_task(self._mqtt_failed(), name="spile-mqtt-watch"),
            "publisher": self.publisher.task,
            "http": self.http.finished,
            "maintenance": self.maintenance.task,
            "blobs": self.contents.task,
            "health": self.health.task,
        }

    def _those_that_run(self) -> dict[str, asyncio.Future[Any]]:
        """Of the parts that need not be there, or not yet."""
        parts = {
            "election": self.election,
            "replications": self.replications,
            "election of replications": self.replications.election,
        }
        return {name: part.task for name, part in parts.items() if part is not None and part.task is not None}

    async def _mqtt_failed(self) -> None:
        raise await self.mqtt.failed()


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Service]:
    """Start every part, in the order in which they lean on each other; stop them in reverse.

    Stopping: replications first, then HTTP and its feeds, then what is committed is published, then the streams end,
    then MQTT with its requests under way (what those commit is told after the next start), and the store last.
    """
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        store = Store.open(
            settings.database_url,
            StoreSettings(
                settings.document_bytes_max,
                settings.publish_backlog_max,
                settings.write_queue_max,
                settings.blobs_kept,
            ),
            blobs=settings.blobs_place,
        )
        stack.callback(store.close)
        register_merge_functions(store, settings.merge_functions)
        await loop.run_in_executor(None, open_contents_of, store)
        readers = ThreadPoolExecutor(settings.readers, thread_name_prefix="spile-reader")
        stack.callback(readers.shutdown)
        followers = ThreadPoolExecutor(settings.readers + 2, thread_name_prefix="spile-follower")
        stack.callback(followers.shutdown)

        # Whoever reads the past leaves two threads to those who follow.
        limits = ServiceLimits(streams_per_owner=settings.streams_max, replays_max=settings.readers)
        streams = StreamService(store, followers, loop, limits=limits)
        mqtt: Broker

        async def answer(client: str, message: Message) -> bool:
            return await mqtt.publish_to(client, message)

        nest = make_nest(settings, store)
        stack.push_async_callback(nest.close)
        regulator = make_regulator(settings, store)
        requests = RequestService(
            store,
            streams,
            answer,
            readers,
            RequestLimits(
                answer_bytes_max=settings.publish_bytes_max,
                publish_bytes_max=settings.publish_bytes_max,
                blob_bytes_max=settings.attachment_bytes_max,
            ),
            regulator=regulator,
            nest=nest,
        )
        stack.callback(requests.close)
        name, election = await _told_as(settings, store, stack)
        mqtt = make_broker(settings, store.id, requests, election.confirm if election else None)
        await mqtt.start()
        stack.push_async_callback(mqtt.stop)
        stack.push_async_callback(streams.stop)
        lags = Lags(store, streams, followers)
        stack.push_async_callback(lags.stop)

        def publish(
            to: Publisher, fence: Fence | None = None, connects: Callable[[], int] = lambda: 0
        ) -> LogPublisher:
            return LogPublisher(
                store,
                to,
                followers,
                name=name,
                publish_bytes_max=settings.publish_bytes_max,
                lags=LagTopics(lags, name),
                fence=fence,
                connects=connects,
            )

        publisher: LogPublisher | Turns
        if isinstance(mqtt, ExternalBroker):
            assert election is not None
            publisher = Turns(election, mqtt, publish)
        else:
            publisher = publish(mqtt)
        stack.push_async_callback(publisher.stop)
        if isinstance(mqtt, ExternalBroker):
            stack.callback(mqtt.hurry)  # what waits for a broker that is away does not keep the service from stopping
        trial = StoreTrial(store)
        maintenance = Maintenance(store, trial, readers, settings.maintain_every)
        stack.push_async_callback(maintenance.stop)
        contents = ContentsPart(store, settings.blobs_place, settings.maintain_every, settings.scrub_bytes_per_second)
        stack.push_async_callback(contents.stop)
        replications = Tasks(
            store,
            readers,
            await _turn_of_replications(store, stack),
            count_max=settings.replications_max,
            name=here(),
        )
        health = Health(
            {
                "store": trial.health,
                "mqtt": publisher.broker_health if isinstance(publisher, Turns) else lambda: broker_health(mqtt),
                "publisher": publisher.health,
                "maintenance": maintenance.health,
                "blobs": contents.health,
                "pressure": regulator.health,
                "merging": merging_health(store),
                "replications": replications.health,
            }
        )
        stack.push_async_callback(health.stop)

        access: Access = OpenAccess()
        sign_in = anyone
        if settings.token is not None:
            access = guarded = TokenAccess(settings.token.get_secret_value())
            sign_in = guarded.sign_in
        app = Application(
            Services(
                store=store,
                streams=streams,
                readers=readers,
                access=access,
                health=health.look,
                registry=_registry(),
                version=version_text(),
                limits=HttpLimits(
                    document_bytes_max=settings.document_bytes_max,
                    bulk_bytes_max=settings.bulk_bytes_max,
                    attachment_bytes_max=settings.attachment_bytes_max,
                    uploads_max=settings.uploads_max,
                    downloads_max=settings.downloads_max,
                    connections_max=settings.http_connections_max,
                    requests_max=settings.requests_max,
                    bytes_max=settings.request_bytes_max,
                    hosts=frozenset(settings.allowed_hosts),
                    origins=frozenset(settings.allowed_origins),
                ),
                lags=lags,
                gauges={
                    "store": store.stats,
                    "mqtt": broker_figures(mqtt),
                    "publisher": publisher.stats,
                    "streams": streams.stats,
                    "requests": requests.stats,
                    "maintenance": maintenance.stats,
                    "blobs": contents.stats,
                    "health": health.stats,
                    "pressure": regulator.stats,
                    "nested": nest.stats,
                    "replications": replications.stats,
                },
                regulator=regulator,
                nest=nest,
                replications=replications,
                sign_in=sign_in,
            ),
            [*couch_routes(), *(couch_routes("") if settings.couch_at_root else ())],
        )
        http = await serve_http(app, settings.http.host, settings.http.port, stop_s_max=int(settings.stop_timeout))
        stack.push_async_callback(http.stop)
        replications.start()
        stack.push_async_callback(replications.stop, settings.stop_timeout)
        yield Service(
            *(settings, store, mqtt, streams, publisher, election, maintenance, contents, requests, replications),
            *(health, http),
        )


async def _told_as(settings: Settings, store: Store, stack: AsyncExitStack) -> tuple[str, Election | None]:
    """The name under which it is stored what the broker was told; and for an external one, whose turn it is."""
    if settings.broker is not None:
        name = publisher_name(settings, None)
        election = Election(store.locks(), name, f"{here()}:{uuid.uuid4().hex[:8]}")
        stack.push_async_callback(election.stop)
        await election.start()
        return name, election
    if not store.database.is_shared:
        return publisher_name(settings, None), None
    instance = Instance(settings.data)
    stack.callback(instance.close)
    return publisher_name(settings, instance.id), None


async def _turn_of_replications(store: Store, stack: AsyncExitStack) -> Election | None:
    """Whose turn it is to run them, where several processes could."""
    if not store.database.is_shared:
        return None
    election = Election(store.locks(), LOCK, f"{here()}:{uuid.uuid4().hex[:8]}", duty="running the replications")
    stack.push_async_callback(election.stop)
    await election.start()
    return election


def make_regulator(settings: Settings, store: Store) -> Regulator:
    """What lets requests in, over HTTP and MQTT alike; it shows the writer's queue beside its own."""
    regulator = Regulator(
        Regulation(settings.queue_ms_target / 1000, settings.units_per_second, settings.units_burst)
    )
    writer = store.writer
    regulator.watch_queue("writer", lambda: (writer.stats()["writer_waiting"], settings.write_queue_max))
    regulator.watch_queue("writer_bytes", lambda: (writer.stats()["writer_waiting_bytes"], WAITING_BYTES_MAX))
    return regulator


def _registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


def tune_interpreter() -> None:
    """Set Python up for a process whose loop and threads share one interpreter, before its threads begin."""
    sys.setswitchinterval(SWITCH_S)
    gc.set_threshold(_GC_THRESHOLD, 20, 50)


def run(settings: Settings, announce: Callable[[Service], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, or until a part dies (then the exception comes out)."""
    check_packages()
    tune_interpreter()
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
    mqtt = broker_url(settings, service.mqtt)
    url = "" if service.http.port == 8000 else f" --url {http}"
    print(
        f"Spile {version_text()} is running.\n"
        f"  HTTP   {http}\n"
        f"  MQTT   {mqtt}{' (not run by Spile)' if settings.broker else ''}\n"
        f"  store  {without_password(settings.database_url)}\n"
        f"{_blobs_line(settings)}"
        "\n"
        "Try, in a second terminal:\n"
        f"  mosquitto_sub {_listening(settings, service.mqtt)}                   # hear every change\n"
        "\n"
        "and in a third:\n"
        f"  spile create demo{url}\n"
        f'  echo \'{{"country": "France"}}\' | spile put demo paris{url}     # write a document\n'
        f"  spile find demo country/France{url}                         # find it by what it holds\n",
        flush=True,
    )


def _blobs_line(settings: Settings) -> str:
    place = settings.blobs_place
    return "" if place is None else f"  blobs  {without_password(str(place))}\n"


def _listening(settings: Settings, broker: Broker) -> str:
    """How `mosquitto_sub` hears everything."""
    if isinstance(broker, ExternalBroker):
        secret = " -u USER -P PASSWORD" if broker.access.user is not None else ""
        return f"-L {broker.access.address}/{settings.broker_prefix}barrels/#{secret} -v"
    return f"-p {broker.port} -v -t 'barrels/#'"
