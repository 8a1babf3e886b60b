"""What every peer promises, before a barrel in this process, over HTTP and over MQTT alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from hashlib import sha256
from pathlib import Path

import pytest
from http_tools import eventually
from replication_tools import ALL_KINDS, Subject, pages, subject
from store_tools import revisions

from feeds.errors import BadRequest, Conflict, Forbidden, MissingStub, NotFound, SpileError, TooLarge
from listeners.replication import Blob, Fetched, Filter, Wanted
from listeners.replication.checkpoints import Checkpoint, Session
from listeners.replication.filters import EVERYTHING

MISSING = "1-" + "0" * 32


NOT_IN_COUCH = {
    "test_expiry_is_told_where_the_barrel_says_so": "it knows no expiry",
    "test_a_refused_document_does_not_stop_the_others": "what it cannot read it refuses with the whole request",
    "test_a_checkpoint_over_another_one_is_a_conflict": "CouchDB 3 does not compare revisions of local documents",
}
"""What CouchDB's protocol cannot tell, and why."""


@pytest.fixture(params=[*ALL_KINDS, "couch"])
async def it(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    if request.param == "couch" and request.node.originalname in NOT_IN_COUCH:
        pytest.skip(NOT_IN_COUCH[request.node.originalname])
    async with subject(request.param, tmp_path) as made:
        yield made


def blob_of(data: bytes, length: int | None = None) -> Blob:
    return Blob("d", "1-a", "f", f"sha256-{sha256(data).hexdigest()}", len(data) if length is None else length)


def reading(data: bytes) -> object:
    async def read(offset: int) -> AsyncGenerator[bytes, None]:
        yield data[offset:]

    return read


def cannot_tell(it: Subject) -> bool:
    """What is said of a revision that was there already: a CouchDB does not tell, so that it counts as new."""
    return it.kind == "couch"


def fetched(*docs: dict[str, object]) -> list[Fetched]:
    import msgspec

    return [Fetched(str(doc["_id"]), str(doc["_rev"]), msgspec.json.encode(doc)) for doc in docs]


# -- who it is


async def test_it_says_who_it_is(it: Subject) -> None:
    told = await it.peer.identity()
    assert told.barrel == "geo"
    if it.kind != "couch":
        assert (told.store, told.epoch) == (it.store.id, it.barrel.epoch)
    assert told.is_empty and not told.tells_expiry
    it.barrel.put({"_id": "a"})
    assert not (await it.peer.identity()).is_empty


async def test_a_barrel_that_was_created_again_has_another_epoch(it: Subject) -> None:
    before = await it.peer.identity()
    it.store.drop("geo")
    with pytest.raises(NotFound):
        await it.peer.identity()
    it.store.create("geo")
    after = await it.peer.identity()
    assert (before.store, before.barrel) == (after.store, after.barrel)
    assert before.epoch != after.epoch


async def test_a_barrel_is_made_where_there_is_none(it: Subject) -> None:
    it.store.drop("geo")
    await it.peer.create()
    assert (await it.peer.identity()).is_empty
    it.store.barrel("geo").put({"_id": "a"})
    await it.peer.create()
    assert not (await it.peer.identity()).is_empty


async def test_expiry_is_told_where_the_barrel_says_so(it: Subject) -> None:
    it.store.configure("geo", {"replicate_expiry": True})
    assert (await it.peer.identity()).tells_expiry


# -- changes


async def test_changes_come_in_order_and_go_on_from_a_position(it: Subject) -> None:
    for number in range(3):
        it.barrel.put({"_id": f"d{number}"})
    told = await pages(it.peer)
    assert [row.id for page in told for row in page.rows] == ["d0", "d1", "d2"]
    assert told[-1].caught_up
    it.barrel.put({"_id": "later"})
    assert [row.id for page in await pages(it.peer, told[-1].position) for row in page.rows] == ["later"]


async def test_a_row_has_every_leaf_and_the_winner_s_document(it: Subject) -> None:
    it.barrel.bulk([revisions("a", "bb", n=1), revisions("a", "cc", n=2)], new_edits=False)
    ((row,),) = [page.rows for page in await pages(it.peer) if page.rows]
    assert row.changes == ["1-cc", "1-bb"]
    assert b'"n":2' in bytes(row.doc)  # type: ignore[arg-type]


async def test_an_empty_barrel_is_caught_up_at_once(it: Subject) -> None:
    told = await pages(it.peer)
    assert [page.rows for page in told] == [[]]
    assert told[-1].caught_up


async def test_what_comes_is_followed(it: Subject) -> None:
    seen: list[str] = []

    async def follow() -> None:
        feed = it.peer.changes(None, EVERYTHING, docs=False, follow=True, told=lambda error: None)
        async with aclosing(feed):
            async for page in feed:
                seen.extend(row.id for row in page.rows)

    task = asyncio.create_task(follow())
    for number in range(3):
        await asyncio.to_thread(it.barrel.put, {"_id": f"d{number}"})
        await eventually(lambda number=number: f"d{number}" in seen)  # type: ignore[misc]
    task.cancel()
    await asyncio.wait([task])
    assert seen == ["d0", "d1", "d2"]


async def test_a_position_of_another_life_begins_at_the_first_change(it: Subject) -> None:
    it.barrel.put({"_id": "old"})
    position = (await pages(it.peer))[-1].position
    it.store.drop("geo")
    it.store.create("geo").put({"_id": "new"})
    told = await pages(it.peer, position)
    assert [row.id for page in told for row in page.rows] == ["new"]
    assert told[-1].position.endswith(it.store.barrel("geo").epoch)


async def test_patterns_leave_others_out_and_tell_what_left(it: Subject) -> None:
    it.barrel.bulk([{"_id": "in", "region": "a"}, {"_id": "out", "region": "b"}, {"_id": "moves", "region": "a"}])
    filter = Filter.of(patterns=["region/a"])
    first = await pages(it.peer, None, filter)
    assert [row.id for page in first for row in page.rows] == ["in", "moves"]
    it.barrel.put({"_id": "moves", "region": "b"}, update=True)
    it.barrel.delete("in", rev=it.barrel.get("in").rev)
    told = [row for page in await pages(it.peer, first[-1].position, filter) for row in page.rows]
    # A CouchDB does not tell what it was that was deleted: the replicator looks for itself.
    gone = ("in", it.kind != "couch", True)
    assert [(row.id, row.removed, row.deleted) for row in told] == [("moves", True, False), gone]


async def test_a_deletion_is_told_from_the_first_change_on(it: Subject) -> None:
    it.barrel.put({"_id": "in", "region": "a"})
    it.barrel.delete("in", rev=it.barrel.get("in").rev)
    told = [row for page in await pages(it.peer, None, Filter.of(patterns=["region/a"])) for row in page.rows]
    assert [(row.id, row.deleted) for row in told] == [("in", True)]


async def test_the_position_moves_past_what_was_left_out(it: Subject) -> None:
    filter = Filter.of(patterns=["region/a"])
    it.barrel.bulk([{"_id": f"d{number}", "region": "b"} for number in range(10)])
    assert (await pages(it.peer, None, filter))[-1].position == it.barrel.position(10)


async def test_how_much_is_behind_a_position(it: Subject) -> None:
    it.barrel.bulk([{"_id": f"d{number}"} for number in range(10)])
    assert await it.peer.behind(it.barrel.position(4)) == 6
    assert await it.peer.behind("4-elsewhere") == 10


# -- comparing and fetching


async def test_only_what_is_missing_is_named_with_possible_ancestors(it: Subject) -> None:
    known = it.barrel.put({"_id": "a"}).rev
    told = await it.peer.revs_diff({"a": [known, "2-ff"], "b": [MISSING], "c/d": []})
    assert dict(told) == {"a": (["2-ff"], [known]), "b": ([MISSING], [])}


async def test_revisions_come_with_their_history_in_order(it: Subject) -> None:
    first = it.barrel.put({"_id": "a/b", "n": 1}).rev
    second = it.barrel.put({"_id": "a/b", "_rev": first, "n": 2}).rev
    new, old, none = await it.peer.fetch([Wanted("a/b", second), Wanted("a/b", first), Wanted("x", MISSING)])
    assert isinstance(new, Fetched) and isinstance(old, Fetched)
    assert b'"n":2' in new.json and b'"start":2' in new.json
    assert b'"n":1' in old.json
    assert isinstance(none, NotFound)


async def test_losing_leaves_and_deletions_can_be_fetched(it: Subject) -> None:
    it.barrel.bulk(
        [revisions("a", "bb"), revisions("a", "cc"), {**revisions("a", "dd", "bb"), "_deleted": True}],
        new_edits=False,
    )
    lost, gone = await it.peer.fetch([Wanted("a", "1-cc"), Wanted("a", "2-dd")])
    assert isinstance(lost, Fetched) and isinstance(gone, Fetched)
    assert b'"_deleted":true' in gone.json


# -- writing


async def test_revisions_are_written_as_they_are_and_twice_is_once(it: Subject) -> None:
    docs = fetched(revisions("a", "bb", "aa", n=1), revisions("b", "cc"))
    assert await it.peer.write(docs, {}) == [True, True]
    seq = it.barrel.head()
    assert await it.peer.write(docs, {}) == [cannot_tell(it), cannot_tell(it)]
    assert it.barrel.head() == seq
    assert it.barrel.get("a").rev == "2-bb"


async def test_a_refused_document_does_not_stop_the_others(it: Subject) -> None:
    docs = fetched(revisions("a", "aa"), {**revisions("b", "bb"), "_strange": 1}, revisions("c", "cc"))
    good, bad, also = await it.peer.write(docs, {})
    assert (good, also) == (True, True)
    assert isinstance(bad, BadRequest)
    assert it.barrel.get("c").rev == "1-cc"


async def test_what_is_too_large_is_told_by_itself(it: Subject) -> None:
    docs = fetched(revisions("a", "aa", text="x" * (9 << 20)), revisions("b", "bb"))
    refused, good = await it.peer.write(docs, {})
    assert isinstance(refused, Forbidden if it.kind == "couch" else TooLarge)
    assert good is True


async def test_leaves_are_purged_here_alone(it: Subject) -> None:
    it.barrel.bulk([revisions("a", "aa"), revisions("a", "bb")], new_edits=False)
    await it.peer.purge({"a": ["1-bb"], "never": ["1-aa"]})
    assert it.barrel.get("a").rev == "1-aa"


# -- contents


async def test_contents_go_over_and_are_named(it: Subject) -> None:
    for data in (b"", b"small", bytes(range(256)) * 40_000):
        blob = blob_of(data)
        assert await it.peer.missing_blobs([blob.digest]) == {blob.digest}
        handle = await it.peer.write_blob(blob, reading(data))  # type: ignore[arg-type]
        stub = {"f": {"stub": True, "digest": blob.digest, "length": len(data), "revpos": 1}}
        id = f"d{len(data)}"
        (doc,) = fetched(revisions(id, "aa", _attachments=stub))
        doc = Fetched(doc.id, doc.rev, doc.json, (blob,))
        assert await it.peer.write([doc, doc], {blob.digest: handle}) == [True, cannot_tell(it)]
        assert b"".join(it.barrel.attachment(id, "f").read()) == data
        assert await it.peer.missing_blobs([blob.digest]) == set()
        assert b"".join([piece async for piece in it.peer.read_blob(blob)]) == data
        assert b"".join([piece async for piece in it.peer.read_blob(blob, len(data) // 2)]) == data[len(data) // 2 :]


@pytest.mark.parametrize("came", [b"other", b"longer than said", b"x"])
async def test_a_content_that_is_not_what_its_digest_says_is_refused(it: Subject, came: bytes) -> None:
    blob = blob_of(b"right")
    with pytest.raises(SpileError) as refused:
        await it.peer.write_blob(blob, reading(came))  # type: ignore[arg-type]
    assert not refused.value.retryable
    assert await it.peer.missing_blobs([blob.digest]) == {blob.digest}


async def test_a_document_whose_content_is_not_there_is_refused(it: Subject) -> None:
    blob = blob_of(b"never sent")
    stub = {"f": {"stub": True, "digest": blob.digest, "length": blob.length, "revpos": 1}}
    (refused,) = await it.peer.write(fetched(revisions("d", "aa", _attachments=stub)), {})
    assert isinstance(refused, MissingStub)


async def test_a_content_that_no_document_has_cannot_be_read(it: Subject) -> None:
    with pytest.raises(NotFound):
        [piece async for piece in it.peer.read_blob(blob_of(b"secret"))]


# -- checkpoints


def checkpoint(position: str) -> Checkpoint:
    session = Session(session_id="s", recorded_seq=position, docs_read=3)
    return Checkpoint(session_id="s", source_last_seq=position, history=(session,))


async def test_a_checkpoint_is_kept_and_replaced(it: Subject) -> None:
    assert await it.peer.checkpoint("replication-1") is None
    rev = await it.peer.save_checkpoint("replication-1", checkpoint("1-e"), None)
    found = await it.peer.checkpoint("replication-1")
    assert found is not None and (found.rev, found.history[0].docs_read) == (rev, 3)
    await it.peer.save_checkpoint("replication-1", checkpoint("2-e"), rev)
    found = await it.peer.checkpoint("replication-1")
    assert found is not None and found.source_last_seq == "2-e"
    assert it.barrel.head() == 0


async def test_a_checkpoint_over_another_one_is_a_conflict(it: Subject) -> None:
    rev = await it.peer.save_checkpoint("replication-1", checkpoint("1-e"), None)
    await it.peer.save_checkpoint("replication-1", checkpoint("2-e"), rev)
    for stale in (rev, None):
        with pytest.raises(Conflict):
            await it.peer.save_checkpoint("replication-1", checkpoint("3-e"), stale)
    it.store.drop("geo")
    it.store.create("geo")
    with pytest.raises(Conflict):
        await it.peer.save_checkpoint("replication-1", checkpoint("3-e"), rev)


async def test_what_is_no_checkpoint_is_none(it: Subject) -> None:
    it.barrel.local_put("replication-1", {"somebody": "else"})
    assert await it.peer.checkpoint("replication-1") is None


async def test_without_its_barrel_it_says_so(it: Subject) -> None:
    it.store.drop("geo")
    for call in (
        lambda: it.peer.identity(),
        lambda: it.peer.revs_diff({"a": [MISSING]}),
        lambda: it.peer.checkpoint("replication-1"),
        lambda: it.peer.write(fetched(revisions("a", "aa")), {}),
        lambda: pages(it.peer),
    ):
        with pytest.raises(NotFound):
            await call()
