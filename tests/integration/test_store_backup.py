"""Backups: consistent while others write, whole or not there, and stores of their own when restored."""

from __future__ import annotations

import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from store_tools import Clock, count, refusal

import feeds
from feeds import CheckReport, Manifest, Position, Store, Token
from feeds.errors import BadRequest, Damaged, EpochChanged, Exists, NewerSchema, NotFound, StoreLocked


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store", clock=Clock()) as opened:
        geo = opened.create("geo", {"ttl_field": "until"})
        geo.bulk([{"_id": f"d{number}", "n": number, "text": "x" * 300} for number in range(500)])
        geo.local_put("cursor", {"at": geo.position(7)})
        yield opened


def test_a_backup_restores_to_all_that_was_there(store: Store, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    manifest = store.backup(tmp_path / "copy.db", progress=lambda done, total: told.append((done, total)))
    assert (manifest.store, manifest.schema, manifest.at) == (store.id, "0001", "2023-11-14T22:13:20Z")
    assert told[-1][0] == told[-1][1] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.db", "store"]
    Store.restore(tmp_path / "copy.db", tmp_path / "again")
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["spile.db", "spile.lock"]
    geo = store.barrel("geo")
    with Store.open(tmp_path / "again") as other:
        assert other.check().problems == []
        back = other.barrel("geo")
        assert [row.rev for row in back.changes().results] == [row.rev for row in geo.changes().results]
        assert back.settings == geo.settings
        assert back.head() == geo.head()
        assert back.local_get("cursor").data["at"] == geo.position(7)


def test_whatever_the_store_answers_with_can_be_named(store: Store, tmp_path: Path) -> None:
    assert type(store.backup(tmp_path / "copy.db")) is Manifest
    assert type(store.check()) is CheckReport
    assert [name for name in feeds.__all__ if not hasattr(feeds, name)] == []


def test_a_restored_store_is_another_in_a_new_epoch(store: Store, tmp_path: Path) -> None:
    geo = store.barrel("geo")
    geo.put({}, id="t", token=Token.of("t", "ann", "put", "geo", "t", b""))
    store.move_publisher("home", {geo: 100})
    store.backup(tmp_path / "copy.db")
    Store.restore(tmp_path / "copy.db", tmp_path / "again")
    with Store.open(tmp_path / "again") as other:
        back = other.barrel("geo")
        assert other.id != store.id
        assert back.epoch != geo.epoch
        assert isinstance(refusal(lambda: back.changes(Position(7, geo.epoch))), EpochChanged)
        assert other.publisher_position("home", back) is None
        assert count(other, "tokens") == 0
        assert other.note("backup") is None
        assert back.put({"n": 1}, id="new").seq == geo.head() + 1


def test_a_backup_is_of_one_moment_while_others_write(store: Store, tmp_path: Path) -> None:
    geo = store.barrel("geo")
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            geo.bulk([{"_id": f"d{number}", "n": 0} for number in range(0, 500, 7)], update=True)

    def step(_done: int, _total: int) -> None:
        at = geo.head()
        while geo.head() == at:
            stop.wait(0.001)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        store.backup(tmp_path / "copy.db", progress=step)
    finally:
        stop.set()
        writer.join()
    Store.restore(tmp_path / "copy.db", tmp_path / "again")
    with Store.open(tmp_path / "again") as other:
        assert other.check().problems == []
        assert 500 <= other.barrel("geo").head() < geo.head()


def test_nothing_is_written_over(store: Store, tmp_path: Path) -> None:
    store.backup(tmp_path / "copy.db")
    assert isinstance(refusal(lambda: store.backup(tmp_path / "copy.db")), Exists)
    assert isinstance(refusal(lambda: store.backup(tmp_path / "store" / "spile.db")), Exists)
    assert isinstance(refusal(lambda: Store.restore(tmp_path / "copy.db", tmp_path / "store")), StoreLocked)
    Store.restore(tmp_path / "copy.db", tmp_path / "again")
    assert isinstance(refusal(lambda: Store.restore(tmp_path / "copy.db", tmp_path / "again")), Exists)


def test_a_backup_that_cannot_be_written_leaves_nothing(store: Store, tmp_path: Path) -> None:
    missing = refusal(lambda: store.backup(tmp_path / "no" / "copy.db"))
    assert isinstance(missing, NotFound) and str(tmp_path / "no") in missing.reason
    assert not (tmp_path / "no").exists()

    def fail(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.backup(tmp_path / "copy.db", progress=fail)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    store.backup(tmp_path / "copy.db")


def test_a_restore_that_was_broken_off_is_not_in_the_way_of_the_next(store: Store, tmp_path: Path) -> None:
    store.barrel("geo").attach("d1", "map", [b"x" * 100_000])
    store.backup(tmp_path / "copy.db")
    told: list[int] = []

    def fail(done: int, _total: int) -> None:
        told.append(done)
        if (tmp_path / "again" / "blobs").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Store.restore(tmp_path / "copy.db", tmp_path / "again", progress=fail)
    Store.restore(tmp_path / "copy.db", tmp_path / "again")
    with Store.open(tmp_path / "again") as other:
        assert other.check().problems == []


def test_what_is_no_backup_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database" * 100)
    (tmp_path / "empty").touch()
    for name in ("text", "empty", "none", "store"):
        error = refusal(lambda name=name: Store.restore(tmp_path / name, tmp_path / "again"))  # type: ignore[misc]
        assert isinstance(error, BadRequest | Damaged), (name, error)
    assert isinstance(refusal(lambda: Store.restore(tmp_path / "store" / "spile.db", tmp_path / "again")), BadRequest)
    assert not (tmp_path / "again").exists()


def test_a_damaged_backup_is_refused(store: Store, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    store.backup(copy)
    with copy.open("r+b") as file:
        for page in range(20, copy.stat().st_size // 4096, 3):
            file.seek(page * 4096 + 50)
            file.write(b"\xff" * 500)
    assert isinstance(refusal(lambda: Store.restore(copy, tmp_path / "again")), Damaged)
    assert not (tmp_path / "again").exists()


def test_a_backup_of_a_newer_spile_is_refused(store: Store, tmp_path: Path) -> None:
    store.backup(tmp_path / "copy.db")
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy, copy:
        copy.execute("""UPDATE meta SET value = json_set(value, '$.schema', '9999') WHERE key = 'backup'""")
    assert isinstance(refusal(lambda: Store.restore(tmp_path / "copy.db", tmp_path / "again")), NewerSchema)
