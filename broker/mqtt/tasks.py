"""The broker's background tasks: named, looked after, and ended with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from feeds.errors import SpileError

log = logging.getLogger("spile.mqtt")


class Tasks:
    """Tasks in a running loop. One that fails is logged; one that is vital is told by `failed` as well."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._vital: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[BaseException] | None = None

    def run(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run something of no consequence for the rest of the broker."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def watch(self, task: asyncio.Task[None]) -> None:
        """Look after a task that the broker cannot go on without; whoever made it ends it."""
        self._vital.add(task)
        task.add_done_callback(self._vital_done)

    async def failed(self) -> BaseException:
        """Return only when a vital task has died, and why."""
        if self._failed is None:
            self._failed = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._failed)

    async def end(self) -> None:
        """Cancel what `run` has started, and see it gone."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (fault := task.exception()) is None:
            return
        if isinstance(fault, SpileError):
            log.warning("%s: %s", task.get_name(), fault.reason)
        else:
            log.error("%s has failed", task.get_name(), exc_info=fault)

    def _vital_done(self, task: asyncio.Task[None]) -> None:
        self._vital.discard(task)
        if task.cancelled() or (fault := task.exception()) is None:
            return
        log.critical("%s has died; the broker cannot go on", task.get_name(), exc_info=fault)
        if self._failed is None:
            self._failed = asyncio.get_running_loop().create_future()
        if not self._failed.done():
            self._failed.set_result(fault)
