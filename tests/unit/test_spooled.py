"""Contents on their way that are kept aside: what is given up in the middle leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from listeners.replication.spooled import Incoming


async def test_one_that_is_given_up_while_it_is_being_written_leaves_no_file(tmp_path: Path) -> None:
    begins, goes_on = threading.Event(), threading.Event()

    def folder() -> Path:
        begins.set()
        goes_on.wait()
        return tmp_path

    incoming = Incoming(folder)
    writing = asyncio.create_task(incoming.write(b"x" * (1 << 20)))
    await asyncio.to_thread(begins.wait)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    incoming.abort()
    goes_on.set()
    await asyncio.get_running_loop().shutdown_default_executor()
    assert os.listdir(tmp_path) == []
