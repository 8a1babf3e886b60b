"""Where a service keeps attachments: by its settings, looked after, told in its health, refused where it is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from attachment_tools import damage, digest
from cli_tools import spile
from disks import small_disk
from object_stores import keys_in_environment, object_store

from broker.contents_place import check_place, contents_place
from broker.serve import Service, serving
from broker.settings import load_settings
from feeds import Store
from feeds.errors import BadRequest

from .http_tools import eventually

NOTE = b"a note that is kept" * 50


@asynccontextmanager
async def running(**flags: Any) -> AsyncIterator[tuple[Service, httpx.AsyncClient]]:
    given = {"http": "127.0.0.1:0", "mqtt": "127.0.0.1:0", "maintain_every": 0.1, **flags}
    async with serving(load_settings(given)) as service:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.http.port}", timeout=20) as client:
            yield service, client


async def attach(client: httpx.AsyncClient, id: str, content: bytes = NOTE) -> httpx.Response:
    await client.post("/barrels/geo")
    return await client.put(f"/barrels/geo/attachments/{id}/note", content=content)


async def blobs(client: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get("/health")).json()["parts"]["blobs"]
    return found


@pytest.fixture
def url(databases: Any) -> Iterator[str]:
    with databases.lent() as lent:
        yield lent


def test_the_place_follows_from_the_settings(tmp_path: Path) -> None:
    assert load_settings({"data": tmp_path}).blobs_place is None  # beside the database, which is there
    assert load_settings({"blobs": "elsewhere"}).blobs_place == Path("elsewhere")
    assert (
        load_settings({"blobs": "s3://bucket/a?endpoint=https://h"}).blobs_place == "s3://bucket/a?endpoint=https://h"
    )
    on_postgres = {"database": "postgresql://spile@db/spile", "data": tmp_path}
    assert load_settings(on_postgres).blobs_place == tmp_path / "blobs"
    assert contents_place("sqlite:///a/spile.db", tmp_path, None) is None
    assert contents_place("a/folder", tmp_path, None) is None


@pytest.mark.parametrize("place", ["ftp://host/a", "s3://me:secret@bucket", "s3://b?endpoint=https://me:secret@h"])
def test_a_place_that_can_be_none_is_refused_without_being_shown(place: str) -> None:
    with pytest.raises(BadRequest, match="blobs") as refused:
        load_settings({"blobs": place})
    assert "secret" not in f"{refused.value.reason} {refused.value.hint}"
    with pytest.raises(BadRequest):
        check_place(place)


def test_the_list_of_settings_shows_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPILE_BLOBS", "s3://bucket/prefix")
    rows = {row["setting"]: row["value"] for row in spile("settings").values}
    assert rows["blobs"] == "s3://bucket/prefix"
    assert {"attachment_bytes_max", "uploads_max", "downloads_max", "blobs_kept"} <= set(rows)


@pytest.mark.parametrize("kind", ["folder", "file"])
async def test_attachments_are_where_the_setting_says(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "kept elsewhere"
    given = str(place) if kind == "folder" else place.as_uri()
    async with running(data=tmp_path / "data", blobs=given) as (_, client):
        assert (await attach(client, "d")).status_code == 201
        assert (await client.get("/barrels/geo/attachments/d/note")).content == NOTE
    assert place.is_dir() and not (tmp_path / "data" / "blobs").exists()
    check = spile("check", "--data", str(tmp_path / "data"), "--blobs", given)
    assert (check.code, check.value["problems"]) == (0, [])
    out = str(tmp_path / "out")
    at = ("--database", str(tmp_path / "data"), "--blobs", given)
    assert spile("fetch", "geo", "d", "note", "-o", out, *at).code == 0


async def test_health_and_metrics_tell_what_is_kept(tmp_path: Path) -> None:
    async with running(data=tmp_path) as (_, client):
        assert (await blobs(client))["state"] == "running"
        await attach(client, "d")
        await attach(client, "e")

        async def counted() -> bool:
            return (await blobs(client)).get("refs") == 2

        await eventually(counted, seconds=20)
        told = await blobs(client)
        assert (told["contents"], told["bytes"], told["damaged"]) == (1, len(NOTE), 0)
        assert told["free_bytes"] > 0 and told["files"] >= 1

        async def scrubbed() -> bool:
            lines = (await client.get("/metrics")).text.splitlines()
            (figure,) = [line.split()[1] for line in lines if line.startswith("spile_blobs_scrubbed_bytes ")] or ["0"]
            return float(figure) >= len(NOTE)

        await eventually(scrubbed, seconds=20)


async def test_nothing_is_scrubbed_at_a_rate_of_0(tmp_path: Path) -> None:
    async with running(data=tmp_path, scrub_bytes_per_second=0) as (_, client):
        await attach(client, "d")

        async def went_by() -> bool:
            return int((await blobs(client))["rounds"]) >= 5

        await eventually(went_by, seconds=20)
        assert "\nspile_blobs_scrubbed_bytes 0" in (await client.get("/metrics")).text


async def test_an_upload_that_fills_the_disk_is_refused_and_a_smaller_one_is_taken_at_once(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", mib=8) as disk:
        async with running(data=tmp_path / "data", blobs=str(disk / "blobs")) as (_, client):
            await attach(client, "d")
            for number in range(2):
                refused = await client.put("/barrels/geo/attachments/d/large", content=bytes(range(256)) * 65_536)
                assert (refused.status_code, refused.json()["error"]) == (507, "storage_full")
                fits = bytes([number]) * 2**21
                assert (await client.put(f"/barrels/geo/attachments/fits{number}/f", content=fits)).is_success
                assert (await client.get(f"/barrels/geo/attachments/fits{number}/f")).content == fits
                assert (await client.put(f"/barrels/geo/docs/{number}", json={"n": number})).is_success
            assert (await client.get("/barrels/geo/attachments/d/note")).content == NOTE


async def test_damage_is_found_by_the_scrubber_and_mended_by_the_same_file(tmp_path: Path) -> None:
    async with running(data=tmp_path) as (_, client):
        await attach(client, "d")
        damage(tmp_path / "blobs", NOTE)

        async def found() -> bool:
            return (await blobs(client)).get("damaged") == 1

        await eventually(found, seconds=20)
        told = await blobs(client)
        assert told["ok"] and "damaged" in told["failure"]
        assert (await client.get("/barrels/geo/attachments/d/note")).json()["error"] == "bad_checksum"
        assert (await attach(client, "e")).is_success
        assert (await client.get("/barrels/geo/attachments/d/note")).content == NOTE

        async def mended() -> bool:
            return (await blobs(client)).get("damaged") == 0

        await eventually(mended, seconds=20)


async def test_another_place_than_before_is_refused_at_the_start(tmp_path: Path) -> None:
    async with running(data=tmp_path / "data") as (_, client):
        await attach(client, "d")
    with pytest.raises(BadRequest, match="kept elsewhere"):
        async with running(data=tmp_path / "data", blobs=str(tmp_path / "other")):
            raise AssertionError("it has started")
    async with running(data=tmp_path / "data") as (_, client):
        assert (await client.get("/barrels/geo/attachments/d/note")).content == NOTE


async def test_documents_are_served_while_the_object_store_is_away(tmp_path: Path) -> None:
    with keys_in_environment(), object_store(tmp_path / "s3.log") as objects:
        place = objects.url("spile", direct=False)
        async with running(data=tmp_path / "data", blobs=place) as (_, client):
            assert (await attach(client, "d")).status_code == 201
            await client.put("/barrels/geo/docs/plain", json={"n": 1})
        objects.proxy.refuse()
        async with running(data=tmp_path / "data", blobs=place) as (service, client):
            assert (await client.get("/barrels/geo/docs/plain")).json()["n"] == 1

            async def waiting() -> bool:
                return bool((await blobs(client))["state"] == "waiting")

            await eventually(waiting, seconds=60)
            rounds = service.maintenance.rounds
            async with asyncio.timeout(20):
                while service.maintenance.rounds < rounds + 3:
                    await asyncio.sleep(0.02)
            objects.proxy.heal()

            async def back() -> bool:
                return bool((await blobs(client))["state"] == "running")

            await eventually(back, seconds=60)
            assert (await client.get("/barrels/geo/attachments/d/note")).content == NOTE


async def test_processes_on_postgresql_share_one_place(url: str, tmp_path: Path) -> None:
    shared = (tmp_path / "shared").as_uri()
    async with (
        running(database=url, data=tmp_path / "one", blobs=shared) as (_, one),
        running(database=url, data=tmp_path / "two", blobs=shared) as (_, two),
    ):
        assert (await attach(one, "d")).status_code == 201
        assert (await two.get("/barrels/geo/attachments/d/note")).content == NOTE
        assert (await two.put("/barrels/geo/attachments/d/other", content=b"other")).is_success
        assert (await one.get("/barrels/geo/attachments/d/other")).content == b"other"
        assert digest(NOTE) in (await one.get("/barrels/geo/docs/d")).text


async def test_a_process_with_a_place_of_its_own_is_told_that_it_needs_a_shared_one(url: str, tmp_path: Path) -> None:
    async with (
        running(database=url, data=tmp_path / "one") as (_, one),
        running(database=url, data=tmp_path / "two") as (_, two),
    ):
        assert (await attach(one, "d")).status_code == 201
        refused = await two.get("/barrels/geo/attachments/d/note")
        assert refused.json()["error"] == "bad_request" and "elsewhere" in refused.json()["reason"]

        async def failing() -> bool:
            return bool((await blobs(two))["state"] == "failing")

        await eventually(failing, seconds=20)
        assert "--blobs" in (await blobs(two))["hint"]
    with pytest.raises(BadRequest, match="elsewhere") as at_start:
        async with running(database=url, data=tmp_path / "two"):
            raise AssertionError("it has started")
    assert "--blobs" in at_start.value.hint


def test_a_backup_without_damaged_contents_says_so(tmp_path: Path) -> None:
    with Store.open(tmp_path / "data") as store:
        barrel = store.create("geo")
        barrel.attach("d", "note", NOTE)
        barrel.attach("e", "note", b"sound")
    damage(tmp_path / "data" / "blobs", NOTE)
    check = spile("check", "--data", str(tmp_path / "data"))
    assert check.code == 1 and any(digest(NOTE) in problem for problem in check.value["problems"])
    written = spile("backup", str(tmp_path / "copy.db"), "--data", str(tmp_path / "data"))
    assert (written.code, written.value["damaged"]) == (1, [digest(NOTE).removeprefix("sha256-")])
    place = str(tmp_path / "again blobs")
    restored = spile("restore", str(tmp_path / "copy.db"), "--data", str(tmp_path / "again"), "--blobs", place)
    assert restored.code == 0, restored.err
    out = str(tmp_path / "out")
    at = ("--database", str(tmp_path / "again"), "--blobs", place)
    assert spile("fetch", "geo", "e", "note", "-o", out, *at).code == 0
    assert Path(out).read_bytes() == b"sound"
    assert spile("fetch", "geo", "d", "note", "-o", out, *at).code == 1


async def test_upkeep_goes_on_beside_a_round_of_contents(tmp_path: Path) -> None:
    async with running(data=tmp_path) as (service, client):
        await attach(client, "d")
        before = (service.maintenance.rounds, service.contents.stats()["rounds"])
        async with asyncio.timeout(20):
            while service.maintenance.rounds < before[0] + 3 or service.contents.stats()["rounds"] < before[1] + 3:
                await asyncio.sleep(0.02)
