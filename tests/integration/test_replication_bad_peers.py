"""Peers that are none, or that lie: each is told by name, and nothing is written that was not verified."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec
import pytest
from http_tools import eventually, served
from impostor import answer, impostor
from ports import free_port
from replication_tools import QUICK, brought, leaves, subject
from store_tools import replicate, revisions
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from broker.access import TokenAccess
from feeds import Row, Store
from feeds.errors import BadRequest, Forbidden, NotFound, SpileError, Timeout, Unauthorized, Unavailable
from listeners.errors import Unreached
from listeners.replication import (
    BadPeer,
    Blob,
    Fetched,
    HttpPeer,
    LocalPeer,
    Options,
    Page,
    Peer,
    Replicator,
    Wanted,
    opened_peer,
    over_http,
)
from listeners.replication.checkpoints import Checkpoint
from listeners.replication.verifying import verified_or_not

WELCOME = json.dumps({"service": "spile", "store": "s", "version": "1"}).encode()
INFO = json.dumps({"name": "geo", "epoch": "e", "seq": 0, "settings": {}}).encode()


def spile(method: str, path: str) -> bytes | None:
    """What looks like a Spile at first."""
    return answer(200, WELCOME if path == "/" else INFO)


@pytest.mark.parametrize(
    ("told", "error", "says"),
    [
        (answer(200, b"<html>It works!</html>"), BadPeer, "not as a Spile"),
        (answer(200, b'{"couchdb":"Welcome"}'), BadPeer, "not as a Spile"),
        (answer(200, b'{"service":"other","store":"x"}'), BadPeer, "not a Spile"),
        (answer(200, WELCOME[:20]), BadPeer, "not as a Spile"),
        (answer(200, b"\xff\xfe"), BadPeer, "not as a Spile"),
        (answer(200, WELCOME, length=1000), Unavailable, "cannot be reached"),
        (answer(302, b"", "Location: http://127.0.0.1:1/elsewhere"), BadPeer, "http://127.0.0.1:1/elsewhere"),
        (answer(418, b"teapot"), BadPeer, "418"),
        (answer(502, b"<html>Bad gateway</html>"), Unavailable, "502"),
        (answer(404, b"not here"), NotFound, "404"),
        (answer(401, b""), Unauthorized, "401"),
        (answer(403, b'{"error":"forbidden","reason":"Not you"}'), Forbidden, "Not you"),
        (answer(504, b'{"error":"timeout","reason":"Too slow"}'), Timeout, "Too slow"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Unavailable, "cannot be reached"),
        (None, Unavailable, "cannot be reached"),
    ],
)
async def test_what_is_no_spile_is_told(told: bytes | None, error: type[SpileError], says: str) -> None:
    async with impostor(lambda method, path: told) as other:
        peer = HttpPeer(f"{other.url}/geo")
        with pytest.raises(error, match=says):
            await peer.identity()
        await peer.close()


async def test_where_nobody_listens_nothing_was_sent_and_where_an_answer_is_missing_it_may_have_been() -> None:
    docs = [Fetched("a", "1-a", b'{"_id":"a","_rev":"1-a"}')]
    port = free_port()
    for address in (f"http://127.0.0.1:{port}/geo", f"mqtt://127.0.0.1:{port}/geo"):
        async with opened_peer(address) as peer:
            with pytest.raises(Unreached):
                await peer.write(docs, {})
    async with impostor(lambda method, path: None) as other:
        peer = HttpPeer(f"{other.url}/geo")
        with pytest.raises(Unavailable) as lost:
            await peer.write(docs, {})
        assert not isinstance(lost.value, Unreached)
        await peer.close()


async def test_answers_are_asked_for_as_they_are_so_that_nothing_in_between_packs_them() -> None:
    async with impostor(spile) as other:
        peer = HttpPeer(f"{other.url}/geo", token="secret")
        await peer.identity()
        await peer.close()
        assert other.heads
        assert all("accept-encoding: identity\r\n" in head for head in other.heads)


async def test_a_redirect_is_not_followed_with_what_was_meant_for_another() -> None:
    async with impostor(spile) as elsewhere:
        moved = answer(307, b"", f"Location: {elsewhere.url}/")
        async with impostor(lambda method, path: moved) as other:
            peer = HttpPeer(f"{other.url}/geo", token="secret")
            with pytest.raises(BadPeer, match="sends us on"):
                await peer.identity()
            await peer.close()
        assert elsewhere.asked == []


@pytest.mark.parametrize(
    "told",
    [b'{"results":[]}', b'{"results":[{"doc":{}}]}', b'{"results":{}}', b'{"results":[{"doc":1},{"doc":2}]}', b"[]"],
)
async def test_answers_for_other_documents_than_were_asked_for_are_refused(told: bytes) -> None:
    async with impostor(lambda method, path: answer(200, told)) as other:
        peer = HttpPeer(f"{other.url}/geo")
        try:
            found = await peer.fetch([Wanted("a", "1-a"), Wanted("b", "1-b")])
        except BadPeer:
            found = []
        assert not [each for each in found if isinstance(each, Fetched)]
        await peer.close()


async def test_outcomes_that_do_not_fit_are_refused() -> None:
    async with impostor(lambda method, path: answer(200, b'{"results":[]}')) as other:
        peer = HttpPeer(f"{other.url}/geo")
        with pytest.raises(BadPeer, match="answers for 0"):
            await peer.write([Fetched("a", "1-a", b'{"_id":"a","_rev":"1-a"}')], {})
        await peer.close()


async def test_a_feed_that_is_none_ends_it(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.create("geo")
        peer = LocalPeer(store, "geo")
        async with impostor(
            lambda method, path: answer(404, b"") if "feed" in path else spile(method, path)
        ) as other:
            source = HttpPeer(f"{other.url}/geo")
            replicator = Replicator(source, peer, Options(patience=QUICK))
            with pytest.raises(NotFound):
                await replicator.run()
            assert replicator.stats()["state"] == "failed"
            await source.close()
        await peer.close()


async def test_a_feed_is_not_followed_elsewhere(tmp_path: Path) -> None:
    async with impostor(spile) as elsewhere, subject("local", tmp_path) as target:
        moved = answer(302, b"", f"Location: {elsewhere.url.replace('http', 'ws')}/barrels/geo/feed")
        async with impostor(lambda method, path: moved if "feed" in path else spile(method, path)) as other:
            source = HttpPeer(f"{other.url}/geo", token="secret")
            with pytest.raises(BadRequest, match=r"sends us on to ws://127\.0\.0\.1"):
                await brought(source, target.peer)
            await source.close()
        assert elsewhere.asked == []


ROW = '{"seq":1,"id":"a","rev":"1-aa","changes":["1-aa"]}'


@pytest.mark.parametrize(
    "told",
    [
        "<html>",
        '{"run":"RUN","start":true,"prev":"0-e","seq":"0-',
        '{"run":"RUN","start":true,"prev":"0-e","seq":"0-e","rows":[{"seq":1}]}',
        '{"run":"RUN","start":true,"prev":"0-e","seq":"0-e","rows":{}}',
        b"\xff\xfe",
    ],
)
async def test_a_feed_that_tells_no_arrays_ends_it(tmp_path: Path, told: str | bytes) -> None:
    async with subject("local", tmp_path) as target, feeding(lambda run: [told]) as source:
        with pytest.raises(BadRequest, match="array cannot be read"):
            await brought(source, target.peer)
        assert leaves(target.barrel) == {}


async def test_a_feed_that_tells_half_a_row_and_then_nothing_leaves_nothing_behind(tmp_path: Path) -> None:
    def half(run: str) -> list[str]:
        begin = f'{{"run":"{run}","start":true,"prev":"0-e","seq":"0-e","rows":[]}}'
        return [begin, f'{{"run":"{run}","prev":"0-e","seq":"1-e","rows":[{ROW}']

    async with subject("local", tmp_path) as target, feeding(half) as source:
        with pytest.raises(BadRequest, match="array cannot be read"):
            await brought(source, target.peer)
        assert target.barrel.head() == 0
        assert target.barrel.local_ids() == []


@asynccontextmanager
async def feeding(told: Callable[[str], Sequence[str | bytes]]) -> AsyncIterator[Peer]:
    """A peer that is a Spile but for its feed, which says this to each open."""

    async def feed(socket: ServerConnection) -> None:
        run = json.loads(await socket.recv())["run"]
        for each in told(run):
            await socket.send(each.replace("RUN", run) if isinstance(each, str) else each)
        await socket.wait_closed()

    def plain(connection: ServerConnection, request: Request) -> Response | None:
        if "feed" in request.path:
            return None
        if "local" in request.path:
            return connection.respond(HTTPStatus.NOT_FOUND, "")
        return connection.respond(HTTPStatus.OK, (WELCOME if request.path == "/" else INFO).decode())

    async with serve(feed, "127.0.0.1", 0, process_request=plain) as server:
        source = HttpPeer(f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/geo")
        yield source
        await source.close()


@pytest.mark.parametrize("call", ["fetch", "revs_diff", "write", "checkpoint", "save_checkpoint"])
@pytest.mark.parametrize("half", ["half a body", "half a JSON", "another JSON"])
async def test_half_an_answer_and_what_is_no_answer_are_told(call: str, half: str) -> None:
    body = b'{"results": [{"doc": {"_id": "a", "_rev": "1-aa"}}], "rev": "0-1"}'
    told = {
        "half a body": answer(200, body[:40], length=len(body)),
        "half a JSON": answer(200, body[:40]),
        "another JSON": answer(200, b'["something else"]'),
    }[half]
    asked: dict[str, tuple[Any, ...]] = {
        "fetch": ([Wanted("a", "1-aa")],),
        "revs_diff": ({"a": ["1-aa"]},),
        "write": ([Fetched("a", "1-aa", b'{"_id":"a","_rev":"1-aa"}')], {}),
        "checkpoint": ("replication-1",),
        "save_checkpoint": ("replication-1", Checkpoint(session_id="s", source_last_seq="1-e", history=()), None),
    }
    async with impostor(lambda method, path: told) as other:
        peer = HttpPeer(f"{other.url}/geo")
        with pytest.raises(Unavailable if half == "half a body" else BadPeer):
            await getattr(peer, call)(*asked[call])
        await peer.close()


@pytest.mark.parametrize(("status", "error"), [(200, BadPeer), (206, Unavailable)])
async def test_half_a_content_is_asked_for_from_where_it_broke_off(
    status: int, error: type[SpileError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that always breaks off nothing is taken for whole; who gives no parts is no peer."""
    monkeypatch.setattr(over_http, "_RESTS_S", (0.01, 0.02))
    content = bytes(1_000)

    def half(method: str, path: str) -> bytes:
        return answer(status if other.heads[1:] else 200, b"" if other.heads[1:] else content[:40], length=1_000)

    async with impostor(half) as other:
        peer = HttpPeer(f"{other.url}/geo")
        came = b""
        with pytest.raises(error):
            async for piece in peer.read_blob(Blob("d", "1-a", "f", f"sha256-{'0' * 64}", len(content))):
                came += piece
        assert len(came) == 40
        assert all("range: bytes=40-" in head for head in other.heads[1:])
        assert len(other.heads) == (2 if status == 200 else 6)
        await peer.close()


class Changing:
    """Access for the holder of a token, which may be another one from some moment on."""

    def __init__(self, token: str) -> None:
        self.token = token

    def who(self, headers: Any, host: str) -> str:
        return TokenAccess(self.token).who(headers, host)

    def decide(self, who: str, verb: Any, barrel: str, path: str) -> None:
        """The holder may do everything."""


@pytest.mark.parametrize("side", ["source", "target"])
async def test_credentials_that_end_during_the_run_end_it_and_new_ones_go_on(tmp_path: Path, side: str) -> None:
    access = Changing("first")
    async with served(tmp_path / "a", access=access) as service, subject("local", tmp_path / "b") as here:
        there = service.store.create("geo")
        source, target = (there, here.barrel) if side == "source" else (here.barrel, there)
        peer: Peer = HttpPeer(f"{service.url}/geo", token="first")
        ends = (peer, here.peer) if side == "source" else (here.peer, peer)
        replicator = Replicator(*ends, Options(continuous=True, patience=QUICK, checkpoint_s=0.05))
        task = asyncio.create_task(replicator.run())
        source.put({"_id": "before"})
        await eventually(lambda: target.head() == 1 and replicator.stats()["state"] == "idle")
        access.token = "second"
        source.put({"_id": "after"})
        source.put({"_id": "after", "again": True}, update=True)
        with pytest.raises(Unauthorized):
            await task
        assert (replicator.stats()["state"], replicator.stats()["error"]) == ("failed", "unauthorized")
        await peer.close()
        peer = HttpPeer(f"{service.url}/geo", token="second")
        done = await brought(*((peer, here.peer) if side == "source" else (here.peer, peer)))
        assert done["refused"] == 0
        assert leaves(target) == leaves(source)
        await peer.close()


async def test_a_target_that_vanishes_ends_what_runs_once_by_name(tmp_path: Path) -> None:
    async with subject("local", tmp_path / "a") as source, subject("http", tmp_path / "b") as target:
        source.barrel.put({"_id": "a"})
        target.store.drop("geo")
        replicator = Replicator(source.peer, target.peer, Options(patience=QUICK))
        with pytest.raises(NotFound, match=r"no barrel 'geo' at http://127.0.0.1:"):
            await replicator.run()
        assert (replicator.stats()["state"], replicator.stats()["error"]) == ("failed", "not_found")


async def test_a_merge_rule_that_raises_stops_nothing_and_is_named(tmp_path: Path) -> None:
    def broken(leaves: Any) -> Any:
        raise ValueError("no idea")

    async with subject("local", tmp_path / "a") as source, subject("http", tmp_path / "b") as target:
        target.store.merging.register("broken", broken)
        target.store.configure("geo", {"merge": {"rule": "python", "name": "broken"}})
        replicate(source.barrel, revisions("torn", "bb", side="b"), revisions("torn", "aa", side="a"))
        source.barrel.put({"_id": "whole"})
        done = await brought(source.peer, target.peer)
        assert (done["written"], done["refused"]) == (3, 0)
        assert leaves(target.barrel) == leaves(source.barrel)
        (torn,) = target.store.barrel("geo").conflicts.page().results
        assert torn.id == "torn" and "no idea" in (torn.reason or "")
        assert (await brought(source.peer, target.peer))["read"] == 0


async def test_credentials_that_are_wrong_are_told(tmp_path: Path) -> None:
    async with served(tmp_path, access=TokenAccess("right")) as service:
        service.store.create("geo")
        for token in ("wrong", None):
            peer = HttpPeer(f"{service.url}/geo", token=token)
            with pytest.raises(Unauthorized):
                await peer.identity()
            await peer.close()
        for right in (
            HttpPeer(f"{service.url}/geo", token="right"),
            HttpPeer(f"{service.url}/geo".replace("://", "://:right@")),
        ):
            assert (await right.identity()).barrel == "geo"
            assert [page.caught_up async for page in feed(right)] == [True]
            await right.close()


def feed(peer: Any) -> AsyncGenerator[Page, None]:
    from listeners.replication.filters import EVERYTHING

    generator: AsyncGenerator[Page, None] = peer.changes(
        None, EVERYTHING, docs=False, follow=False, told=lambda error: None
    )
    return generator


# -- a source that lies about documents


class Liar:
    """A source that tells these rows and gives these documents, whatever is asked for."""

    def __init__(self, peer: LocalPeer, rows: list[Row], docs: dict[str, bytes], data: bytes = b"") -> None:
        self._peer = peer
        self._rows = rows
        self._docs = docs
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._peer, name)

    async def changes(self, *given: Any, **named: Any) -> AsyncGenerator[Page, None]:
        yield Page(self._rows, "9-e", True)

    async def fetch(self, wanted: Any) -> list[Fetched | SpileError]:
        return [verified_or_not(each.id, each.rev, self._docs[each.id]) for each in wanted]

    async def read_blob(self, blob: Any, offset: int = 0) -> AsyncGenerator[bytes, None]:
        yield self._data[offset:]


def told(id: str, rev: str = "2-bb", doc: bytes | None = None, changes: list[str] | None = None) -> Row:
    row = Row(1, id, rev, changes or [rev])
    if doc is not None:
        row.doc = msgspec.Raw(doc)
    return row


async def lied(tmp_path: Path, rows: list[Row], docs: dict[str, bytes], data: bytes = b"") -> tuple[Any, Any]:
    async with subject("local", tmp_path / "a") as source, subject("local", tmp_path / "b") as target:
        liar = Liar(source.peer, rows, docs, data)  # type: ignore[arg-type]
        done = await brought(liar, target.peer)  # type: ignore[arg-type]
        return done, leaves(target.barrel)


def text(**fields: Any) -> bytes:
    made = {"_id": "bad", "_rev": "2-bb", "_revisions": {"start": 2, "ids": ["bb", "aa"]}, **fields}
    return msgspec.json.encode(made)


GOOD = {"good": text(_id="good")}


@pytest.mark.parametrize(
    "doc",
    [text(_id="other"), text(_rev="2-cc"), text(_revisions={"start": 7, "ids": ["bb"]}), text()[:-5], b"{}"],
)
async def test_a_wrong_revision_is_refused_and_the_others_go_over(tmp_path: Path, doc: bytes) -> None:
    done, there = await lied(tmp_path, [told("bad"), told("good")], {"bad": doc, **GOOD})
    assert list(there) == ["good"]
    assert [(each["id"], each["error"]) for each in done["refusals"]] == [("bad", "unfit")]


async def test_rows_that_lie_are_refused(tmp_path: Path) -> None:
    rows = [
        told("leaf", "1-aa", changes=["1-aa", "not a revision"]),
        told("doc", "1-aa", b'{"_id":"somebody else","_rev":"1-aa"}'),
        told("good"),
    ]
    done, there = await lied(tmp_path, rows, GOOD)
    assert list(there) == ["good"]
    assert {each["id"] for each in done["refusals"]} == {"leaf", "doc"}


@pytest.mark.parametrize("data", [b"damaged", b"shor", b"longer than it is"])
async def test_an_attachment_that_does_not_fit_its_digest_is_refused_with_its_document(
    tmp_path: Path, data: bytes
) -> None:
    stub = {"stub": True, "digest": f"sha256-{sha256(b'correct').hexdigest()}", "length": 7, "revpos": 1}
    docs = {"bad": text(_attachments={"f.txt": stub}), **GOOD}
    done, there = await lied(tmp_path, [told("bad"), told("good")], docs, data)
    assert list(there) == ["good"]
    (refusal,) = done["refusals"]
    assert (refusal["id"], "f.txt" in refusal["reason"]) == ("bad", True)
