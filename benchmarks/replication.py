"""Replication: Spile to Spile over HTTP and over a Mosquitto, within one store, continuous, and of a small part of a
large barrel.

Both services are processes of their own, and the replicator is a third one: this. `updated` are documents of two
generations, whose histories have to be fetched.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import uvloop

from benchmarks.measuring import arguments, documents, folder, percentile, report
from benchmarks.service import RunningService, service
from feeds import Barrel, Store
from listeners import listen_async
from listeners.replication import Filter, HttpPeer, LocalPeer, Options, Peer, Replicator, opened_peer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "tools"))

from brokers import Mosquitto

BATCH = 1_000
RATE = 100
PART = 1_000
ROUNDS = 5

ASKED = {
    "http_docs_per_s": 8_000,
    "mqtt_docs_per_s": 4_000,
    "in_store_share_of_bulk": 0.6,
    "latency_p50_ms": 20,
    "latency_p99_ms": 100,
    "part_s": 2.0,
}


def fill(barrel: Barrel, docs: Sequence[bytes]) -> float:
    """Seconds that writing them takes."""
    began = time.perf_counter()
    for begin in range(0, len(docs), BATCH):
        barrel.bulk(docs[begin : begin + BATCH], update=True)
    return time.perf_counter() - began


async def seconds_of(source: Peer, target: Peer, count: int, filter: Filter | None = None) -> float:
    """How long one replication takes; it must bring so many revisions."""
    options = Options() if filter is None else Options(filter=filter)
    began = time.perf_counter()
    done = await Replicator(source, target, options).run()
    took = time.perf_counter() - began
    assert done["written"] == count and not done["refused"], done
    return took


async def latencies(one: RunningService, other: RunningService, seconds: int) -> list[float]:
    """Milliseconds from each put at the source to the row that the target's feed tells of it."""
    put_at: dict[str, float] = {}
    took: list[float] = []
    async with AsyncExitStack() as stack:
        source, target = [await stack.enter_async_context(opened_peer(f"{each.url}/live")) for each in (one, other)]
        replicator = Replicator(source, target, Options(continuous=True))
        running = asyncio.create_task(replicator.run())

        async def hear() -> None:
            async for change in listen_async(f"{other.url}/live", docs=False):
                took.append((time.perf_counter() - put_at[change.id]) * 1000)
                if len(took) == seconds * RATE:
                    return

        hearing = asyncio.create_task(hear())
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=one.url, timeout=60))
        docs = documents(seconds * RATE)
        puts = set()
        began = time.perf_counter() + 1.0
        for number, doc in enumerate(docs):
            await asyncio.sleep(max(0.0, began + number / RATE - time.perf_counter()))
            id = f"reading-{number:09d}"
            put_at[id] = time.perf_counter()
            put = asyncio.create_task(client.put(f"/barrels/live/docs/{id}", content=doc))
            puts.add(put)
            put.add_done_callback(puts.discard)
        await asyncio.wait_for(hearing, 60)
        replicator.stop()
        await running
    return took


async def in_store(store: Store, docs: list[bytes]) -> dict[str, float]:
    """Writing in bulk and replicating what was written, in turns, so that both meet the same machine."""
    bulk_s, took_s = [], []
    for turn in range(ROUNDS):
        source = store.create(f"source-{turn}")
        store.create(f"target-{turn}")
        bulk_s.append(fill(source, docs))
        ends = LocalPeer(store, source.name), LocalPeer(store, f"target-{turn}")
        took_s.append(await seconds_of(ends[0], ends[1], len(docs)))
        for peer in ends:
            await peer.close()
    return {
        "bulk_docs_per_s": len(docs) / median(bulk_s),
        "in_store_docs_per_s": len(docs) / median(took_s),
        "in_store_share_of_bulk": median(bulk / took for bulk, took in zip(bulk_s, took_s, strict=True)),
    }


async def over_http(one: RunningService, other: RunningService, docs: list[bytes], seconds: int) -> dict[str, Any]:
    """All figures between two services."""
    figures: dict[str, Any] = {}
    async with AsyncExitStack() as stack:
        for name in ("geo", "again", "live"):
            one.create(name)
            other.create(name)
        with folder() as place, Store.open(place) as store:
            once, twice = store.create("geo"), store.create("again")
            fill(once, docs)
            fill(twice, docs[: len(docs) // 4])
            fill(twice, [doc.replace(b"spring", b"summer") for doc in docs[: len(docs) // 4]])
            for name, count in (("geo", len(docs)), ("again", len(docs) // 4)):
                local, peer = LocalPeer(store, name), HttpPeer(f"{one.url}/{name}")
                took = await seconds_of(local, peer, count)
                figures[f"push_{'docs' if name == 'geo' else 'updated'}_per_s"] = count / took
                await local.close()
                await peer.close()
            figures |= await in_store(store, docs[: len(docs) // ROUNDS])
        before = [each.memory_mib() for each in (one, other)]
        for name, count in (("geo", len(docs)), ("again", len(docs) // 4)):
            source, target = [
                await stack.enter_async_context(opened_peer(f"{each.url}/{name}")) for each in (one, other)
            ]
            took = await seconds_of(source, target, count)
            figures[f"http_{'docs' if name == 'geo' else 'updated'}_per_s"] = count / took
        after = [each.memory_mib("VmHWM") for each in (one, other)]
        figures |= {"source_mib": after[0], "target_mib": after[1]}
        figures["target_grew_mib"] = after[1] - before[1]
    took_ms = await latencies(one, other, seconds)
    figures |= {"latency_p50_ms": percentile(took_ms, 0.5), "latency_p99_ms": percentile(took_ms, 0.99)}
    return figures


async def over_mqtt(
    one: RunningService, other: RunningService, broker: str, docs: list[bytes], **settings: object
) -> dict[str, Any]:
    """Between two services that are reached through a broker alone; they publish what their barrels' settings say."""
    for each in (one, other):
        each.create("geo", **settings)
        each.create("again", **settings)
    async with httpx.AsyncClient(base_url=one.url, timeout=60) as client:
        for name, count in (("geo", len(docs)), ("again", len(docs) // 4), ("again", len(docs) // 4)):
            for begin in range(0, count, BATCH):
                body = b'{"update":true,"docs":[%b]}' % b",".join(docs[begin : min(count, begin + BATCH)])
                (await client.post(f"/barrels/{name}/docs/_bulk", content=body)).raise_for_status()
            docs = [doc.replace(b"spring", b"summer") for doc in docs] if name == "again" else docs
    figures: dict[str, Any] = {}
    before = [each.memory_mib() for each in (one, other)]
    for name, count in (("geo", len(docs)), ("again", len(docs) // 4)):
        async with AsyncExitStack() as stack:
            source, target = [
                await stack.enter_async_context(opened_peer(f"{broker}/{prefix}/{name}"))
                for prefix in ("one", "other")
            ]
            took = await seconds_of(source, target, count)
        figures[f"mqtt_{'docs' if name == 'geo' else 'updated'}_per_s"] = count / took
    after = [each.memory_mib("VmHWM") for each in (one, other)]
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return figures | {
        "mqtt_source_grew_mib": after[0] - before[0],
        "mqtt_target_grew_mib": after[1] - before[1],
        "mqtt_replicator_mib": own,
    }


async def a_part(one: RunningService, other: RunningService, many: int) -> dict[str, Any]:
    """A thousand matching documents of many, by pattern, between services."""
    one.create("many")
    other.create("many")
    async with httpx.AsyncClient(base_url=one.url, timeout=120) as client:
        for begin in range(0, many, 2_000):
            docs = [
                {"_id": f"d{number:08d}", "n": number, "part": "yes" if number % (many // PART) == 0 else "no"}
                for number in range(begin, begin + 2_000)
            ]
            (await client.post("/barrels/many/docs/_bulk", json={"docs": docs})).raise_for_status()
    async with AsyncExitStack() as stack:
        source, target = [await stack.enter_async_context(opened_peer(f"{each.url}/many")) for each in (one, other)]
        took = await seconds_of(source, target, PART, Filter.of(patterns=["part/yes"]))
        selector = Filter.of(selector={"part": "yes", "n": {"$gte": 0}})
        began = time.perf_counter()
        await Replicator(source, target, Options(filter=selector)).run()
        return {"part_of": many, "part_s": took, "part_by_selector_s": time.perf_counter() - began}


def main() -> None:
    """Run it; `--many 0` leaves the part of a large barrel out, `--http 0` and `--mqtt 0` all over HTTP or MQTT."""
    options = arguments(__doc__ or "", docs=100_000, seconds=20, many=1_000_000, http=1, mqtt=1)
    docs, figures = documents(options.docs), dict[str, Any]()
    if options.http:
        with service() as one, service() as other:
            figures |= uvloop.run(over_http(one, other, docs, options.seconds))
            if options.many:
                figures |= uvloop.run(a_part(one, other, options.many))
    if options.mqtt:
        with folder() as place, Mosquitto(place) as mosquitto, ExitStack() as stack:
            sender, receiver = [
                stack.enter_context(service(broker=mosquitto.url, SPILE_BROKER_PREFIX=prefix))
                for prefix in ("one", "other")
            ]
            figures |= uvloop.run(over_mqtt(sender, receiver, mosquitto.url, docs, publish=[]))
    report("replication", figures, ASKED)


if __name__ == "__main__":
    main()
