"""A store whose PostgreSQL is killed, cut off, full or held up: who is told what, and nothing accepted is lost."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))
from databases import Databases
from postgres import Cluster, installed
from proxy import Proxy
from running import until
from store_tools import refusal

from feeds import Barrel, SpileError, Store, Token, Write, Written
from feeds.errors import StorageFull, Unavailable
from feeds.storage import postgres as connections

WITHIN_S = 10.0  # everybody is told by then, whatever the fault


@contextmanager
def impatient() -> Iterator[None]:
    """An answer is waited for two and a half seconds and not ten: where none comes, and only for as long."""
    with pytest.MonkeyPatch.context() as patch:
        # A property goes before what a connection has of its own since it was patient for a while.
        patch.setattr(connections.BoundedConnection, "answer_s", property(lambda _: 2.5, lambda *_: None))
        yield


@pytest.fixture
def _let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who holds a lock, or hangs inside a transaction, is borne with for one second."""
    for name in ("lock_timeout", "idle_in_transaction_session_timeout"):
        monkeypatch.setitem(connections._SETTINGS, name, "1s")


@pytest.fixture
def server() -> Iterator[Cluster]:
    """A server of the test's own, which syncs to the disk as it should."""
    if not installed():
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    made = Cluster(durable=True)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def url(databases: Databases) -> str:
    """A database that a test may leave behind in any state."""
    return databases.fresh()


@pytest.fixture
def door(postgres: Cluster) -> Iterator[Proxy]:
    with Proxy(lambda: postgres.port) as proxy:
        yield proxy


def through(door: Proxy, url: str) -> str:
    """The same database behind the proxy."""
    head, _, tail = url.rpartition(":")
    return f"{head}:{door.port}/{tail.partition('/')[2]}"


class Caller(threading.Thread):
    """Writes documents one after the other, each until it is accepted, with a token so that this does no harm."""

    def __init__(self, store: Store, who: str) -> None:
        super().__init__(name=f"caller {who}")
        self.accepted: dict[str, str] = {}
        self.refusals: list[SpileError] = []
        self.slowest_s = 0.0
        self._store = store
        self._who = who
        self._stopping = threading.Event()

    def run(self) -> None:
        number = 0
        while not self._stopping.is_set():
            id = f"{self._who}-{number}"
            while True:
                began = time.monotonic()
                try:
                    written = self._store.barrel("geo").put({"n": number}, id=id, token=Token(id, "s", "d"))
                except SpileError as error:
                    self.refusals.append(error)
                    self._stopping.wait(0.02)
                    if self._stopping.is_set():
                        return
                else:
                    self.accepted[id] = written.rev
                    break
                finally:
                    self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            number += 1

    def stop(self) -> None:
        self._stopping.set()
        self.join()


@contextmanager
def callers(*stores: Store, each: int = 3) -> Iterator[list[Caller]]:
    running = [Caller(store, f"{at}{number}") for at, store in enumerate(stores) for number in range(each)]
    for caller in running:
        caller.start()
    try:
        yield running
    finally:
        for caller in running:
            caller.stop()


def accepted(running: list[Caller]) -> int:
    return sum(len(caller.accepted) for caller in running)


def assert_all_there(store: Store, running: list[Caller]) -> None:
    geo = store.barrel("geo")
    entries = {entry.id: entry.rev for entry in geo.tail(0, 1 << 20)}
    for caller in running:
        for id, rev in caller.accepted.items():
            assert entries.get(id) == rev
    assert len(entries) == geo.head()  # no write came twice
    assert store.check().problems == []


def test_every_accepted_write_outlives_a_server_that_is_killed_and_started_again(server: Cluster) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    url = server.url(server.database())
    with Store.open(url) as one, Store.open(url) as other:
        one.create("geo")
        with callers(one, other) as running:
            for _ in range(3):
                before = accepted(running)
                until(lambda before=before: accepted(running) > before + 20, "writes are accepted")
                time.sleep(chance.uniform(0, 0.05))
                server.kill()
                until(lambda: one.failure is not None and other.failure is not None, "both tell that it is away")
                assert isinstance(refusal(lambda: one.barrel("geo").head()), Unavailable)
                server.start()
            before = accepted(running)
            until(lambda: accepted(running) > before + 20, "writes are accepted again")
            until(lambda: one.failure is None and other.failure is None, "both tell that it is back")
        told = [error for caller in running for error in caller.refusals]
        assert told
        assert {type(error) for error in told} == {Unavailable}
        assert all(error.retryable for error in told)
        assert max(caller.slowest_s for caller in running) < 3 * WITHIN_S  # beside others that use the disk
        assert_all_there(other, running)


@pytest.mark.alone
def test_a_black_hole_is_told_to_everybody_in_time_and_passes_by_itself(door: Proxy, url: str) -> None:
    with Store.open(through(door, url)) as store:
        geo = store.create("geo")
        with callers(store) as running:
            with impatient():
                until(lambda: accepted(running) > 20, "writes are accepted")
                door.black_hole()
                began = time.monotonic()
                error = refusal(lambda: [geo.head() for _ in range(100)])
                assert isinstance(error, Unavailable)
                assert time.monotonic() - began < WITHIN_S
                until(lambda: all(caller.refusals for caller in running), "every writer is told")
                until(lambda: store.failure is not None, "the store tells it")
                began = time.monotonic()
                refusal(geo.head)
                assert time.monotonic() - began < 1.5  # known by now: nobody waits for it by himself
                door.heal()
            before = accepted(running)
            until(lambda: accepted(running) > before + 20, "writes are accepted again")
            until(lambda: store.failure is None, "the store tells it")
            assert geo.head() > 0
        assert max(caller.slowest_s for caller in running) < WITHIN_S
        assert_all_there(store, running)


def test_a_connection_that_stands_still_and_goes_on_does_no_harm(door: Proxy, url: str) -> None:
    with Store.open(through(door, url)) as store:
        store.create("geo")
        with callers(store) as running:
            for _ in range(2):
                before = accepted(running)
                with impatient():
                    until(lambda before=before: accepted(running) > before + 20, "writes are accepted")
                    door.freeze()
                    until(lambda: store.failure is not None, "the store tells it")
                    door.heal()
        assert_all_there(store, running)


@pytest.mark.parametrize("way", ["up", "down"])
def test_connections_that_are_cut_anywhere_are_made_anew(door: Proxy, url: str, way: Any) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    with Store.open(through(door, url)) as store:
        store.create("geo")
        with callers(store) as running:
            for _ in range(20):
                cuts, before = door.cuts, accepted(running)
                door.cut_after(chance.randrange(3_000), way)
                until(lambda cuts=cuts: door.cuts > cuts, "the cut is made")
                until(lambda before=before: accepted(running) > before, "writes are accepted again")
        assert_all_there(store, running)


def test_a_commit_that_nobody_knows_of_is_told_as_such_and_the_token_tells(server: Cluster) -> None:
    with Store.open(server.url(server.database())) as store:
        geo = store.create("geo")
        # It commits, and then waits for a standby that never says that it has it.
        server.run("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        server.run("SELECT pg_reload_conf()")
        until(lambda: server.run("SHOW synchronous_standby_names") == [("nobody",)], "the setting holds")
        token = Token("k", "s", "d")
        with impatient():
            error = refusal(lambda: until(lambda: geo.put({"n": 1}, id="x", update=True, token=token) and None))
        assert isinstance(error, Unavailable)
        assert "not known" in error.reason
        assert "token" in error.hint
        assert error.as_dict()["outcome"] == "unknown"
        server.run("ALTER SYSTEM RESET synchronous_standby_names")
        server.run("SELECT pg_reload_conf()")
        until(lambda: store.failure is None and server.run("SHOW synchronous_standby_names") == [("",)], "it is over")
        written = until(lambda: _put(geo, token), "the write is answered")
        assert written.rev == geo.get("x").rev
        assert geo.head() == written.seq
        assert store.check().problems == []


def _put(geo: Barrel, token: Token) -> Written | None:
    try:
        return geo.put({"n": 1}, id="x", update=True, token=token)
    except Unavailable:
        return None


def test_connections_that_the_server_ends_are_replaced_and_nobody_is_told(postgres: Cluster, url: str) -> None:
    name = url.rpartition("/")[2]
    with Store.open(url) as store:
        geo = store.create("geo")
        for number in range(3):
            assert geo.put({"n": number}, id=f"d{number}").seq == number + 1
            assert geo.head() == number + 1
            ended = postgres.run(
                "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", name
            )
            assert len(ended) >= 3
            for pid, _ in ended:
                until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), "it is ended")
            # Only who watches the database connects again unasked, and it has told of the loss by then.
            present = "SELECT pid FROM pg_stat_activity WHERE datname = %s"
            until(lambda present=present: postgres.run(present, name), "a connection made anew")
            until(lambda: store.failure is None, "it was reached again")
        assert store.check().problems == []


@pytest.mark.usefixtures("_let_go")
def test_who_waits_too_long_for_another_transaction_is_told_and_may_repeat(postgres: Cluster, url: str) -> None:
    with Store.open(url) as store:
        geo = store.create("geo")
        with postgres.connect(url.rpartition("/")[2]) as holder:
            holder.execute("BEGIN")
            holder.execute("SELECT * FROM barrels FOR UPDATE")
            error = refusal(lambda: geo.put({}, id="x"))
            assert isinstance(error, Unavailable)
            assert "Another process holds" in error.reason
            assert geo.head() == 0  # readers wait for nobody
            holder.execute("ROLLBACK")
        assert geo.put({}, id="x").seq == 1
        assert store.failure is None


@pytest.mark.usefixtures("_let_go")
def test_a_process_that_hangs_inside_a_transaction_loses_it_and_does_no_harm(url: str) -> None:
    with Store.open(url) as one, Store.open(url) as other:
        geo = one.create("geo")
        hung = threading.Event()

        def hang(transaction: Any) -> int:
            work = transaction.work(geo.key, "geo")
            if not hung.is_set():
                hung.set()
                until(lambda: other.barrel("geo").head() == 1, "the other goes on")
            transaction.execute("SELECT 1")
            return int(work.seq)

        result: list[int] = []
        waiting = threading.Thread(target=lambda: result.append(one.writer.call(hang, geo.key)))
        waiting.start()
        hung.wait(WITHIN_S)
        until(lambda: _put(other.barrel("geo"), Token("k", "s", "d")), "the other's write is taken")
        waiting.join()
        assert result == [1]  # done anew, on what the other left
        assert geo.submit([Write.put({"_id": "y"})]).result()[0].seq == 2  # type: ignore[union-attr]
        assert one.check().problems == []


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system takes root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=False)
    if mounted.returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_refuses_and_recovers(server: Cluster) -> None:
    place = server.folder / "small"
    place.mkdir()
    with small_disk(place, "8m"):
        shutil.chown(place, "postgres")
        server.run(f"CREATE TABLESPACE small LOCATION '{place}'")
        name = server.database()
        with Store.open(server.url(name)) as store:
            geo = store.create("geo")
            geo.bulk([{"_id": f"d{number}", "n": number} for number in range(100)])
            server.run("ALTER TABLE revs SET TABLESPACE small", database=name)
            filler = place / "filler"
            filler.write_bytes(b"x" * (5 << 20))
            # Random texts: they are not made smaller.
            texts = [os.urandom(8 << 10).hex() for _ in range(60)]
            error = refusal(lambda: geo.put({"texts": texts * 8}, id="large"))
            assert isinstance(error, StorageFull)
            assert store.failure is not None
            assert geo.head() == 100
            filler.unlink()
            assert geo.put({"n": 1}, id="small").seq == 101
            assert store.failure is None
            assert store.check().problems == []
        server.drop(name)
        server.run("DROP TABLESPACE small")
