"""What tests of replication between processes do: fill services, replicate between them, compare what they have."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from proxy import Proxy
from running import ROOT, Running, clean_environment, until

PROGRAM = Path(__file__).parent / "replicating.py"

Leaves = dict[str, list[str]]
"""By document, its leaves, the winner first."""


class Replicating:
    """The process of `replicating.py`, and what each of its replicators told last."""

    def __init__(self, *ends: str, continuous: bool = False) -> None:
        self.links: list[dict[str, Any]] = [{} for _ in ends[::2]]
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), *ends, *(["continuous"] if continuous else [])],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=clean_environment(),
            cwd=ROOT,
        )
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def told(self) -> dict[str, Any]:
        """The stats of the first one."""
        return self.links[0]

    @property
    def is_idle(self) -> bool:
        """Whether each of them is caught up."""
        return all(each.get("state") == "idle" for each in self.links)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                told = json.loads(line)
                self.links[told["link"]] = told
            else:
                self.said.append(line)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.close()

    def close(self) -> None:
        self.process.wait()
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def ends(self) -> dict[str, Any]:
        """Wait for its end; what it has done."""
        self.process.wait(90)
        self.close()
        assert self.process.returncode == 0, "".join(self.said[-30:])
        return self.told


@contextmanager
def replicating(*ends: str, continuous: bool = False) -> Iterator[Replicating]:
    """From each even end to the odd one behind it, for the length of the block."""
    made = Replicating(*ends, continuous=continuous)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.kill()


def fill(service: Running, count: int, start: int = 0) -> None:
    """Documents d000000, d000001, …"""
    for begin in range(start, start + count, 1_000):
        docs = [{"_id": f"d{number:06}", "n": number, "text": "x" * 100} for number in range(begin, begin + 1_000)]
        service.http.post("/barrels/geo/docs/_bulk", json={"docs": docs}).raise_for_status()


def attach(service: Running, seed: int, count: int = 5) -> None:
    """An attachment `f` to the first documents."""
    chance = random.Random(seed)
    for number in range(count):
        content = chance.randbytes(300_000)
        service.http.put(f"/barrels/geo/attachments/d{number:06}/f", content=content).raise_for_status()


def leaves(service: Running) -> Leaves:
    """Every document of the barrel."""
    told = service.http.get("/barrels/geo/changes").raise_for_status().json()
    return {row["id"]: row["changes"] for row in told["results"]}


def differing(one: Leaves, other: Leaves) -> list[str]:
    """Some of the documents whose leaves differ; the whole lists are too long to be compared in words."""
    return sorted(id for id in one.keys() | other.keys() if one.get(id) != other.get(id))[:20]


def level(*services: Running, seconds: float = 60) -> None:
    """Wait until all hold the same leaves."""

    def are() -> bool:
        first = leaves(services[0])
        return not any(differing(first, leaves(other)) for other in services[1:])

    until(are, "the same leaves at all", seconds, every_s=0.3)


def alike(*services: Running) -> None:
    """The same leaves and winners, and the same bytes of what `attach` attached."""
    first = leaves(services[0])
    for other in services[1:]:
        assert not differing(first, leaves(other))
    _alike_in_bytes(services, [f"d{number:06}" for number in range(5)])


def alike_in_all(*services: Running) -> None:
    """As `alike`, with the body of every leaf, and the bytes of each attachment of every winner."""
    told = leaves(services[0])
    for other in services[1:]:
        assert not differing(told, leaves(other))
    wanted = [{"id": id, "rev": rev} for id, revs in told.items() for rev in revs]
    for begin in range(0, len(wanted), 500):
        asked = {"docs": wanted[begin : begin + 500]}
        read = [_read(each, asked) for each in services]
        for number in range(len(read[0])):
            assert len({json.dumps(each[number], sort_keys=True) for each in read}) == 1, wanted[begin + number]
            doc = read[0][number].get("doc", {})
            _alike_in_bytes(services, [doc["_id"]] if doc.get("_attachments") else [], doc)


def _read(service: Running, asked: dict[str, Any]) -> list[dict[str, Any]]:
    answer = service.http.post("/barrels/geo/docs/_get", json=asked).raise_for_status().json()
    found: list[dict[str, Any]] = answer["results"]
    return found


def _alike_in_bytes(services: Sequence[Running], ids: Sequence[str], doc: dict[str, Any] | None = None) -> None:
    for id in ids:
        for name in (doc or {}).get("_attachments", ["f"]):
            asked = {} if doc is None else {"rev": doc["_rev"]}
            path = f"/barrels/geo/attachments/{quote(id, safe='')}/{quote(name)}"
            told = [each.http.get(path, params=asked) for each in services]
            assert len({(answer.status_code, answer.content) for answer in told}) == 1, (id, name)


def place(service: Running | Proxy) -> str:
    """How the barrel of a service is named, or of the one behind a proxy."""
    return f"{service.url}/geo" if isinstance(service, Running) else f"http://127.0.0.1:{service.port}/geo"


def http_port(service: Running) -> int:
    """Where a service listens for HTTP."""
    return int(service.url.rsplit(":", 1)[1])


def begun(process: Replicating, written: int = 500) -> None:
    """Wait until something was written."""
    until(lambda: process.told.get("written", 0) >= written, "something that was written")
