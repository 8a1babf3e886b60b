"""Peers that are none, or that lie, in nested calls: each is told by name, and nothing is believed that is not so."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from impostor import answer, impostor

from feeds import Store
from feeds.errors import Missing
from listeners.nested import Neighbours, Nest, Reach, Search

WELCOME = {"service": "spile", "store": "liar", "version": "1"}
INFO = {"name": "geo", "epoch": "e", "seq": 0, "settings": {}}


def liar(**calls: Any) -> Callable[[str, str], bytes | None]:
    """Answers as a Spile that takes everything, but for the calls that are given."""

    def handle(method: str, path: str) -> bytes | None:
        call = path.rpartition("/")[2]
        if call in calls:
            told = calls[call]
            return told if isinstance(told, bytes) or told is None else answer(200, json.dumps(told).encode())
        if call == "_bulk":
            return answer(200, b'{"results":[{}]}')
        return answer(200, json.dumps(WELCOME if path == "/" else INFO).encode())

    return handle


@asynccontextmanager
async def beside(folder: Path, handle: Callable[[str, str], bytes | None]) -> AsyncIterator[tuple[Nest, Store]]:
    async with impostor(handle) as other:
        with Store.open(folder) as store:
            store.create("geo")
            nest = Nest(store, Neighbours.of([f"liar={other.url}"]))
            yield nest, store
            await nest.close()


@pytest.mark.parametrize(
    ("told", "error"),
    [
        (answer(200, b"<html>"), "bad_peer"),
        (answer(200, b"[]"), "bad_peer"),
        (answer(200, b'{"wanted":2}'), "bad_peer"),
        (answer(302, b"", "Location: http://127.0.0.1:1/"), "bad_peer"),
        (answer(200, b'{"wanted":2}', length=500), "unavailable"),
        (answer(500, b"oops"), "unavailable"),
        (answer(403, b'{"error":"forbidden","reason":"Not you"}'), "forbidden"),
        (None, "unavailable"),
    ],
)
async def test_a_peer_that_cannot_pass_on_is_named_and_counts_for_itself(
    tmp_path: Path, told: bytes | None, error: str
) -> None:
    async with beside(tmp_path, liar(_p2p_write=told)) as (nest, _):
        done = (await nest.write("geo", {"_id": "FR"}, Reach(3))).told
        assert [holder.peer for holder in done.holders] == ["here", "liar"]
        assert [(miss.peer, miss.step, miss.error) for miss in done.failed] == [("liar", "pass_on", error)]


async def test_however_much_a_peer_tells_the_answer_stays_small(tmp_path: Path) -> None:
    many = [{"peer": f"p{n}" * 500, "store": f"s{n}" * 500, "barrel": "geo"} for n in range(3_000)]
    misses = [{"peer": "x" * 900, "step": "write", "error": "e" * 900, "reason": "r" * 9_000} for _ in range(2_000)]
    told = {"wanted": 9, "reached": 9, "complete": True, "holders": many, "failed": misses}
    async with beside(tmp_path, liar(_p2p_write=told)) as (nest, _):
        done = (await nest.write("geo", {"_id": "FR"}, Reach(64))).told
        assert len(done.holders) <= 102
        assert len(msgspec.json.encode(done)) < 256 << 10


@pytest.mark.parametrize(
    ("doc", "error"),
    [
        ({"_id": "DE", "_rev": "1-a"}, "unfit"),
        ({"_id": "FR", "_rev": "none"}, "bad_request"),
        ({"_id": "FR", "_rev": "2-b"}, "unfit"),
        ({"_id": "FR", "_rev": "2-b", "_revisions": {"start": 5, "ids": ["b"]}}, "unfit"),
        ({"_id": "FR", "_rev": "1-a", "_attachments": {"x": {"follows": True, "length": 3}}}, "unfit"),
        ({"_id": "FR"}, "bad_peer"),
        ([1], "bad_peer"),
        ("text", "bad_peer"),
    ],
)
async def test_a_document_that_is_not_the_one_that_was_asked_for_is_not_taken(
    tmp_path: Path, doc: Any, error: str
) -> None:
    told = {"answered": [], "failed": [], "doc": doc, "peer": "here"}
    async with beside(tmp_path, liar(_p2p_read=told)) as (nest, store):
        with pytest.raises(Missing) as caught:
            await nest.read("geo", "FR", Search(keep=True))
        assert f"liar ({error})" in caught.value.reason
        assert store.barrel("geo").head() == 0


async def test_an_attachment_that_does_not_fit_its_digest_is_not_kept(tmp_path: Path) -> None:
    stub = {"stub": True, "digest": "sha256-" + "0" * 64, "length": 3, "content_type": "text/plain", "revpos": 1}
    doc = {"_id": "FR", "_rev": "1-a", "_attachments": {"x": stub}}
    calls = {
        "_p2p_read": {"answered": [], "failed": [], "doc": doc, "peer": "here"},
        "_get": {"results": [{"doc": doc}]},
        stub["digest"]: answer(200, b"abc"),
    }
    async with beside(tmp_path, liar(**calls)) as (nest, store):
        _, told = await nest.read("geo", "FR", Search(keep=True))
        assert (told.peer, told.kept) == ("liar", False)
        assert store.barrel("geo").head() == 0


async def test_what_is_no_spile_is_named(tmp_path: Path) -> None:
    async with beside(tmp_path, lambda method, path: answer(200, b'{"couchdb":"Welcome"}')) as (nest, _):
        done = (await nest.write("geo", {"_id": "FR"}, Reach(2))).told
        assert [(miss.peer, miss.error) for miss in done.failed] == [("liar", "bad_peer")]
