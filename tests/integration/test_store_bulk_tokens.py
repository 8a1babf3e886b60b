"""Tokens of bulk writes some of which are refused before they reach the writer: each keeps its own answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feeds import Barrel, Store, Token, Written
from feeds.errors import SpileError
from feeds.writes import Outcome


@pytest.fixture
def store(database_url: str, tmp_path: Path) -> Iterator[Store]:
    with Store.open(database_url, blobs=tmp_path / "contents") as opened:
        yield opened
        assert opened.check().problems == []


@pytest.fixture
def geo(store: Store) -> Barrel:
    return store.create("geo")


def bulk(geo: Barrel, docs: list[dict[str, Any]]) -> list[Outcome]:
    return geo.bulk(docs, token=Token.of("t", "ann", "bulk", "geo", "", b"docs"))


def with_upload(upload: str) -> list[dict[str, Any]]:
    """Three documents, of which the second one names an upload."""
    return [{"_id": "a"}, {"_id": "b", "_attachments": {"f": {"upload": upload}}}, {"_id": "c"}]


def told(outcomes: list[Outcome]) -> list[str]:
    return [each.id if isinstance(each, Written) else each.code for each in outcomes]


def test_what_was_refused_for_an_unfinished_upload_stays_refused_under_its_token(store: Store, geo: Barrel) -> None:
    upload = store.uploads.start(geo.key).id
    first = bulk(geo, with_upload(upload))
    assert [isinstance(each, SpileError) for each in first] == [False, True, False]
    store.uploads.append(geo.key, upload, 0, b"hello")
    store.uploads.finish(geo.key, upload)
    assert told(bulk(geo, with_upload(upload))) == told(first)


def test_what_was_accepted_is_told_again_when_its_upload_is_gone(store: Store, geo: Barrel) -> None:
    upload = store.uploads.start(geo.key).id
    store.uploads.append(geo.key, upload, 0, b"hello")
    store.uploads.finish(geo.key, upload)
    assert told(bulk(geo, with_upload(upload))) == ["a", "b", "c"]
    store.uploads.abort(geo.key, upload)
    assert told(bulk(geo, with_upload(upload))) == ["a", "b", "c"]


def test_a_bulk_write_of_which_nothing_can_be_read_is_refused_document_by_document(geo: Barrel) -> None:
    outcomes = bulk(geo, [{"_id": "a", "n": float("nan")}, {"_strange": 1}])
    assert told(outcomes) == ["bad_request", "bad_request"]
    assert geo.head() == 0
    assert geo.bulk([]) == []
