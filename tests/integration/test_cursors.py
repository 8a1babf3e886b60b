"""Cursors that a service keeps: what cannot be written is told once, and written later."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from feeds import Position, Store
from feeds.errors import Unavailable
from listeners.cursors import Cursors


async def test_a_reason_that_stays_is_logged_once_and_nothing_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(rows: object) -> None:
        raise Unavailable("The disk is away")

    with Store.open(tmp_path) as store, ThreadPoolExecutor(1) as executor, caplog.at_level(logging.WARNING):
        cursors = Cursors(store, executor, flush_s=60.0)
        epoch = store.create("geo").epoch
        cursors.move("geo", "me", Position(7, epoch))
        with monkeypatch.context() as patched:
            patched.setattr(store.cursors, "put", refuses)
            for _ in range(5):
                await cursors.flush()
        assert [record.getMessage() for record in caplog.records] == [
            "1 cursors are not stored yet, and are tried again: The disk is away"
        ]
        await cursors.stop()
        assert store.cursors.get("geo", "me") == Position(7, epoch)


async def test_a_fault_that_nobody_foresaw_does_not_end_the_storing_of_cursors(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(tmp_path) as store, ThreadPoolExecutor(1) as executor:
        put, calls = store.cursors.put, iter([RuntimeError("a fault")])

        def fails_once(rows: Iterable[tuple[str, str, Position]]) -> None:
            if (fault := next(calls, None)) is not None:
                raise fault
            put(rows)

        monkeypatch.setattr(store.cursors, "put", fails_once)
        cursors = Cursors(store, executor, flush_s=0.01)
        epoch = store.create("geo").epoch
        cursors.move("geo", "me", Position(7, epoch))
        async with asyncio.timeout(20):
            while cursors.waiting:
                await asyncio.sleep(0.01)
        assert store.cursors.get("geo", "me") == Position(7, epoch)
        assert "a fault" in caplog.text
        await cursors.stop()
