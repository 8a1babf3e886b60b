"""A box beside a machine: it writes readings into a store of its own, and is brought together with a hub.

    spile create readings
    python examples/edge/box.py --hub http://127.0.0.1:8000/readings

The store is a folder on the box, so that the link to the hub may be away for days, and the box may be switched off in
between. Two replicators work beside the writing: one brings the readings up, the other one brings down what the hub
wants of this box (`settings/<box>`). Where only a broker can be reached, the hub is `mqtt://HOST:PORT/readings`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from feeds import Barrel, SpileError, Store
from feeds.errors import Conflict, Deleted, Exists, Missing
from listeners.replication import Filter, LocalPeer, Options, Patience, Peer, Replicator, opened_peer

READINGS = Path(__file__).with_name("readings.ndjson")
AGAIN_S = 30.0  # after an error that does not pass by itself, such as a hub without the barrel
UPKEEP_S = 60.0


class Box:
    """What runs in the box: sampling, two replicators, and the upkeep of the store."""

    def __init__(self, store: Store, name: str) -> None:
        with suppress(Exists):
            store.create("readings")
        self.store = store
        self.name = name
        self.readings = store.barrel("readings")

    def write(self, reading: dict[str, Any]) -> None:
        """Write a reading, which is safe on the disk then."""
        limits = self.limits()
        alarm = not limits.get("low", float("-inf")) <= reading["value"] <= limits.get("high", float("inf"))
        document = {**reading, "box": self.name, **({"alarm": True} if alarm else {})}
        with suppress(Conflict):  # it was written already, just before the power went
            self.readings.put(document, id=f"{self.name}/{reading['at']}")

    def limits(self) -> dict[str, Any]:
        """Between what a value should be, as somebody at the hub has said last."""
        try:
            return self.readings.get(f"settings/{self.name}").data
        except (Missing, Deleted):
            return {}

    async def sample(self, lines: Sequence[str], every_s: float, end: asyncio.Event) -> None:
        """Take the readings that are still to come, one after the other."""
        for number in range(sampled(self.readings), len(lines)):
            await asyncio.to_thread(self.write, json.loads(lines[number]))
            await asyncio.to_thread(self.readings.local_put, "sampled", {"count": number + 1})
            if await ended(end, every_s):
                return
        say(f"{len(lines)} readings are taken")

    async def keep(self, end: asyncio.Event) -> None:
        """Forget what need not be remembered; a service does this by itself."""
        while not await ended(end, UPKEEP_S):
            await asyncio.to_thread(self.store.maintain)


def sampled(readings: Barrel) -> int:
    """How many readings were taken before; it is not replicated."""
    try:
        count: int = readings.local_get("sampled").data["count"]
    except Missing:
        return 0
    return count


def between(here: Peer, hub: Peer, box: str, **options: Any) -> dict[str, Replicator]:
    """What brings this box's readings up, and what is wanted of it down."""
    mine = Filter.of(patterns=[f"_id/{box}/#"])
    settings = Filter.of(ids=[f"settings/{box}"])
    return {
        "up": Replicator(here, hub, Options(filter=mine, **options)),
        "down": Replicator(hub, here, Options(filter=settings, **options)),
    }


async def replicated(what: str, link: Replicator, end: asyncio.Event) -> None:
    """Replicate until the end, whatever happens to the link."""
    while not end.is_set():
        try:
            await link.run()
            return
        except SpileError as error:
            say(f"{what}: {error.reason} {error.hint}")
            await ended(end, AGAIN_S)


async def told(what: str, link: Replicator, end: asyncio.Event) -> None:
    """Say when the state of a replicator changes."""
    before = None
    while not await ended(end, 0.2):
        stats = link.stats()
        if stats["state"] != before:
            before = stats["state"]
            say(f"{what}: {before}, {stats['written']} written" + (f", {stats['reason']}" if stats["reason"] else ""))


async def carried(links: dict[str, Replicator], end: asyncio.Event) -> None:
    """Replicate both ways until the end, or until all is where it should be if that is asked of the links."""
    over = asyncio.create_task(end.wait())
    for link in links.values():
        over.add_done_callback(lambda _, link=link: link.stop())  # type: ignore[misc]
    async with asyncio.TaskGroup() as group:
        for what, link in links.items():
            group.create_task(replicated(what, link, end))
    over.cancel()


async def ended(end: asyncio.Event, seconds: float) -> bool:
    """Wait so long, or until the end; whether it has come."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await end.wait()
    return end.is_set()


async def run(asked: argparse.Namespace) -> None:
    """Everything at once, until a signal comes or, with `--once`, the readings are taken and at the hub."""
    lines = list(islice(asked.readings.read_text().splitlines(), asked.count))
    enough, end = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        enough.set()
        end.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    with Store.open(asked.data) as store:
        box = Box(store, asked.box)
        here = LocalPeer(store, "readings")
        async with opened_peer(asked.hub, token=os.environ.get("HUB_TOKEN")) as hub:
            links = between(here, hub, asked.box, continuous=True)
            async with asyncio.TaskGroup() as group:
                sampling = group.create_task(box.sample(lines, asked.every, enough))
                if asked.once:
                    sampling.add_done_callback(lambda _: enough.set())
                group.create_task(box.keep(enough))
                group.create_task(carried(links, enough))
                for what, link in links.items():
                    group.create_task(told(what, link, enough))
            if not end.is_set():
                await carried(between(here, hub, asked.box, patience=Patience(attempts=None)), end)
                say("The hub has all of them" if not end.is_set() else "Not all of them are at the hub yet")
        await here.close()


def say(what: str) -> None:
    """Tell whoever reads the log."""
    print(what, file=sys.stderr, flush=True)


def main() -> None:
    """Read what is asked for, and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("box"), help="the folder of the box's own store")
    parser.add_argument("--hub", required=True, help="http(s)://HOST:PORT/BARREL or mqtt(s)://…; HUB_TOKEN signs in")
    parser.add_argument("--box", default="box-1", help="the name of this box; every one needs its own")
    parser.add_argument("--readings", type=Path, default=READINGS, help="what the machine gives, a reading a line")
    parser.add_argument("--count", type=int, help="how many readings; all of the file if left out")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between readings")
    parser.add_argument("--once", action="store_true", help="end when all readings are taken, and are at the hub")
    try:
        asyncio.run(run(parser.parse_args()))
    except* SpileError as failed:
        for error in failed.exceptions:
            say(str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
