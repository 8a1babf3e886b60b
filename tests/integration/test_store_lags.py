"""How far positions are behind the head of their barrel, in changes and in seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from postgres import Cluster, installed
from store_tools import Clock

from feeds import Barrel, Position, Store
from feeds.storage.lags import Lag

LEVEL = Lag(0, 0.0)
ANEW = Lag(0, 0.0, True)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Callable[[], Cluster]]:
    """A PostgreSQL, started when the first test wants it."""
    made: list[Cluster] = []

    def get() -> Cluster:
        if not installed():
            pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
        if not made:
            made.append(Cluster())
        return made[0]

    yield get
    for each in made:
        each.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Clock, cluster: Callable[[], Cluster]
) -> Iterator[Store]:
    if request.param == "sqlite":
        with Store.open(tmp_path, clock=clock) as opened:
            yield opened
        return
    server = cluster()
    with Store.open(server.url(server.database()), clock=clock) as opened:
        yield opened


@pytest.fixture
def geo(store: Store, clock: Clock) -> Barrel:
    """Ten changes, a second apart, the last of them just now."""
    barrel = store.create("geo")
    for number in range(10):
        clock.now += 1
        barrel.put({"n": number}, id=f"d{number}")
    return barrel


def lag(store: Store, position: Position, barrel: str = "geo") -> Lag:
    (found,) = store.lags.of([(barrel, position)])
    return found


def test_seconds_are_the_age_of_the_oldest_change_behind_the_position(
    store: Store, geo: Barrel, clock: Clock
) -> None:
    assert lag(store, Position(10, geo.epoch)) == LEVEL
    assert lag(store, Position(9, geo.epoch)) == Lag(1, 0.0)
    assert lag(store, Position(7, geo.epoch)) == Lag(3, 2.0)
    assert lag(store, Position(0)) == Lag(10, 9.0)
    clock.now += 100
    assert lag(store, Position(10, geo.epoch)) == LEVEL
    assert lag(store, Position(9, geo.epoch)) == Lag(1, 100.0)


def test_many_places_are_answered_in_order(store: Store, geo: Barrel) -> None:
    other = store.create("other")
    other.put({}, id="x")
    places = [("geo", Position(5, geo.epoch)), ("none", Position(1)), ("other", Position(0)), ("geo", Position(10))]
    assert store.lags.of(places) == [Lag(5, 4.0), ANEW, Lag(1, 0.0), LEVEL]
    assert store.lags.of([]) == []


def test_a_clock_that_jumped_back_makes_no_negative_age(store: Store, geo: Barrel, clock: Clock) -> None:
    clock.now -= 3600
    assert lag(store, Position(3, geo.epoch)) == Lag(7, 0.0)


def test_a_position_of_another_life_or_beyond_the_head_is_told_apart(store: Store, geo: Barrel) -> None:
    assert lag(store, Position(10, "another")) == Lag(10, 9.0, True)
    assert lag(store, Position(11, geo.epoch)) == Lag(10, 9.0, True)
    store.drop("geo")
    assert lag(store, Position(10, geo.epoch)) == ANEW
    store.create("geo")
    assert lag(store, Position(10, geo.epoch)) == ANEW


def test_a_position_older_than_the_log_is_told_apart(store: Store, geo: Barrel, clock: Clock) -> None:
    store.configure("geo", {"log_kept": 50})
    clock.now += 60
    geo.put({}, id="late")
    clock.now += 5
    while geo.forgotten() < 10:
        store.maintain()
    assert lag(store, Position(10, geo.epoch)) == Lag(1, 5.0)
    assert lag(store, Position(4, geo.epoch)) == Lag(7, 50.0, True)
    assert lag(store, Position(0)) == Lag(11, 50.0, True)
    clock.now += 100
    while geo.forgotten() < 11:
        store.maintain()
    assert lag(store, Position(10, geo.epoch)) == Lag(1, 50.0, True)
    assert lag(store, Position(11, geo.epoch)) == LEVEL


def test_a_purge_is_a_change_like_others(store: Store, geo: Barrel, clock: Clock) -> None:
    clock.now += 7
    geo.purge("d9")
    assert lag(store, Position(9, geo.epoch)) == Lag(2, 7.0)
    assert lag(store, Position(10, geo.epoch)) == Lag(1, 0.0)


def test_brokers_are_behind_by_what_they_were_not_told(store: Store, geo: Barrel, clock: Clock) -> None:
    store.add_publisher("embedded")
    store.move_publisher("embedded", {geo: 8})
    store.create("empty")
    clock.now += 1
    told = {(each.barrel, each.broker): (str(each.position), each.lag) for each in store.lags.publishers()}
    assert told["geo", "embedded"] == (f"8-{geo.epoch}", Lag(2, 2.0))
    assert told["empty", "embedded"][1] == LEVEL
    assert [each.barrel for each in store.lags.publishers("geo")] == ["geo"]


def test_a_lag_is_cheap_however_long_it_is(store: Store, geo: Barrel) -> None:
    """One row of the log is looked up for each position: the key of the table finds it."""
    if not store.statements.is_sqlite:
        return
    with store.database.reading() as connection:
        plan = connection.exec_driver_sql("EXPLAIN QUERY PLAN " + store.lags._written, (geo.key, "[1]")).all()
    assert "SEARCH log USING PRIMARY KEY (barrel=? AND seq=?)" in [row[-1] for row in plan]
