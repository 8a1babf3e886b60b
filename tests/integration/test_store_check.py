"""Checking a store: sound ones are clean, every kind of damage is named, and what can be is mended."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from store_tools import Clock, change, replicate, revisions, rows

from feeds import Barrel, Position, Store, parse_patterns


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    with Store.open(database_url, clock=Clock()) as opened:
        yield opened


@pytest.fixture
def geo(store: Store) -> Barrel:
    """A barrel with a bit of everything."""
    barrel = store.create("geo", {"ttl_field": "until"})
    barrel.bulk([{"_id": f"d{number}", "n": number, "tags": ["a", number]} for number in range(20)])
    for number in range(5):
        barrel.put({"n": 100 + number}, id=f"d{number}", update=True)
    barrel.delete("d7", rev=barrel.get("d7").rev)
    replicate(barrel, revisions("c", "b", "a", n="b"), revisions("c", "d", "a", n="d"), revisions("c", "e", n="e"))
    barrel.purge("d8")
    barrel.put({"n": 1}, id="_design/x")
    store.create("empty")
    return barrel


def test_a_sound_store_is_clean_and_what_was_looked_at_is_counted(store: Store, geo: Barrel) -> None:
    told: list[tuple[int, int]] = []
    report = store.check(progress=lambda done, total: told.append((done, total)))
    assert report.problems == []
    assert report.repaired == 0
    assert report.counted == {
        "barrels": 2,
        "documents": 21,
        "revisions": 20 - 1 + 5 + 1 + 4 + 1,
        "changes": 31,
        "paths": 5 + 13 * 3 + 1,
    }
    assert told[-1] == (21, 21)


DAMAGES: dict[str, tuple[str, str, bool]] = {
    "an index row is missing": ("DELETE FROM paths WHERE doc = 3 LIMIT 1", "lacks", True),
    "an index row is too many": (
        "INSERT INTO paths SELECT shape, x'4061', 3, '', 3 FROM paths LIMIT 1",
        "not give",
        True,
    ),
    "an index row names nobody": (
        "INSERT INTO paths SELECT shape, x'4061', 999, '', 3 FROM paths LIMIT 1",
        "999",
        True,
    ),
    "the index is gone": ("DELETE FROM paths", "lacks", True),
    "an index row came after the head": ("UPDATE paths SET seq = 900 WHERE doc = 10", "after the head", True),
    "a path stands and left": ("INSERT INTO gone SELECT * FROM paths WHERE doc = 10", "told as left", True),
    "the count is wrong": ("UPDATE barrels SET live = 3", "live is counted as 3", True),
    "the bytes are wrong": ("UPDATE barrels SET bytes = bytes + 1", "bytes is counted", True),
    "the winner is another": (
        "UPDATE docs SET generation = 1, digest = 'e', others = '[[2,\"b\",0],[2,\"d\",0]]' WHERE id = 'c'",
        "has the leaves",
        True,
    ),
    "a conflict is forgotten": ("UPDATE docs SET others = NULL WHERE id = 'c'", "has the leaves", True),
    "the conflicts cannot be read": ("UPDATE docs SET others = '[[' WHERE id = 'c'", "has the leaves", True),
    "what stands beside its only leaf cannot be read": (
        "UPDATE docs SET others = '[[1]]' WHERE id = 'd9'",
        "cannot be read",
        True,
    ),
    "a winner that never was": ("UPDATE docs SET digest = 'zz' WHERE id = 'd9'", "has the leaves", True),
    "a deletion reads as alive": ("UPDATE docs SET flags = 0 WHERE id = 'd7'", "has the leaves", True),
    "a leaf lost its body": ("UPDATE revs SET body = NULL WHERE doc = 10", "has no body", False),
    "a body is no JSON": ("UPDATE revs SET body = x'7b' WHERE doc = 10", "no JSON object", False),
    "a body is another": (
        "UPDATE revs SET body = x'7b7d' WHERE doc = 10 AND generation = 1",
        "not what was written",
        False,
    ),
    "a document lost its revisions": ("DELETE FROM revs WHERE doc = 10", "no revision", False),
    "revisions lost their document": ("DELETE FROM docs WHERE doc = 10", "which is not there", False),
    "the log has a gap": ("DELETE FROM log WHERE seq = 12", "the log has 30 rows", True),
    "the log lost its end": ("DELETE FROM log WHERE seq > 29", "the log has 29 rows", True),
    "the log tells another change": (
        "UPDATE log SET digest = 'zz' WHERE seq = 12",
        "does not tell the change 12",
        True,
    ),
    "the head went back": ("UPDATE barrels SET seq = 20 WHERE name = 'geo'", "beyond its head", True),
    "rows of a barrel that is not there": ("UPDATE log SET barrel = 99 WHERE seq = 31", "barrel number 99", False),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_mended_where_it_can_be(store: Store, geo: Barrel, damage: str) -> None:
    sql, named, mended = DAMAGES[damage]
    sql = sql.replace(
        "DELETE FROM paths WHERE doc = 3 LIMIT 1", "DELETE FROM paths WHERE doc = 12 AND value = x'4061'"
    )
    change(store, sql)
    found = store.check()
    assert any(named in problem for problem in found.problems), found.problems
    assert found.repaired == 0
    repaired = store.check(repair=True)
    assert repaired.problems == found.problems
    if mended:
        assert repaired.repaired == len(repaired.problems)
        assert store.check().problems == []
        assert_works(store, geo)


def assert_works(store: Store, geo: Barrel) -> None:
    """The mended barrel answers and takes writes, and they are told."""
    before = geo.head()
    assert geo.find("n", from_=10, to=10).results[0].id == "d10"
    assert geo.get("c", conflicts=True).rev == "2-d"
    geo.put({"n": 10.5}, id="d10", update=True)
    assert geo.head() == before + 1
    told = geo.changes(Position(before), patterns=parse_patterns(["n/#"])).results
    assert [row.id for row in told] == ["d10"]
    assert store.check().problems == []


def test_a_mended_winner_is_told_as_a_change(store: Store, geo: Barrel) -> None:
    head = geo.head()
    change(store, "UPDATE docs SET generation = 1, digest = 'e', others = NULL WHERE id = 'c'")
    assert store.check(repair=True).repaired > 0
    (row,) = geo.changes(Position(head)).results
    assert (row.id, row.changes) == ("c", ["2-d", "2-b", "1-e"])
    assert [hit.value for hit in geo.find("n", prefix="").results] == ["d"]


def test_a_log_with_a_gap_begins_behind_it(store: Store, geo: Barrel) -> None:
    change(store, "DELETE FROM log WHERE seq = 12")
    store.check(repair=True)
    assert rows(store, "SELECT min(seq), max(seq) FROM log") == [(13, 31)]
    assert geo.resolve(Position(11), patterns=True).snapshot
    assert not geo.resolve(Position(12), patterns=True).snapshot
    assert len(geo.changes().results) == 21


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        geo = store.create("geo")
        geo.bulk([{"_id": f"d{number}", "text": "x" * 500} for number in range(500)])
    path = tmp_path / "spile.db"
    size = path.stat().st_size
    with path.open("r+b") as file:
        for page in range(40, size // 4096, 7):
            file.seek(page * 4096 + 100)
            file.write(b"\xff" * 200)
    with Store.open(tmp_path) as store:
        problems = store.check().problems
    assert problems
    assert any("database file" in problem or "damaged" in problem for problem in problems)


def test_a_check_reads_one_moment_while_others_write(store: Store, geo: Barrel) -> None:
    def write(_done: int, _total: int) -> None:
        geo.bulk([{"n": number} for number in range(50)])

    more: list[Callable[[int, int], None]] = [write]
    geo.bulk([{"_id": f"m{number}", "n": number} for number in range(2_000)])
    report = store.check(progress=lambda done, total: more[0](done, total))
    assert report.problems == []
    assert report.counted["documents"] == 2_021
    assert store.check().counted["documents"] > 2_021
