"""The listener's end of a stream by example: opening, losing, acknowledging and snapshots."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest

from feeds.errors import Forbidden, NotFound, Overloaded
from feeds.positions import Position
from feeds.rows import Row
from listeners.backoff import Backoff
from listeners.errors import Replaced
from listeners.stream.actions import Action, CaughtUp, Deliver, Discard, Finished, Item, Send, Wanted
from listeners.stream.messages import Array, End
from listeners.stream.receiver import Receiver


def receiver(**asked: Any) -> Receiver:
    numbers = itertools.count(1)
    wanted = Wanted(**{"window": 4, **asked})
    return Receiver(wanted, nonce=lambda: f"r{next(numbers)}", backoff=Backoff(1.0, 8.0, rng=lambda: 0.5))


def array(run: str, prev: int, seq: int, *rows: int, **more: Any) -> Array[Row]:
    epoch = more.pop("epoch", "e")
    return Array(
        run=run,
        prev=f"{prev}-{epoch}",
        seq=f"{seq}-{epoch}",
        rows=[Row(each, f"d{each}", "1-a", ["1-a"]) for each in rows],
        **more,
    )


def sends(actions: list[Action]) -> list[dict[str, Any]]:
    return [msgspec.json.decode(action.data) for action in actions if isinstance(action, Send)]


def items(actions: list[Action]) -> list[Item]:
    return [item for action in actions if isinstance(action, Deliver) for item in action.items]


def started(at: int = 0, **asked: Any) -> Receiver:
    made = receiver(**asked)
    made.connected(0.0)
    made.received(array("r1", at, at, start=True), 50, 0.0)
    return made


def test_it_opens_with_what_is_wanted_and_stands_where_the_start_says() -> None:
    listener = receiver(patterns=("a/#",), name="n")
    (opened,) = sends(listener.connected(0.0))
    assert opened == {"run": "r1", "name": "n", "patterns": ["a/#"], "window": 4, "docs": True}
    assert listener.position is None
    assert listener.received(array("r1", 7, 7, start=True), 50, 0.0) == [Discard()]
    assert listener.position == Position(7, "e")


def test_without_an_answer_it_opens_again_with_a_new_run_and_the_old_run_counts_no_more() -> None:
    listener = receiver()
    listener.connected(0.0)
    assert listener.tick(4.9) == []
    assert sends(listener.tick(5.0))[0]["run"] == "r2"
    assert listener.received(array("r1", 7, 7, start=True), 50, 5.0) == []
    assert not listener.open


def test_rows_are_delivered_in_order_and_the_position_moves_with_their_acknowledgement() -> None:
    listener = started()
    told = items(listener.received(array("r1", 0, 9, 3, 5), 100, 0.0))
    assert [item.seq for item in told] == [3, 5]
    assert listener.position == Position(0, "e")
    listener.acked(told[0], 0.0)
    assert listener.position == Position(3, "e")
    listener.acked(told[1], 0.0)
    assert listener.position == Position(9, "e")


def test_a_gap_makes_it_open_again_from_where_it_stands() -> None:
    listener = started()
    told = items(listener.received(array("r1", 0, 5, 3, 5), 100, 0.0))
    listener.acked(told[0], 0.0)
    listener.received(array("r1", 7, 9, 9), 100, 1.0)
    assert listener.deadline == 2.0
    (opened,) = sends(listener.tick(2.0))
    assert (opened["run"], opened["since"]) == ("r2", "3-e")


def test_gaps_one_after_the_other_make_it_wait_longer_and_progress_shorter_again() -> None:
    listener = started()
    now, waits = 0.0, []
    for run in ("r1", "r2", "r3"):
        listener.received(array(run, 7, 9, 9), 100, now)
        assert listener.deadline is not None
        waits.append(listener.deadline - now)
        now = listener.deadline
        listener.tick(now)
        listener.received(array(f"r{int(run[1]) + 1}", 0, 0, start=True), 50, now)
    assert waits == [1.0, 2.0, 4.0]
    listener.received(array("r4", 0, 1, 1), 100, now)
    listener.received(array("r4", 7, 9), 100, now)
    assert listener.deadline == now + 1.0


def test_what_was_acknowledged_is_not_told_again_when_the_service_starts_earlier() -> None:
    listener = started()
    told = items(listener.received(array("r1", 0, 5, 3, 5), 100, 0.0))
    listener.acked(told[0], 0.0)
    listener.lost(1.0)
    listener.connected(1.0)
    listener.acked(told[1], 1.0)
    listener.received(array("r2", 0, 0, start=True), 50, 1.0)
    again = listener.received(array("r2", 0, 6, 3, 5, 6), 100, 1.0)
    assert [item.seq for item in items(again)] == [6]


def test_silence_makes_it_open_again_and_a_heartbeat_does_not() -> None:
    listener = started()
    listener.received(array("r1", 0, 0), 50, 20.0)
    assert sends(listener.tick(49.0))[0]["ack"] == "0-e"
    listener.tick(50.0)
    assert sends(listener.tick(51.0))[0]["run"] == "r2"


def test_it_credits_when_half_the_window_is_done_and_at_the_latest_after_20_s() -> None:
    listener = started()
    told = items(listener.received(array("r1", 0, 1, 1), 100, 0.0))
    assert listener.acked(told[0], 0.0) == []
    told = items(listener.received(array("r1", 1, 2, 2), 100, 0.0))
    assert sends(listener.acked(told[0], 0.0)) == [{"run": "r1", "ack": "2-e", "window": 4, "bytes": 1 << 20}]
    assert listener.tick(17.0) == []
    assert sends(listener.tick(18.0))[0]["ack"] == "2-e"


def test_with_nothing_left_to_tell_it_acknowledges_soon() -> None:
    listener = started(window=1_000)
    told = items(listener.received(array("r1", 0, 1, 1), 100, 0.0))
    assert listener.acked(told[0], 0.0) == []
    assert listener.deadline == pytest.approx(0.1)
    assert sends(listener.tick(0.1))[0]["ack"] == "1-e"


def test_a_snapshot_is_framed_for_the_application_and_moves_the_position_at_its_end() -> None:
    listener = receiver(since=Position(9, "old"))
    listener.connected(0.0)
    begun = items(listener.received(array("r1", 0, 0, start=True, snapshot="start"), 50, 0.0))
    rows = items(listener.received(array("r1", 0, 4, 2, 4, snapshot="end"), 100, 0.0))
    after = items(listener.received(array("r1", 4, 5, 5, caught_up=True), 100, 0.0))
    assert [(item.boundary, item.seq, item.snapshot) for item in begun + rows + after] == [
        ("start", 0, True),
        (None, 2, True),
        (None, 4, True),
        ("end", 4, True),
        (None, 5, False),
    ]
    for item in begun + rows[:-1]:
        listener.acked(item, 0.0)
        assert listener.position is None
    listener.acked(rows[-1], 0.0)
    assert listener.position == Position(4, "e")


def test_a_snapshot_that_breaks_off_begins_anew_from_the_old_position() -> None:
    listener = started(9)
    listener.lost(1.0)
    listener.connected(1.0)
    listener.received(array("r2", 0, 0, start=True, snapshot="start", epoch="new"), 50, 1.0)
    told = items(listener.received(array("r2", 0, 4, 2, 4, epoch="new"), 100, 1.0))
    listener.acked(told[-1], 1.0)
    listener.lost(2.0)
    assert sends(listener.connected(2.0))[0]["since"] == "9-e"


def test_after_done_it_finishes_when_everything_is_acknowledged() -> None:
    listener = started(follow=False)
    actions = listener.received(array("r1", 0, 5, 3, caught_up=True, end=End("done")), 100, 0.0)
    assert CaughtUp() in actions
    assert not listener.finished
    last = listener.acked(items(actions)[0], 0.0)
    assert sends(last) == [
        {"run": "r1", "ack": "5-e", "window": 4, "bytes": 1 << 20},
        {"run": "r1", "close": True},
    ]
    assert last[-1] == Finished()


@pytest.mark.parametrize("code", ["not_found", "forbidden", "bad_request", "unauthorized"])
def test_a_refused_open_is_final(code: str) -> None:
    listener = receiver()
    listener.connected(0.0)
    (finished,) = listener.received(Array(run="r1", rows=[], end=End(code, "no")), 50, 0.0)
    assert isinstance(finished, Finished)
    assert finished.error is not None
    assert finished.error.code == code


@pytest.mark.parametrize("error", [NotFound("dropped"), Forbidden("not any more"), Overloaded("busy")])
def test_a_run_that_had_started_and_ends_is_opened_again(error: Exception) -> None:
    listener = started()
    assert listener.received(array("r1", 0, 0, end=End(error.code)), 50, 0.0) == []  # type: ignore[attr-defined]
    assert sends(listener.tick(1.0))[0]["run"] == "r2"


def test_an_overloaded_service_is_asked_again_later() -> None:
    listener = receiver()
    listener.connected(0.0)
    assert listener.received(Array(run="r1", rows=[], end=End("overloaded")), 50, 0.0) == []
    assert sends(listener.tick(1.0))[0]["run"] == "r2"


def test_who_lost_its_name_to_another_does_not_fight_for_it() -> None:
    (finished,) = started().received(array("r1", 0, 0, end=End("replaced")), 50, 0.0)
    assert isinstance(finished, Finished)
    assert isinstance(finished.error, Replaced)


def test_closing_acknowledges_what_is_done_and_closes() -> None:
    listener = started(window=1_000)
    told = items(listener.received(array("r1", 0, 2, 1, 2), 100, 0.0))
    listener.acked(told[0], 0.0)
    actions = listener.closed(0.0)
    assert [list(each) for each in sends(actions)] == [["run", "ack", "window", "bytes"], ["run", "close"]]
    assert sends(actions)[0]["ack"] == "1-e"
    assert actions[-1] == Finished()


def test_a_row_at_the_end_of_a_snapshot_does_not_acknowledge_the_end() -> None:
    listener = receiver(since=Position(9, "old"))
    listener.connected(0.0)
    begun = items(listener.received(array("r1", 0, 0, start=True, snapshot="start"), 50, 0.0))
    *rows, end = items(listener.received(array("r1", 0, 4, 2, 4, snapshot="end"), 100, 0.0))
    for item in [*begun, *rows]:
        listener.acked(item, 0.0)
    assert sends(listener.tick(18.0))[0]["ack"] == "3-e"
    assert sends(listener.acked(end, 18.0))[0]["ack"] == "4-e"


def test_the_lost_end_of_an_empty_snapshot_is_found_by_the_next_heartbeat() -> None:
    listener = receiver(since=Position(9, "old"))
    listener.connected(0.0)
    listener.received(array("r1", 0, 0, start=True, snapshot="start"), 50, 0.0)
    listener.received(array("r1", 0, 0, caught_up=True), 50, 8.0)
    assert not listener.open
    assert sends(listener.tick(9.0))[0]["run"] == "r2"


def test_a_service_that_forgot_a_stream_before_all_was_acknowledged_is_asked_again() -> None:
    listener = started(follow=False)
    told = items(listener.received(array("r1", 0, 2, 1, 2, caught_up=True, end=End("done")), 100, 0.0))
    listener.acked(told[0], 0.0)
    listener.received(Array(run="r1", rows=[], end=End("closed")), 50, 18.0)
    (again,) = sends(listener.tick(20.0))
    assert (again["run"], again["since"]) == ("r2", "1-e")
