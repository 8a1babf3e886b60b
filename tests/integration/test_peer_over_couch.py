"""Replicating with a database that is reached by CouchDB's protocol: here Spile's own face of it."""

from __future__ import annotations

import asyncio
import itertools
import random
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from http_tools import Served, eventually, served
from replication_tools import QUICK, alike, brought, edit, leaves
from store_tools import revisions

from broker.access import TokenAccess
from feeds import Barrel, Store
from feeds.errors import BadRequest, NotFound, Unauthorized
from listeners.replication import CouchPeer, Filter, HttpPeer, LocalPeer, Options, Replicator, opened_peer

NUMBERS = itertools.count()


class Ends:
    """A barrel in this process, and one behind a service's face."""

    def __init__(self, store: Store, service: Served) -> None:
        self.service = service
        number = next(NUMBERS)
        self.here = store.create(f"here{number}")
        self.other = store.create(f"other{number}")
        self.there = service.store.create("there")
        self.local = LocalPeer(store, self.here.name)
        self.back = LocalPeer(store, self.other.name)
        self.couch = CouchPeer(f"{service.url}/couch/there")

    async def close(self) -> None:
        for peer in (self.local, self.back, self.couch):
            await peer.close()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.open(tmp_path_factory.mktemp("store")) as opened:
        yield opened


@pytest.fixture
async def ends(store: Store, tmp_path: Path) -> AsyncIterator[Ends]:
    async with served(tmp_path) as service:
        made = Ends(store, service)
        yield made
        await made.close()


async def there_and_back(ends: Ends) -> None:
    """From here to the database, and from there to another barrel."""
    await brought(ends.local, ends.couch)
    await brought(ends.couch, ends.back)


def same_content(barrels: list[Barrel], id: str, name: str) -> bool:
    return len({b"".join(barrel.attachment(id, name).read()) for barrel in barrels}) == 1


async def test_random_edits_are_alike_behind_it(ends: Ends) -> None:
    chance = random.Random(3)
    ids = ["a", "b/c", "ü d", "_design/e"]
    for _ in range(3):
        for _ in range(15):
            edit(chance, [ends.here], ids)
        await there_and_back(ends)
        alike(ends.here, ends.there, ends.other)
    before = leaves(ends.here)
    assert (await brought(ends.couch, ends.local))["written"] == 0
    assert not [id for id, each in leaves(ends.here).items() if before[id] != each]


async def test_both_sides_come_to_the_same(ends: Ends) -> None:
    chance = random.Random(7)
    for _ in range(3):
        for _ in range(20):
            edit(chance, [ends.here, ends.there], ["a", "b", "c"])
        await brought(ends.local, ends.couch)
        await brought(ends.couch, ends.local)
        alike(ends.here, ends.there)


async def test_histories_conflicts_and_deletions_go_over(ends: Ends) -> None:
    ends.here.bulk(
        [
            revisions("a", "dd", "cc", "bb", n=1),
            revisions("a", "ee", "bb", n=2),
            {**revisions("a", "ff", "cc", "bb"), "_deleted": True},
            {**revisions("gone", "bb", "aa"), "_deleted": True, "why": "kept"},
        ],
        new_edits=False,
    )
    await there_and_back(ends)
    alike(ends.here, ends.there, ends.other)
    history = [barrel.get("a", revs=True).extra["_revisions"] for barrel in (ends.here, ends.there, ends.other)]
    assert history[0] == history[1] == history[2]


async def test_contents_of_any_size_and_links_go_over(ends: Ends) -> None:
    contents = {"empty": b"", "small.txt": b"text " * 9, "large/ü.bin": random.Random(1).randbytes(3 << 20)}
    ends.here.put({"_id": "deeper", "user": {"_attachments": {"f": {"stub": True}}}})
    ends.here.put({"_id": "doc", "_attachments": {"far": {"link": "https://far.example/x", "content_type": "a/b"}}})
    for name, data in contents.items():
        ends.here.attach("doc", name, data, content_type="text/plain")
    await there_and_back(ends)
    alike(ends.here, ends.there, ends.other)
    for name in contents:
        assert same_content([ends.here, ends.there, ends.other], "doc", name)
    stubs = ends.other.get("doc").data["_attachments"]
    assert (stubs["far"]["link"], stubs["far"]["content_type"]) == ("https://far.example/x", "a/b")


async def test_what_stayed_the_same_does_not_travel_again(ends: Ends) -> None:
    ends.here.attach("doc", "large", random.Random(1).randbytes(1 << 20))
    await there_and_back(ends)
    rev = ends.here.get("doc").rev
    ends.here.put({**ends.here.get("doc").data, "_id": "doc", "_rev": rev, "n": 2})
    fresh, anew = CouchPeer(ends.couch.name), CouchPeer(ends.couch.name)  # which know of nothing any more
    assert (await brought(ends.local, fresh))["blobs"] == 0
    assert (await brought(anew, ends.back))["blobs"] == 0
    await fresh.close()
    await anew.close()
    alike(ends.here, ends.there, ends.other)


async def test_a_content_that_an_ancestor_has_lost_is_sent_after_all(ends: Ends) -> None:
    """A possible ancestor need not have the attachments that its name promises."""
    data = b"never there"
    stub = {"f": {"data": b64encode(data).decode(), "revpos": 1}}
    ends.here.bulk([revisions("doc", "bb", "aa", _attachments=stub)], new_edits=False)
    ends.there.bulk([revisions("doc", "aa")], new_edits=False)
    ends.other.bulk([revisions("doc", "aa")], new_edits=False)
    assert (await brought(ends.local, ends.couch))["refused"] == 0
    assert (await brought(ends.couch, ends.back))["refused"] == 0
    assert same_content([ends.here, ends.there, ends.other], "doc", "f")


async def test_one_content_in_many_documents_arrives_in_each(ends: Ends) -> None:
    for number in range(12):
        ends.here.attach(f"d{number}", "same", b"the very same")
    await there_and_back(ends)
    alike(ends.here, ends.there, ends.other)


async def test_a_second_run_goes_on_where_the_first_one_stood(ends: Ends) -> None:
    ends.here.bulk([{"_id": f"d{n:03}", "n": n} for n in range(700)])
    assert (await brought(ends.local, ends.couch))["written"] == 700
    first = await brought(ends.couch, ends.back)
    assert (first["read"], first["written"]) == (700, 700)
    ends.there.put({"_id": "later"})
    again = await brought(ends.couch, ends.back)
    assert (again["read"], again["written"]) == (1, 1)


@pytest.mark.parametrize("side", ["source", "target"])
async def test_a_lost_checkpoint_is_no_reason_to_forget_documents(ends: Ends, side: str) -> None:
    ends.there.bulk([{"_id": f"d{n}"} for n in range(20)])
    done = await brought(ends.couch, ends.back)
    (ends.there if side == "source" else ends.other).local_delete(done["id"])
    ends.there.put({"_id": "later"})
    again = await brought(ends.couch, ends.back)
    assert (again["read"], again["written"]) == (21, 1)
    alike(ends.there, ends.other)


async def test_a_target_that_was_made_anew_is_filled_again(ends: Ends) -> None:
    ends.here.bulk([{"_id": f"d{n}"} for n in range(20)])
    await brought(ends.local, ends.couch)
    ends.service.store.drop("there")
    with pytest.raises(NotFound):
        await brought(ends.local, ends.couch)
    await ends.couch.create()
    await brought(ends.local, ends.couch)
    alike(ends.here, ends.service.store.barrel("there"))


async def test_a_target_that_is_made_anew_meanwhile_is_filled_again(ends: Ends) -> None:
    replicator = Replicator(ends.local, ends.couch, Options(continuous=True, patience=QUICK, checkpoint_s=0.1))
    task = asyncio.create_task(replicator.run())
    ends.here.put({"_id": "a"})
    await eventually(lambda: replicator.progress.checkpoints > 0)
    ends.service.store.drop("there")
    anew = ends.service.store.create("there")
    ends.here.put({"_id": "b"})
    await eventually(lambda: anew.info().doc_count == 2, 30)
    replicator.stop()
    await task
    alike(ends.here, anew)


async def test_it_goes_on_with_what_comes_both_ways(ends: Ends) -> None:
    options = Options(continuous=True, patience=QUICK, checkpoint_s=0.1)
    ways = [Replicator(ends.local, ends.couch, options), Replicator(ends.couch, ends.local, options)]
    tasks = [asyncio.create_task(way.run()) for way in ways]
    for number in range(3):
        one, other = f"here{number}", f"there{number}"
        await asyncio.to_thread(ends.here.attach, one, "f", one.encode())
        await asyncio.to_thread(ends.there.attach, other, "f", other.encode())
        await eventually(lambda one=one: one in leaves(ends.there))  # type: ignore[misc]
        await eventually(lambda other=other: other in leaves(ends.here))  # type: ignore[misc]
    await eventually(lambda: all(way.progress.state == "idle" for way in ways))
    for way in ways:
        way.stop()
    await asyncio.gather(*tasks)
    alike(ends.here, ends.there)


DOCS = [
    {"_id": "a", "region": "north", "n": 1},
    {"_id": "b", "region": "south", "n": 2},
    {"_id": "c", "region": "north", "n": 3, "_attachments": {"f": {"data": b64encode(b"f").decode()}}},
]


PARTS = [  # with how many rows are looked at here: what the server looks at stays there
    (Filter.of(ids=["a", "b", "never"]), {"a", "b"}, 2),
    (Filter.of(selector={"region": "north"}), {"a", "c"}, 2),
    (Filter.of(patterns=["region/north"]), {"a", "c"}, 2),
    (Filter.of(patterns=["_id/b"]), {"b"}, 1),
    (Filter.of(selector={"n": {"$gt": 1}}, patterns=["region/north"]), {"c"}, 2),
    (Filter.of(selector={"n": {"$gt": 1}}, ids=["a", "b"]), {"b"}, 2),
]


async def test_a_part_of_it_comes_over(ends: Ends) -> None:
    ends.there.bulk(DOCS)
    for filter, expected, looked_at in PARTS:
        part = ends.other.store.create(f"part{next(NUMBERS)}")
        target = LocalPeer(part.store, part.name)
        assert (await brought(ends.couch, target, filter=filter))["read"] == looked_at
        assert set(leaves(part)) == expected, filter
        assert (await brought(ends.couch, target, filter=filter))["read"] == 0
        await target.close()


async def test_deletions_and_conflicts_of_what_is_meant_come_over(ends: Ends) -> None:
    filters = [Filter.of(ids=["a"]), Filter.of(selector={"region": "north"}), Filter.of(patterns=["region/north"])]
    parts = [ends.other.store.create(f"part{next(NUMBERS)}") for _ in filters]
    targets = [LocalPeer(part.store, part.name) for part in parts]

    async def bring() -> None:
        for target, filter in zip(targets, filters, strict=True):
            await brought(ends.couch, target, filter=filter)

    ends.there.bulk([{"_id": "a", "region": "north"}, {"_id": "b", "region": "south"}])
    await bring()
    for id in "ab":
        ends.there.delete(id, rev=ends.there.get(id).rev)
    await bring()
    for part in parts:
        assert {id: told[0][1] for id, told in leaves(part).items()} == {"a": True}
    # A conflict of which only one side is what is looked for.
    north, south = revisions("a", "ff", "ee", "dd", region="north"), revisions("a", "bb", "aa", region="south")
    ends.there.bulk([north, south], new_edits=False)
    await bring()
    for part, target in zip(parts, targets, strict=True):
        assert leaves(part)["a"] == leaves(ends.there)["a"]
        await target.close()


async def test_what_leaves_a_pattern_is_told(ends: Ends) -> None:
    left: list[str] = []
    filter = Filter.of(patterns=["region/north"])
    options = {"filter": filter, "leaves": "tell", "on_leave": lambda row: left.append(row.id)}
    ends.there.bulk(DOCS)
    await brought(ends.couch, ends.back, **options)
    assert left == []
    ends.there.put({"_id": "a", "region": "south"}, update=True)
    await brought(ends.couch, ends.back, **options)
    assert left == ["a"]


async def test_what_leaves_a_pattern_is_purged_there(ends: Ends) -> None:
    options = {"filter": Filter.of(patterns=["region/north"]), "leaves": "purge"}
    ends.here.bulk(DOCS)
    await brought(ends.local, ends.couch, **options)
    assert set(leaves(ends.there)) == {"a", "c"}
    ends.here.put({"_id": "a", "region": "south"}, update=True)
    assert (await brought(ends.local, ends.couch, **options))["purged"] == 1
    assert set(leaves(ends.there)) == {"c"}


async def test_which_kind_it_is_is_found_out(ends: Ends) -> None:
    url = ends.service.url
    ends.here.put({"_id": "a"})
    for place, kind in ((f"{url}/there", HttpPeer), (f"{url}/couch/there", CouchPeer)):
        async with opened_peer(place) as peer:
            assert peer.name == place
            await brought(ends.local, peer)
            wanted = kind(place)
            assert peer.name == wanted.name
            assert await peer.identity() == await wanted.identity()
            await wanted.close()
    async with opened_peer(f"{url}/couch/new") as peer:
        await peer.create()
        await brought(ends.local, peer)
        assert ends.service.store.barrel("new").get("a").rev == ends.here.get("a").rev
        with pytest.raises(BadRequest, match="no Spile"):
            await peer.ask("get", b"{}")  # type: ignore[attr-defined]


async def test_names_and_passwords_are_given_for_a_cookie_or_as_they_are(tmp_path: Path) -> None:
    def sign_in(name: str, password: str) -> str | None:
        return None

    access = TokenAccess("secret")
    async with served(tmp_path, access=access, sign_in=sign_in) as service:
        service.store.create("geo")
        place = service.url.replace("://", "://any:secret@") + "/couch/geo"
        alone = CouchPeer(place.replace("any:", ":"))
        for peer in (CouchPeer(place), alone, CouchPeer(f"{service.url}/couch/geo", token="secret")):
            assert (await peer.identity()).barrel == "geo"
            assert "secret" not in peer.name
            await peer.close()
        wrong = CouchPeer(place.replace("secret", "wrong"))
        with pytest.raises(Unauthorized):
            await wrong.identity()
        await wrong.close()
