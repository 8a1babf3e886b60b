"""Servers of CouchDB's kind that are busy, old, or forgetful: each is borne with."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest
from couch_peer_tools import BUSY, HALF, NUMBERS, PATIENT, SLOWER, TEXT, Ends, fake_ends, fill, ids
from couch_words import Fault, told
from http_tools import eventually
from replication_tools import QUICK, alike, brought, leaves
from store_tools import revisions

from feeds import Store
from feeds.errors import BadRequest, SpileError
from listeners.replication import (
    Fetched,
    Filter,
    LocalPeer,
    Options,
    Patience,
    Replicator,
    Wanted,
)
from listeners.replication import over_couch_changes as changes_module


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.open(tmp_path_factory.mktemp("store")) as opened:
        yield opened


@pytest.fixture
async def ends(store: Store) -> AsyncIterator[Ends]:
    async with fake_ends(store) as made:
        yield made


# -- contents as CouchDB stores them


async def test_compressed_contents_are_checked_as_they_are_stored_and_written_plain(ends: Ends) -> None:
    ends.couch.put(
        revisions("doc", "aa", n=1), **{"a.txt": ("text/plain", TEXT), "b.bin": ("image/png", b"\x00\x01")}
    )
    assert (await brought(ends.peer, ends.local))["refused"] == 0
    assert b"".join(ends.barrel.attachment("doc", "a.txt").read()) == TEXT
    assert b"".join(ends.barrel.attachment("doc", "b.bin").read()) == b"\x00\x01"
    assert ends.barrel.get("doc").data["_attachments"]["a.txt"]["content_type"] == "text/plain"


async def test_contents_go_there_with_their_digests_and_come_back(ends: Ends) -> None:
    large = bytes(range(256)) * 2000
    ends.barrel.attach("doc", "a.txt", TEXT, content_type="text/plain")
    ends.barrel.attach("doc", "b.bin", large, content_type="image/png")
    assert (await brought(ends.local, ends.peer))["refused"] == 0
    rev = ends.barrel.get("doc").rev
    assert ends.couch.plain("doc", rev, "a.txt") == TEXT
    assert ends.couch.plain("doc", rev, "b.bin") == large
    other = ends.barrel.store.create(f"other{next(NUMBERS)}")
    back = LocalPeer(other.store, other.name)
    assert (await brought(ends.peer, back))["refused"] == 0
    alike(ends.barrel, other)
    await back.close()


async def test_what_an_ancestor_has_goes_there_as_a_stub_and_whole_where_it_is_refused(ends: Ends) -> None:
    ends.barrel.attach("doc", "f", b"the content", content_type="image/png")
    await brought(ends.local, ends.peer)
    ends.barrel.put({**ends.barrel.get("doc").data, "_id": "doc", "_rev": ends.barrel.get("doc").rev, "n": 2})
    assert (await brought(ends.local, ends.peer))["blobs"] == 0
    ends.couch.fails("PUT", "/doc?", told(412, {"error": "missing_stub", "reason": "id:doc, name:f"}))
    ends.barrel.put({**ends.barrel.get("doc").data, "_id": "doc", "_rev": ends.barrel.get("doc").rev, "n": 3})
    done = await brought(ends.local, ends.peer)
    assert (done["refused"], done["written"]) == (0, 1)
    assert ends.couch.plain("doc", ends.barrel.get("doc").rev, "f") == b"the content"


LIES = [
    Fault(200, b"something else"),
    Fault(200, gzip.compress(b"something else"), {"content-encoding": "gzip"}),
    Fault(200, gzip.compress(bytes(50_000_000)), {"content-encoding": "gzip"}),
    Fault(200, b"no gzip", {"content-encoding": "gzip"}),
    Fault(200, gzip.compress(TEXT)[:-9], {"content-encoding": "gzip"}),
    Fault(200, TEXT, {"content-encoding": "br"}),
    told(404, {"error": "not_found", "reason": "Document is missing attachment"}),
]


async def test_a_content_that_is_another_one_refuses_its_document_alone(ends: Ends) -> None:
    fill(ends.couch)
    for number, lie in enumerate(LIES):
        ends.couch.put(revisions(f"lie{number}", "aa"), f=("text/plain", TEXT))
        ends.couch.fails("GET", f"/lie{number}/f", lie)
    done = await brought(ends.peer, ends.local)
    refused = sorted((each["id"], each["error"]) for each in done["refusals"])
    assert refused == [(f"lie{number}", "unfit") for number in range(len(LIES))]
    assert ids(ends.barrel) == {f"d{number}" for number in range(5)}


async def test_a_content_that_breaks_off_is_asked_for_again(ends: Ends) -> None:
    ends.couch.put(revisions("doc", "aa"), f=("image/png", TEXT))
    ends.couch.fails("GET", "/doc/f", Fault(200, TEXT[:100], cut=True), BUSY)
    done = await brought(ends.peer, ends.local)
    assert (done["refused"], done["retries"] > 0) == (0, True)
    assert b"".join(ends.barrel.attachment("doc", "f").read()) == TEXT


# -- servers that are busy, or that break off


FAULTS = [[BUSY, HALF, Fault(500)], [SLOWER, Fault(502, b"<html>"), Fault(504, b"")]]


@pytest.mark.parametrize("faults", FAULTS)
async def test_a_source_that_is_busy_is_asked_again(ends: Ends, faults: list[Fault]) -> None:
    fill(ends.couch)
    for method, part in (
        ("GET", "/?"),
        ("GET", "/db/?"),
        ("GET", "_local"),
        ("GET", "feed=normal"),
        ("POST", "_bulk_get"),
        ("PUT", "_local"),
    ):
        ends.couch.fails(method, part, *faults)
    done = await brought(ends.peer, ends.local, patience=PATIENT)
    assert (done["written"], done["refused"]) == (5, 0)


@pytest.mark.parametrize("faults", FAULTS)
async def test_a_target_that_is_busy_is_asked_again(ends: Ends, faults: list[Fault]) -> None:
    ends.barrel.bulk([{"_id": f"d{number}"} for number in range(30)])
    ends.barrel.attach("doc", "f", b"f")
    for method, part in (("POST", "_revs_diff"), ("POST", "_bulk_docs"), ("PUT", "/doc?"), ("POST", "_ensure")):
        ends.couch.fails(method, part, *faults)
    done = await brought(ends.local, ends.peer, patience=PATIENT)
    assert (done["refused"], len(ends.couch.docs)) == (0, 31)


async def test_it_waits_as_long_as_it_is_asked_to(ends: Ends) -> None:
    fill(ends.couch)
    ends.couch.fails("POST", "_bulk_get", Fault(429, b'{"error":"too_many_requests"}', {"retry-after": "7"}))
    with pytest.raises(SpileError) as refused:
        await ends.peer.fetch([Wanted("d0", "1-aa")])
    assert (refused.value.code, refused.value.details["retry_after"]) == ("rate_limited", 7)


async def test_what_is_too_large_together_goes_in_parts_and_what_is_alone_is_named(ends: Ends) -> None:
    ends.couch.bulk_bytes_max = 2000
    ends.barrel.bulk([{"_id": f"d{number}", "text": "x" * 300} for number in range(30)])
    ends.barrel.put({"_id": "large", "text": "x" * 3000})
    done = await brought(ends.local, ends.peer)
    assert [(each["id"], each["error"]) for each in done["refusals"]] == [("large", "too_large")]
    assert len(ends.couch.docs) == 30


async def test_what_a_server_refuses_is_named_and_the_others_are_there(ends: Ends) -> None:
    ends.barrel.bulk([{"_id": "a"}, {"_id": "b", "refused": True}, {"_id": "c"}])
    ends.barrel.attach("doc", "f", b"f")
    ends.couch.fails("PUT", "/doc?", told(403, {"error": "forbidden", "reason": "no pictures"}))
    done = await brought(ends.local, ends.peer)
    told_of = {each["id"]: (each["error"], each["reason"]) for each in done["refusals"]}
    assert told_of == {
        "b": ("forbidden", "not this one (forbidden)"),
        "doc": ("forbidden", "no pictures (forbidden)"),
    }
    assert set(ends.couch.docs) == {"a", "c"}


# -- servers that know less


@pytest.mark.parametrize("multipart", [False, True])
async def test_a_server_without_bulk_get_is_asked_one_by_one(ends: Ends, multipart: bool) -> None:
    ends.couch.missing, ends.couch.multipart = {"_bulk_get"}, multipart
    fill(ends.couch, 30)
    ends.couch.put(revisions("a/b c", "bb", "aa", n=1))
    ends.couch.put(revisions("a/b c", "cc", "aa", n=2))
    ends.couch.put(revisions("doc", "aa"), **{"f.txt": ("text/plain", TEXT), "g": ("image/png", b"\r\n--inner")})
    done = await brought(ends.peer, ends.local)
    assert (done["written"], done["refused"]) == (33, 0)
    assert leaves(ends.barrel)["a/b c"][0][0] == "2-cc" and len(leaves(ends.barrel)["a/b c"]) == 2
    assert b"".join(ends.barrel.attachment("doc", "f.txt").read()) == TEXT
    assert ends.couch.count("POST", "_bulk_get") == 1


async def test_a_url_that_is_too_long_is_asked_in_halves(ends: Ends) -> None:
    ends.couch.missing = {"_bulk_get"}
    names = [f"{number:03}" + "f" * 29 for number in range(300)]
    for name in names:
        ends.couch.put(revisions("doc", name))
    ends.couch.fails("GET", "open_revs", Fault(414, b"<html>"), Fault(414, b"<html>"))
    found = await ends.peer.fetch([Wanted("doc", f"1-{name}") for name in names])
    assert [each.rev for each in found if isinstance(each, Fetched)] == [f"1-{name}" for name in names]
    assert max(map(len, ends.couch.asked)) < 7200


async def test_a_server_that_commits_by_itself_is_taken_at_its_word(ends: Ends) -> None:
    ends.couch.missing = {"_ensure_full_commit"}
    ends.barrel.put({"_id": "a"})
    assert (await brought(ends.local, ends.peer))["checkpoints"] == 1


async def test_a_server_that_does_not_purge_says_so(ends: Ends) -> None:
    ends.couch.missing = {"_purge"}
    with pytest.raises(BadRequest, match="does not purge"):
        await ends.peer.purge({"a": ["1-aa"]})


@pytest.mark.parametrize("filter", [Filter.of(ids=["d1"]), Filter.of(selector={"n": 1})])
async def test_a_filter_that_a_server_does_not_know_is_looked_to_here(ends: Ends, filter: Filter) -> None:
    fill(ends.couch)
    unknown = told(404, {"error": "not_found", "reason": "missing json key"})
    ends.couch.fails("POST", "_changes", unknown)
    await brought(ends.peer, ends.local, filter=filter)
    assert ids(ends.barrel) == {"d1"}


async def test_all_leaves_come_though_a_selector_tells_of_those_that_it_matches(ends: Ends) -> None:
    """As everywhere it is the winner that says whether a document is meant."""
    for id, winner, other in (("meant", "north", "south"), ("not", "south", "north")):
        ends.couch.put(revisions(id, "cc", region=winner))
        ends.couch.put(revisions(id, "bb", region=other))
    ends.couch.put(revisions("south", "aa", region="south"))
    done = await brought(ends.peer, ends.local, filter=Filter.of(selector={"region": "north"}))
    assert {id: [rev for rev, _, _ in told] for id, told in leaves(ends.barrel).items()} == {
        "meant": ["1-cc", "1-bb"]
    }
    assert done["read"] == 2


# -- where it goes on


async def test_opaque_positions_are_given_back_as_they_were(ends: Ends) -> None:
    fill(ends.couch)
    first = await brought(ends.peer, ends.local)
    assert first["position"] == '[5,"opaque/1700000000"]'
    ends.couch.put(revisions("later", "aa"))
    again = await brought(ends.peer, ends.local)
    assert (again["read"], again["written"]) == (1, 1)
    assert any("since=%5B5%2C%22opaque%2F1700000000%22%5D" in each for each in ends.couch.asked)


async def test_a_position_that_is_not_known_any_more_begins_at_the_first_change(ends: Ends) -> None:
    fill(ends.couch)
    await brought(ends.peer, ends.local)
    ends.couch.put(revisions("later", "aa"))
    ends.couch.fails("GET", "feed=normal", told(400, {"error": "bad_request", "reason": "Malformed sequence"}))
    again = await brought(ends.peer, ends.local)
    assert (again["read"], again["written"]) == (6, 1)


async def test_a_server_that_lost_its_checkpoints_is_compared_anew(ends: Ends) -> None:
    fill(ends.couch)
    await brought(ends.peer, ends.local)
    ends.couch.local.clear()
    ends.couch.put(revisions("later", "aa"))
    again = await brought(ends.peer, ends.local)
    assert (again["read"], again["written"]) == (6, 1)


@pytest.mark.parametrize("tells", [True, False])
async def test_a_database_that_is_made_anew_under_a_session_is_filled_again(ends: Ends, tells: bool) -> None:
    """CouchDB before 3.3 does not tell when a database was made: there its lost checkpoint tells it."""
    ends.couch.start_time = "1700000000" if tells else "0"
    forever = Patience(attempts=None, first_s=0.01, max_s=0.05)
    options = Options(continuous=True, patience=forever, checkpoint_s=0.05)
    replicator = Replicator(ends.local, ends.peer, options)
    task = asyncio.create_task(replicator.run())
    await asyncio.to_thread(ends.barrel.put, {"_id": "a"})
    await eventually(lambda: bool(ends.couch.local))
    for kept in (ends.couch.docs, ends.couch.log, ends.couch.local):
        kept.clear()
    ends.couch.start_time = "1800000000" if tells else "0"
    await asyncio.to_thread(ends.barrel.put, {"_id": "b"})
    await eventually(lambda: set(ends.couch.docs) == {"a", "b"}, 30)
    replicator.stop()
    await task


async def test_a_followed_server_that_is_lost_for_a_while_is_followed_on(ends: Ends) -> None:
    replicator = Replicator(ends.peer, ends.local, Options(continuous=True, patience=QUICK))
    task = asyncio.create_task(replicator.run())
    await eventually(lambda: ends.couch.count("GET", "longpoll") > 0)
    ends.couch.fails("GET", "longpoll", BUSY, HALF, BUSY)
    for number in range(4):
        ends.couch.put(revisions(f"d{number}", "aa"))
        await eventually(lambda number=number: f"d{number}" in ids(ends.barrel))  # type: ignore[misc]
    replicator.stop()
    await task


async def test_a_server_that_does_not_hold_us_is_not_asked_all_the_time(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes_module, "_RESTS_S", (0.2, 0.4))
    ends.couch.holds = False
    replicator = Replicator(ends.peer, ends.local, Options(continuous=True, patience=QUICK))
    task = asyncio.create_task(replicator.run())
    clock = asyncio.get_running_loop().time
    await eventually(lambda: ends.couch.count("GET", "longpoll") > 0)
    begun = clock()
    await eventually(lambda: ends.couch.count("GET", "longpoll") > 3)
    assert clock() - begun > 0.2
    ends.couch.put(revisions("later", "aa"))
    await eventually(lambda: ids(ends.barrel) == {"later"})
    replicator.stop()
    await task


async def test_large_documents_come_in_small_pages(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes_module, "PAGE_BYTES_MAX", 20_000)
    for number in range(30):
        ends.couch.put(revisions(f"d{number}", "aa", text="x" * 4000))
    assert (await brought(ends.peer, ends.local))["written"] == 30


async def test_a_fetched_revision_looks_as_from_a_spile(ends: Ends) -> None:
    ends.couch.put(revisions("doc", "aa"), f=("text/plain", TEXT))
    (found,) = await ends.peer.fetch([Wanted("doc", "1-aa")])
    assert isinstance(found, Fetched)
    stub = msgspec.json.decode(found.json)["_attachments"]["f"]
    assert stub.keys() == {"content_type", "revpos", "stub", "digest", "length"}
    assert stub["digest"].startswith("sha256-") and stub["length"] == len(TEXT)
    (blob,) = found.blobs
    assert b"".join([piece async for piece in ends.peer.read_blob(blob, 5)]) == TEXT[5:]
