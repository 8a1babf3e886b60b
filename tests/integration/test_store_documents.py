"""The rules of writing and reading documents, on a real store."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from store_tools import Clock, count, held, refusal, replicate, revisions, rows

from feeds import Barrel, Store, StoreSettings, Token, Write, Written
from feeds.errors import BadRequest, Conflict, Deleted, Exists, Missing, NotFound, TokenReused, TooLarge
from feeds.revisions import Revision, next_revision


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database_url: str, clock: Clock) -> Iterator[Store]:
    with Store.open(database_url, clock=clock) as opened:
        yield opened
        problems = opened.check().problems
    assert problems == []


@pytest.fixture
def geo(store: Store) -> Barrel:
    return store.create("geo")


def body(barrel: Barrel, id: str, rev: str | None = None) -> dict[str, Any]:
    """The user's keys of a document."""
    return {key: value for key, value in barrel.get(id, rev=rev).data.items() if key[0] != "_"}


# -- writing and reading


def test_a_document_comes_back_as_it_was_written(geo: Barrel) -> None:
    given: dict[str, Any] = {"n": [1, 2.5, -0.0, 10**18, None, True, {}, []], "é": {"ß": "\U0001f37a"}}
    written = geo.put(given, id="a/b c")
    assert written.seq == 1
    assert written.created
    assert written.rev.startswith("1-")
    document = geo.get("a/b c")
    assert document.rev == written.rev
    assert document.data == {"_id": "a/b c", "_rev": written.rev, **given}
    assert document.json().startswith(b'{"_id":"a/b c","_rev":"1-')


def test_a_document_without_an_id_is_given_one(geo: Barrel) -> None:
    first, second = geo.put({"a": 1}), geo.put({"a": 1})
    assert first.id != second.id
    assert geo.get(first.id).data["a"] == 1


def test_the_same_edits_get_the_same_revisions_in_every_barrel(store: Store, geo: Barrel) -> None:
    other = store.create("other")
    for barrel in (geo, other):
        first = barrel.put(b'{"b":2,"a":1}', id="x")
        second = barrel.put(b'{ "a" : 1, "b" : 3.0 }', id="x", rev=first.rev)
        barrel.delete("x", rev=second.rev)
    names = [rows(store, "SELECT generation, digest FROM revs WHERE barrel = ?", key) for key in (geo.key, other.key)]
    assert names[0] == names[1]
    assert len(names[0]) == 3


def test_an_update_names_the_revision_it_builds_on(geo: Barrel) -> None:
    first = geo.put({"n": 1}, id="x")
    assert isinstance(refusal(lambda: geo.put({"n": 2}, id="x")), Conflict)
    assert isinstance(refusal(lambda: geo.put({"n": 2}, id="x", rev="1-0123")), Conflict)
    second = geo.put({"n": 2, "_rev": first.rev}, id="x")
    assert not second.created
    assert isinstance(refusal(lambda: geo.put({"n": 3}, id="x", rev=first.rev)), Conflict)
    assert isinstance(refusal(lambda: geo.put({"n": 3, "_rev": second.rev}, id="x", rev=first.rev)), BadRequest)
    assert isinstance(refusal(lambda: geo.put({"n": 3}, id="new", rev=first.rev)), Conflict)
    assert body(geo, "x") == {"n": 2}
    assert geo.head() == 2


def test_a_set_extends_whatever_is_there(geo: Barrel) -> None:
    for n in range(4):
        geo.put({"n": n}, id="x", update=True)
    geo.delete("x", rev=geo.get("x").rev)
    back = geo.put({"n": 9}, id="x", update=True)
    assert back.created
    assert back.rev.startswith("6-")


def test_ids_that_differ_in_the_request_and_in_the_document_are_refused(geo: Barrel) -> None:
    assert isinstance(refusal(lambda: geo.put({"_id": "a"}, id="b")), BadRequest)
    assert geo.put({"_id": "a"}, id="a").id == "a"


@pytest.mark.parametrize(
    "id", ["", "_x", "_local/x", "a\nb", "\x7f", "x" * 513, "/".join("x" * 33), "\ud800", "\x85"]
)
def test_ids_that_a_document_may_not_have_are_refused(geo: Barrel, id: str) -> None:
    assert isinstance(refusal(lambda: geo.put({}, id=id)), BadRequest)
    assert geo.head() == 0


@pytest.mark.parametrize("id", ["x" * 512, "é" * 256, "/".join("x" * 32), "_design/x", "a//b", "/", "+#*%", " "])
def test_ids_at_the_limits_are_kept(geo: Barrel, id: str) -> None:
    geo.put({"n": 1}, id=id)
    assert body(geo, id) == {"n": 1}
    assert [row.id for row in geo.changes().results] == [id]


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b'"x"',
        b"null",
        b"{",
        b"",
        b'{"a":NaN}',
        b'{"a":1e400}',
        b'{"a":"\\ud800"}',
        b'{"a":"\xff"}',
        b'{"_unknown":1}',
        b'{"a":18446744073709551616}',
        b'{"a":-9223372036854775809}',
        b'{"a":' * 100 + b"{}" + b"}" * 100,
        b'{"_id":1}',
        b'{"_rev":1}',
        b'{"_deleted":1}',
        b'{"_revisions":{"start":1,"ids":["a"]}}',
    ],
)
def test_what_is_no_document_is_refused_and_nothing_is_stored(store: Store, geo: Barrel, text: bytes) -> None:
    error = refusal(lambda: geo.put(text, id="x"))
    assert isinstance(error, BadRequest)
    assert error.hint
    assert geo.head() == 0
    assert count(store, "docs") == count(store, "revs") == count(store, "log") == 0


@pytest.mark.parametrize("number", [0, -1, 2**53 + 1, 2**63, 2**64 - 1, -(2**63), 1e300, 0.1, 5e-324])
def test_numbers_are_kept_exactly(geo: Barrel, number: float) -> None:
    geo.put({"n": number}, id="x")
    found = geo.get("x").data["n"]
    assert (found, type(found)) == (number, type(number))


def test_documents_beyond_the_size_limit_are_refused(tmp_path: Path) -> None:
    with Store.open(tmp_path, StoreSettings(document_bytes_max=100)) as store:
        small = store.create("small")
        small.put({"a": "x" * 92}, id="fits")
        assert isinstance(refusal(lambda: small.put({"a": "x" * 93}, id="x")), TooLarge)
        assert isinstance(refusal(lambda: small.put(b'{"a":"' + b"x" * 93 + b'"}', id="x")), TooLarge)
        assert isinstance(refusal(lambda: small.merge("fits", {"b": 1})), TooLarge)
        assert small.head() == 1


def test_reserved_fields_that_a_reader_was_given_may_be_sent_back(geo: Barrel) -> None:
    geo.put({"n": 1}, id="x")
    read = geo.get("x", history=True, conflicts=True).data
    geo.put({**read, "n": 2})
    assert body(geo, "x") == {"n": 2}


# -- repeats and tokens


def test_a_repeated_update_is_answered_as_done(geo: Barrel) -> None:
    first = geo.put({"n": 1}, id="x")
    second = geo.put({"n": 2}, id="x", rev=first.rev)
    third = geo.put({"n": 3}, id="x", rev=second.rev)
    again = geo.put({"n": 2}, id="x", rev=first.rev)
    assert again == Written("x", second.rev, second.seq, repeated=True)
    assert geo.head() == third.seq == 3
    gone = geo.delete("x", rev=third.rev)
    assert geo.delete("x", rev=third.rev) == Written("x", gone.rev, gone.seq, repeated=True)
    assert geo.merge("x", {"n": 2}, rev=first.rev).repeated


def test_a_create_is_not_recognised_by_its_content(geo: Barrel) -> None:
    geo.put({"n": 1}, id="x")
    assert isinstance(refusal(lambda: geo.put({"n": 1}, id="x")), Conflict)


def token(key: str, body: bytes, *, who: str = "ann", id: str = "x") -> Token:
    return Token.of(key, who, "put", "geo", id, body)


def test_a_token_makes_repeating_harmless(store: Store, geo: Barrel) -> None:
    first = geo.put({"n": 1}, id="x", token=token("t1", b"1"))
    again = geo.put({"n": 1}, id="x", token=token("t1", b"1"))
    assert (again.rev, again.seq, again.created, again.repeated) == (first.rev, first.seq, True, True)
    assert geo.head() == 1
    assert isinstance(refusal(lambda: geo.put({"n": 2}, id="x", token=token("t1", b"2"))), TokenReused)
    assert isinstance(refusal(lambda: geo.put({"n": 1}, id="x", token=token("t1", b"1", who="bob"))), Conflict)
    assert count(store, "tokens") == 1


def test_a_token_holds_for_a_day_and_is_forgotten_then(store: Store, geo: Barrel, clock: Clock) -> None:
    geo.put({"n": 1}, id="x", update=True, token=token("t1", b"1"))
    clock.now += 24 * 3600 - 1
    store.maintain()
    assert geo.put({"n": 1}, id="x", update=True, token=token("t1", b"1")).repeated
    clock.now += 2
    assert store.maintain()["tokens"] == 1
    assert not geo.put({"n": 1}, id="x", update=True, token=token("t1", b"1")).repeated


def test_a_token_of_a_bulk_brings_every_answer_back(geo: Barrel) -> None:
    geo.put({"n": 0}, id="there")
    docs = [{"_id": "a"}, {"_id": "there"}, {"_id": "b"}]
    first = geo.bulk(docs, token=token("t", b"docs"))
    again = geo.bulk(docs, token=token("t", b"docs"))
    assert [getattr(each, "rev", None) for each in first] == [getattr(each, "rev", None) for each in again]
    assert isinstance(first[1], Conflict)
    assert first[1].as_dict() == again[1].as_dict()  # type: ignore[union-attr]
    assert geo.head() == 3


def test_a_refused_write_leaves_its_token_free(geo: Barrel) -> None:
    geo.put({"n": 0}, id="x")
    assert isinstance(refusal(lambda: geo.put({"n": 1}, id="x", token=token("t", b"1"))), Conflict)
    geo.delete("x", rev=geo.get("x").rev)
    assert not geo.put({"n": 1}, id="x", token=token("t", b"1")).repeated


@pytest.mark.parametrize("key", ["", "x" * 129, "é" * 65])
def test_tokens_are_texts_of_up_to_128_bytes(key: str) -> None:
    assert isinstance(refusal(lambda: token(key, b"")), BadRequest)


# -- deletions


def test_a_deletion_is_a_revision_and_the_document_may_come_back(geo: Barrel) -> None:
    first = geo.put({"n": 1}, id="x")
    assert isinstance(refusal(lambda: geo.delete("x")), Conflict)
    gone = geo.delete("x", rev=first.rev)
    assert gone.rev.startswith("2-")
    error = refusal(lambda: geo.get("x"))
    assert isinstance(error, Deleted)
    assert error.as_dict()["deleted"] is True
    assert isinstance(refusal(lambda: geo.delete("x")), Deleted)
    assert isinstance(refusal(lambda: geo.delete("x", rev=gone.rev)), Deleted)
    assert geo.get("x", rev=gone.rev).data == {"_id": "x", "_rev": gone.rev, "_deleted": True}

    back = geo.put({"n": 2}, id="x")
    assert back.created
    assert back.rev.startswith("3-")
    assert [row.id for row in geo.changes().results] == ["x"]


def test_missing_and_deleted_are_told_apart(geo: Barrel) -> None:
    error = refusal(lambda: geo.get("never"))
    assert isinstance(error, Missing)
    assert error.as_dict()["missing"] is True
    assert isinstance(refusal(lambda: geo.delete("never", rev="1-a")), Missing)
    assert isinstance(refusal(lambda: geo.merge("never", {})), Missing)
    geo.put({}, id="x")
    unknown = refusal(lambda: geo.get("x", rev="7-a"))
    assert isinstance(unknown, NotFound)
    assert not isinstance(unknown, Missing | Deleted)


def test_a_deletion_may_keep_a_body(geo: Barrel) -> None:
    first = geo.put({"n": 1}, id="x")
    gone = geo.put({"why": "moved", "_deleted": True, "_rev": first.rev}, id="x")
    assert isinstance(refusal(lambda: geo.get("x")), Deleted)
    assert body(geo, "x", gone.rev) == {"why": "moved"}
    assert geo.find("why").results == []


def test_counts_and_bytes_follow_the_winners(geo: Barrel) -> None:
    geo.put({"n": 1}, id="a")
    second = geo.put({"n": 22}, id="b")
    assert (geo.info().doc_count, geo.info().deleted_count, geo.info().bytes) == (2, 0, 7 + 8)
    geo.delete("b", rev=second.rev)
    assert (geo.info().doc_count, geo.info().deleted_count, geo.info().bytes) == (1, 1, 7)
    geo.put({"n": 333}, id="b")
    assert (geo.info().doc_count, geo.info().deleted_count, geo.info().bytes) == (2, 0, 7 + 9)


# -- merge patches


def test_a_merge_patch_changes_what_it_names(geo: Barrel) -> None:
    first = geo.put({"a": 1, "b": {"c": 1, "d": 2}, "e": [1, 2]}, id="x")
    second = geo.merge("x", {"a": None, "b": {"c": None, "f": 3}, "e": [9]})
    assert body(geo, "x") == {"b": {"d": 2, "f": 3}, "e": [9]}
    assert isinstance(refusal(lambda: geo.merge("x", {"z": 1}, rev=first.rev)), Conflict)
    geo.merge("x", {"z": 1}, rev=second.rev)
    assert body(geo, "x")["z"] == 1


def test_a_merge_patch_that_changes_nothing_stores_nothing(geo: Barrel) -> None:
    first = geo.put({"a": 1, "b": {"c": 1}}, id="x")
    same = geo.merge("x", {"a": 1, "b": {"c": 1, "d": None}, "n": None})
    assert same == Written("x", first.rev, first.seq, unchanged=True)
    assert geo.head() == 1


@pytest.mark.parametrize(
    "patch",
    [
        *(b"[]", b"{", {"_deleted": True}, {"_id": "y"}, {"a": float("nan")}, {"_x": 1}),
        *({"_rev": None}, {"_id": None}, b'{"a":1,"a":2}'),
    ],
)
def test_patches_that_cannot_be_meant_are_refused(geo: Barrel, patch: Any) -> None:
    geo.put({"a": 1}, id="x")
    assert isinstance(refusal(lambda: geo.merge("x", patch)), BadRequest)
    assert geo.head() == 1


def test_there_is_nothing_to_patch_in_a_deleted_document(geo: Barrel) -> None:
    first = geo.put({"a": 1}, id="x")
    geo.delete("x", rev=first.rev)
    assert isinstance(refusal(lambda: geo.merge("x", {"b": 1})), Deleted)


def test_a_deletion_beside_a_living_branch_cannot_be_patched(geo: Barrel) -> None:
    replicate(geo, revisions("x", "b", n=1), revisions("x", "a", _deleted=True))
    error = refusal(lambda: geo.merge("x", {"b": 1}, rev="1-a"))
    assert isinstance(error, Deleted)
    assert error.reason == "The revision 1-a of 'x' is a deletion"


# -- replicated writes, trees


def test_a_replicated_revision_is_kept_as_given(geo: Barrel) -> None:
    replicate(geo, revisions("x", "c", "b", "a", n=3))
    read = geo.get("x", revs=True, history=True).data
    assert read["_rev"] == "3-c"
    assert read["_revisions"] == {"start": 3, "ids": ["c", "b", "a"]}
    assert [(each["rev"], each["status"]) for each in read["_history"]] == [
        ("3-c", "available"),
        ("2-b", "missing"),
        ("1-a", "missing"),
    ]
    again = replicate(geo, revisions("x", "c", "b", "a", n=3))[0]
    assert again == Written("x", "3-c", 1, repeated=True)
    assert geo.head() == 1
    assert geo.put({"n": 4}, id="x", rev="3-c").rev.startswith("4-")


def test_a_replicated_revision_grafts_on_the_nearest_known_ancestor(geo: Barrel) -> None:
    first = geo.put({"n": 1}, id="x")
    digest = first.rev.partition("-")[2]
    replicate(geo, revisions("x", "d", "c", digest, n=4, generation=3))
    assert [row.changes for row in geo.changes().results] == [["3-d"]]
    assert geo.get("x", revs=True).data["_revisions"]["ids"] == ["d", "c", digest]


def test_conflicts_are_kept_and_listed_and_the_winner_is_the_same_everywhere(store: Store, geo: Barrel) -> None:
    other = store.create("other")
    told = [
        revisions("x", "b", "a", n="b"),
        revisions("x", "c", "a", n="c"),
        revisions("x", "z", n="z"),
        revisions("x", "d", "c", "a", n="gone", _deleted=True),
    ]
    replicate(geo, *told)
    replicate(other, *told[::-1])
    for barrel in (geo, other):
        assert barrel.get("x").rev == "2-b"
        assert barrel.get("x", conflicts=True).data["_conflicts"] == ["1-z"]
        assert barrel.changes().results[0].changes == ["2-b", "1-z", "3-d"]
        assert body(barrel, "x", "1-z") == {"n": "z"}


def test_a_losing_leaf_may_be_updated_and_win(geo: Barrel) -> None:
    replicate(geo, revisions("x", "b", "a", n="b"), revisions("x", "c", "a", n="c"))
    assert geo.get("x").rev == "2-c"
    won = geo.put({"n": "b2"}, id="x", rev="2-b")
    assert geo.get("x").rev == won.rev
    assert geo.changes().results[0].changes == [won.rev, "2-c"]
    assert [hit.value for hit in geo.find("n").results] == ["b2"]
    geo.delete("x", rev=won.rev)
    assert body(geo, "x") == {"n": "c"}
    assert [hit.value for hit in geo.find("n").results] == ["c"]
    gone = geo.delete("x", rev="2-c")
    assert isinstance(refusal(lambda: geo.get("x")), Deleted)
    assert geo.get("x", rev=gone.rev).deleted


def test_a_merge_onto_a_losing_leaf_builds_on_that_leaf(geo: Barrel) -> None:
    replicate(geo, revisions("x", "b", "a", n="b"), revisions("x", "c", "a", n="c", m=1))
    merged = geo.merge("x", {"k": 1}, rev="2-b")
    assert body(geo, "x", merged.rev) == {"n": "b", "k": 1}


def test_the_body_of_an_ancestor_that_arrives_late_is_kept(geo: Barrel) -> None:
    replicate(geo, revisions("x", "c", "b", "a", n=3))
    late = replicate(geo, revisions("x", "b", "a", n=2))[0]
    assert not late.repeated
    assert body(geo, "x", "2-b") == {"n": 2}
    assert geo.get("x").rev == "3-c"
    assert geo.head() == 1
    assert replicate(geo, revisions("x", "b", "a", n=2))[0].repeated


def test_two_branches_that_turn_out_to_be_one_are_one(geo: Barrel) -> None:
    replicate(geo, {"_id": "x", "_rev": "2-b", "n": 2}, {"_id": "x", "_rev": "1-a", "n": 1})
    assert geo.changes().results[0].changes == ["2-b", "1-a"]
    replicate(geo, revisions("x", "b", "a", n=2))
    assert geo.changes().results[0].changes == ["2-b"]
    assert "_conflicts" not in geo.get("x", conflicts=True).data


def test_links_may_be_told_below_a_revision_that_is_known(geo: Barrel) -> None:
    replicate(geo, {"_id": "x", "_rev": "1-a"}, revisions("x", "c", "b", generation=3))
    assert geo.changes().results[0].changes == ["3-c", "1-a"]
    assert replicate(geo, revisions("x", "c", "b", "a"))[0].repeated
    assert geo.changes().results[0].changes == ["3-c"]


def test_late_links_and_what_builds_on_them_may_come_in_one_call(geo: Barrel) -> None:
    replicate(geo, {"_id": "x", "_rev": "2-b", "n": 2}, {"_id": "x", "_rev": "1-a", "n": 1})
    replicate(geo, revisions("x", "b", "a", n=2), revisions("x", "z"))
    assert geo.changes().results[0].changes == ["2-b", "1-z"]
    replicate(geo, revisions("x", "c", "a", n=3))
    replicate(geo, revisions("x", "e", "b", "a"))
    assert geo.changes().results[0].changes == ["3-e", "2-c", "1-z"]


def test_ancestors_that_a_later_history_tells_are_known_from_then_on(geo: Barrel) -> None:
    replicate(geo, {"_id": "x", "_rev": "3-c"}, revisions("x", "d", "c", "b", "a"))
    assert geo.get("x", revs=True).data["_revisions"]["ids"] == ["d", "c", "b", "a"]
    assert replicate(geo, revisions("x", "a"))[0].seq == 2
    assert geo.changes().results[0].changes == ["4-d"]


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_a_history_longer_than_the_limit_still_finds_the_ancestor_that_is_here(store: Store, limit: int) -> None:
    short = store.create("short", {"revs_limit": limit})
    replicate(short, revisions("x", "a", n=1), revisions("x", *"gfedcba", n=7))
    assert short.changes().results[0].changes == ["7-g"]
    assert short.get("x", revs=True).data["_revisions"] == {"start": 7, "ids": [*"gfedcba"][:limit]}
    replicate(short, revisions("new", *"gfedcba", n=7))
    assert short.get("new", revs=True).data["_revisions"] == {"start": 7, "ids": [*"gfedcba"][:limit]}


@pytest.mark.parametrize(
    "doc",
    [
        {"_id": "x"},
        {"_rev": "1-a"},
        {"_id": "x", "_rev": "0-a"},
        {"_id": "x", "_rev": "a"},
        {"_id": "x", "_rev": "2-a", "_revisions": {"start": 1, "ids": ["a"]}},
        {"_id": "x", "_rev": "2-a", "_revisions": {"start": 2, "ids": ["b"]}},
        {"_id": "x", "_rev": "1-a", "_revisions": {"start": 1, "ids": ["a", "b"]}},
        {"_id": "x", "_rev": "1-a b"},
    ],
)
def test_replicated_documents_name_themselves_well(geo: Barrel, doc: dict[str, Any]) -> None:
    (refused,) = geo.bulk([doc], new_edits=False)
    assert isinstance(refused, BadRequest)
    assert geo.head() == 0


def test_revs_diff_names_what_is_not_here(geo: Barrel) -> None:
    replicate(geo, revisions("x", "c", "b", "a"), revisions("y", "a"))
    asked = {"x": ["3-c", "2-b", "4-d", "3-z"], "y": ["1-a"], "new": ["1-a"]}
    assert geo.revs_diff(asked) == {
        "x": {"missing": ["4-d", "3-z"], "possible_ancestors": ["3-c"]},
        "new": {"missing": ["1-a"]},
    }


# -- bulk


def test_in_a_bulk_each_document_is_answered_by_itself_and_in_order(geo: Barrel) -> None:
    geo.put({"n": 0}, id="there")
    outcomes = geo.bulk([{"_id": "a"}, {"_id": "there"}, {"_x": 1, "_id": "bad"}, b"[", {"_id": "a"}, {"_id": "b"}])
    kinds = [type(each).__name__ for each in outcomes]
    assert kinds == ["Written", "Conflict", "BadRequest", "BadRequest", "Conflict", "Written"]
    assert outcomes[2].as_dict()["id"] == "bad"  # type: ignore[union-attr]
    assert geo.head() == 3


def test_in_a_bulk_with_update_later_documents_extend_earlier_ones(geo: Barrel) -> None:
    text = b'{"docs": [{"_id": "a", "n": 1}, {"_id": "a", "n": 2}, {"_id": "a", "n": 3}], "update": true}'
    outcomes = geo.bulk_json(text)
    assert [each.seq for each in outcomes if isinstance(each, Written)] == [1, 2, 3]
    assert body(geo, "a") == {"n": 3}
    assert [row.seq for row in geo.changes().results] == [3]


def test_in_a_bulk_a_document_that_cannot_be_read_is_refused_alone(geo: Barrel) -> None:
    docs = [b'{"_id":"a"}', b'{"_id":"b","n":1e400}', b'{"_id":"c","n":1,"n":2}', b'{"_id":"d:","n":"\xff"}', b'"{}"']
    outcomes = geo.bulk_json(b'{"update":true, "docs": [' + b" , ".join(docs) + b"]}")
    assert [type(each).__name__ for each in outcomes] == ["Written"] + ["BadRequest"] * 4
    told = [each.reason for each in outcomes if isinstance(each, BadRequest)]
    for reason, words in zip(told, ["too large", "'n' twice", "not UTF-8", "a string"], strict=True):
        assert words in reason
    assert outcomes[2].details["id"] == "c"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text",
    [
        *(b"[]", b'{"docs": 1}', b'{"docs": [], "new_edits": 1}', b'{"docs": [], "x": 1}', b"{", b'{"docs":[{]}'),
        *(b'{"docs":[{"a":1}],"docs":[{"_id":"x:","b":2}]}', b'{"docs":[],"update":true,"update":false}', b"{}"),
        *(b'{"docs":[{"a":"\\ud800"}]}', b'{"docs":' + b"[" * 100_000, b"\xff", b'{"docs":null}'),
    ],
)
def test_a_bulk_that_is_no_bulk_is_refused_as_a_whole(geo: Barrel, text: bytes) -> None:
    assert isinstance(refusal(lambda: geo.bulk_json(text)), BadRequest)


def test_an_empty_bulk_has_no_answers(geo: Barrel) -> None:
    assert geo.bulk([]) == []


def test_many_are_read_at_once_each_with_its_own_error(geo: Barrel) -> None:
    first = geo.put({"n": 1}, id="a")
    second = geo.put({"n": 2}, id="a", rev=first.rev)
    found = geo.get_many([("a", None), ("none", None), ("a", first.rev), ("a", "9-x"), ("a", second.rev)])
    assert [getattr(each, "rev", type(each).__name__) for each in found] == [
        second.rev,
        "Missing",
        first.rev,
        "NotFound",
        second.rev,
    ]


# -- purge


def test_a_purge_leaves_nothing_behind(store: Store, geo: Barrel) -> None:
    geo.put({"a": [1, 2], "n": "x"}, id="x")
    geo.put({"n": 1}, id="y")
    purged = geo.purge("x")
    assert purged.seq == 3
    assert isinstance(refusal(lambda: geo.get("x")), Missing)
    assert [row.id for row in geo.changes().results] == ["y"]
    assert geo.find("n").results[0].id == "y"
    assert (count(store, "docs"), count(store, "revs"), count(store, "paths")) == (1, 1, 1)
    assert (geo.info().doc_count, geo.info().bytes) == (1, 7)
    entry = geo.tail(2)[0]
    assert entry.purged
    assert entry.id == "x"
    assert sorted(path for path, _ in entry.gone) == ["a/0/1", "a/1/2", "n/x"]
    assert geo.put({"n": 1}, id="x").created
    assert isinstance(refusal(lambda: geo.purge("never")), Missing)


def test_a_purged_branch_leaves_the_others(geo: Barrel) -> None:
    replicate(geo, revisions("x", "b", "a", n="b"), revisions("x", "d", "c", "a", n="d"))
    assert isinstance(refusal(lambda: geo.purge("x", ["2-zz"])), Conflict)
    geo.purge("x", ["3-d"])
    assert body(geo, "x") == {"n": "b"}
    assert geo.changes().results[0].changes == ["2-b"]
    assert geo.revs_diff({"x": ["2-c"]}) == {"x": {"missing": ["2-c"]}}
    assert [hit.value for hit in geo.find("n").results] == ["b"]


def test_a_deletion_can_be_purged(geo: Barrel) -> None:
    first = geo.put({}, id="x")
    geo.delete("x", rev=first.rev)
    geo.purge("x")
    assert (geo.info().doc_count, geo.info().deleted_count) == (0, 0)


# -- local documents


def test_local_documents_stand_beside_the_log(geo: Barrel) -> None:
    assert isinstance(refusal(lambda: geo.local_get("c")), Missing)
    first = geo.local_put("c", {"at": 1})
    assert (first.rev, first.created) == ("0-1", True)
    assert isinstance(refusal(lambda: geo.local_put("c", {"at": 2}, rev="0-7")), Conflict)
    assert isinstance(refusal(lambda: geo.local_put("new", {"at": 2}, rev="0-7")), Conflict)
    assert geo.local_put("c", {"at": 2}, rev="0-1").rev == "0-2"
    assert geo.local_put("c", {"at": 3}).rev == "0-3"
    assert geo.local_get("c").data == {"_id": "_local/c", "_rev": "0-3", "at": 3}
    geo.local_put("d/e", {})
    assert geo.local_put("_WilWcrh6IhnTAYJrMi_9A==", {}).id == "_local/_WilWcrh6IhnTAYJrMi_9A=="
    geo.local_delete("_WilWcrh6IhnTAYJrMi_9A==")
    assert geo.local_ids() == ["c", "d/e"]
    assert geo.local_ids("d/") == ["d/e"]
    geo.local_delete("c", rev="0-3")
    assert isinstance(refusal(lambda: geo.local_delete("c")), Missing)
    assert isinstance(refusal(lambda: geo.local_delete("c", rev="0-3")), Missing)
    assert geo.head() == 0
    assert geo.changes().results == []


@pytest.mark.parametrize(
    "doc", [{"_deleted": True}, {"_id": "d"}, {"_rev": "0-7"}, {"_x": 1}, b'{"a":1,"a":2}', b"[]"]
)
def test_a_local_document_that_cannot_be_meant_is_refused(geo: Barrel, doc: Any) -> None:
    geo.local_put("c", {"at": 1})
    assert isinstance(refusal(lambda: geo.local_put("c", doc, rev="0-1")), BadRequest)
    assert geo.local_get("c").rev == "0-1"
    assert geo.local_put("c", {"_id": "_local/c", "_rev": "0-1"}, rev="0-1").rev == "0-2"


# -- barrels


def test_barrels_are_made_set_up_and_dropped(store: Store) -> None:
    told: list[tuple[str, str]] = []
    remove = store.on_barrel(lambda what, name: told.append((what, name)))
    geo = store.create("geo", {"retain": True})
    assert isinstance(refusal(lambda: store.create("geo")), Exists)
    geo.put({"n": 1}, id="x")
    assert store.configure("geo", {"ttl": 60}).settings.retain
    assert store.barrel("geo").settings.ttl == 60
    assert isinstance(refusal(lambda: store.configure("geo", {"revs_limit": 0})), BadRequest)
    assert [info.name for info in store.barrels()] == ["geo"]
    store.drop("geo")
    assert isinstance(refusal(lambda: geo.put({}, id="y")), NotFound)
    assert isinstance(refusal(lambda: store.barrel("geo")), NotFound)
    again = store.create("geo")
    assert again.epoch != geo.epoch
    assert (again.head(), again.changes().results) == (0, [])
    assert told == [("created", "geo"), ("configured", "geo"), ("dropped", "geo"), ("created", "geo")]
    remove()


@pytest.mark.parametrize("name", ["", "A", "1a", "_x", "a b", "é", "a" * 129, "a?"])
def test_names_that_a_barrel_may_not_have_are_refused(store: Store, name: str) -> None:
    assert isinstance(refusal(lambda: store.create(name)), BadRequest)


def test_settings_changed_between_waiting_writes_lose_none_of_them(store: Store, geo: Barrel) -> None:
    with held(store):
        futures = [geo.submit([Write.put({"n": n}, id=f"a{n}")]) for n in range(50)]
        configuring = threading.Thread(target=store.configure, args=("geo", {"retain": True}))
        waiting = store.stats()["writer_waiting"]
        configuring.start()
        while store.stats()["writer_waiting"] == waiting:
            configuring.join(0.001)
        futures += [geo.submit([Write.put({"n": n}, id=f"b{n}")]) for n in range(50)]
    configuring.join()
    written = [future.result()[0] for future in futures]
    assert [each.seq for each in written if isinstance(each, Written)] == list(range(1, 101))
    assert geo.info().doc_count == 100
    assert len(geo.changes().results) == 100


def test_commits_are_told_to_hooks(store: Store, geo: Barrel) -> None:
    told: list[tuple[str, int]] = []
    remove = store.on_commit(lambda name, seq: told.append((name, seq)))
    geo.put({}, id="x")
    geo.local_put("l", {})
    remove()
    geo.put({}, id="y")
    geo.info()
    assert set(told) == {("geo", 1)}  # a hint may come twice


def test_a_write_whose_revision_came_before_without_its_parent_links_it(geo: Barrel) -> None:
    first = geo.put({"_id": "d", "x": 1}).rev
    with_child = geo.put({"_id": "e", "x": 1}).rev
    assert with_child.startswith("1-")
    child = str(next_revision(Revision.parse(first), False, b'{"x":2}'))
    geo.bulk([{"_id": "d", "_rev": child, "x": 2}], new_edits=False)
    told = geo.put({"_id": "d", "x": 2}, rev=first)
    assert (told.rev, told.repeated) == (child, True)
    assert geo.get("d", conflicts=True).extra == {}
