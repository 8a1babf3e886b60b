"""Locks that one process of a store has at a time, and what is refused to whoever had one before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, TypeVar

import pytest
from postgres import Cluster
from running import until
from store_tools import Clock, change, held, refusal, rows

from feeds import Store
from feeds.errors import Unavailable
from feeds.storage.locks import EXPIRY_S, FREE, Fence, LockLost, SharedLocks
from feeds.storage.publishers import ABSENT_S, WATCHED_S

T = TypeVar("T")
NAME = "external-1"


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    with Store.open(database_url) as opened:
        yield opened


@pytest.fixture
def url(databases: Any) -> Iterator[str]:
    with databases.lent() as lent:
        yield lent


class Rival:
    """A process of its own, as far as locks see: a store with its sessions, and a clock that a test moves."""

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        self.clock = Clock()
        self.store = Store.open(url)
        self.locks = SharedLocks(self.store.database, self.store.statements, clock=self.clock)

    def acquire(self) -> Fence | None:
        return self.locks.acquire(NAME, self.name)

    def take(self) -> Fence:
        fence = self.acquire()
        assert fence is not None
        return fence

    def close(self) -> None:
        self.locks.close()
        self.store.close()


@pytest.fixture
def first(url: str) -> Iterator[Rival]:
    with closing(Rival(url, "first")) as rival:
        yield rival


@pytest.fixture
def second(url: str) -> Iterator[Rival]:
    with closing(Rival(url, "second")) as rival:
        yield rival


# -- on any database


def test_a_lock_that_nobody_has_is_taken_and_each_taking_is_a_new_term(store: Store) -> None:
    with closing(store.locks()) as locks:
        assert locks.state(NAME) is None
        assert locks.acquire(NAME, "a") == Fence(NAME, "a", 1)
        assert locks.acquire(NAME, "a") == Fence(NAME, "a", 2)
        assert locks.acquire("another", "a") == Fence("another", "a", 1)
        found = locks.state(NAME)
    assert found is not None
    assert (found.holder, found.term) == ("a", 2)
    assert found.at > 1_700_000_000


def test_only_the_present_term_beats(store: Store) -> None:
    with closing(store.locks()) as locks:
        old = locks.acquire(NAME, "a")
        new = locks.acquire(NAME, "a")
        assert old is not None
        assert new is not None
        assert not locks.beat(old)
        assert locks.beat(new)
        locks.release(old)
        assert locks.beat(new)
        locks.release(new)
        assert not locks.beat(new)
        found = locks.state(NAME)
        assert found is not None
        assert found.holder == FREE
        assert locks.acquire(NAME, "b") == Fence(NAME, "b", 3)


def test_positions_move_only_under_the_present_term(store: Store) -> None:
    geo = store.create("geo")
    with closing(store.locks()) as locks:
        old = locks.acquire(NAME, "a")
        store.add_publisher(NAME, old)
        store.move_publisher(NAME, {geo: 3}, old)
        new = locks.acquire(NAME, "a")
    assert isinstance(refusal(lambda: store.move_publisher(NAME, {geo: 4}, old)), LockLost)
    assert isinstance(refusal(lambda: store.add_publisher(NAME, old)), LockLost)
    assert store.publisher_position(NAME, geo) == 3
    store.move_publisher(NAME, {geo: 5}, new)
    assert store.publisher_position(NAME, geo) == 5


def test_a_broker_that_never_comes_back_is_forgotten_and_one_that_is_there_is_not(database_url: str) -> None:
    clock = Clock()
    with Store.open(database_url, clock=clock) as store:
        geo = store.create("geo", {"log_kept": 2 * ABSENT_S})
        store.add_publisher("here")
        store.add_publisher("gone")
        clock.now += 2 * ABSENT_S + 1
        store.add_publisher("here")
        store.maintain()
        assert store.publisher_position("gone", geo) is None
        assert store.publisher_position("here", geo) == 0


def test_a_store_that_was_closed_for_weeks_forgets_no_broker_before_it_had_time_to_come(database_url: str) -> None:
    clock = Clock()
    with Store.open(database_url, clock=clock) as store:
        store.create("geo", {"log_kept": 1})
        store.add_publisher("home")
    clock.now += 30 * ABSENT_S
    with Store.open(database_url, clock=clock) as store:
        store.maintain()
        assert store.publisher_position("home", store.barrel("geo")) == 0
        clock.now += WATCHED_S
        store.maintain()
        assert store.publisher_position("home", store.barrel("geo")) is None


# -- between processes


def test_a_rival_waits_while_the_holder_beats(first: Rival, second: Rival) -> None:
    fence = first.take()
    for _ in range(10):
        assert second.acquire() is None
        second.clock.now += EXPIRY_S / 2
        assert first.locks.beat(fence)
    second.clock.now += EXPIRY_S
    assert second.acquire() is None, "the last beat was not seen before"


def test_a_lock_is_taken_from_a_holder_that_is_silent_and_its_sessions_are_ended(first: Rival, second: Rival) -> None:
    fence = first.take()
    writer = backend(first.store)
    assert second.acquire() is None
    second.clock.now += EXPIRY_S - 0.01
    assert second.acquire() is None
    second.clock.now += 0.01
    taken = second.take()
    assert taken.term == fence.term + 1
    until(lambda: not rows(second.store, ALIVE, writer), "the end of the session")
    assert not settled(lambda: first.locks.beat(fence)), "it has to connect anew, and finds its lock taken"
    assert first.acquire() is None
    assert settled(lambda: first.store.create("geo")).put({"_id": "a"}).seq == 1, "the process itself goes on"


def test_a_transaction_that_hangs_does_not_hold_up_the_next_holder(first: Rival, second: Rival) -> None:
    fence = first.take()
    session = first.store.database.connect_writer()
    session.begin([(first.store.statements.lock_store or "", ())])
    assert second.acquire() is None
    second.clock.now += EXPIRY_S
    second.store.add_publisher(NAME, second.take())
    assert isinstance(refusal(lambda: settled(lambda: first.store.move_publisher(NAME, {}, fence))), LockLost)
    session.close()


def test_a_holder_whose_sessions_are_gone_is_followed_at_once(url: str, first: Rival) -> None:
    dead = Rival(url, "dead")
    fence = dead.take()
    assert first.acquire() is None
    dead.close()
    assert until(first.acquire, "the lock of a process that ended").term == fence.term + 1


def test_a_lock_that_was_given_back_is_taken_at_once(first: Rival, second: Rival) -> None:
    fence = first.take()
    assert second.acquire() is None
    first.locks.release(fence)
    assert second.take().term == fence.term + 1


def test_of_many_rivals_one_takes_a_silent_holders_lock(url: str, first: Rival, second: Rival) -> None:
    with closing(Rival(url, "third")) as third:
        first.take()
        assert (second.acquire(), third.acquire()) == (None, None)
        second.clock.now += EXPIRY_S
        third.clock.now += EXPIRY_S
        assert second.acquire() is not None
        assert third.acquire() is None


def test_a_clock_of_the_database_that_jumps_does_not_matter(first: Rival, second: Rival) -> None:
    fence = first.take()
    for jump in (-86_400, 86_400):
        change(first.store, f"UPDATE locks SET at = at + {jump}")
        assert second.acquire() is None
        assert first.locks.beat(fence)
    second.acquire()
    second.clock.now += EXPIRY_S
    assert second.acquire() is not None


def test_a_rival_that_may_not_end_sessions_takes_the_lock_all_the_same(
    postgres: Cluster, url: str, first: Rival, caplog: pytest.LogCaptureFixture
) -> None:
    database = url.rpartition("/")[2]
    user = postgres.user(f"weak_{database}")
    postgres.run(f'GRANT ALL ON ALL TABLES IN SCHEMA public TO "{user}"', database=database)
    fence = first.take()
    writer = backend(first.store)
    with closing(Rival(postgres.url(database, user=user), "weak")) as weak:
        assert weak.acquire() is None
        weak.clock.now += EXPIRY_S
        assert weak.take().term == fence.term + 1
    assert "could not be ended" in caplog.text
    assert rows(first.store, ALIVE, writer)


def test_beats_need_neither_the_writer_nor_a_reader(first: Rival) -> None:
    fence = first.take()
    database = first.store.database
    with held(first.store), database.reading(), database.reading():
        database.reach.lost("a reader lost its connection")
        assert first.locks.beat(fence)
    database.reach.back()


ALIVE = "SELECT 1 FROM pg_stat_activity WHERE pid = ?"


def settled(call: Callable[[], T]) -> T:
    """What the call gives, once the store has found out that its sessions were ended, and has made others."""
    given: list[T] = []

    def went_well() -> bool:
        try:
            given.append(call())
        except Unavailable:
            return False
        return True

    until(went_well, "the store to have sessions again")
    return given[0]


def backend(store: Store) -> int:
    """The process of the server that serves the store's writer."""
    pid: int = store.writer.call(lambda transaction: transaction.execute("SELECT pg_backend_pid()")[0][0])
    return pid
