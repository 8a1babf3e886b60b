"""Clients that write and read attachments of one service at the same time, and look at every byte they are given."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import Any

import httpx

DOCUMENTS = 20
NAMES = ("a", "b", "c")
SIZES = (0, 100, 4096, 70_000, 1 << 20, 3 << 20)
EXPECTED = {"write": (200, 201, 404, 409), "read": (200, 206, 304, 404)}
"""Others may have detached, deleted or replaced what one goes for: that is told, and no fault."""


class Traffic:
    """Writers and readers on the barrel `busy`. What went wrong is in `faults`, what was done in `done`."""

    def __init__(self, url: str, writers: int, readers: int) -> None:
        self.faults: list[str] = []
        self.done: Counter[str] = Counter()
        self._url = url
        self._ended = threading.Event()
        self._guard = threading.Lock()
        # A few contents are written again and again, so that they come, go, and come back.
        self._contents = [random.Random(seed).randbytes(size) for seed in range(5) for size in SIZES]
        work: list[tuple[Callable[[httpx.Client, random.Random], None], int]] = [(self._write, writers)]
        work.append((self._read, readers))
        self._threads = [
            threading.Thread(target=self._run, args=(each, seed), name=f"{each.__name__} {seed}")
            for each, count in work
            for seed in range(count)
        ]

    def run(self, seconds: float) -> None:
        """Let all of them work for so long."""
        for thread in self._threads:
            thread.start()
        time.sleep(seconds)
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _run(self, work: Callable[[httpx.Client, random.Random], None], seed: int) -> None:
        chance = random.Random(f"{work.__name__} {seed}")
        with httpx.Client(base_url=self._url, timeout=60.0, trust_env=False) as client:
            while not self._ended.is_set():
                try:
                    work(client, chance)
                except httpx.HTTPError as error:
                    self._fault(f"{work.__name__}: {error!r}")

    def _write(self, client: httpx.Client, chance: random.Random) -> None:
        id, name = f"d{chance.randrange(DOCUMENTS)}", chance.choice(NAMES)
        place, kind = f"/barrels/busy/attachments/{id}/{name}", chance.random()
        if kind < 0.75:
            self._took("put", client.put(place, content=chance.choice(self._contents)), "write")
        elif kind < 0.9:
            self._took("detach", client.delete(place), "write")
        else:
            document = client.get(f"/barrels/busy/docs/{id}")
            if document.status_code == 200:
                rev = document.json()["_rev"]
                self._took("delete", client.delete(f"/barrels/busy/docs/{id}", params={"rev": rev}), "write")

    def _read(self, client: httpx.Client, chance: random.Random) -> None:
        id, name = f"d{chance.randrange(DOCUMENTS)}", chance.choice(NAMES)
        ranged = {"Range": "bytes=10-"} if chance.random() < 0.3 else {}
        answer = client.get(f"/barrels/busy/attachments/{id}/{name}", headers=ranged)
        if answer.status_code == 416:  # an empty one
            return
        self._took("read", answer, "read")
        told = answer.headers.get("etag", "").strip('"')
        if answer.status_code == 200 and told != f"sha256-{sha256(answer.content).hexdigest()}":
            self._fault(f"{id}/{name} came with other bytes than {told}")

    def _took(self, what: str, answer: httpx.Response, kind: str) -> None:
        with self._guard:
            self.done[f"{what} {answer.status_code}"] += 1
        if answer.status_code not in EXPECTED[kind]:
            self._fault(f"{what}: {answer.status_code} {answer.text[:300]}")

    def _fault(self, told: str) -> None:
        with self._guard:
            self.faults.append(told)


def disk_bytes(folder: Any) -> int:
    """What the files of a folder take on its disk."""
    taken = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # it went while this looks
            taken += path.stat().st_blocks * 512 if path.is_file() else 0
    return taken
