"""A replicator as a process of its own: `replicating.py SOURCE TARGET [continuous]`, to be killed.

It prints its stats as a line of JSON every tenth of a second, and in the end.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from listeners.replication import Options, Replicator, opened_peer


async def main(source: str, target: str, continuous: bool) -> None:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(opened_peer(source))
        other = await stack.enter_async_context(opened_peer(target))
        replicator = Replicator(one, other, Options(continuous=continuous, checkpoint_s=0.2))
        task = asyncio.create_task(replicator.run())
        while not task.done():
            print(json.dumps(replicator.stats()), flush=True)
            await asyncio.wait([task], timeout=0.1)
        print(json.dumps(await task), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], "continuous" in sys.argv[3:]))
