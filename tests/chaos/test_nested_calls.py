"""Nested calls between services in processes: whoever is killed, nobody is told to have what it has not."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from proxy import Proxy
from running import Running, until

CHAIN = {"a": ["b"], "b": ["c"], "c": []}
RING = {"a": ["b"], "b": ["c"], "c": ["a"]}
STAR = {"a": ["b", "c"], "b": ["a"], "c": ["a"]}


class Places:
    """Processes that see each other through proxies; one that was killed comes back on its data."""

    def __init__(self, folder: Path, sees: Mapping[str, Sequence[str]], stack: ExitStack) -> None:
        self._folder = folder
        self._sees = sees
        self._running: dict[str, Running] = {}
        self.proxies = {name: stack.enter_context(Proxy(lambda name=name: self._port(name))) for name in sees}
        stack.callback(self._end)
        for name in sees:
            self.start(name)
            self._running[name].http.post("/barrels/geo").raise_for_status()
        self.stores = {self._running[name].http.get("/").json()["store"]: name for name in sees}

    def _port(self, name: str) -> int:
        return httpx.URL(self._running[name].url).port or 0

    def start(self, name: str) -> None:
        peers = ",".join(f"{other}=http://127.0.0.1:{self.proxies[other].port}" for other in self._sees[name])
        self._running[name] = Running(self._folder / name, "--log-level", "warning", SPILE_PEERS=peers)

    def kill(self, name: str) -> None:
        self._running[name].http.close()
        self._running[name].kill()
        self.proxies[name].reset()

    def url(self, name: str) -> str:
        return self._running[name].url

    def lacking(self, name: str, revs: Mapping[str, str]) -> list[str]:
        """Those of these documents whose revision is not there."""
        asked = {id: [rev] for id, rev in revs.items()}
        return list(
            self._running[name].http.post("/barrels/geo/docs/_revs_diff", json=asked).raise_for_status().json()
        )

    def _end(self) -> None:
        for each in self._running.values():
            each.http.close()
            each.kill()


@contextmanager
def places(folder: Path, sees: Mapping[str, Sequence[str]]) -> Iterator[Places]:
    with ExitStack() as stack:
        yield Places(folder, sees, stack)


class Client(threading.Thread):
    """Writes documents at `a`, each until three have it, with one token each; notes who was said to have what."""

    def __init__(self, there: Places, count: int) -> None:
        super().__init__(name="client", daemon=True)
        self._there = there
        self._count = count
        self.revs: dict[str, str] = {}
        self.said: dict[str, dict[str, str]] = {store: {} for store in there.stores}
        self.asked = 0
        self.partly = 0

    def run(self) -> None:
        with httpx.Client(timeout=60, trust_env=False) as http:
            for n in range(self._count):
                until(lambda n=n: self._is_at_three(http, f"d{n}", n), "a document at three services", 90)

    def _is_at_three(self, http: httpx.Client, id: str, n: int) -> bool:
        self.asked += 1
        try:
            answer = http.put(
                f"{self._there.url('a')}/barrels/geo/docs/{id}",
                params={"p2p_write": 3, "p2p_timeout": 10_000},
                json={"n": n},
                headers={"Idempotency-Key": id},
            )
        except httpx.TransportError:
            return False
        if answer.status_code not in (200, 201, 202):
            return False
        told = answer.json()
        assert self.revs.setdefault(id, told["rev"]) == told["rev"]
        for holder in told["p2p"]["holders"]:
            self.said[holder["store"]][id] = told["rev"]
        self.partly += answer.status_code == 202
        return bool(told["p2p"]["complete"])


@pytest.mark.parametrize(("sees", "victim"), [(CHAIN, "b"), (RING, "c"), (STAR, "a")])
def test_with_kill_9_in_the_middle_everyone_has_what_it_was_said_to_have(
    tmp_path: Path, sees: Mapping[str, Sequence[str]], victim: str
) -> None:
    with places(tmp_path, sees) as there:
        client = Client(there, 60)
        client.start()
        for done in (15, 30):
            until(lambda done=done: len(client.revs) >= done, "some documents", 90)
            there.kill(victim)
            asked = client.asked
            until(lambda asked=asked: client.asked > asked, "a call without the victim", 60)
            there.start(victim)
        client.join(180)
        assert not client.is_alive()
        assert len(client.revs) == 60
        for store, name in there.stores.items():
            assert there.lacking(name, client.said[store]) == []
            assert there.lacking(name, client.revs) == []


def test_over_a_slow_and_a_cut_link_the_answer_is_true(tmp_path: Path) -> None:
    with places(tmp_path, CHAIN) as there:
        client = Client(there, 12)
        client.start()
        for size in (40, 400, 4_000):
            there.proxies["c"].cut_after(size, "up")
            there.proxies["b"].cut_after(size, "down")
            done = len(client.revs)
            until(lambda done=done: len(client.revs) > done or not client.is_alive(), "another document", 90)
        there.proxies["c"].slow(20_000)
        client.join(180)
        assert not client.is_alive()
        there.proxies["c"].heal()
        for store, name in there.stores.items():
            assert there.lacking(name, client.said[store]) == []


def test_a_document_is_found_at_the_end_of_a_chain_whose_middle_came_back(tmp_path: Path) -> None:
    with places(tmp_path, CHAIN) as there:
        with httpx.Client(timeout=60, trust_env=False) as http:
            written = http.put(f"{there.url('c')}/barrels/geo/docs/FR", json={"n": 1}).json()
            there.kill("b")
            place = f"{there.url('a')}/barrels/geo/docs/FR"
            lost = http.get(place, params={"p2p_read": "order"})
            assert lost.status_code == 404
            assert [miss["peer"] for miss in lost.json()["p2p"]["failed"]] == ["b"]
            there.start("b")
            found = http.get(place, params={"p2p_read": "order", "keep": "true"})
            assert found.headers["spile-peer"] == "b/c"
        for name in "abc":
            assert there.lacking(name, {"FR": written["rev"]}) == []
