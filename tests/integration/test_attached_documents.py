"""Attachments in documents, on every database: written, read, replicated, told, and refused."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attachment_tools import attached, brief, clean, copies, damage, digest, inline, opened
from store_tools import Clock, careless, refusal, replicate, revisions

from broker.publishing.topics import BarrelTopics
from feeds import Barrel, BarrelSettings, Moves, Position, Store, parse_patterns
from feeds.errors import (
    BadRequest,
    Conflict,
    Deleted,
    Missing,
    MissingStub,
    NotFound,
    PartialRead,
    SpileError,
    TooLarge,
)
from feeds.writes import Write, Written


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database_url: str, tmp_path: Path, clock: Clock) -> Iterator[Store]:
    with opened(database_url, tmp_path / "contents", clock) as store:
        yield store


@pytest.fixture
def geo(store: Store) -> Barrel:
    return store.create("geo")


# -- writing and reading


def test_an_inline_attachment_is_told_as_a_stub_and_read_as_its_bytes(geo: Barrel) -> None:
    geo.put({"_id": "x", "n": 1, "_attachments": {"a.txt": inline(b"hello")}})
    document = geo.get("x").data
    assert document["_attachments"] == {
        "a.txt": {"content_type": "text/plain", "digest": digest(b"hello"), "length": 5, "revpos": 1, "stub": True}
    }
    assert document["n"] == 1
    found = geo.attachment("x", "a.txt")
    assert (found.bytes(), found.length, found.digest, found.content_type) == (
        b"hello",
        5,
        digest(b"hello"),
        "text/plain",
    )
    assert f"md5-{found.md5}" == brief(b"hello")
    assert found.rev == document["_rev"]


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 3 * 1024 * 1024 + 7])
def test_any_size_comes_out_as_it_went_in_and_so_does_any_range(geo: Barrel, tmp_path: Path, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    geo.attach("x", "f", data)
    found = geo.attachment("x", "f")
    assert found.bytes() == data
    for offset, length in ((0, 10), (size // 2, 100), (size, 5), (max(0, size - 3), 3)):
        assert b"".join(found.read(offset, length)) == data[offset : offset + length]
    found.save(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data
    assert [path.name for path in tmp_path.glob("*out*")] == ["out"]


def test_a_range_beyond_the_end_is_refused(geo: Barrel) -> None:
    geo.attach("x", "f", b"12345")
    error = refusal(lambda: list(geo.attachment("x", "f").read(6)))
    assert isinstance(error, BadRequest)
    assert error.details["length"] == 5


def test_every_kind_of_source_can_be_attached(geo: Barrel, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"jpeg")
    geo.attach("x", "bytes", b"1")
    geo.attach("x", "path", tmp_path / "photo.jpg")
    geo.attach("x", "file", io.BytesIO(b"3"))
    geo.attach("x", "pieces", iter([b"4", b"", b"5"]))
    stubs = attached(geo.store, "geo", "x")
    assert {name: stub["revpos"] for name, stub in stubs.items()} == {"bytes": 1, "path": 2, "file": 3, "pieces": 4}
    assert stubs["path"]["content_type"] == "image/jpeg"
    assert stubs["file"]["content_type"] == "application/octet-stream"
    assert geo.attachment("x", "pieces").bytes() == b"45"


def test_a_stub_keeps_what_is_there_and_a_name_left_out_goes(geo: Barrel) -> None:
    first = geo.put({"_id": "x", "_attachments": {"a": inline(b"a"), "b": inline(b"b")}})
    second = geo.put({"_id": "x", "_rev": first.rev, "_attachments": {"a": {"stub": True}, "c": inline(b"c")}})
    stubs = attached(geo.store, "geo", "x")
    assert {name: stub["revpos"] for name, stub in stubs.items()} == {"a": 1, "c": 2}
    assert set(attached(geo.store, "geo", "x", first.rev)) == {"a", "b"}
    geo.put({"_id": "x", "_rev": second.rev, "n": 1})
    assert attached(geo.store, "geo", "x") == {}
    assert isinstance(refusal(lambda: geo.attachment("x", "a")), NotFound)
    assert geo.attachment("x", "b", rev=first.rev).bytes() == b"b"


def test_a_document_can_be_sent_back_as_it_was_read(geo: Barrel) -> None:
    geo.put({"_id": "x", "_attachments": {"a": inline(b"a"), "l": {"link": "https://example.org/l"}}})
    document = geo.get("x").data
    before = document["_attachments"]
    geo.put(document | {"n": 2})
    assert attached(geo.store, "geo", "x") == before


def test_a_merge_patch_keeps_attachments_and_can_name_them(geo: Barrel) -> None:
    geo.put({"_id": "x", "n": 1, "_attachments": {"a": inline(b"a"), "b": inline(b"b")}})
    geo.merge("x", {"n": 2})
    assert set(attached(geo.store, "geo", "x")) == {"a", "b"}
    geo.merge("x", {"_attachments": {"a": None, "c": inline(b"c")}})
    assert set(attached(geo.store, "geo", "x")) == {"b", "c"}
    assert geo.get("x").data["n"] == 2
    assert geo.merge("x", {"n": 2, "_attachments": {"b": inline(b"b")}}).unchanged


def test_a_document_without_keys_or_without_attachments_reads_as_one(geo: Barrel) -> None:
    geo.put({"_id": "x", "_attachments": {"a": inline(b"a")}})
    geo.put({"_id": "y", "_attachments": {}})
    assert set(geo.get("x").data) == {"_id", "_rev", "_attachments"}
    assert set(geo.get("y").data) == {"_id", "_rev"}


def test_the_same_edit_makes_the_same_revision_and_any_other_another(geo: Barrel) -> None:
    def rev(id: str, **attachments: Any) -> str:
        return geo.put({"_id": id, "_attachments": attachments}).rev

    same = rev("a", f=inline(b"x"))
    assert rev("b", f=inline(b"x", digest=digest(b"x"), length=1)) == same
    others = {
        rev("c", f=inline(b"y")),
        rev("d", g=inline(b"x")),
        rev("e", f=inline(b"x", "a/b")),
        rev("f", f={"link": "x:y"}),
        geo.put({"_id": "g"}).rev,
    }
    assert len(others | {same}) == 6


def test_a_write_that_is_repeated_is_known_again(geo: Barrel) -> None:
    first = geo.put({"_id": "x", "_attachments": {"a": inline(b"a")}})
    again = {"_id": "x", "_rev": first.rev, "n": 1, "_attachments": {"a": {"stub": True}, "b": inline(b"b")}}
    second = geo.put(again)
    repeated = geo.put(again)
    assert (repeated.rev, repeated.seq, repeated.repeated) == (second.rev, second.seq, True)
    assert geo.attach("x", "c", b"c", rev=second.rev).rev == geo.attach("x", "c", b"c", rev=second.rev).rev
    other = again | {"_attachments": {"b": inline(b"b")}}
    assert isinstance(refusal(lambda: geo.put(other)), Conflict)


def test_an_attachment_begins_a_document_brings_a_deleted_one_back_and_goes_with_it(geo: Barrel) -> None:
    made = geo.attach("x", "a", b"a")
    assert made.created
    gone = geo.delete("x", rev=made.rev)
    assert isinstance(refusal(lambda: geo.attachment("x", "a")), Deleted)
    assert isinstance(refusal(lambda: geo.detach("x", "a")), Deleted)
    back = geo.attach("x", "b", b"b")
    assert back.created and back.rev.startswith("3-")
    assert set(attached(geo.store, "geo", "x")) == {"b"}
    assert gone.rev.startswith("2-")


def test_detaching_takes_one_away(geo: Barrel) -> None:
    geo.put({"_id": "x", "n": 1, "_attachments": {"a": inline(b"a"), "b": inline(b"b")}})
    geo.detach("x", "a")
    assert set(attached(geo.store, "geo", "x")) == {"b"}
    assert geo.get("x").data["n"] == 1
    assert isinstance(refusal(lambda: geo.detach("x", "a")), NotFound)
    assert isinstance(refusal(lambda: geo.detach("y", "a")), Missing)


def test_a_deletion_may_keep_none_and_a_tombstone_may_bring_some(geo: Barrel) -> None:
    first = geo.put({"_id": "x", "_attachments": {"a": inline(b"a")}})
    geo.put({"_id": "x", "_rev": first.rev, "_deleted": True, "_attachments": {"a": {"stub": True}}})
    (entry,) = geo.tail(1)
    assert entry.attachments == Moves(went=["a"])
    assert clean(geo.store)


def test_many_documents_of_one_call_bring_their_own_contents(geo: Barrel) -> None:
    docs = [{"_id": str(n), "_attachments": {"f": inline(b"%d" % (n % 10))}} for n in range(100)]
    assert all(isinstance(each, Written) for each in geo.bulk(docs))
    assert [geo.attachment(str(n), "f").bytes() for n in range(100)] == [b"%d" % (n % 10) for n in range(100)]
    assert copies(geo.store)[0] == 10


def test_in_a_bulk_call_only_what_is_wrong_is_refused(geo: Barrel) -> None:
    outcomes = geo.bulk(
        [
            {"_id": "a", "_attachments": {"f": inline(b"f")}},
            {"_id": "b", "_attachments": {"f": inline(b"f", digest=digest(b"g"))}},
            {"_id": "c", "_attachments": {"f": {"stub": True}}},
            {"_id": "d", "_attachments": {"f": {"data": "?"}}},
        ]
    )
    kinds = [type(each).__name__ for each in outcomes]
    assert kinds == ["Written", "BadRequest", "MissingStub", "BadRequest"]
    assert geo.info().doc_count == 1


# -- what is refused


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"data": "no base64"}, BadRequest),
        (inline(b"abc", digest=digest(b"abd")), BadRequest),
        (inline(b"abc", digest=brief(b"abd")), BadRequest),
        (inline(b"abc", length=4), BadRequest),
        ({"stub": True, "digest": digest(b"other")}, MissingStub),
        ({"stub": True, "length": 9}, BadRequest),
        ({"upload": "nobody-knows"}, NotFound),
        ({"follows": True}, MissingStub),
        ({"link": "nowhere"}, BadRequest),
    ],
)
def test_what_is_wrong_is_refused_and_the_document_stays(geo: Barrel, value: Any, kind: type[SpileError]) -> None:
    first = geo.put({"_id": "x", "_attachments": {"a": inline(b"a")}})
    before = geo.get("x").json()
    document = {"_id": "x", "_rev": first.rev, "n": 1, "_attachments": {"a": value}}
    assert type(refusal(lambda: geo.put(document))) is kind
    assert geo.get("x").json() == before
    assert geo.head() == 1
    assert clean(geo.store)


def test_an_upload_that_is_not_what_was_announced_leaves_nothing(geo: Barrel) -> None:
    geo.attach("x", "a", b"a")
    for source, announced in (
        ([b"ab"], {"length": 3}),
        ([b"abcd"], {"length": 3}),
        ([b"ab"], {"digest": digest(b"no")}),
        ([b"ab"], {"digest": brief(b"no")}),
    ):
        error = refusal(partial(geo.attach, "x", "b", iter(source), **announced))
        assert isinstance(error, (BadRequest, TooLarge))
    assert set(attached(geo.store, "geo", "x")) == {"a"}
    assert copies(geo.store) == (1, 0)
    assert clean(geo.store)


def test_a_body_that_is_cut_off_in_the_middle_leaves_nothing(geo: Barrel) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * 100_000
        raise ConnectionResetError("the client went away")

    with pytest.raises(ConnectionResetError):
        geo.attach("x", "a", broken())
    assert isinstance(refusal(lambda: geo.get("x")), Missing)
    assert copies(geo.store) == (0, 0)
    assert clean(geo.store)


def test_of_two_uploads_to_one_name_the_second_is_told(geo: Barrel) -> None:
    geo.attach("x", "a", b"old")

    def slow() -> Iterator[bytes]:
        yield b"mine"
        geo.attach("x", "a", b"theirs")
        geo.attach("x", "other", b"no matter")

    error = refusal(lambda: geo.attach("x", "a", slow()))
    assert isinstance(error, Conflict)
    assert "'a'" in error.reason
    assert geo.attachment("x", "a").bytes() == b"theirs"


def test_uploads_of_two_names_at_once_both_stand(geo: Barrel) -> None:
    def slow() -> Iterator[bytes]:
        yield b"mine"
        geo.attach("x", "b", b"theirs")

    geo.attach("x", "a", slow())
    assert set(attached(geo.store, "geo", "x")) == {"a", "b"}


def test_an_old_revision_is_a_conflict_and_says_so(geo: Barrel) -> None:
    first = geo.attach("x", "a", b"1")
    geo.attach("x", "a", b"2", rev=first.rev)
    assert isinstance(refusal(lambda: geo.attach("x", "a", b"3", rev=first.rev)), Conflict)
    assert isinstance(refusal(lambda: geo.detach("x", "a", rev=first.rev)), Conflict)
    assert isinstance(refusal(lambda: geo.attach("y", "a", b"3", rev=first.rev)), Conflict)


@pytest.mark.parametrize("name", ["_x", "", "a\tb", "n" * 513])
def test_a_bad_name_is_refused_before_anything_is_read(geo: Barrel, name: str) -> None:
    def never() -> Iterator[bytes]:
        raise AssertionError("it was read")
        yield b""

    assert isinstance(refusal(lambda: geo.attach("x", name, never())), BadRequest)


def test_a_local_document_has_no_attachments(geo: Barrel) -> None:
    assert isinstance(refusal(lambda: geo.local_put("x", {"_attachments": {"a": inline(b"a")}})), BadRequest)


def test_a_write_whose_contents_were_not_stored_is_an_error_of_the_program(geo: Barrel) -> None:
    with pytest.raises(ValueError, match="not stored"):
        geo.submit([Write.put({"_id": "x", "_attachments": {"a": inline(b"a")}})]).result()
    geo.put({"_id": "y"})


def test_knowing_a_digest_does_not_give_another_barrels_bytes(store: Store, geo: Barrel) -> None:
    geo.attach("x", "secret", b"secret")
    other = store.create("other")
    stub: dict[str, Any] = {"_attachments": {"a": {"stub": True, "digest": digest(b"secret")}}}
    assert isinstance(refusal(lambda: other.put({"_id": "x", **stub})), MissingStub)
    (outcome,) = other.bulk([revisions("x", "a" * 32, **stub)], new_edits=False)
    assert isinstance(outcome, MissingStub)
    assert isinstance(refusal(lambda: geo.put({"_id": "y", **stub})), MissingStub)


def test_without_a_place_for_contents_documents_go_on_and_attachments_are_refused(tmp_path: Path) -> None:
    from feeds.storage.database import Database
    from feeds.storage.migrate import migrate

    database = Database(str(tmp_path))
    with database.reading() as connection:
        migrate(connection)
    from feeds import StoreSettings

    with Store(database, StoreSettings(), Clock()) as store:
        barrel = store.create("geo")
        barrel.put({"_id": "x"})
        barrel.put({"_id": "l", "_attachments": {"l": {"link": "x:y"}}})
        error = refusal(lambda: barrel.attach("x", "a", b"a"))
        assert isinstance(error, BadRequest) and "blobs" in error.hint
        store.maintain()
        assert clean(store)


def test_another_place_for_contents_is_refused(database_url: str, tmp_path: Path) -> None:
    with opened(database_url, tmp_path / "one") as store:
        store.create("geo").attach("x", "a", b"a")
    with opened(database_url, tmp_path / "two") as store:
        geo = store.barrel("geo")
        assert isinstance(refusal(lambda: geo.attach("x", "b", b"b")), BadRequest)
        assert isinstance(refusal(lambda: geo.attachment("x", "a").bytes()), BadRequest)
        geo.merge("x", {"n": 1})
    with opened(database_url, tmp_path / "one") as store:
        assert store.barrel("geo").attachment("x", "a").bytes() == b"a"


# -- replicas


def test_a_replicated_revision_brings_its_attachments_as_they_are(geo: Barrel) -> None:
    doc = revisions("x", "b" * 32, "a" * 32, n=1, _attachments={"f": inline(b"f", "a/b", revpos=1)})
    replicate(geo, doc)
    assert attached(geo.store, "geo", "x")["f"]["revpos"] == 1
    assert geo.attachment("x", "f").bytes() == b"f"
    (again,) = replicate(geo, doc)
    assert again.repeated
    assert clean(geo.store)


def test_replicated_stubs_take_what_the_barrel_holds(geo: Barrel) -> None:
    replicate(geo, revisions("x", "a" * 32, _attachments={"f": inline(b"f")}))
    stub = {"stub": True, "revpos": 1, "digest": digest(b"f"), "length": 1, "content_type": "text/plain"}
    replicate(geo, revisions("x", "b" * 32, "a" * 32, _attachments={"f": stub}))
    replicate(geo, revisions("x", "c" * 32, "b" * 32, "a" * 32, _attachments={"f": {"stub": True}}))
    replicate(geo, revisions("y", "d" * 32, _attachments={"g": stub}))
    replicate(geo, revisions("z", "e" * 32, _attachments={"g": stub | {"digest": brief(b"f")}}))
    for id, name in (("x", "f"), ("y", "g"), ("z", "g")):
        assert geo.attachment(id, name).bytes() == b"f"
    (lacking,) = geo.bulk(
        [revisions("q", "f" * 32, _attachments={"g": stub | {"digest": digest(b"no"), "length": 2}})], new_edits=False
    )
    assert isinstance(lacking, MissingStub)
    assert lacking.details["digest"] == digest(b"no")
    assert clean(geo.store)


def test_replicated_stubs_take_what_came_earlier_in_the_same_call(geo: Barrel) -> None:
    stub = {"stub": True, "digest": digest(b"f")}
    replicate(
        geo,
        revisions("x", "a" * 32, _attachments={"f": inline(b"f")}),
        revisions("x", "b" * 32, "a" * 32, _attachments={"f": {"stub": True}}),
        revisions("y", "c" * 32, _attachments={"g": stub}),
    )
    assert geo.attachment("y", "g").bytes() == b"f"


def test_two_replicas_that_make_one_edit_agree_on_its_name(store: Store, geo: Barrel) -> None:
    other = store.create("other")
    for barrel in (geo, other):
        first = barrel.put({"_id": "x", "_attachments": {"a": inline(b"a")}})
        barrel.merge("x", {"n": 1}, rev=first.rev)
    assert geo.get("x").rev == other.get("x").rev


def test_conflicting_revisions_keep_their_own_attachments(geo: Barrel) -> None:
    replicate(geo, revisions("x", "a" * 32, _attachments={"f": inline(b"a")}))
    replicate(geo, revisions("x", "b" * 32, _attachments={"g": inline(b"b")}))
    assert set(attached(geo.store, "geo", "x")) == {"g"}
    assert set(attached(geo.store, "geo", "x", "1-" + "a" * 32)) == {"f"}
    loser = geo.merge("x", {"n": 1}, rev="1-" + "a" * 32)
    assert set(attached(geo.store, "geo", "x", loser.rev)) == {"f"}
    entry = geo.tail(2)[0]
    assert entry.attachments == Moves(came=["f"], went=["g"])  # the longer branch wins
    assert clean(geo.store)


# -- paths and feeds


def test_attachments_stand_on_paths(geo: Barrel) -> None:
    geo.put({"_id": "x", "_attachments": {"a.jpg": inline(b"a"), "b/c.jpg": inline(b"b")}})
    geo.put({"_id": "y", "_attachments": {"a.jpg": inline(b"y")}})
    assert [(hit.id, hit.value) for hit in geo.find("_attachments").results] == [
        ("x", "a.jpg"),
        ("y", "a.jpg"),
        ("x", "b/c.jpg"),
    ]
    assert [hit.id for hit in geo.find("_attachments/a.jpg").results] == ["x", "y"]
    assert [hit.value for hit in geo.find("_attachments", prefix="b/").results] == ["b/c.jpg"]
    assert [row.paths for row in geo.changes(patterns=parse_patterns(["_attachments/+"])).results] == [
        ["_attachments/a.jpg", "_attachments/b%2Fc.jpg"],
        ["_attachments/a.jpg"],
    ]
    geo.detach("x", "a.jpg")
    assert [hit.id for hit in geo.find("_attachments/a.jpg").results] == ["y"]
    left = geo.changes(Position(2, None), patterns=parse_patterns(["_attachments/a.jpg"])).results
    assert [(row.id, row.removed) for row in left] == [("x", True)]
    assert clean(geo.store)


def test_long_names_do_not_get_into_each_others_way(geo: Barrel) -> None:
    names = ["n" * 200 + end for end in "abc"]
    geo.put({"_id": "x", "_attachments": {name: inline(name.encode()) for name in names}})
    geo.detach("x", names[2])
    geo.attach("x", names[2], b"again")
    assert geo.attachment("x", names[1]).bytes() == names[1].encode()
    assert clean(geo.store)


def test_a_change_says_which_attachments_came_changed_and_went(geo: Barrel) -> None:
    geo.put({"_id": "x", "_attachments": {"a": inline(b"1"), "b": inline(b"1"), "c": inline(b"1")}})
    geo.put({"_id": "x", "_attachments": {"a": {"stub": True}, "b": inline(b"2"), "d": inline(b"1")}}, update=True)
    geo.merge("x", {"n": 1})
    geo.delete("x", rev=geo.get("x").rev)
    told = [entry.attachments for entry in geo.tail(0)]
    assert told == [
        Moves(came=["a", "b", "c"]),
        Moves(came=["d"], changed=["b"], went=["c"]),
        None,
        Moves(went=["a", "b", "d"]),
    ]
    rows = geo.changes(docs=True).results
    assert [row.attachments for row in rows] == [Moves(went=["a", "b", "d"])]


def test_rows_say_it_whichever_way_they_are_read(geo: Barrel) -> None:
    geo.put({"_id": "x", "n": 1, "_attachments": {"a": inline(b"1")}})
    everything = parse_patterns(["#"])
    ways = [
        geo.changes().results,
        geo.changes(docs=True).results,
        geo.changes(descending=True).results,
        geo.changes(patterns=everything).results,
        geo.changes(patterns=parse_patterns(["n/1"])).results,
        [entry.row() for entry in geo.tail(0)],
    ]
    assert [[row.attachments for row in way] for way in ways] == [[Moves(came=["a"])]] * len(ways)


def test_a_change_is_told_on_the_topics_of_its_attachments(geo: Barrel) -> None:
    geo.put({"_id": "x", "_attachments": {"a.jpg": inline(b"a"), "b.jpg": inline(b"b")}})
    geo.detach("x", "a.jpg")
    topics = BarrelTopics("geo", geo.epoch, BarrelSettings(), 1 << 20)
    first, second = (topics.messages(entry, topics.wanted(None)) for entry in geo.tail(0))

    def told(messages: Any) -> dict[str, Any]:
        return {m.topic: json.loads(m.payload() if callable(m.payload) else m.payload) for m in messages}

    assert set(told(first)) == {
        f"barrels/geo/{path}" for path in ("_id/x", "_attachments/a.jpg", "_attachments/b.jpg")
    }
    assert told(first)["barrels/geo/_id/x"]["attachments"] == {"came": ["a.jpg", "b.jpg"]}
    assert told(second)["barrels/geo/_attachments/a.jpg"]["removed"]
    assert told(second)["barrels/geo/_id/x"]["attachments"] == {"went": ["a.jpg"]}


def test_documents_can_be_had_with_their_contents(geo: Barrel) -> None:
    geo.put({"_id": "x", "_attachments": {"a": inline(b"small"), "b": inline(b"x" * 1_000), "l": {"link": "x:y"}}})
    whole = geo.inlined(geo.get("x").json(), 100)
    told = json.loads(whole)["_attachments"]
    assert told["a"]["data"] == b64encode(b"small").decode() and "stub" not in told["a"]
    assert told["b"]["stub"] and "data" not in told["b"]
    assert told["l"] == {"link": "x:y", "revpos": 1}
    geo.put({"_id": "y"})
    assert geo.inlined(geo.get("y").json(), 100) == geo.get("y").json()


# -- damage


def test_a_content_that_is_lost_is_named_and_mended_by_attaching_it_again(
    store: Store, geo: Barrel, tmp_path: Path
) -> None:
    geo.attach("x", "a", b"precious" * 20_000)
    geo.attach("y", "b", b"other")
    damage(tmp_path / "contents", b"precious" * 1_000)
    error = refusal(lambda: geo.attachment("x", "a").bytes())
    assert digest(b"precious" * 20_000) in error.reason
    assert isinstance(error, PartialRead) or error.code == "bad_checksum"
    assert geo.attachment("y", "b").bytes() == b"other"
    assert any(digest(b"precious" * 20_000) in problem for problem in store.check().problems)
    assert store.blobs.rows.counts()["blobs_damaged"] == 1
    geo.attach("z", "a", b"precious" * 20_000)
    assert geo.attachment("x", "a").bytes() == b"precious" * 20_000
    assert store.blobs.rows.counts()["blobs_damaged"] == 0


def test_contents_outlive_a_restart(database_url: str, tmp_path: Path) -> None:
    with opened(database_url, tmp_path / "contents") as store:
        careless(store)
        store.create("geo").attach("x", "a", b"kept" * 50_000)
    with opened(database_url, tmp_path / "contents") as store:
        assert store.barrel("geo").attachment("x", "a").bytes() == b"kept" * 50_000
        assert clean(store)
