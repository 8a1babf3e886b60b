"""Listening in process, to a barrel in a real store, with a loop and with callbacks."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from feeds import Barrel, Store
from feeds.errors import BadRequest, NotFound, Overloaded, SpileError, StoreLocked, Unavailable
from listeners import BarrelDeadLetters, Change, FileDeadLetters, Listener, Retries, listen, replay

SWIFT = Retries(attempts=3, first_s=0.001, max_s=0.01)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def barrel(store: Store) -> Barrel:
    return store.create("geo")


def fill(barrel: Barrel, count: int) -> None:
    barrel.bulk([{"_id": f"d{number}", "n": number} for number in range(count)])


def test_a_name_has_one_listener_in_a_process_the_one_that_came_last(barrel: Barrel) -> None:
    fill(barrel, 2)
    with listen(barrel, name="mine") as first:
        assert next(first).id == "d0"
        with listen(barrel, name="mine") as second, listen(barrel, name="other") as third:
            assert next(second).id == "d0"
            with pytest.raises(SpileError) as ended:
                for _ in first:
                    pass
            assert ended.value.code == "replaced"
            assert next(second).id == "d1"
            assert next(third).id == "d0"
    assert [change.id for change in listen(barrel, name="mine", follow=False)] == ["d1"]


class Handler:
    """A callback that keeps what it is told, and fails as often as it is asked to."""

    def __init__(self, fails: dict[str, int] | None = None) -> None:
        self.fails = fails or {}
        self.told: list[str] = []
        self.calls = 0

    def __call__(self, change: Change) -> None:
        self.calls += 1
        if self.fails.get(change.id, 0) > 0:
            self.fails[change.id] -= 1
            raise ValueError(f"no {change.id} today")
        self.told.append(change.id)


def test_what_is_there_is_told_in_order_and_then_the_loop_ends(barrel: Barrel) -> None:
    fill(barrel, 5)
    told = list(listen(barrel, follow=False))
    assert [change.id for change in told] == ["d0", "d1", "d2", "d3", "d4"]
    assert [change.doc["n"] for change in told if change.doc] == [0, 1, 2, 3, 4]
    assert told[-1].position == barrel.position(5)


def test_what_comes_later_is_told_as_it_comes(barrel: Barrel) -> None:
    barrel.put({"n": 1}, id="a")
    with listen(barrel) as changes:
        assert next(changes).id == "a"
        barrel.put({"n": 2}, id="b")
        assert next(changes).id == "b"
        assert changes.caught_up


def test_a_store_can_be_named_by_its_url_or_folder(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s") as store:
        fill(store.create("a/b"), 2)
        with pytest.raises(StoreLocked):
            next(listen(f"{tmp_path / 's'}#a%2Fb"))
    for url in (f"{tmp_path / 's'}#a%2Fb", f"sqlite:///{tmp_path / 's' / 'spile.db'}#a%2Fb"):
        assert [change.id for change in listen(url, follow=False)] == ["d0", "d1"]
    with pytest.raises(NotFound):
        list(listen(f"{tmp_path / 's'}#none", follow=False))
    with pytest.raises(Unavailable):
        list(listen(f"{tmp_path / 'nowhere'}#a", follow=False))


@pytest.mark.parametrize("url", ["geo", "ftp://h/geo", "mqtt:///geo", "http://h:1/", "http://h:x/geo", "d#B"])
def test_an_address_that_names_nothing_is_refused_at_once(url: str) -> None:
    with pytest.raises(BadRequest) as raised:
        listen(url)
    assert raised.value.hint


def test_a_change_is_acknowledged_when_the_next_one_is_asked_for(barrel: Barrel) -> None:
    fill(barrel, 3)
    with listen(barrel, name="mine") as changes:
        next(changes)
        next(changes)
    assert str(barrel.store.cursors.get("geo", "mine")) == barrel.position(1)
    with listen(barrel, name="mine") as changes:
        assert next(changes).id == "d1"
        changes.acknowledge()
    assert [change.id for change in listen(barrel, name="mine", follow=False)] == ["d2"]
    assert [cursor.listener for cursor in barrel.store.cursors.all("geo")] == ["mine"]
    assert barrel.store.cursors.forget("geo", "mine")
    assert barrel.store.cursors.get("geo", "mine") is None
    assert len(list(listen(barrel, name="mine", follow=False))) == 3


def test_a_named_listener_that_began_now_misses_nothing_if_it_dies_before_its_first_word(barrel: Barrel) -> None:
    fill(barrel, 3)
    with listen(barrel, name="mine", since="now") as changes:
        fill(barrel, 0)
        barrel.put({}, id="new")
        assert next(changes).id == "new"
    barrel.put({}, id="newer")
    assert [change.id for change in listen(barrel, name="mine", since="now", follow=False)] == ["new", "newer"]


def test_a_loop_that_is_left_lets_go_of_its_thread(barrel: Barrel) -> None:
    fill(barrel, 3)
    before = {thread for thread in threading.enumerate() if thread.name.startswith("spile listen")}
    for change in listen(barrel):
        assert change.id == "d0"
        break
    gc.collect()
    for thread in threading.enumerate():
        if thread.name.startswith("spile listen") and thread not in before:
            thread.join(10)
            assert not thread.is_alive()


def test_a_fault_that_nobody_foresaw_does_not_look_like_the_end(
    store: Store, barrel: Barrel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no store today")

    store.close()
    monkeypatch.setattr(Store, "open", fails)
    with pytest.raises(SpileError, match="its log says why"):
        list(listen(f"{tmp_path / 'store'}#geo", follow=False))
    assert "no store today" in caplog.text


def test_a_boundary_of_a_snapshot_whose_callback_failed_is_told_again(store: Store) -> None:
    listen(store.create("geo"), name="mine", since="now", patience_s=None).__enter__().close()
    store.drop("geo")
    anew = store.create("geo")
    fill(anew, 1)
    fails = [ValueError("no start today"), ValueError("no end today")]
    told: list[str] = []

    def boundary(which: str) -> None:
        if fails and which in str(fails[0]):
            raise fails.pop(0)
        told.append(which)

    with listen(
        anew,
        name="mine",
        follow=False,
        on_snapshot_start=lambda _: boundary("start"),
        on_snapshot_end=lambda _: boundary("end"),
    ) as changes:
        with pytest.raises(ValueError, match="no start today"):
            next(changes)
        told.append(next(changes).id)
        with pytest.raises(ValueError, match="no end today"):
            next(changes)
        cursor = store.cursors.get("geo", "mine")
        assert cursor is not None
        assert cursor.epoch != anew.epoch
        assert list(changes) == []
    assert told == ["start", "d0", "end"]
    assert str(store.cursors.get("geo", "mine")) == anew.position(1)


def test_a_callback_is_tried_again_and_acknowledged_when_it_returns(barrel: Barrel) -> None:
    fill(barrel, 4)
    handler = Handler({"d1": 2})
    listener = Listener(barrel, [], handler, name="mine", follow=False, retries=SWIFT)
    listener.run()
    assert handler.told == ["d0", "d1", "d2", "d3"]
    assert handler.calls == 6
    assert listener.failures == 2
    assert str(barrel.store.cursors.get("geo", "mine")) == barrel.position(4)


def test_the_log_says_for_which_change_a_callback_failed(barrel: Barrel, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "spile.listeners")
    fill(barrel, 2)
    Listener(barrel, [], Handler({"d1": 1}), follow=False, retries=SWIFT).run()
    assert f"The callback failed for 'd1' (attempt 1 of {SWIFT.attempts}): " in caplog.text


def test_a_callback_that_keeps_failing_stops_the_listener_before_that_change(barrel: Barrel) -> None:
    fill(barrel, 4)
    handler = Handler({"d2": 99})
    with pytest.raises(ValueError, match="no d2 today"):
        Listener(barrel, [], handler, name="mine", follow=False, retries=SWIFT).run()
    assert handler.told == ["d0", "d1"]
    handler.fails.clear()
    Listener(barrel, [], handler, name="mine", follow=False, retries=SWIFT).run()
    assert handler.told == ["d0", "d1", "d2", "d3"]


def test_a_change_that_keeps_failing_becomes_a_dead_letter_and_the_rest_goes_on(barrel: Barrel) -> None:
    fill(barrel, 4)
    handler = Handler({"d1": 99, "d3": 99})
    Listener(barrel, [], handler, name="mine", follow=False, retries=SWIFT, on_error="dead_letter").run()
    assert handler.told == ["d0", "d2"]
    letters = BarrelDeadLetters(barrel, "mine")
    kept = list(letters.list())
    assert [letter.change.id for letter in kept] == ["d1", "d3"]
    assert kept[0].error == "ValueError: no d1 today"
    assert kept[0].change.doc == {"_id": "d1", "_rev": kept[0].change.rev, "n": 1}
    handler.fails = {"d3": 1}
    with pytest.raises(ValueError, match="no d3 today"):
        replay(letters, handler)
    assert [letter.change.id for letter in letters.list()] == ["d3"]
    assert letters.discard([kept[1].key]) == 1
    assert list(letters.list()) == []


def test_dead_letters_of_a_listener_elsewhere_lie_in_a_file(barrel: Barrel, tmp_path: Path) -> None:
    fill(barrel, 3)
    path = tmp_path / "dead.jsonl"
    handler = Handler({"d0": 99, "d2": 99})
    Listener(barrel, [], handler, follow=False, retries=SWIFT, on_error="dead_letter", dead_letters=path).run()
    letters = FileDeadLetters(path, letters_max=3)
    assert [letter.change.id for letter in letters.list()] == ["d0", "d2"]
    with path.open("ab") as file:
        file.write(b'{"key": "cut sho')
    change = next(iter(letters.list())).change
    letters.discard([change.position])
    assert [letter.change.id for letter in letters.list()] == ["d2"]
    letters.add(change, ValueError("again"))
    assert [letter.change.id for letter in letters.list()] == ["d2", "d0"]
    with pytest.raises(Overloaded):
        letters.add(change, ValueError("too many"))


def test_without_a_place_for_dead_letters_a_listener_says_so(barrel: Barrel) -> None:
    with pytest.raises(BadRequest):
        Listener(barrel, [], print, on_error="dead_letter")


def test_a_started_listener_stops_after_the_change_it_tells(barrel: Barrel) -> None:
    fill(barrel, 3)
    told, go = threading.Event(), threading.Event()
    seen = []

    def callback(change: Change) -> None:
        seen.append(change.id)
        told.set()
        assert go.wait(10)

    listener = Listener(barrel, [], callback, name="mine").start()
    assert told.wait(10)
    stopper = threading.Thread(target=listener.stop)
    stopper.start()
    go.set()
    stopper.join(20)
    assert listener.join(0)
    assert str(barrel.store.cursors.get("geo", "mine")) == barrel.position(len(seen))


def test_a_started_listener_tells_by_join_what_ended_it(barrel: Barrel) -> None:
    fill(barrel, 1)
    listener = Listener(barrel, [], Handler({"d0": 99}), retries=SWIFT).start()
    with pytest.raises(ValueError, match="no d0 today"):
        listener.join(10)


def test_a_listener_can_be_stopped_while_its_callback_keeps_failing(barrel: Barrel) -> None:
    fill(barrel, 1)
    failing = threading.Event()

    def callback(change: Change) -> None:
        failing.set()
        raise ValueError("never")

    listener = Listener(
        barrel, [], callback, name="mine", retries=Retries(attempts=1_000, first_s=60, max_s=60)
    ).start()
    assert failing.wait(10)
    listener.stop()
    assert listener.join(0)
    assert str(barrel.store.cursors.get("geo", "mine")) == barrel.position(0)
