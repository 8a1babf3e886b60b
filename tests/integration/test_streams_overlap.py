"""Streams that come from the past to the present while the barrel is written: nothing is lost or out of order."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from feeds import Barrel, Store
from feeds.patterns import Pattern
from feeds.rows import Row
from listeners.stream.hub import HubLimits
from listeners.stream.messages import Credit, Open, decode_array, encode
from listeners.stream.service import ServiceLimits, StreamService

REGIONS = ["Asia", "Europe", "Africa"]
PATTERNS = [[], ["/*"], ["region/Europe"], ["region/+", "n/1"], ["n/#"], ["_id/#"], ["region/Asia", "region/Africa"]]


@pytest.fixture
def barrel(tmp_path: Path) -> Iterator[Barrel]:
    with Store.open(tmp_path) as store:
        yield store.create("geo")


class Copy:
    """A listener that keeps what it is told, and checks the order."""

    def __init__(
        self, service: StreamService, number: int, patterns: list[str], window: int, pace: random.Random
    ) -> None:
        self.service, self.owner, self.patterns, self.window, self.pace = (
            service,
            f"o{number}",
            patterns,
            window,
            pace,
        )
        self.docs: dict[str, str] = {}
        self.seq = -1
        self.rows = 0
        self.stands = ""

    async def open(self, since: str) -> None:
        message = Open(run=self.owner, since=since, patterns=self.patterns, window=self.window, docs=True)
        await self.service.open(self.owner, "geo", "s", encode(message), self.receive)

    async def receive(self, data: bytes) -> None:
        array = decode_array(data)
        assert array.end is None
        assert array.start or array.prev == self.stands
        self.stands = array.seq
        for row in array.rows:
            self.told(row)
        self.rows += len(array.rows)
        if self.pace.random() < 0.2:
            await asyncio.sleep(self.pace.random() * 0.02)
        word = Credit(run=self.owner, ack=array.seq, window=self.window, bytes=1 << 20)
        self.service.credit(self.owner, "geo", "s", encode(word))

    def told(self, row: Row) -> None:
        assert row.seq > self.seq, "rows are out of order, or told twice"
        self.seq = row.seq
        if row.removed or row.deleted:
            self.docs.pop(row.id, None)
        else:
            self.docs[row.id] = row.rev


def write(barrel: Barrel, seed: int, rounds: int, pause_s: float = 0.0, stop: threading.Event | None = None) -> None:
    choose = random.Random(seed)
    for _ in range(rounds):
        docs: list[dict[str, object]] = []
        for _ in range(choose.randint(1, 20)):
            doc: dict[str, object] = {"_id": f"d{choose.randrange(60)}", "region": choose.choice(REGIONS)}
            if choose.random() < 0.5:
                doc["n"] = choose.randrange(3)
            if choose.random() < 0.15:
                doc = {"_id": doc["_id"], "_deleted": True}
            docs.append(doc)
        barrel.bulk(docs, update=True)
        if stop is not None and stop.wait(pause_s):
            return


def truth(barrel: Barrel, patterns: list[str]) -> dict[str, str]:
    rows = barrel.changes(patterns=[Pattern.parse(text) for text in patterns]).results
    return {row.id: row.rev for row in rows if not row.deleted and not row.removed}


async def eventually(state: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if state():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come to that in 20 s")


@pytest.mark.parametrize("seed", [1, 2])
async def test_every_stream_ends_up_with_what_is_there(barrel: Barrel, seed: int) -> None:
    choose = random.Random(seed)
    write(barrel, seed, 40)
    # Little is kept of the recent past, so that joining the head fails often and is tried again.
    limits = ServiceLimits(hub=HubLimits(poll_s=0.05, batch=50, slice=5, recent=40))
    with ThreadPoolExecutor(6) as pool:
        service = StreamService(barrel._store, pool, limits=limits)
        stop = threading.Event()
        writer = threading.Thread(target=write, args=(barrel, seed + 100, 250, 0.002, stop))
        writer.start()
        copies: list[Copy] = []
        try:
            for number in range(40):
                window = choose.choice([1, 3, 20, 1_000])
                copy = Copy(service, number, PATTERNS[number % len(PATTERNS)], window, random.Random(number))
                copies.append(copy)
                await copy.open("first")
                await asyncio.sleep(0.01)
            await asyncio.to_thread(writer.join)
        finally:
            stop.set()
            await asyncio.to_thread(writer.join)
        barrel.put({"region": "Europe", "n": 1}, id="last1")
        barrel.put({"region": "Asia"}, id="last2")
        wanted = {tuple(patterns): truth(barrel, patterns) for patterns in PATTERNS}
        for _ in range(400):
            if all(copy.docs == wanted[tuple(copy.patterns)] for copy in copies):
                break
            await asyncio.sleep(0.05)
        wrong = {
            f"{copy.owner} {copy.patterns} {copy.window}": set(copy.docs.items())
            ^ set(wanted[tuple(copy.patterns)].items())
            for copy in copies
            if copy.docs != wanted[tuple(copy.patterns)]
        }
        assert not wrong, service.stats()
        await service.stop()


async def test_many_streams_with_patterns_of_their_own_hear_what_is_theirs(barrel: Barrel) -> None:
    with ThreadPoolExecutor(6) as pool:
        service = StreamService(barrel._store, pool, limits=ServiceLimits(streams_per_owner=1_000))
        copies = [Copy(service, number, [f"sensor/s{number}"], 100, random.Random(0)) for number in range(300)]
        for copy in copies:
            await copy.open("now")
        await eventually(lambda: all(copy.stands for copy in copies))
        barrel.bulk([{"_id": f"d{number}", "sensor": f"s{number % 300}"} for number in range(900)])
        await eventually(lambda: all(copy.rows == 3 for copy in copies))
        assert all(sorted(copy.docs) == sorted(f"d{n + at}" for at in (0, 300, 600)) for n, copy in enumerate(copies))
        stats: Any = service.stats()
        assert stats["hubs"]["geo"]["live"] == 300
        assert all(stream["buffered"] == 0 for stream in stats["streams"])
        await service.stop()
