"""Work that is done for as long as its client is there to hear what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from broker.http.call import Call, ClientGone

T = TypeVar("T")


async def while_there(call: Call, work: Coroutine[Any, Any, T], name: str) -> T:
    """What the work comes to; it ends with ClientGone when the client leaves. The body must have been read."""
    running = asyncio.create_task(work, name=name)
    gone = asyncio.create_task(call.gone(), name="spile-http-gone")
    try:
        await asyncio.wait({running, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            raise ClientGone
        return running.result()
    finally:
        gone.cancel()
        running.cancel()
        await asyncio.gather(running, gone, return_exceptions=True)
