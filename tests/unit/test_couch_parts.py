"""Pure parts of CouchDB's protocol: its table of routes, its options, its words for attachments and errors."""

from __future__ import annotations

import gzip
import re
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from broker.couch import couch_routes, stubs
from broker.couch.errors import CouchError, told
from broker.couch.query import Query
from broker.couch.table import TABLE
from broker.http.routing import Router
from broker.sessions import Sessions
from feeds.attachments.given import INLINE_BYTES_MAX
from feeds.attachments.inflating import Inflating
from feeds.errors import BadRequest, Conflict, Deleted, Missing, Overloaded, RateLimited, TooLarge

PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "couchdb.md"


def test_every_route_is_told_of_in_the_docs() -> None:
    page = PAGE.read_text()
    names = {part for row in TABLE for part in re.findall(r"/(_[a-z_]+)", row.template)}
    assert names >= {"_changes", "_bulk_docs", "_session"}
    assert not [name for name in names - {"_design", "_local"} if name not in page]


def test_the_routes_at_the_root_stand_beside_each_other_and_leave_the_rest_to_spile() -> None:
    router = Router([*couch_routes(), *couch_routes("")])
    assert router.match("/") is None
    assert router.match("/nothing/of/the/kind") is not None  # an attachment of a document
    for path in ("/couch", "/couch/", "/couch/db", "/couch/db/", "/db/", "/db/_changes", "/couch/a/b/c/d/e"):
        match = router.match(path)
        assert match is not None and "OPTIONS" in match.methods, path


@pytest.mark.parametrize(
    ("error", "status", "name", "reason"),
    [
        (Missing(), 404, "not_found", "missing"),
        (Deleted(), 404, "not_found", "deleted"),
        (Conflict("why"), 409, "conflict", "Document update conflict."),
        (TooLarge("so large"), 413, "too_large", "so large"),
        (RateLimited(), 429, "too_many_requests", None),
        (Overloaded(), 503, "service_unavailable", None),
        (CouchError(415, "bad_content_type", "x"), 415, "bad_content_type", "x"),
    ],
)
def test_errors_are_told_in_couchdbs_words(error: Any, status: int, name: str, reason: str | None) -> None:
    assert told(error)[:2] == (status, name)
    assert reason in (None, told(error).reason)


def test_what_the_body_says_beats_the_query_string_and_what_is_not_known_is_ignored() -> None:
    query = Query(b"limit=3&keys=%5B1%5D&nothing=x&descending=true").over({"limit": 5})
    assert (query.number("limit"), query.json("keys"), query.flag("descending")) == (5, [1], True)
    assert (query.number("skip"), query.flag("skip"), query.json("x")) == (None, False, None)


@pytest.mark.parametrize(
    "ask",
    [
        lambda query: query.number("x"),
        lambda query: query.flag("x"),
        lambda query: query.json("x"),
    ],
)
def test_an_option_that_is_none_is_refused(ask: Any) -> None:
    with pytest.raises(CouchError) as refused:
        ask(Query(b"x=yes"))
    assert refused.value.told.status == 400


def test_a_query_that_is_no_text_is_refused() -> None:
    with pytest.raises(CouchError):
        Query(b"x=%ff")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"data": "aGk=", "digest": "md5-x", "length": 9}, {"data": "aGk="}),
        ({"stub": True, "digest": "md5-x", "length": 9, "revpos": 2}, {"stub": True, "digest": "md5-x", "revpos": 2}),
        ({"stub": True, "digest": "md5-x", "encoding": "gzip", "encoded_length": 4}, {"stub": True}),
        ({"follows": True, "digest": "md5-x", "length": 9}, {"follows": True, "length": 9}),
        ({"stub": True, "revpos": 0, "odd": 1}, {"stub": True}),
        ({"data": "", "stub": True}, {"data": ""}),
        ({}, {"stub": True}),
    ],
)
def test_attachments_come_in_spiles_words(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert stubs.given({"a": before}) == {"a": after}


def test_compressed_data_comes_plain() -> None:
    data = b64encode(gzip.compress(b"hello" * 100)).decode()
    assert stubs.given({"a": {"data": data, "encoding": "gzip"}}) == {
        "a": {"data": b64encode(b"hello" * 100).decode()}
    }
    with pytest.raises(BadRequest):
        stubs.given({"a": {"data": "aGk=", "encoding": "gzip"}})


def test_what_the_attachments_of_a_document_become_is_bounded_for_all_of_them_together() -> None:
    half = b64encode(gzip.compress(bytes(INLINE_BYTES_MAX // 2))).decode()
    one = {"data": half, "encoding": "gzip"}
    assert len(stubs.given({"a": one, "b": one})) == 2
    with pytest.raises(TooLarge):
        stubs.given({"a": one, "b": one, "c": {"data": b64encode(gzip.compress(b"x")).decode(), "encoding": "gzip"}})


def test_a_gzip_is_made_plain_in_pieces_and_bounded() -> None:
    packed = gzip.compress(bytes(10_000_000))
    whole = Inflating("a", 10_000_000)
    assert sum(len(piece) for piece in whole.plain(packed)) == 10_000_000
    whole.end()
    with pytest.raises(TooLarge):
        list(Inflating("a", 9_999_999).plain(packed))


@pytest.mark.parametrize("cut", [lambda data: data[:-9], lambda data: data + b"more", lambda data: b"no" + data])
def test_what_is_no_whole_gzip_is_refused(cut: Any) -> None:
    inflating = Inflating("a", 1000)
    with pytest.raises(BadRequest):
        list(inflating.plain(cut(gzip.compress(b"hello"))))
        inflating.end()


def test_a_cookie_stands_for_a_name_until_its_time_is_over() -> None:
    now = [1000.0]
    sessions = Sessions(b"key", lambda: now[0])
    cookie = sessions.cookie("ann: of: the hill")
    assert sessions.name(cookie) == "ann: of: the hill"
    assert Sessions(b"other", lambda: now[0]).name(cookie) is None
    for wrong in ("", "x", cookie[:-1], cookie + "AAAA", "ä", "=" * 40):
        assert sessions.name(wrong) is None
    now[0] += 24 * 3600
    assert sessions.name(cookie) is None
