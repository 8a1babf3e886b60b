"""Who follows a barrel and how far everyone is behind, over HTTP and in the metrics."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect

from broker.http import OpenAccess
from broker.http import lag_metrics as shown_metrics
from broker.http.services import Verb
from feeds import Position
from feeds.errors import Forbidden

from .http_tools import Served, eventually, fill, served


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as running:
        fill(running.store.create("geo"), 10)
        yield running


async def told(web: Served, barrel: str = "geo") -> dict[str, Any]:
    answer = await web.client.get(f"/barrels/{barrel}/listeners")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def listener(web: Served, name: str = "mirror") -> dict[str, Any] | None:
    return next((each for each in (await told(web))["listeners"] if each["name"] == name), None)


def feed(web: Served) -> connect:
    return connect(f"ws://127.0.0.1:{web.server.port}/barrels/geo/feed", proxy=None)


class Following:
    """A listener on a WebSocket, which acknowledges when it is told to."""

    def __init__(self, socket: ClientConnection, **opening: Any) -> None:
        self._socket = socket
        self._opening = {"run": "r", "since": "first", **opening}
        self.rows: list[int] = []
        self.position = ""

    async def until(self, seq: int) -> Following:
        if not self.position:
            await self._socket.send(msgspec.json.encode(self._opening).decode())
        async with asyncio.timeout(20):
            while not self.position.startswith(f"{seq}-"):
                array = msgspec.json.decode(await self._socket.recv())
                self.rows += [row["seq"] for row in array["rows"]]
                self.position = array["seq"]
        return self

    async def acknowledge(self) -> None:
        await self._socket.send(f'{{"run":"r","ack":"{self.position}","window":1000,"bytes":1048576}}')


async def test_a_listener_that_is_away_is_behind_by_all_that_was_written_since(web: Served) -> None:
    geo = web.store.barrel("geo")
    web.store.cursors.put([("geo", "away", Position(4, geo.epoch))])
    found = await listener(web, "away")
    assert found is not None
    assert found["seconds_behind"] >= 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", found["at"])
    del found["seconds_behind"], found["at"]
    assert found == {
        "barrel": "geo",
        "name": "away",
        "position": geo.position(4),
        "seq_behind": 6,
        "snapshot": False,
        "connected": False,
        "client": None,
        "dead_letters": 0,
    }


async def test_a_connected_listener_is_behind_by_what_it_has_not_acknowledged(web: Served) -> None:
    async with feed(web) as socket:
        following = await Following(socket, name="mirror").until(10)
        before = await listener(web)
        assert before is not None
        assert (before["seq_behind"], before["connected"]) == (10, True)
        assert before["client"].startswith("websocket/")
        await following.acknowledge()

        async def level() -> bool:
            found = await listener(web)
            return found is not None and (found["seq_behind"], found["seconds_behind"]) == (0, 0.0)

        await eventually(level)
        found = await listener(web)
        assert found is not None
        assert found["position"] == following.position

    async def away() -> bool:
        found = await listener(web)
        return found is not None and not found["connected"]

    await eventually(away)


async def test_what_a_connected_listener_is_not_concerned_with_is_no_lag_to_it(web: Served) -> None:
    async with feed(web) as socket:
        following = await Following(socket, name="mirror", patterns=["region/north"]).until(10)
        await following.acknowledge()
        fill(web.store.barrel("geo"), 1, start=11)
        head = web.store.barrel("geo").head()

        async def level() -> bool:
            found = await listener(web)
            return found is not None and found["seq_behind"] == 0 and head == 11

        await eventually(level)


async def test_streams_without_a_name_are_shown_too(web: Served) -> None:
    async with feed(web) as socket:
        await Following(socket).until(10)
        (stream,) = (await told(web))["streams"]
        assert (stream["name"], stream["stream"], stream["seq_behind"]) == (None, "feed", 10)
        assert (await told(web))["listeners"] == []


async def test_a_listener_of_a_barrel_made_anew_is_to_be_sent_a_snapshot(web: Served) -> None:
    geo = web.store.barrel("geo")
    web.store.cursors.put([("geo", "away", Position(10, geo.epoch))])
    web.store.drop("geo")
    gone = await listener(web, "away")
    assert gone is not None
    assert (gone["snapshot"], gone["seq_behind"]) == (True, 0)
    fill(web.store.create("geo"), 3)
    anew = await listener(web, "away")
    assert anew is not None
    assert (anew["snapshot"], anew["seq_behind"]) == (True, 3)


async def test_dead_letters_are_counted(web: Served) -> None:
    geo = web.store.barrel("geo")
    web.store.cursors.put([("geo", "a/b", Position(4, geo.epoch)), ("geo", "a", Position(4, geo.epoch))])
    for seq in (1, 2):
        geo.local_put(f"dead/a%2Fb/{geo.epoch}/{seq:020d}", {})
    found = {each["name"]: each["dead_letters"] for each in (await told(web))["listeners"]}
    assert found == {"a/b": 2, "a": 0}


async def test_all_barrels_are_told_at_once(web: Served) -> None:
    other = web.store.create("x/y")
    geo = web.store.barrel("geo")
    web.store.cursors.put([("geo", "m", Position(1, geo.epoch)), ("x/y", "m", Position(0, other.epoch))])
    found = (await web.client.get("/listeners")).json()
    assert [(each["barrel"], each["name"]) for each in found["listeners"]] == [("geo", "m"), ("x/y", "m")]
    assert found["here"]
    assert [each["name"] for each in (await told(web, "x%2Fy"))["listeners"]] == ["m"]


async def test_a_barrel_that_nobody_ever_heard_of_is_not_found(web: Served) -> None:
    assert (await web.client.get("/barrels/none/listeners")).status_code == 404


async def test_a_listener_is_forgotten_once_it_is_away(web: Served) -> None:
    async with feed(web) as socket:
        following = await Following(socket, name="a/b c").until(10)
        await following.acknowledge()
        await eventually(lambda: web.store.cursors.get("geo", "a/b c") is not None)
        refused = await web.client.delete("/barrels/geo/listeners/a%2Fb%20c")
        assert (refused.status_code, refused.json()["error"]) == (409, "conflict")
    await eventually(lambda: not web.streams.standings().streams)
    done = await web.client.delete("/barrels/geo/listeners/a%2Fb%20c")
    assert (done.status_code, done.json()) == (200, {"forgotten": "a/b c"})
    assert (await told(web))["listeners"] == []
    assert (await web.client.delete("/barrels/geo/listeners/a%2Fb%20c")).status_code == 404


class GeoOnly(OpenAccess):
    """Everyone may read `geo`, and administer nothing."""

    def decide(self, who: str, verb: Verb, barrel: str, path: str) -> None:
        if verb != "read" or barrel not in ("", "geo"):
            raise Forbidden(f"Not {barrel}.")


async def test_only_what_may_be_read_is_told(tmp_path: Path) -> None:
    async with served(tmp_path, access=GeoOnly()) as web:
        for name in ("geo", "secret"):
            barrel = web.store.create(name)
            web.store.cursors.put([(name, "m", Position(0, barrel.epoch))])
        assert [each["barrel"] for each in (await web.client.get("/listeners")).json()["listeners"]] == ["geo"]
        assert (await web.client.get("/barrels/secret/listeners")).status_code == 403
        assert (await web.client.delete("/barrels/geo/listeners/m")).status_code == 403


async def figures(web: Served) -> dict[str, float]:
    lines = (await web.client.get("/metrics")).text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line.startswith("spile_"))
    return {name: float(value) for name, value in pairs}


async def test_the_metrics_show_listeners_streams_and_publishers(web: Served) -> None:
    geo = web.store.barrel("geo")
    web.store.add_publisher("embedded")
    web.store.move_publisher("embedded", {geo: 7})
    web.store.cursors.put([("geo", "away", Position(4, geo.epoch)), ("gone", "late", Position(4, "x"))])
    async with feed(web) as socket:
        await Following(socket, name="mirror").until(10)

        async def looked() -> bool:
            return 'spile_listener_connected{barrel="geo",listener="mirror"}' in await figures(web)

        await eventually(looked)
        found = await figures(web)
    assert found['spile_listener_seq_behind{barrel="geo",listener="away"}'] == 6
    assert found['spile_listener_seconds_behind{barrel="geo",listener="away"}'] >= 0
    assert found['spile_listener_connected{barrel="geo",listener="away"}'] == 0
    assert found['spile_listener_connected{barrel="geo",listener="mirror"}'] == 1
    assert found['spile_listener_snapshot{barrel="gone",listener="late"}'] == 1
    assert found['spile_publisher_seq_behind{barrel="geo",broker="embedded"}'] == 3
    (stream,) = (name for name in found if name.startswith("spile_stream_seq_behind"))
    assert found[stream] == 10


async def test_so_many_series_are_shown_and_no_more(web: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown_metrics, "SHOWN_MAX", 3)
    geo = web.store.barrel("geo")
    web.store.cursors.put([("geo", f"l{seq}", Position(seq, geo.epoch)) for seq in range(10)])
    found = await figures(web)
    shown = {name for name in found if name.startswith("spile_listener_seq_behind{")}
    assert shown == {f'spile_listener_seq_behind{{barrel="geo",listener="l{seq}"}}' for seq in range(3)}
    assert found['spile_lag_left_out{kind="listener"}'] == 7
    assert found['spile_lag_left_out{kind="stream"}'] == 0
