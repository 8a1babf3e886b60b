"""Attachments as users meet them: files in and out with flat memory, kept once, and safe while everything happens.

The long forms, of gibibytes and minutes, are `python -m benchmarks attachments`.
"""

from __future__ import annotations

import json
import os
import threading
from hashlib import sha256
from pathlib import Path

import pytest
from attachment_traffic import Traffic, disk_bytes
from flat_memory import Peak
from running import Running, serve, until

MIB = 1 << 20
PEAK_MIB_MAX = 64.0


class Watched(Peak):
    """The highest memory of a service."""

    def __init__(self, running: Running) -> None:
        super().__init__()
        self._running = running

    def _look(self) -> None:
        while not self._ended.wait(0.005):
            self.mib = max(self.mib, self._running.memory_mib())


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 200 MiB, no two of which are alike."""
    path = tmp_path_factory.mktemp("large") / "film.bin"
    with path.open("wb") as file:
        for _ in range(200):
            file.write(os.urandom(MIB))
    return path


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        found = sha256()
        while piece := file.read(MIB):
            found.update(piece)
    return f"sha256-{found.hexdigest()}"


def test_a_large_file_goes_in_and_out_with_flat_memory(spile: Running, large: Path, tmp_path: Path) -> None:
    spile.run("create", "geo")
    warm = tmp_path / "warm"
    warm.write_bytes(os.urandom(8 * MIB))
    spile.run("attach", "geo", "warm", str(warm))
    spile.run("fetch", "geo", "warm", "warm", "-o", str(tmp_path / "out"))
    idle = spile.memory_mib()
    with Watched(spile) as going_in:
        told = json.loads(spile.run("attach", "geo", "films", str(large)))
    with Watched(spile) as going_out:
        spile.run("fetch", "geo", "films", "film.bin", "-o", str(tmp_path / "film.bin"))
    assert told["digest"] == digest_of(large) == digest_of(tmp_path / "film.bin")
    assert going_in.mib - idle < PEAK_MIB_MAX, f"{going_in.mib:.0f} MiB going in, {idle:.0f} MiB idle"
    assert going_out.mib - idle < PEAK_MIB_MAX, f"{going_out.mib:.0f} MiB going out, {idle:.0f} MiB idle"


def test_the_same_file_on_a_thousand_documents_takes_its_space_once(spile: Running) -> None:
    spile.http.post("/barrels/geo", json={})
    file = os.urandom(3 * MIB)
    spile.http.put("/barrels/geo/attachments/d0/photo.jpg", content=file).raise_for_status()
    for number in range(1, 20):  # sent again
        spile.http.put(f"/barrels/geo/attachments/d{number}/photo.jpg", content=file).raise_for_status()
    begun = spile.http.post("/barrels/geo/uploads", content=file, headers={"Upload-Complete": "?1"})
    upload = {"upload": begun.json()["upload"]}
    for number in range(20, 1_000):  # uploaded once for all
        spile.http.put(f"/barrels/geo/attachments/d{number}/photo.jpg", params=upload).raise_for_status()
    taken = disk_bytes(spile.data / "blobs" / "files")
    assert len(file) <= taken < 2 * len(file)
    assert spile.http.get("/barrels/geo/attachments/d999/photo.jpg").content == file
    health = until(lambda: _blobs(spile)["refs"] == 1_000 and _blobs(spile), "a look at what is kept", 60)
    assert (health["contents"], health["bytes"]) == (1, len(file))


def test_the_same_small_file_on_a_thousand_documents_takes_its_space_once(spile: Running) -> None:
    spile.http.post("/barrels/geo", json={})
    file = os.urandom(4_000)
    for number in range(1_000):
        spile.http.put(f"/barrels/geo/attachments/d{number}/icon.png", content=file).raise_for_status()
    assert disk_bytes(spile.data / "blobs" / "files") <= 8_192
    assert spile.http.get("/barrels/geo/attachments/d999/icon.png").content == file


def test_a_hundred_small_attachments_come_in_one_document_and_in_many(spile: Running) -> None:
    spile.http.post("/barrels/geo", json={})
    threads = [threading.Thread(target=_attach_some, args=(spile.url, writer)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert spile.http.get("/barrels/geo").json()["doc_count"] == 100
    found = spile.http.get("/barrels/geo/paths/_attachments", params={"limit": 1_000}).json()["results"]
    assert len(found) == 400


def _attach_some(url: str, writer: int) -> None:
    import httpx

    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        for number in range(25):
            for name in range(4):
                place = f"/barrels/geo/attachments/d{writer}-{number}/{name}"
                client.put(place, content=b"%d %d %d" % (writer, number, name) * 400).raise_for_status()


def test_writers_and_readers_meet_no_error_while_everything_is_kept_tidy(tmp_path: Path) -> None:
    variables = {"SPILE_MAINTAIN_EVERY": "0.2", "SPILE_BLOBS_KEPT": "2", "SPILE_LOG_LEVEL": "warning"}
    program = (str(Path(__file__).parents[1] / "tools" / "eager_service.py"),)
    running = Running(tmp_path / "data", program=program, PYTHONPATH=str(Path(__file__).parents[2]), **variables)
    try:
        running.http.post("/barrels/busy", json={"log_kept": 0.5}).raise_for_status()
        traffic = Traffic(running.url, writers=4, readers=10)
        traffic.run(10.0)
        assert traffic.faults == []
        assert traffic.done["put 200"] + traffic.done["put 201"] > 50 and traffic.done["read 200"] > 50
        everything = {row["id"]: [] for row in running.http.get("/barrels/busy/changes").json()["results"]}
        running.http.post("/barrels/busy/docs/_purge", json=everything).raise_for_status()
        until(lambda: _blobs(running)["contents"] == 0, "the collector to give up what nobody names", 60)
        files = tmp_path / "data" / "blobs" / "files"
        until(lambda: disk_bytes(files) < MIB, "the bytes to be removed", 60)
        assert running.stop() == 0, running.output
    finally:
        running.kill()
    assert json.loads(check(tmp_path / "data"))["problems"] == []
    assert [line for line in running.output.splitlines() if "WARNING" in line or "ERROR" in line] == []


def check(data: Path) -> str:
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "broker.cli.main", "check", "--data", str(data)], capture_output=True, check=False
    )
    return done.stdout.decode()


def test_a_backup_brings_attachments_along(spile: Running, tmp_path: Path) -> None:
    spile.run("create", "geo")
    note = tmp_path / "note"
    note.write_bytes(os.urandom(3 * MIB))
    spile.run("attach", "geo", "d", str(note))
    spile.run("backup", str(tmp_path / "copy.db"), "--data", str(spile.data))
    spile.run("restore", str(tmp_path / "copy.db"), "--data", str(tmp_path / "restored"))
    assert json.loads(check(tmp_path / "restored"))["problems"] == []
    with serve(tmp_path / "restored") as restored:
        restored.run("fetch", "geo", "d", "note", "-o", str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == note.read_bytes()


def _blobs(running: Running) -> dict[str, int]:
    """What health and metrics tell of contents."""
    found: dict[str, int] = running.http.get("/health").json()["parts"]["blobs"]
    return found
