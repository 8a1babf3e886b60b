"""Through a Mosquitto: published changes beside a bare paho publisher, put to message, and a long stream.

What is published waits in the log; one raw subscriber in a process of its own hears it. The bare publisher sends the
very same topics and payloads, made beforehand, with paho's own thread; both at QoS 1. Needs Debian's mosquitto.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import paho.mqtt.client as paho
import uvloop
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.broker_stream import measure as stream
from benchmarks.latency import to_mqtt
from benchmarks.measuring import arguments, documents, folder, median_of, report
from broker.external import BrokerAccess, BrokerAddress, ExternalBroker
from broker.mqtt.contract import Message
from broker.publishing.publisher import LogPublisher
from broker.publishing.topics import BarrelTopics
from feeds import Store

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "tools"))

from brokers import Mosquitto  # noqa: E402 - the tests' own way to start one

ASKED = {
    "published_to_bare": 0.5,
    "mqtt_p50_ms": 4,
    "mqtt_p99_ms": 20,
    "rows_per_s": 20_000,
    "grown_mib": "flat",
}
BATCH = 1_000
RUN_S_MAX = 120
# The subscriber reads as fast as it can; nothing is dropped for it meanwhile.
LINES = ("max_queued_messages 0", "max_inflight_messages 1000")


async def subscriber(port: int, count: int) -> asyncio.subprocess.Process:
    """A raw subscriber that is ready, and prints when the last message came."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.publishing", "subscribe", str(port), str(count), "1"),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    await process.stdout.readline()
    return process


async def ended(process: asyncio.subprocess.Process) -> float:
    """When the last message came."""
    assert process.stdout is not None
    async with asyncio.timeout(RUN_S_MAX):
        at = float(await process.stdout.readline())
    await process.wait()
    return at


async def published(mosquitto: Mosquitto, count: int) -> tuple[float, list[tuple[str, bytes]]]:
    """Deliveries a second of changes that wait in the log, and what was published."""
    with folder() as place, Store.open(place) as store, ThreadPoolExecutor(2) as executor:
        barrel = store.create("bench", {"publish": ["_id/#"]})
        docs = documents(count)
        for at in range(0, count, BATCH):
            barrel.bulk(docs[at : at + BATCH])
        topics = BarrelTopics("bench", barrel.epoch, barrel.settings, 256 << 10)
        messages: list[Message] = []
        after = 0
        while len(messages) < count:
            entries, after = barrel.tail_page(after, BATCH)
            messages += [each for entry in entries for each in topics.messages(entry, topics.wanted(None))]
        same = [(each.topic, each.payload() if callable(each.payload) else each.payload) for each in messages]
        broker = ExternalBroker(BrokerAccess(BrokerAddress.parse(mosquitto.url), "spile-bench"), requests=None)
        await broker.start()
        process = await subscriber(mosquitto.port, count)
        began = time.monotonic()
        publisher = LogPublisher(store, broker, executor, name="bench")
        rate = count / (await ended(process) - began)
        await publisher.stop()
        await broker.stop()
        return rate, same


async def bare(mosquitto: Mosquitto, messages: list[tuple[str, bytes]]) -> float:
    """The same by paho alone, in its usual way."""
    process = await subscriber(mosquitto.port, len(messages))

    def publish() -> float:
        client = paho.Client(CallbackAPIVersion.VERSION2)
        connected = threading.Event()
        client.on_connect = lambda *_: connected.set()
        client.connect("127.0.0.1", mosquitto.port)
        client.loop_start()
        connected.wait()
        began = time.monotonic()
        last = None
        for topic, payload in messages:
            last = client.publish(topic, payload, qos=1)
        assert last is not None
        last.wait_for_publish()
        client.disconnect()
        client.loop_stop()
        return began

    began = await asyncio.to_thread(publish)
    return len(messages) / (await ended(process) - began)


async def measure(mosquitto: Mosquitto, count: int, runs: int) -> dict[str, float]:
    """Both, in turn."""
    found: dict[str, list[float]] = {"published_per_s": [], "bare_per_s": []}
    for _ in range(runs):
        rate, messages = await published(mosquitto, count)
        found["published_per_s"].append(rate)
        found["bare_per_s"].append(await bare(mosquitto, messages))
    figures = {name: statistics.median(rates) for name, rates in found.items()}
    return figures | {"published_to_bare": figures["published_per_s"] / figures["bare_per_s"]}


def main() -> None:
    """Run it."""
    options = arguments(__doc__ or "", changes=30_000, runs=3, rate=300, seconds=10, rows=300_000)
    with folder() as place, Mosquitto(place, *LINES) as mosquitto:
        found = uvloop.run(measure(mosquitto, options.changes, options.runs))
        found |= median_of(options.runs, lambda: to_mqtt(options.rate, options.seconds, mosquitto.url))
        found |= median_of(1, lambda: stream(options.rows, docs=False, broker=mosquitto.url))
        with_docs = median_of(1, lambda: stream(options.rows, docs=True, broker=mosquitto.url))
    report("mosquitto", found | {f"{name}_with_docs": value for name, value in with_docs.items()}, ASKED)


if __name__ == "__main__":
    main()
