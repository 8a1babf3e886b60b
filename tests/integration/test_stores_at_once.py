"""Stores that are made at the same moment by threads of one process."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from feeds import Store

THREADS = 8


def test_new_stores_are_made_side_by_side(tmp_path: Path) -> None:
    together = threading.Barrier(THREADS)

    def make(number: int) -> int:
        together.wait(30)
        with Store.open(tmp_path / str(number)) as store:
            barrel = store.create("geo")
            together.wait(30)
            barrel.attach("a", "f", b"content")
            return barrel.head()

    with ThreadPoolExecutor(THREADS) as threads:
        assert list(threads.map(make, range(THREADS))) == [1] * THREADS
