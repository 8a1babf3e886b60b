"""Spile as replicator with PouchDB's own server (express-pouchdb), both ways."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import subprocess
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from http_tools import eventually
from pouchdb import ROOT, modules
from replication_tools import QUICK, alike, brought, edit, leaves
from store_tools import revisions

from feeds import Barrel, Store
from listeners.replication import CouchPeer, Filter, LocalPeer, Options, Peer, Replicator, opened_peer

NUMBERS = itertools.count()
SERVER = ROOT / "tests" / "couch" / "server.cjs"


@contextmanager
def express_pouchdb() -> Iterator[str]:
    """A server without databases, for the length of the block; its URL."""
    with TemporaryDirectory() as scratch:  # it leaves what it is sent behind there
        process = subprocess.Popen(
            ["node", str(SERVER), str(modules())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": scratch},
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            port = process.stdout.readline().strip()
            assert port, "the server did not start"
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with express_pouchdb() as url:
        yield url


class Ends:
    """Two barrels here, and a database there of which nobody else knows."""

    def __init__(self, store: Store, url: str, name: str) -> None:
        self.url = f"{url}/{name}"
        self.here, self.other = store.create("here"), store.create("other")
        self.local, self.back = LocalPeer(store, "here"), LocalPeer(store, "other")
        self.couch = CouchPeer(self.url)
        self.http = httpx.AsyncClient(base_url=self.url, timeout=30)

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What the server answers."""
        answer = await self.http.request(method, path, json=body)
        assert answer.is_success, answer.text
        return answer.json()

    async def bulk(self, *docs: dict[str, Any], new_edits: bool = True) -> None:
        """Write documents there."""
        told = await self.ask("POST", "/_bulk_docs", {"docs": docs, "new_edits": new_edits})
        assert not [each for each in told if "error" in each], told

    async def leaves(self) -> dict[str, list[str]]:
        """Every leaf of every document there."""
        told = await self.ask("GET", "/_changes?style=all_docs")
        return {row["id"]: sorted(change["rev"] for change in row["changes"]) for row in told["results"]}


@pytest.fixture
async def ends(server: str, tmp_path: Path) -> AsyncIterator[Ends]:
    with Store.open(tmp_path) as store:
        made = Ends(store, server, f"db{next(NUMBERS)}")
        await made.couch.create()
        yield made
        await made.http.aclose()
        for peer in (made.local, made.back, made.couch):
            await peer.close()


def revs_of(barrel: Barrel) -> dict[str, list[str]]:
    return {id: sorted(rev for rev, _, _ in told) for id, told in leaves(barrel).items()}


async def test_random_edits_go_there_and_come_back_alike(ends: Ends) -> None:
    chance = random.Random(5)
    for _ in range(3):
        for _ in range(15):
            edit(chance, [ends.here], ["a", "b/c", "ü d", "_design/e"])
        await brought(ends.local, ends.couch)
        assert await ends.leaves() == revs_of(ends.here)
        await brought(ends.couch, ends.back)
        alike(ends.here, ends.other)
    for way in ((ends.local, ends.couch), (ends.couch, ends.back), (ends.couch, ends.local)):
        assert (await brought(*way))["written"] == 0


async def test_what_is_made_there_comes_with_its_attachments_and_goes_on(ends: Ends) -> None:
    data = bytes(range(256)) * 900
    files = {"a b.bin": ("image/png", data), "ü.txt": ("text/plain", b"text"), "dir/empty": ("text/plain", b"")}
    told = {name: {"content_type": kind, "data": b64encode(of).decode()} for name, (kind, of) in files.items()}
    await ends.bulk({"_id": "doc", "n": 1, "_attachments": told})
    assert (await brought(ends.couch, ends.local))["refused"] == 0
    for name, (kind, of) in files.items():
        assert b"".join(ends.here.attachment("doc", name).read()) == of
        assert ends.here.get("doc").data["_attachments"][name]["content_type"] == kind
    doc = await ends.ask("GET", "/doc")
    await ends.ask("PUT", "/doc", {**doc, "n": 2})
    anew = CouchPeer(ends.url)  # which has not seen the contents
    again = await brought(anew, ends.local)
    assert (again["written"], again["blobs"]) == (1, 0)
    await anew.close()
    ends.here.attach("doc", "new", b"from here")
    assert (await brought(ends.local, ends.couch))["refused"] == 0
    assert (await ends.http.get("/doc/new")).content == b"from here"
    assert (await ends.http.get("/doc/a%20b.bin")).content == data


async def test_conflicts_and_deletions_are_the_same_on_both_sides(ends: Ends) -> None:
    await ends.bulk(
        revisions("a", "dd", "cc", n=1),
        revisions("a", "bb", "aa", n=2),
        {**revisions("gone", "bb", "aa"), "_deleted": True},
        new_edits=False,
    )
    await brought(ends.couch, ends.local)
    assert revs_of(ends.here) == await ends.leaves()
    winner = await ends.ask("GET", "/a?conflicts=true")
    here = ends.here.get("a")
    assert (here.rev, here.data["n"]) == (winner["_rev"], winner["n"])
    ends.here.delete("a", rev="2-bb")
    ends.here.put({"_id": "a", "_rev": "2-dd", "n": 3})
    await brought(ends.local, ends.couch)
    assert await ends.leaves() == revs_of(ends.here)
    assert "_conflicts" not in await ends.ask("GET", "/a?conflicts=true")


async def test_a_second_run_goes_on_where_the_first_one_stood(ends: Ends) -> None:
    await ends.bulk(*({"_id": f"d{number:03}", "n": number} for number in range(250)))
    first = await brought(ends.couch, ends.local)
    assert (first["read"], first["written"], first["position"]) == (250, 250, "250")
    await ends.bulk({"_id": "later"})
    again = await brought(ends.couch, ends.local)
    assert (again["read"], again["written"]) == (1, 1)
    assert (await brought(ends.local, ends.couch))["written"] == 0


async def test_a_database_that_is_made_anew_is_read_from_its_beginning(ends: Ends) -> None:
    await ends.bulk(*({"_id": f"d{number}"} for number in range(9)))
    await brought(ends.couch, ends.local)
    await ends.ask("DELETE", "")
    await ends.couch.create()
    await ends.bulk({"_id": "new"})
    await brought(ends.couch, ends.local)
    assert "new" in leaves(ends.here)
    assert (await brought(ends.local, ends.couch))["written"] > 0
    assert await ends.leaves() == revs_of(ends.here)


@pytest.mark.parametrize(
    ("filter", "looked_at"),
    [
        (Filter.of(ids=["a"]), 1),
        (Filter.of(selector={"region": "north"}), 2),  # this server does not look at selectors
        (Filter.of(patterns=["region/north"]), 1),
    ],
)
async def test_a_part_of_it_comes_with_its_deletions(ends: Ends, filter: Filter, looked_at: int) -> None:
    await ends.bulk({"_id": "a", "region": "north"}, {"_id": "b", "region": "south"})
    assert (await brought(ends.couch, ends.local, filter=filter))["read"] == looked_at
    assert set(leaves(ends.here)) == {"a"}
    for id in "ab":
        await ends.ask("DELETE", f"/{id}?rev={(await ends.ask('GET', f'/{id}'))['_rev']}")
    await brought(ends.couch, ends.local, filter=filter)
    assert {id: told[0][1] for id, told in leaves(ends.here).items()} == {"a": True}


async def test_both_go_on_with_what_comes(ends: Ends) -> None:
    options = Options(continuous=True, patience=QUICK, checkpoint_s=0.1)

    def way(one: Peer, other: Peer) -> Replicator:
        return Replicator(one, other, options)

    async with opened_peer(ends.url) as there:
        ways = [way(ends.local, there), way(there, ends.local)]
        tasks = [asyncio.create_task(each.run()) for each in ways]

        async def is_there(id: str) -> bool:
            return id in await ends.leaves()

        for number in range(3):
            one, other = f"here{number}", f"there{number}"
            await asyncio.to_thread(ends.here.attach, one, "f", one.encode())
            await ends.bulk({"_id": other, "_attachments": {"f": {"data": "eA==", "content_type": "a/b"}}})
            await eventually(lambda one=one: is_there(one))  # type: ignore[misc]
            await eventually(lambda other=other: other in leaves(ends.here))  # type: ignore[misc]
        await eventually(lambda: all(each.progress.state == "idle" for each in ways), 20)
        for each in ways:
            each.stop()
        await asyncio.gather(*tasks)
        assert there.name == ends.couch.name
    assert await ends.leaves() == revs_of(ends.here)
