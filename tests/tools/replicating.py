"""Replicators as a process of its own, to be killed: `replicating.py SOURCE TARGET [SOURCE TARGET]… [continuous]`.

It prints the stats of each as a line of JSON every tenth of a second, and in the end; `link` counts them.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from listeners.replication import Options, Peer, Replicator, opened_peer


async def main(ends: Sequence[str], continuous: bool) -> None:
    async with AsyncExitStack() as stack:
        peers: dict[str, Peer] = {
            place: await stack.enter_async_context(opened_peer(place)) for place in dict.fromkeys(ends)
        }
        options = Options(continuous=continuous, checkpoint_s=0.2)
        links = [
            Replicator(peers[one], peers[other], options) for one, other in zip(ends[::2], ends[1::2], strict=True)
        ]
        tasks = [asyncio.create_task(link.run()) for link in links]
        while not all(task.done() for task in tasks):
            tell(links)
            await asyncio.wait(tasks, timeout=0.1, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                if task.done():
                    task.result()
        tell(links)


def tell(links: Sequence[Replicator]) -> None:
    for number, link in enumerate(links):
        print(json.dumps({"link": number, **link.stats()}), flush=True)


if __name__ == "__main__":
    asyncio.run(main([each for each in sys.argv[1:] if each != "continuous"], "continuous" in sys.argv[1:]))
