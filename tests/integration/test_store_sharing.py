"""Two processes on one database: what one does the other knows, and neither harms the other.

Two `Store`s in one process share nothing but the database, so that most is shown with them.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from databases import Databases
from running import until
from store_tools import Clock, count, refusal, rows

from feeds import Barrel, Position, Store, Token, Write
from feeds.errors import Conflict, Exists, NotFound, TokenReused, Unavailable
from feeds.neighbours import Neighbours
from feeds.storage import watch
from feeds.storage.anew import renew
from feeds.storage.database import Database

Pair = tuple[Store, Store]


@pytest.fixture
def url(databases: Databases) -> Iterator[str]:
    with databases.lent() as lent:
        yield lent


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stores(url: str, clock: Clock) -> Iterator[Pair]:
    with Store.open(url, clock=clock) as one, Store.open(url, clock=clock) as other:
        yield one, other
        assert one.check().problems == []


@pytest.fixture
def both(stores: Pair) -> tuple[Barrel, Barrel]:
    """A barrel as each of the two sees it."""
    one, other = stores
    return one.create("geo"), other.barrel("geo")


# -- writing


def test_what_one_wrote_the_other_reads_and_builds_on(both: tuple[Barrel, Barrel]) -> None:
    mine, yours = both
    first = mine.put({"n": 1}, id="x")
    second = yours.put({"n": 2}, id="x", rev=first.rev)
    assert isinstance(refusal(lambda: mine.put({"n": 3}, id="x", rev=first.rev)), Conflict)
    assert mine.put({"n": 3}, id="x", rev=second.rev).seq == 3
    assert [yours.get("x").data["n"], mine.get("x").data["n"]] == [3, 3]
    assert [entry.seq for entry in yours.tail(0)] == [1, 2, 3]


def test_both_use_one_number_for_a_key_path(stores: Pair, both: tuple[Barrel, Barrel]) -> None:
    for number, barrel in enumerate(both * 2):
        barrel.put({f"only{number}": 1, "shared": {"by": number}}, id=f"d{number}")
    assert len(rows(stores[0], "SELECT path FROM shapes")) == 5
    assert [hit.id for hit in both[0].find("shared/by").results] == ["d0", "d1", "d2", "d3"]


def test_a_token_is_known_to_both(both: tuple[Barrel, Barrel]) -> None:
    mine, yours = both
    written = mine.put({"n": 1}, id="x", token=Token("k", "s", "d"))
    again = yours.put({"n": 1}, id="x", token=Token("k", "s", "d"))
    assert (again.rev, again.repeated) == (written.rev, True)
    assert isinstance(refusal(lambda: yours.put({}, id="y", token=Token("k", "s", "other"))), TokenReused)


_WRITER = """
import sys
from feeds import SpileError, Store
url, who, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with Store.open(url) as store:
    one, other = store.barrel("geo"), store.barrel("other")
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(count):
        pending = [one.submit([w]) for w in writes(who, number)] + [other.submit([w]) for w in writes(who, number)]
        for future in pending:
            outcome = future.result()[0]
            if not isinstance(outcome, SpileError):
                print(outcome.id, outcome.rev, outcome.seq, flush=True)
"""
_WRITES = """
from feeds import Write
def writes(who, number):
    yield Write.put({"_id": f"{who}-{number}", "n": number, "by": who})
    yield Write.put({"_id": f"shared-{number % 7}", "n": number, who: number}, update=True)
    yield Write.put({"_id": f"race-{number}", "n": number})
"""


def test_two_processes_write_one_log_without_gaps_for_whoever_follows(url: str) -> None:
    """Every write that was accepted is there, a document that both wanted to create is one's, and a reader of the
    tail never sees a seq before all that are less."""
    each = 60
    with Store.open(url) as store:
        geo, _ = store.create("geo"), store.create("other")
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", _WRITES + _WRITER, url, who, str(each)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for who in ("a", "b")
        ]
        for process in writers:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        seen: list[int] = []
        done = threading.Event()

        def follow() -> None:
            while True:
                last = done.is_set()
                page = geo.tail(seen[-1] if seen else 0)
                seen.extend(entry.seq for entry in page)
                if last and not page:
                    return

        follower = threading.Thread(target=follow)
        follower.start()
        outputs = [process.communicate("\n", timeout=60)[0] for process in writers]
        done.set()
        follower.join()
        assert [process.returncode for process in writers] == [0, 0]
        accepted = [line.split() for output in outputs for line in output.splitlines()]
        assert len(accepted) == 2 * each * (1 + 1 + 1) + 2 * each * 2
        head = geo.head()
        assert head == len(accepted) // 2
        assert seen == list(range(1, head + 1))
        entries = {(entry.id, entry.rev, entry.seq) for entry in geo.tail(0, head)}
        entries |= {(entry.id, entry.rev, entry.seq) for entry in store.barrel("other").tail(0, head)}
        assert {(id, rev, int(seq)) for id, rev, seq in accepted} == entries
        assert store.check().problems == []


# -- hints


def test_a_commit_of_the_other_wakes_the_hooks(stores: Pair, both: tuple[Barrel, Barrel]) -> None:
    told: list[tuple[str, int]] = []
    stores[1].on_commit(lambda barrel, seq: told.append((barrel, seq)))
    both[0].put({}, id="x")
    until(lambda: ("geo", 1) in told, "the hook hears of the commit")
    both[0].put({}, id="y")
    until(lambda: ("geo", 2) in told, "the hook hears of the next")


def test_a_commit_is_seen_without_any_notification(
    stores: Pair, both: tuple[Barrel, Barrel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch.Watch, "_notify", lambda *_: None)
    told: list[tuple[str, int]] = []
    stores[1].on_commit(lambda barrel, seq: told.append((barrel, seq)))
    both[0].put({}, id="x")
    until(lambda: ("geo", 1) in told, "the hook hears of the commit")


def test_hints_do_not_go_round_in_circles(stores: Pair, both: tuple[Barrel, Barrel]) -> None:
    fence = stores[1].create("fence")
    watches = [store._watch for store in stores]
    until(lambda: all(each is not None and each._others for each in watches), "each to know of the other")
    told: list[int] = []
    for store in stores:
        store.on_commit(lambda barrel, seq: told.append(seq) if barrel == "geo" else None)
    sent: tuple[list[str], list[str]] = [], []
    for each, payloads in zip(watches, sent, strict=True):
        assert each is not None
        each._notify = noting(each._notify, payloads)  # type: ignore[method-assign]
    for number in range(5):
        both[0].put({"n": number}, id="x", update=True)
    until(lambda: told.count(5) >= 2, "both hear of the last")
    fence.put({}, id="x")  # it is told after whatever the other has told by then
    until(lambda: "1 fence" in sent[1], "the other tells of its own write")
    until(lambda: "5 geo" in sent[0], "the writer tells of its last write")
    of_writes = [[payload for payload in payloads if payload[0].isdecimal()] for payloads in sent]
    assert len(of_writes[0]) == len(set(of_writes[0]))
    assert set(of_writes[0]) <= {f"{seq} geo" for seq in range(1, 6)}
    assert of_writes[1] == ["1 fence"]


def noting(notify: Callable[..., None], payloads: list[str]) -> Callable[..., None]:
    """As `notify`, and what was told is written down."""

    def noted(connection: Any, told: list[str]) -> None:
        payloads.extend(told)
        notify(connection, told)

    return noted


def test_what_is_notified_while_the_watch_asks_something_is_heard(
    stores: Pair, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int]] = []
    stores[1].on_commit(lambda barrel, seq: told.append((barrel, seq)))
    looks: list[int] = []
    real = watch.Watch._look

    def look(self: watch.Watch, connection: Any) -> None:
        real(self, connection)
        if self is stores[1]._watch and not looks:
            looks.append(1)
            with closing(Database(url)) as database, database.reading() as other:
                other.exec_driver_sql(f"NOTIFY {watch.CHANNEL}, '7 geo'").close()
            connection.exec_driver_sql("SELECT 1").close()  # its answer comes behind the notification

    monkeypatch.setattr(watch.Watch, "_look", look)
    until(lambda: ("geo", 7) in told, "the hook to be told")


def test_every_commit_wakes_the_watch(stores: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = stores[0]._watch
    assert mine is not None
    until(lambda: mine._others, "it to know of the other")
    woken: list[int] = []
    monkeypatch.setattr(mine, "_wake", lambda: woken.append(1))
    mine.committed("geo", 1)
    mine.committed("geo", 2)  # the one before may be taken away at any moment
    assert len(woken) == 2


def test_a_hook_that_fails_keeps_nobody_else_from_hearing(
    stores: Pair, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = stores
    connects: list[watch.Watch] = []
    real = watch.Watch._connect

    def connect(self: watch.Watch) -> Any:
        connects.append(self)
        return real(self)

    monkeypatch.setattr(watch.Watch, "_connect", connect)
    told: list[tuple[str, Any]] = []

    def broken(what: str, name: Any) -> None:
        raise RuntimeError(f"no use for {what}")

    for hook in (broken, lambda what, name: told.append((what, name))):
        other.on_barrel(hook)
        other.on_commit(hook)
    geo = one.create("geo")
    until(lambda: ("created", "geo") in told, "the next hook hears of the barrel")
    geo.put({}, id="x")
    until(lambda: ("geo", 1) in told, "it hears of the commit")
    assert "the hook test_a_hook_that_fails_keeps_nobody_else_from_hearing.<locals>.broken failed" in caplog.text
    assert other.create("more").put({}, id="x").seq == 1, "nor does it harm who calls"
    assert connects == []
    assert other.failure is None


def test_a_watch_that_fails_goes_on_and_one_that_has_ended_is_told(
    stores: Pair, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = stores
    faults = [ValueError("out of order"), ValueError("out of order again")]
    real = Neighbours.looked

    def looked(self: Neighbours, read: Any) -> None:
        if self._store is other and faults:
            raise faults.pop()
        real(self, read)

    monkeypatch.setattr(Neighbours, "looked", looked)
    monkeypatch.setattr(watch, "LOOK_S", 0.05)
    one.create("geo")
    told: list[str] = []
    other.on_barrel(lambda what, name: told.append(name))
    until(lambda: told == ["geo"], "the other hears of the barrel")
    assert faults == []
    assert "watching the database failed" in caplog.text
    assert other.failure is None
    assert other._watch is not None
    other._watch.close()
    assert other.failure is not None
    assert "watch" in other.failure
    other._watch = None


_FOLLOWER = """
import os, resource, sys
from feeds import Store
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 4096) if most > 0 else 4096, most))
held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
with Store.open(sys.argv[1]) as store:
    store.on_commit(lambda barrel, seq: print(barrel, seq, flush=True))
    print("ready", flush=True)
    sys.stdin.readline()
"""


def test_a_process_with_more_than_a_thousand_open_files_hears_the_others(url: str) -> None:
    """`select` knows no descriptors above 1,023; what cannot be watched would be looked for, with complaints."""
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with (
        Store.open(url) as store,
        subprocess.Popen([sys.executable, "-c", _FOLLOWER, url], text=True, **pipes) as follower,
    ):
        geo = store.create("geo")
        assert follower.stdout.readline() == "ready\n"
        until(lambda: store._watch is not None and store._watch._others, "it to be known")
        geo.put({}, id="x")
        assert follower.stdout.readline() == "geo 1\n"
        assert follower.communicate("\n", timeout=30)[1] == ""
        assert follower.returncode == 0


# -- barrels


def test_barrels_of_the_other_come_change_and_go(stores: Pair) -> None:
    one, other = stores
    told: list[tuple[str, str]] = []
    other.on_barrel(lambda what, name: told.append((what, name)))
    one.create("geo")
    until(lambda: ("created", "geo") in told, "it hears of the barrel")
    geo = other.barrel("geo")
    one.configure("geo", {"retain": True, "publish": ["a/#"]})
    until(lambda: ("configured", "geo") in told, "it hears of the settings")
    assert geo.settings.retain
    assert geo.settings.publish == ("a/#",)
    one.drop("geo")
    until(lambda: ("dropped", "geo") in told, "it hears of the drop")
    assert isinstance(refusal(lambda: other.barrel("geo")), NotFound)
    assert told == [("created", "geo"), ("configured", "geo"), ("dropped", "geo")]


def test_a_store_that_began_anew_beside_one_that_is_open_is_another_store_to_it(url: str, stores: Pair) -> None:
    """It cannot happen in order, as nobody else may have the store open then: but a database that restarts ends the
    sessions that say so."""
    one, _ = stores
    geo = one.create("geo")
    geo.put({"n": 1}, id="x")
    one.add_publisher("mqtt")
    one.move_publisher("mqtt", {geo: 1})
    told: list[tuple[str, str]] = []
    one.on_barrel(lambda what, name: told.append((what, name)))
    with closing(Database(url)) as database, database.reading() as connection:
        connection.exec_driver_sql("BEGIN").close()
        renew(connection)
        connection.exec_driver_sql("COMMIT").close()
    until(lambda: ("created", "geo") in told, "it hears of another barrel")
    assert told == [("dropped", "geo"), ("created", "geo")]
    new = one.barrel("geo")
    assert (new.key, new.epoch != geo.epoch) == (geo.key, True)
    assert new.resolve(Position(1, geo.epoch)).snapshot
    one.move_publisher("mqtt", {geo: 1})
    until(lambda: one.publisher_position("mqtt", new) == 0, "the broker is to be told everything anew")
    assert new.put({"n": 2}, id="x", update=True).seq == 2


def test_what_one_did_itself_it_is_not_told_again(stores: Pair) -> None:
    one, other = stores
    told: list[tuple[str, str]] = []
    one.on_barrel(lambda what, name: told.append((what, name)))
    one.create("geo")
    one.configure("geo", {"retain": True})
    other.create("theirs")
    until(lambda: ("created", "theirs") in told, "it has looked")
    assert told == [("created", "geo"), ("configured", "geo"), ("created", "theirs")]


def test_a_name_is_given_once(stores: Pair) -> None:
    stores[0].create("geo")
    assert isinstance(refusal(lambda: stores[1].create("geo")), Exists)


def test_a_barrel_that_was_made_anew_is_written_to_and_not_its_last_life(stores: Pair) -> None:
    one, other = stores
    old = one.create("geo")
    other.barrel("geo").put({"n": 1}, id="x")
    one.drop("geo")
    new = one.create("geo")

    def written() -> Any:
        try:
            return other.barrel("geo").put({"n": 2}, id="y")
        except Unavailable:
            return None  # it has only just found out: sent again, it is written

    outcome = until(written, "the new barrel takes the write")
    assert outcome.seq == 1
    assert [entry.id for entry in new.tail(0)] == ["y"]
    assert other.barrel("geo").epoch == new.epoch != old.epoch
    assert isinstance(refusal(lambda: old.put({}, id="z")), NotFound)


def test_settings_and_drops_mean_the_barrel_that_has_the_name_now(
    stores: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Neighbours, "looked", lambda self, read: None)  # nobody looks: all is known from before
    one, other = stores
    one.create("geo")
    other.barrel("geo")
    one.drop("geo")
    one.create("geo")
    other.configure("geo", {"retain": True})
    assert one.barrel("geo").current_settings().retain
    other.drop("geo")
    assert one.barrels() == []


def test_a_ttl_set_by_the_other_holds_at_once(stores: Pair, both: tuple[Barrel, Barrel], clock: Clock) -> None:
    stores[0].configure("geo", {"ttl": 10.0})
    both[1].put({}, id="x")
    clock.now += 11
    assert both[0].get_many([("x", None)])[0].__class__.__name__ == "Deleted"
    assert stores[1].expire() == 1


# -- beside the barrels


def test_a_new_barrel_keeps_its_log_for_the_publishers_of_all(stores: Pair) -> None:
    one, other = stores
    one.add_publisher("mqtt")
    other.create("geo")
    until(lambda: one.publisher_position("mqtt", one.barrel("geo")) == 0, "the barrel knows of the publisher")
    assert other.create("more").key
    assert other.publisher_position("mqtt", other.barrel("more")) == 0


def test_notes_and_cursors_are_of_both(stores: Pair) -> None:
    one, other = stores
    one.set_note("k", "1")
    other.set_note("k", "2")
    assert one.note("k") == "2"
    assert one.id == other.id


def test_both_may_do_the_upkeep_at_once(stores: Pair, both: tuple[Barrel, Barrel], clock: Clock) -> None:
    one, other = stores
    one.configure("geo", {"log_kept": 10.0, "ttl_field": "until"})
    for number in range(30):
        both[number % 2].put({"n": number, "until": "2023-11-14T22:13:30Z"}, id=f"d{number % 10}", update=True)
        both[number % 2].put({"n": number}, id=f"t{number}", token=Token(f"k{number}", "s", "d"))
    one.create("gone").put({"n": 1}, id="x")
    one.drop("gone")
    clock.now += 25 * 3600
    for _ in range(3):
        rounds = [threading.Thread(target=store.maintain) for store in (one, other, one, other)]
        for each in rounds:
            each.start()
        for each in rounds:
            each.join()
    assert one.failure is None and other.failure is None
    assert count(one, "tokens") == 0
    assert count(one, "barrels") == 1
    assert both[0].forgotten() == both[1].forgotten() >= 60
    assert one.barrel("geo").info().doc_count == 30


def test_groups_over_many_barrels_never_wait_for_each_other(stores: Pair) -> None:
    """In every order, with what is store-wide among them: a deadlock would be told by the database."""
    one, other = stores
    names = [f"b{number}" for number in range(6)]
    for name in names:
        one.create(name)
    waits = "SELECT sum(deadlocks) FROM pg_stat_database"
    before = rows(one, waits)

    def work(store: Store, order: Sequence[str]) -> None:
        for number in range(15):
            futures = [store.barrel(name).submit([Write.put({"n": number})]) for name in order]
            store.cursors.put([(name, "l", Position(number, None)) for name in order])
            store.set_note("n", str(number))
            for future in futures:
                future.result()

    threads = [
        threading.Thread(target=work, args=(store, order))
        for store, order in ((one, names), (other, names[::-1]), (one, names[3:] + names[:3]), (other, names))
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert rows(one, waits) == before
    assert [info.seq for info in one.barrels()] == [60] * 6
