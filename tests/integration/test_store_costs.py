"""What reading and writing cost, counted in steps of SQLite's machine and in rows, never in time."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from store_tools import count

from feeds import Barrel, Store, parse_patterns
from feeds.storage import replay as replaying

DOCUMENTS = 4_000
EVERY = 10  # steps between two calls of SQLite's progress handler


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.open(tmp_path_factory.mktemp("costs")) as opened:
        yield opened


@pytest.fixture(scope="module")
def geo(store: Store) -> Barrel:
    """4,000 documents in 40 regions, 10 of them rare."""
    barrel = store.create("geo")
    for begin in range(0, DOCUMENTS, 1_000):
        numbers = range(begin, begin + 1_000)
        barrel.bulk([{"_id": f"d{n}", "region": f"r{n % 40}", "rare": n % 400 == 0, "n": n} for n in numbers])
    return barrel


@contextmanager
def steps(store: Store) -> Iterator[Callable[[], int]]:
    """How many steps all readers' statements took so far inside the block."""
    taken = 0

    def step() -> int:
        nonlocal taken
        taken += EVERY
        return 0

    with store.database.reading() as connection:
        driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    assert len(store.database._idle) == 1  # so that every read inside the block uses this connection
    driver.set_progress_handler(step, EVERY)
    try:
        yield lambda: taken
    finally:
        driver.set_progress_handler(None, 0)


def cost(store: Store, call: Callable[[], Any]) -> int:
    with steps(store) as taken:
        call()
        return taken()


def replayed(barrel: Barrel, after: int, *patterns: str) -> list[str]:
    replay = barrel.replay(after, parse_patterns(patterns))
    told: list[str] = []
    while True:
        page = replay.next(1_000)
        told += [row.id for row in page.rows]
        if page.caught_up:
            return told


def test_a_replay_by_pattern_costs_its_matches_and_not_the_barrel(store: Store, geo: Barrel) -> None:
    everything = cost(store, lambda: replayed(geo, 0))
    rare = cost(store, lambda: replayed(geo, 0, "rare/true"))
    region = cost(store, lambda: replayed(geo, 0, "region/r7"))
    assert len(replayed(geo, 0, "rare/true")) == 10
    assert len(replayed(geo, 0, "region/r7")) == 100
    assert rare < 10 * 150
    assert region < 100 * 100
    assert everything > DOCUMENTS * 5
    assert rare < everything / 20


def test_a_replay_from_near_the_head_costs_what_changed_since(store: Store, geo: Barrel) -> None:
    head = geo.head()
    assert cost(store, lambda: replayed(geo, head - 5)) < 1_000
    assert cost(store, lambda: replayed(geo, head - 5, "n/#")) < 2_000
    assert cost(store, lambda: replayed(geo, head - 5, "+/#")) < 2_000
    assert cost(store, lambda: geo.tail(head - 5)) < 1_000


@pytest.mark.parametrize("docs", [False, True], ids=["rows", "documents"])
def test_a_page_of_changes_costs_its_rows(store: Store, geo: Barrel, docs: bool) -> None:
    def cost(page: int, most: int) -> int:
        replay, rows = geo.replay(0, docs=docs), 0
        with steps(store) as taken:
            while rows < most:
                rows += len(replay.next(min(page, most - rows)).rows)
            return taken()

    whole = cost(DOCUMENTS, DOCUMENTS)
    assert cost(10, 10) < whole / 100
    assert cost(10, DOCUMENTS) < whole * 1.5  # and who goes on page by page does not pay for it


@pytest.mark.parametrize("left", [DOCUMENTS - 10, 10])
def test_what_is_left_is_counted_the_shorter_way(store: Store, geo: Barrel, left: int) -> None:
    assert geo.pending(geo.head() - left) == left
    assert cost(store, lambda: geo.pending(geo.head() - left)) < 300
    assert cost(store, lambda: geo.pending(geo.head() // 2)) > 3 * DOCUMENTS // 2


def test_a_search_costs_its_page(store: Store, geo: Barrel) -> None:
    page = geo.find("n", order="value", limit=10)
    assert cost(store, lambda: geo.find("n", order="value", limit=10)) < 2_000
    assert cost(store, lambda: geo.find("n", order="value", limit=10, after=page.next)) < 2_000
    assert cost(store, lambda: geo.find("n", from_=2_000, limit=10, descending=True)) < 2_000
    assert cost(store, lambda: geo.find("region/r7", limit=10)) < 2_500


SHAPES = 3_000  # of one kind


@pytest.fixture(scope="module")
def keyed(store: Store) -> Barrel:
    """100 documents, each with 30 devices under their ids: 6,000 shapes."""
    barrel = store.create("keyed")
    for number in range(100):
        devices = {f"k{number}-{n}": {"on": number == 50, "v": n} for n in range(SHAPES // 100)}
        barrel.put({"devices": devices, "n": number}, id=f"d/{number % 10}/{number}")
    return barrel


def statements(store: Store, call: Callable[[], Any]) -> int:
    """How many statements a call runs, transactions apart."""
    with store.database.reading() as connection:
        driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    ran: list[str] = []
    driver.set_trace_callback(ran.append)
    try:
        call()
    finally:
        driver.set_trace_callback(None)
    return sum(each.startswith("SELECT") for each in ran)


def test_a_page_over_many_shapes_costs_its_hits_and_not_the_shapes(store: Store, keyed: Barrel) -> None:
    page = keyed.find("devices/+/on", limit=10)
    for path in ("devices/+/on", "devices/#", "#"):
        assert cost(store, lambda path=path: keyed.find(path, limit=10)) < 4_000  # type: ignore[misc]
        assert cost(store, lambda path=path: keyed.find(path, limit=10, descending=True)) < 4_000  # type: ignore[misc]
    assert cost(store, lambda: keyed.find("devices/+/on", limit=10, after=page.next)) < 4_000
    assert cost(store, lambda: keyed.find("devices/k7-3/on/false")) < 500
    assert cost(store, lambda: keyed.find("_id/d/7/#", limit=5)) < 500


def test_many_shapes_are_looked_up_in_few_statements(
    store: Store, keyed: Barrel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rare = keyed.find("devices/+/on/true")
    assert len(rare.results) == 30
    for query in ({}, {"order": "value"}, {"order": "value", "descending": True}):
        assert statements(store, lambda query=query: keyed.find("devices/+/on/true", **query)) < 60  # type: ignore[misc]
    assert statements(store, lambda: keyed.find("devices/+/v", order="value", limit=5)) < 30
    monkeypatch.setattr(replaying, "SHAPES_A_CHANGE", 6_000)  # so that the index is asked
    assert keyed.replay(0, parse_patterns(["devices/+/on/true"])).remaining == 1
    assert replayed(keyed, 0, "devices/+/on/true") == ["d/0/50"]
    assert statements(store, lambda: replayed(keyed, 40, "devices/+/on/true")) < 30


def test_a_replay_looks_at_no_more_shapes_than_it_is_worth(store: Store, keyed: Barrel) -> None:
    head = keyed.head()
    assert (
        cost(store, lambda: replayed(keyed, head - 2, "devices/+/on/true")) < 4_000
    )  # of some 40,000 for all shapes


def test_a_replay_by_ids_costs_its_matches(store: Store, keyed: Barrel) -> None:
    assert len(replayed(keyed, 0, "_id/d/7/#")) == 10
    assert cost(store, lambda: replayed(keyed, 0, "_id/d/7/#")) < 10 * 150
    assert cost(store, lambda: replayed(keyed, 0, "_id/d/7/+")) < 10 * 150


def test_reading_a_document_costs_no_scan(store: Store, geo: Barrel) -> None:
    assert cost(store, lambda: geo.get("d1234")) < 300
    assert cost(store, lambda: geo.get_many([(f"d{n}", None) for n in range(100)])) < 100 * 100
    assert cost(store, lambda: geo.revs_diff({"d1234": ["9-x"]})) < 500
    assert cost(store, geo.info) < 200


def test_a_replay_that_the_index_cannot_answer_cheaply_reads_the_log(
    store: Store, geo: Barrel, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = geo.head()
    monkeypatch.setattr(replaying, "MATCHES_MAX", 50)
    assert len(replayed(geo, head - 500, "region/#")) == 500
    assert cost(store, lambda: replayed(geo, head - 500, "region/#")) < 500 * 150


def test_a_document_updated_2000_times_costs_as_much_as_at_first(store: Store) -> None:
    often = store.create("often", {"revs_limit": 50})
    for number in range(100):
        often.put({"n": number, "same": 1}, id="x", update=True)
    early = [cost(store, lambda: often.get("x")), cost(store, lambda: often.get("x", history=True))]
    kept = (count(store, "revs") - DOCUMENTS, count(store, "paths") - 3 * DOCUMENTS)
    for begin in range(0, 1_900, 100):
        often.bulk([{"_id": "x", "n": begin + step, "same": 1} for step in range(100)], update=True)
    for number in range(64):
        often.put({"n": number, "same": 1}, id="x", update=True)
    assert cost(store, lambda: often.get("x")) <= early[0] + 2 * EVERY
    assert cost(store, lambda: often.get("x", history=True)) <= early[1] + 4 * EVERY
    assert (count(store, "revs") - DOCUMENTS, count(store, "paths") - 3 * DOCUMENTS) == kept
    assert cost(store, lambda: replayed(often, 0, "same/1")) < 500
