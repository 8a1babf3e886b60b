"""Servers of CouchDB's kind that say strange things about some documents: those are named, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest
from couch_peer_tools import PATIENT, Ends, fake_ends, fill, ids
from couch_words import Asked, Fault, told
from http_tools import eventually
from replication_tools import brought
from store_tools import revisions

from feeds import Store
from feeds.errors import BadRequest, RateLimited, Unauthorized, Unavailable
from listeners.replication import BadPeer, Blob, CouchPeer, Fetched, Filter, Unfit, Wanted, opened_peer, spooled
from listeners.replication import over_couch_changes as changes_module
from listeners.replication.checkpoints import Checkpoint, Session

UNAUTHORIZED = Fault(401, b'{"error":"unauthorized","reason":"You are not a db or server admin."}')


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.open(tmp_path_factory.mktemp("store")) as opened:
        yield opened


@pytest.fixture
async def ends(store: Store) -> AsyncIterator[Ends]:
    async with fake_ends(store) as made:
        yield made


def document(id: str = "doc", **stub: Any) -> Fetched:
    """A first revision, with an attachment that is as a source tells it."""
    doc = revisions(id, "aa")
    if stub:
        doc["_attachments"] = {"f": stub}
    return Fetched(id, "1-aa", msgspec.json.encode(doc))


# -- what is written


async def test_a_content_whose_cookie_ended_on_its_way_is_there_in_the_end(ends: Ends) -> None:
    ends.couch.passwords = {"me": "secret"}
    peer = CouchPeer(ends.couch.url.replace("://", "://me:secret@"))
    ends.barrel.attach("b", "f", b"content")
    ends.couch.fails("PUT", "/b?", UNAUTHORIZED)
    assert (await brought(ends.local, peer))["written"] == 1
    assert ends.couch.plain("b", ends.barrel.get("b").rev, "f") == b"content"
    await peer.close()


async def test_what_is_written_while_a_commit_is_on_its_way_is_committed_by_the_next_one(ends: Ends) -> None:
    goes_on, write_many = asyncio.Event(), ends.couch._bulk_docs

    async def held(asked: Asked) -> Fault:
        await goes_on.wait()
        return write_many(asked)

    ends.couch._bulk_docs = held  # type: ignore[method-assign, assignment]
    record = Session(session_id="s", recorded_seq="1")
    at = Checkpoint(session_id="s", source_last_seq="1", history=(record,))
    await ends.peer.write([], {})
    writing = asyncio.create_task(ends.peer.write([document()], {}))
    await eventually(lambda: ends.couch.count("POST", "_bulk_docs") == 1)
    rev = await ends.peer.save_checkpoint("id", at, None)
    goes_on.set()
    await writing
    ends.couch.asked.clear()
    await ends.peer.save_checkpoint("id", at, rev)
    assert ends.couch.count("POST", "_ensure_full_commit") == 1


async def test_a_commit_that_does_not_tell_when_the_database_was_made_is_one(ends: Ends) -> None:
    ends.barrel.put({"_id": "a"})
    ends.couch.fails("POST", "_ensure", *[told(201, {"ok": True})] * 9)
    assert (await brought(ends.local, ends.peer))["checkpoints"] == 1


@pytest.mark.parametrize("lie", [Fault(200, b"<html>It works!</html>"), told(201, {"ok": True, "rev": "9-other"})])
async def test_what_was_not_said_to_be_written_does_not_count(ends: Ends, lie: Fault) -> None:
    ends.barrel.attach("doc", "f", b"content")
    ends.couch.fails("PUT", "/doc?", lie)
    with pytest.raises(BadPeer):
        await brought(ends.local, ends.peer)
    assert not ends.couch.local


async def test_who_may_not_write_one_document_writes_the_others(ends: Ends) -> None:
    for id in ("one", "other"):
        ends.barrel.attach(id, "f", b"content of " + id.encode())
    ends.couch.fails("PUT", "/one?", UNAUTHORIZED, UNAUTHORIZED)
    done = await brought(ends.local, ends.peer)
    assert [(each["id"], each["error"]) for each in done["refusals"]] == [("one", "unauthorized")]
    assert set(ends.couch.docs) == {"other"}
    ends.couch.passwords = {"me": "secret"}
    with pytest.raises(Unauthorized):
        await ends.peer.write([document(data="Zg==")], {})


async def test_a_refusal_that_names_nobody_is_found_out_one_by_one(ends: Ends) -> None:
    ends.barrel.bulk([{"_id": id} for id in "abcd"])
    refusal = [{"error": "unknown_error", "reason": "somebody"}]
    nobody = told(201, refusal)
    ends.couch.fails("POST", "_bulk_docs", nobody, nobody, nobody)  # of four, of two, of one
    done = await brought(ends.local, ends.peer)
    assert [(each["id"], each["error"]) for each in done["refusals"]] == [("a", "bad_request")]
    assert set(ends.couch.docs) == {"b", "c", "d"}


async def test_contents_of_what_was_refused_are_not_kept(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooled, "MEMORY_BYTES_MAX", 5_000)
    for number in range(10):
        ends.barrel.attach(f"d{number}", "f", b"%d" % number * 2_000)
    no = told(403, {"error": "forbidden", "reason": "no pictures"})
    ends.couch.fails("PUT", "/d", *[no] * 10)
    assert (await brought(ends.local, ends.peer))["refused"] == 10
    digests = [ends.barrel.get(f"d{number}").data["_attachments"]["f"]["digest"] for number in range(10)]
    assert len(await ends.peer.missing_blobs(digests)) >= 8


async def test_stubs_that_say_null_are_read_as_if_they_said_nothing(ends: Ends) -> None:
    blob = Blob("doc", "1-aa", "f", "sha256-" + "0" * 64, 1)
    null: dict[str, Any] = {
        "stub": True,
        "digest": blob.digest,
        "length": 1,
        "link": None,
        "content_type": None,
        "revpos": None,
    }
    (refused,) = await ends.peer.write([document(**null)], {})
    assert not isinstance(refused, bool)
    doc = document(data="Zg==", content_type=None, digest=None)
    ends.couch.fails("PUT", "/doc?", told(201, {"ok": True, "id": "doc", "rev": "1-aa"}))
    assert await ends.peer.write([doc], {}) == [True]


# -- what is read


async def test_a_row_that_cannot_be_read_now_is_asked_for_again(ends: Ends) -> None:
    fill(ends.couch, 3)
    row = {"id": "d1", "rev": "1-aa", "error": "internal_server_error", "reason": "no quorum"}
    docs = [{"id": "d0", "docs": [{"ok": revisions("d0", "aa", n=0)}]}, {"id": "d1", "docs": [{"error": row}]}]
    answer = told(200, {"results": [*docs, {"id": "d2", "docs": [{"ok": revisions("d2", "aa", n=2)}]}]})
    ends.couch.fails("POST", "_bulk_get", answer)
    with pytest.raises(Unavailable, match="no quorum"):
        await ends.peer.fetch([Wanted(f"d{number}", "1-aa") for number in range(3)])
    ends.couch.fails("POST", "_bulk_get", answer)
    done = await brought(ends.peer, ends.local, patience=PATIENT)
    assert (done["written"], done["refused"]) == (3, 0)


async def test_a_document_of_which_nothing_is_said_is_named(ends: Ends) -> None:
    ends.couch.put(revisions("a", "aa"))
    ends.couch.fails("POST", "_bulk_get", told(200, {"results": [{"id": "a", "docs": []}]}))
    (found,) = await ends.peer.fetch([Wanted("a", "1-aa")])
    assert isinstance(found, Unfit)


async def test_ids_that_are_none_are_named_and_the_others_come(ends: Ends) -> None:
    fill(ends.couch, 2)
    strange = ["_local/checkpoint", "_other", "x" * 600, "y" * 80_000, "a\x01b"]
    for id in strange:
        ends.couch.put(revisions(id, "aa"), f=("image/png", b"content"))
    done = await brought(ends.peer, ends.local)
    assert sorted(each["id"][:20] for each in done["refusals"]) == sorted(id[:20] for id in strange)
    assert ids(ends.barrel) == {"d0", "d1"}
    assert not any("_local/checkpoint" in each for each in ends.couch.asked)


async def test_attachments_of_which_nobody_knows_when_they_came_come(ends: Ends) -> None:
    ends.couch.put(revisions("doc", "aa"), f=("image/png", b"content"))
    ends.couch.contents["doc", "1-aa", "f"].revpos = 0
    assert (await brought(ends.peer, ends.local))["refused"] == 0
    assert b"".join(ends.barrel.attachment("doc", "f").read()) == b"content"


@pytest.mark.parametrize("number", ["1e999", "1" * 5_000])
async def test_numbers_that_no_spile_takes_are_named(ends: Ends, number: str) -> None:
    rows = [
        {"seq": n + 1, "id": id, "changes": [{"rev": "1-aa"}], "doc": {"_id": id, "_rev": "1-aa", "n": n}}
        for n, id in enumerate("ab")
    ]
    answer = told(200, {"results": rows, "last_seq": 2, "pending": 0})
    answer.body = answer.body.replace(b'"n": 1', b'"n": ' + number.encode())
    ends.couch.fails("GET", "_changes", answer)
    done = await brought(ends.peer, ends.local, filter=Filter.of(patterns=["n/#"]))
    assert [each["id"] for each in done["refusals"]] == ["b"]
    assert ids(ends.barrel) == {"a"}


async def test_stubs_with_numbers_that_are_none_are_named(ends: Ends) -> None:
    for id, field in (("a", "length"), ("b", "revpos")):
        ends.couch.put(revisions(id, "aa"), f=("image/png", b"content"))
        stub = {"digest": ends.couch.contents[id, "1-aa", "f"].digest, "length": 7, "stub": True, field: 10**30}
        lie = {**revisions(id, "aa"), "_attachments": {"f": stub}}
        ends.couch.fails("POST", "_bulk_get", told(200, {"results": [{"id": id, "docs": [{"ok": lie}]}]}))
        (found,) = await ends.peer.fetch([Wanted(id, "1-aa")])
        assert isinstance(found, Unfit)


async def test_too_many_attachments_are_not_read_at_all(ends: Ends) -> None:
    ends.couch.put(revisions("doc", "aa"), **{f"f{number}": ("image/png", b"") for number in range(1_001)})
    done = await brought(ends.peer, ends.local)
    assert [each["error"] for each in done["refusals"]] == ["too_large"]
    assert ends.couch.count("GET", "/doc/") == 0


async def test_large_documents_of_a_selector_come_in_small_pages(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes_module, "PAGE_BYTES_MAX", 20_000)
    for number in range(30):
        ends.couch.put(revisions(f"d{number}", "aa", text="x" * 4000, n=1))
    assert (await brought(ends.peer, ends.local, filter=Filter.of(selector={"n": 1})))["written"] == 30


@pytest.mark.parametrize("continuous", [False, True])
async def test_a_server_that_does_not_get_on_is_told(ends: Ends, continuous: bool) -> None:
    row = {"seq": 7, "id": "d", "changes": [{"rev": "1-aa"}]}
    ends.couch.put(revisions("d", "aa"))
    stays = told(200, {"results": [row], "last_seq": 7, "pending": 9})
    ends.couch.fails("GET", "_changes", *[stays] * 99)
    with pytest.raises(BadPeer, match="stays there"):
        await brought(ends.peer, ends.local, continuous=continuous)


@pytest.mark.parametrize("after", ["\u00b2", "9" * 5_000, "tomorrow"])
async def test_a_time_to_wait_that_is_none_is_passed_over(ends: Ends, after: str) -> None:
    ends.couch.fails("GET", "/?", Fault(429, b'{"error":"too_many_requests"}', {"retry-after": after}))
    with pytest.raises(RateLimited) as refused:
        await ends.peer.identity()
    assert "retry_after" not in refused.value.details


# -- who is there


@pytest.mark.parametrize("host", ["1.2.3.999", "xn--", "h/a\x01b"])
async def test_an_address_that_cannot_be_one_is_told(host: str) -> None:
    with pytest.raises(BadRequest):
        CouchPeer(f"http://{host}/db")


async def test_who_is_there_is_found_out_by_several_at_once(ends: Ends) -> None:
    held, came, answered = [asyncio.Event() for _ in range(9)], 0, ends.couch._answer

    async def answer(asked: Asked) -> Fault:
        nonlocal came
        if asked.path == "/":
            came += 1
            await held[came].wait()
        return await answered(asked)

    ends.couch._answer = answer  # type: ignore[method-assign]
    async with opened_peer(ends.couch.url) as peer:
        held[1].set()
        first = asyncio.create_task(peer.behind("0"))
        await eventually(lambda: came == 2)  # it is no Spile
        other = asyncio.create_task(peer.behind("0"))
        await eventually(lambda: came == 3)
        held[2].set()
        await first
        for each in held:
            each.set()
        assert await other == 0
