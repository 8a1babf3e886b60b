"""What a caller intends to write: well-formed when it exists."""

from __future__ import annotations

from typing import Any

import pytest

from feeds import Token, Write
from feeds.errors import BadRequest, TooLarge
from feeds.revisions import Revision
from feeds.writes import Verb, same


def test_a_put_takes_the_id_and_the_revision_from_either_place() -> None:
    inside = Write.put({"_id": "x", "_rev": "1-a", "n": 1})
    beside = Write.put(b'{"n": 1}', id="x", rev="1-a")
    assert inside == beside
    assert (inside.verb, inside.id, inside.rev, inside.body) == (Verb.PUT, "x", Revision(1, "a"), b'{"n":1}')


def test_a_put_without_an_id_makes_one() -> None:
    first, second = Write.put({}), Write.put({})
    assert first.id != second.id
    assert len(first.id) == 32


def test_update_means_set_only_where_no_revision_is_named() -> None:
    assert Write.put({}, id="x", update=True).verb is Verb.SET
    assert Write.put({}, id="x", rev="1-a", update=True).verb is Verb.PUT


def test_a_put_of_a_deletion_is_one() -> None:
    assert Write.put({"_deleted": True, "n": 1}, id="x").deleted
    assert not Write.put({"_deleted": False}, id="x").deleted


@pytest.mark.parametrize(
    "call",
    [
        lambda: Write.put({"_id": "a"}, id="b"),
        lambda: Write.put({"_rev": "1-a"}, id="x", rev="1-b"),
        lambda: Write.put({}, id="x", rev="a"),
        lambda: Write.put({}, id=""),
        lambda: Write.put({"_revisions": {"start": 1, "ids": ["a"]}}, id="x"),
        lambda: Write.put([], id="x"),  # type: ignore[arg-type]
        lambda: Write.merge("x", []),  # type: ignore[arg-type]
        lambda: Write.merge("x", b"1"),
        lambda: Write.merge("x", {"_id": "y"}),
        lambda: Write.merge("x", {"_deleted": True}),
        lambda: Write.merge("x", {"_rev": 1}),
        lambda: Write.merge("x", {"a": 2**70}),
        lambda: Write.merge("_x", {}),
        lambda: Write.delete("x", rev="1"),
        lambda: Write.delete(""),
        lambda: Write.replicate({"_id": "x"}),
        lambda: Write.replicate({"_rev": "1-a"}),
        lambda: Write.replicate({"_id": "x", "_rev": "1-a", "_revisions": {"start": 1, "ids": ["b"]}}),
        lambda: Write.purge("x", ("a",)),
    ],
)
def test_what_cannot_be_meant_is_refused(call: Any) -> None:
    with pytest.raises(BadRequest) as refused:
        call()
    assert refused.value.reason
    assert refused.value.hint


def test_limits_hold_for_documents_and_patches() -> None:
    for call in (Write.put, Write.replicate, lambda doc, **limits: Write.merge("x", doc, **limits)):
        with pytest.raises(TooLarge):
            call(b'{"_id":"x","_rev":"1-a","n":"' + b"x" * 100 + b'"}', bytes_max=50)


def test_a_merge_takes_its_revision_out_of_the_patch() -> None:
    patch = {"_id": "x", "_rev": "2-b", "n": None}
    write = Write.merge("x", patch)
    assert (write.rev, write.patch) == (Revision(2, "b"), {"n": None})
    assert patch == {"_id": "x", "_rev": "2-b", "n": None}


def test_a_replicated_write_has_its_history_newest_first() -> None:
    write = Write.replicate({"_id": "x", "_rev": "3-c", "_revisions": {"start": 3, "ids": ["c", "b", "a"]}})
    assert [str(each) for each in write.history] == ["3-c", "2-b", "1-a"]
    assert [str(each) for each in Write.replicate({"_id": "x", "_rev": "3-c"}).history] == ["3-c"]


def test_writes_do_not_change() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        Write.delete("x").id = "y"  # type: ignore[misc]


def test_tokens_of_the_same_request_are_the_same_and_of_others_are_not() -> None:
    token = Token.of("t", "ann", "put", "geo", "x", b"{}")
    assert token == Token.of("t", "ann", "put", "geo", "x", b"{}")
    assert token.digest != Token.of("t", "ann", "put", "geo", "x", b"{ }").digest
    scopes = {
        Token.of("t", who, verb, "geo", id, b"").scope for who in "ab" for verb in ("put", "set") for id in "xy"
    }
    assert len(scopes) == 8


@pytest.mark.parametrize("key", ["", "x" * 129, "\ud800"])
def test_what_is_no_text_of_128_bytes_is_no_token(key: str) -> None:
    with pytest.raises(BadRequest):
        Token.of(key, "ann", "put", "geo", "x", b"")


def test_the_same_thing_said_twice_is_said_once() -> None:
    assert same("_id", None, None) is None
    assert same("_id", "a", None) == same("_id", None, "a") == same("_id", "a", "a") == "a"
    with pytest.raises(BadRequest, match="_id"):
        same("_id", "a", 1)
