"""A listener by hand, for the tests of streams."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from listeners.stream.messages import Array, Credit, Open, decode_array, encode
from listeners.stream.service import StreamService

_runs = itertools.count()


class Listening:
    """One stream at a time on the barrel `geo`, acknowledged at once."""

    def __init__(self, service: StreamService, *patterns: str, deletions: bool = False) -> None:
        self._service = service
        self._deletions = deletions
        self._patterns = list(patterns)
        self._came = asyncio.Event()
        self._run = ""
        self.arrays: list[Array[Any]] = []

    async def open(self, since: str) -> Listening:
        self.arrays.clear()
        self._run = f"run{next(_runs)}"
        message = Open(run=self._run, since=since, patterns=self._patterns, deletions=self._deletions)
        await self._service.open(str(id(self)), "geo", "s", encode(message), self._receive)
        return self

    async def _receive(self, data: bytes) -> None:
        array = decode_array(data)
        self.arrays.append(array)
        if array.end is None:
            word = Credit(run=self._run, ack=array.seq, window=1_000, bytes=1 << 20)
            self._service.credit(str(id(self)), "geo", "s", encode(word))
        self._came.set()

    async def until(self, state: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not state():
                self._came.clear()
                await self._came.wait()

    async def caught_up(self, position: str) -> None:
        await self.until(lambda: any(each.caught_up and each.seq == position for each in self.arrays))

    @property
    def told(self) -> list[tuple[int, str, bool]]:
        return [(row.seq, row.id, row.removed) for array in self.arrays for row in array.rows]
