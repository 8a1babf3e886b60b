"""Servers that are none, that do not know us, or that lie: each is told by name, and nothing is written of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from couch_peer_tools import TEXT, Ends, fake_ends, fill, ids
from couch_words import Fault, told
from impostor import answer, impostor
from ports import free_port
from replication_tools import brought
from store_tools import revisions

from feeds import Store
from feeds.errors import Forbidden, NotFound, SpileError, Unauthorized, Unavailable
from listeners.replication import (
    BadPeer,
    CouchPeer,
    Unfit,
    Wanted,
    opened_peer,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.open(tmp_path_factory.mktemp("store")) as opened:
        yield opened


@pytest.fixture
async def ends(store: Store) -> AsyncIterator[Ends]:
    async with fake_ends(store) as made:
        yield made


# -- who we are


async def test_a_cookie_that_is_not_taken_any_more_is_had_anew(ends: Ends) -> None:
    ends.couch.passwords = {"me": "secret"}
    peer = CouchPeer(ends.couch.url.replace("://", "://me:secret@"))
    ends.barrel.put({"_id": "a"})
    await brought(ends.local, peer)
    assert ends.couch.count("POST", "_session") == 1
    ends.couch.sessions.clear()
    ends.barrel.attach("b", "f", TEXT)
    await brought(ends.local, peer)
    ends.couch.sessions.clear()
    await peer.identity()
    assert ends.couch.count("POST", "_session") == 3
    assert set(ends.couch.docs) == {"a", "b"}
    assert "secret" not in peer.name
    await peer.close()


async def test_a_cookie_that_ends_while_a_content_is_sent_is_had_anew(ends: Ends) -> None:
    ends.couch.passwords = {"me": "secret"}
    peer = CouchPeer(ends.couch.url.replace("://", "://me:secret@"))
    ends.barrel.attach("b", "f", TEXT)
    ends.couch.fails("PUT", "/b?", Fault(401, b'{"error":"unauthorized","reason":"expired"}'))
    assert (await brought(ends.local, peer))["written"] == 1
    await peer.close()


async def test_a_server_without_sessions_gets_the_password_itself(ends: Ends) -> None:
    ends.couch.passwords = {"me": "secret"}
    ends.couch.fails("POST", "_session", told(404, {"error": "not_found"}))
    peer = CouchPeer(ends.couch.url.replace("://", "://me:secret@"))
    assert (await peer.identity()).store == "0123456789abcdef"
    await peer.identity()
    assert ends.couch.count("POST", "_session") == 1
    await peer.close()


async def test_a_wrong_password_is_told(ends: Ends) -> None:
    ends.couch.passwords = {"me": "secret"}
    for place in (ends.couch.url.replace("://", "://me:wrong@"), ends.couch.url):
        peer = CouchPeer(place)
        with pytest.raises(Unauthorized):
            await peer.identity()
        await peer.close()


# -- what is none, or lies


@pytest.mark.parametrize(
    ("told_at_all", "error", "says"),
    [
        (answer(200, b"<html>It works!</html>"), BadPeer, "not as a CouchDB"),
        (answer(200, b'{"service":"other"}'), BadPeer, "no CouchDB"),
        (answer(200, b'{"couchdb":"Welcome"}', length=1000), Unavailable, "cannot be reached"),
        (answer(302, b"", "Location: http://127.0.0.1:1/elsewhere"), BadPeer, "http://127.0.0.1:1/elsewhere"),
        (answer(418, b"teapot"), BadPeer, "418"),
        (answer(404, b'{"error":"not_found","reason":"missing"}'), NotFound, "missing"),
        (answer(403, b'{"error":"forbidden","reason":"Not you"}'), Forbidden, "Not you"),
        (answer(401, b'{"error":"unauthorized","reason":"Who?"}'), Unauthorized, r"http://127.0.0.1:\d+ .*: Who\?"),
        (None, Unavailable, "cannot be reached"),
    ],
)
async def test_what_is_no_couchdb_is_told(told_at_all: bytes | None, error: type[SpileError], says: str) -> None:
    async with impostor(lambda method, path: told_at_all) as other:
        peer = CouchPeer(f"{other.url}/db")
        with pytest.raises(error, match=says):
            await peer.identity()
        await peer.close()


async def test_a_database_that_is_not_there_is_named(ends: Ends) -> None:
    for name in ("none", "no/ne"):
        async with opened_peer(f"{ends.couch.url.rpartition('/')[0]}/{name.replace('/', '%2F')}") as peer:
            with pytest.raises(NotFound, match=f"no database '{name}' at http://127.0.0.1:") as refused:
                await peer.identity()
            assert "create_target" in (refused.value.hint or "")


async def test_a_server_that_does_not_run_is_told_as_the_system_tells_it() -> None:
    peer = CouchPeer(f"http://127.0.0.1:{free_port()}/db")
    with pytest.raises(Unavailable, match=r"cannot be reached: Connection refused\.$"):
        await peer.identity()
    await peer.close()


async def test_what_went_wrong_is_told_in_one_sentence() -> None:
    async with impostor(lambda method, path: None) as other:
        peer = CouchPeer(f"{other.url}/db")
        with pytest.raises(Unavailable, match=r"[^.]\.$"):
            await peer.identity()
        await peer.close()


async def test_what_is_neither_is_told() -> None:
    async with impostor(lambda method, path: answer(200, b'{"hello":"world"}')) as other:
        async with opened_peer(f"{other.url}/db") as peer:
            with pytest.raises(BadPeer, match="neither a Spile nor a CouchDB"):
                await peer.identity()


@pytest.mark.parametrize("part", ["_bulk_get", "_changes"])
async def test_a_redirect_is_not_followed(ends: Ends, part: str) -> None:
    fill(ends.couch)
    ends.couch.missing = {"_bulk_get"} if part == "open_revs" else set()
    elsewhere = Fault(302, b"", {"location": "http://127.0.0.1:1/elsewhere"})
    ends.couch.fails("GET", part, *[elsewhere] * 9)
    ends.couch.fails("POST", part, *[elsewhere] * 9)
    if part == "_changes":
        with pytest.raises(BadPeer, match="sends us on"):
            await brought(ends.peer, ends.local)
        assert ids(ends.barrel) == set()
    else:  # which says that it has no such thing
        assert (await brought(ends.peer, ends.local))["written"] == 5


def bulk(*docs: dict[str, Any]) -> Fault:
    return told(200, {"results": [{"id": "d", "docs": [{"ok": doc}]} for doc in docs]})


async def test_a_revision_that_is_another_one_is_refused_by_name(ends: Ends) -> None:
    right = revisions("d", "aa")
    for lie in (
        bulk(revisions("d", "bb")),
        bulk(revisions("e", "aa")),
        bulk({**right, "_revisions": {"start": 9, "ids": ["zz"]}}),
        bulk({**right, "_attachments": {"f": {"stub": True}}}),
        bulk({**right, "_attachments": {"f": {"digest": "sha1-x", "length": 1}}}),
        bulk({**right, "_attachments": []}),
        told(200, {"results": [{"id": "d", "docs": [{"error": {"error": "forbidden", "reason": "no"}}]}]}),
    ):
        ends.couch.fails("POST", "_bulk_get", lie)
        (found,) = await ends.peer.fetch([Wanted("d", "1-aa")])
        assert isinstance(found, (Unfit, Forbidden)), found


async def test_an_answer_that_leaves_documents_out_is_no_answer(ends: Ends) -> None:
    ends.couch.fails("POST", "_bulk_get", told(200, {"results": []}))
    with pytest.raises(BadPeer, match="does not tell of all"):
        await ends.peer.fetch([Wanted("d", "1-aa")])
