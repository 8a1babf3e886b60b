"""A store in trouble: a locked database, a full disk, faulty writes among good ones, callers that give up."""

from __future__ import annotations

import sqlite3
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from disks import Ballast, small_disk

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))
from store_tools import change, held, refusal

from feeds import Barrel, SpileError, Store, StoreSettings, Write, Written
from feeds.errors import Conflict, Damaged, Overloaded, StorageFull, Unavailable
from feeds.storage import database


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def geo(store: Store) -> Barrel:
    return store.create("geo")


# -- one group


def test_one_refused_write_does_not_harm_the_others_of_its_group(store: Store, geo: Barrel) -> None:
    geo.put({}, id="there")
    groups = store.stats()["writer_groups"]
    with held(store):
        futures = [geo.submit([Write.put({"n": n}, id="there" if n == 5 else f"d{n}")]) for n in range(10)]
    outcomes = [future.result()[0] for future in futures]
    assert store.stats()["writer_groups"] == groups + 2
    assert isinstance(outcomes.pop(5), Conflict)
    assert [each.seq for each in outcomes if isinstance(each, Written)] == list(range(2, 11))
    assert store.check().problems == []


def test_one_fault_is_told_to_the_one_who_caused_it(store: Store, geo: Barrel) -> None:
    geo.put({"n": 1}, id="broken")
    geo.bulk([{"_id": "broken", "_rev": "2-b", "n": 2}], new_edits=False)
    change(store, "UPDATE revs SET body = NULL WHERE generation = 1")
    with held(store):
        futures = [geo.submit([Write.put({"n": n}, id=f"d{n}")]) for n in range(5)]
        # The deletion of the winner would make a leaf the winner whose body is not there.
        futures.insert(3, geo.submit([Write.delete("broken", rev="2-b")]))
    with pytest.raises(Damaged):
        futures.pop(3).result()
    assert [future.result()[0].seq for future in futures] == [3, 4, 5, 6, 7]  # type: ignore[union-attr]
    assert geo.get("broken").rev == "2-b"


def test_a_document_whose_row_is_damaged_is_refused_and_all_others_are_written(store: Store, geo: Barrel) -> None:
    geo.put({}, id="damaged")
    change(store, "UPDATE docs SET others = '[['")
    with held(store):
        futures = [geo.submit([Write.put({}, id=id, update=True)]) for id in ("a", "damaged", "b")]
    with pytest.raises(Damaged):
        futures.pop(1).result()
    assert [future.result()[0].seq for future in futures] == [2, 3]  # type: ignore[union-attr]
    assert store.writer.alive
    assert geo.put({}, id="c").seq == 4


def test_an_error_inside_a_task_is_told_to_its_caller_only(store: Store, geo: Barrel) -> None:
    def fail(_transaction: Any) -> None:
        raise ZeroDivisionError("nobody expects this")

    results: list[BaseException] = []

    def call() -> None:
        try:
            store.writer.call(fail)
        except ZeroDivisionError as error:
            results.append(error)

    with held(store):
        first = geo.submit([Write.put({}, id="a")])
        caller = threading.Thread(target=call)
        caller.start()
        second = geo.submit([Write.put({}, id="b")])
    caller.join()
    assert len(results) == 1
    assert [first.result()[0].seq, second.result()[0].seq] == [1, 2]  # type: ignore[union-attr]


def test_a_caller_that_gave_up_before_its_turn_is_passed_over(store: Store, geo: Barrel) -> None:
    with held(store):
        futures = [geo.submit([Write.put({}, id=f"d{n}")]) for n in range(3)]
        assert futures[1].cancel()
    assert [futures[0].result()[0].seq, futures[2].result()[0].seq] == [1, 2]  # type: ignore[union-attr]
    with held(store):
        alone = geo.submit([Write.put({}, id="alone")])
        assert alone.cancel()
    assert geo.put({}, id="after").seq == 3
    assert not futures[0].cancel()


def test_a_fault_in_a_hook_harms_nobody(store: Store, geo: Barrel, caplog: pytest.LogCaptureFixture) -> None:
    told: list[int] = []

    def fail(_name: str, _seq: int) -> None:
        raise ZeroDivisionError("nobody expects this")

    store.on_commit(fail)
    store.on_commit(lambda _name, seq: told.append(seq))
    geo.put({}, id="x")
    assert geo.put({}, id="y").seq == 2
    assert told[0] == 1
    assert "a commit hook failed" in caplog.text


def test_many_writers_leave_no_gap(store: Store, geo: Barrel) -> None:
    seqs: list[int] = []
    refused: list[SpileError] = []

    def write(number: int) -> None:
        for step in range(50):
            try:
                seqs.append(geo.put({"n": step}, id=f"d{(number + step) % 20}", update=True).seq)
            except SpileError as error:
                refused.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == []
    assert sorted(seqs) == list(range(1, 401))
    assert [entry.seq for entry in geo.tail(0)] == list(range(1, 401))
    assert store.check().problems == []


def test_a_full_queue_refuses_at_once_and_works_again_when_it_is_empty(tmp_path: Path) -> None:
    with Store.open(tmp_path / "small", StoreSettings(write_queue_max=10)) as store:
        geo = store.create("geo")
        with held(store):
            futures = [geo.submit([Write.put({}, id=f"d{n}")]) for n in range(10)]
            error = refusal(lambda: geo.submit([Write.put({}, id="more")]))
            assert isinstance(error, Overloaded)
            assert error.retryable
        assert [future.result()[0].seq for future in futures] == list(range(1, 11))  # type: ignore[union-attr]
        assert geo.put({}, id="more").seq == 11


def test_what_waits_is_committed_when_the_store_is_closed(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    geo = store.create("geo")
    futures: list[Future[Any]] = [geo.submit([Write.put({"n": n}, id=f"d{n}")]) for n in range(500)]
    store.close()
    assert all(future.done() for future in futures)
    with Store.open(tmp_path / "store") as again:
        assert again.barrel("geo").head() == 500


# -- locked


def test_a_locked_database_refuses_writes_and_takes_them_again_when_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_MS", 100)
    with Store.open(tmp_path / "store") as store:
        geo = store.create("geo")
        geo.put({"n": 1}, id="x")
        assert store.database.path is not None
        with closing(sqlite3.connect(store.database.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            futures = [geo.submit([Write.put({}, id=f"d{n}")]) for n in range(50)]
            for future in futures:
                error = future.exception(30)
                assert isinstance(error, Unavailable)
                assert error.retryable
                assert "locked" in error.reason
            assert geo.get("x").data["n"] == 1
            other.execute("ROLLBACK")
        assert geo.put({}, id="d0").seq == 2
        assert store.check().problems == []


def test_a_short_lock_is_waited_for(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store") as store:
        geo = store.create("geo")
        assert store.database.path is not None
        with closing(sqlite3.connect(store.database.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            future = geo.submit([Write.put({}, id="x")])
            other.execute("ROLLBACK")
        assert future.result()[0].seq == 1  # type: ignore[union-attr]


# -- full


def fill(barrel: Barrel) -> tuple[int, SpileError]:
    """Write until it is refused; how much was accepted, and why it ended."""
    accepted = barrel.head()
    while True:
        try:
            barrel.put({"text": "x" * 20_000, "n": accepted}, id=f"d{accepted}")
        except SpileError as error:
            return accepted, error
        accepted += 1


def test_a_full_database_refuses_and_recovers_with_nothing_half_stored(store: Store, geo: Barrel) -> None:
    (pages,) = store.writer.call(lambda transaction: transaction.execute("PRAGMA page_count")[0])
    change(store, f"PRAGMA max_page_count = {pages + 100}")
    accepted, error = fill(geo)
    assert isinstance(error, StorageFull)
    assert accepted > 5
    assert geo.head() == accepted
    many = geo.submit([Write.put({"text": "x" * 20_000}, id=f"m{n}") for n in range(3)])
    with pytest.raises(StorageFull):
        many.result()
    assert store.check().problems == []
    change(store, "PRAGMA max_page_count = 1000000")
    assert geo.put({"text": "x" * 20_000}, id="more").seq == accepted + 1
    assert store.check().problems == []


def test_a_full_disk_refuses_and_recovers_with_nothing_half_stored(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * 1_000_000)
        with Store.open(disk / "store") as store:
            geo = store.create("geo")
            accepted, error = fill(geo)
            assert isinstance(error, Unavailable)
            assert geo.head() == accepted
            assert store.check().problems == []
            ballast.unlink()
            assert geo.put({"text": "x" * 20_000}, id="more").seq == accepted + 1
            accepted, _ = fill(geo)
        with Store.open(disk / "store", create=False) as store:
            assert store.barrel("geo").head() == accepted
            assert store.check().problems == []


def test_a_store_that_was_refused_for_a_full_disk_is_opened_once_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        ballast = Ballast(disk)
        ballast.grow()
        assert isinstance(refusal(lambda: Store.open(disk / "store")), Unavailable)
        ballast.drop()
        Store.open(disk / "store").close()


def test_an_error_is_told_also_where_the_database_has_undone_the_transaction_by_itself(store: Store) -> None:
    def look() -> None:
        with store.database.snapshot() as connection:
            # As it does of itself when the disk fails.
            connection.exec_driver_sql("INSERT OR ROLLBACK INTO meta SELECT * FROM meta")

    assert "UNIQUE constraint failed" in refusal(look).reason
    assert store.barrels() == []


def test_a_backup_onto_a_full_disk_is_refused_and_leaves_nothing(store: Store, geo: Barrel, tmp_path: Path) -> None:
    geo.bulk([{"_id": f"d{n}", "text": "x" * 50_000} for n in range(100)])
    with small_disk(tmp_path / "disk") as disk:
        assert isinstance(refusal(lambda: store.backup(disk / "copy.db")), StorageFull)
        assert list(disk.iterdir()) == []
