"""A stream as a replicator reads it: pages of rows, and the word that all was told."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

from listeners.following import Events
from listeners.replication import Page
from listeners.replication.streamed import streamed_pages
from listeners.stream.actions import Wanted


class Script:
    """A link to nobody: a test says what comes over it."""

    address = "a script"

    def __init__(self) -> None:
        self._opened = asyncio.Event()
        self._run = ""
        self._events: Events | None = None

    async def connect(self, events: Events) -> None:
        self._events = events

    async def send(self, data: bytes, *, opens: bool) -> None:
        if opens:
            self._run = json.loads(data)["run"]
            self._opened.set()

    async def close(self) -> None:
        """Nothing is held."""

    async def tell(self, prev: str, seq: str, *ids: str, **more: Any) -> None:
        await self._opened.wait()
        rows = [{"seq": int(seq[0]), "id": id, "rev": "1-aa", "changes": ["1-aa"]} for id in ids]
        array = {"run": self._run, "prev": prev, "seq": seq, "rows": rows, **more}
        assert self._events is not None
        self._events.message(json.dumps(array).encode())


def short(page: Page) -> tuple[list[str], str, bool]:
    return [row.id for row in page.rows], page.position, page.caught_up


async def test_that_all_was_told_may_come_after_the_last_row_was_taken() -> None:
    link = Script()
    async with asyncio.timeout(10), aclosing(streamed_pages(Wanted(), lambda: link, lambda error: None)) as pages:
        waiting = asyncio.ensure_future(anext(pages))
        await link.tell("0-e", "0-e", start=True)
        await link.tell("0-e", "1-e", "a")
        assert short(await waiting) == (["a"], "1-e", False)
        waiting = asyncio.ensure_future(anext(pages))
        await link.tell("1-e", "1-e", caught_up=True)
        assert short(await waiting) == ([], "1-e", True)
        waiting = asyncio.ensure_future(anext(pages))
        await link.tell("1-e", "2-e", "b")
        assert short(await waiting) == (["b"], "2-e", True)


async def test_a_position_without_rows_is_told_once_all_is_looked_at() -> None:
    link = Script()
    async with asyncio.timeout(10), aclosing(streamed_pages(Wanted(), lambda: link, lambda error: None)) as pages:
        waiting = asyncio.ensure_future(anext(pages))
        await link.tell("0-e", "0-e", start=True)
        await link.tell("0-e", "7-e", caught_up=True)
        assert short(await waiting) == ([], "7-e", True)
