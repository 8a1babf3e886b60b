"""The service's end of a stream by example: credit, heartbeats, snapshots and ends."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from feeds.errors import BadRequest, NotFound
from listeners.stream.messages import Credit, Open
from listeners.stream.sender import Sender, SenderLimits, Told


def row(seq: int, size: int = 0) -> Told:
    return seq, msgspec.json.encode({"seq": seq, "id": "a", "rev": "1-a", "changes": [], "doc": "x" * size})


def sender(
    *, snapshot_upto: int | None = None, start: int = 0, limits: SenderLimits | None = None, **asked: Any
) -> Sender:
    opened = Open(run="r", **{"window": 10, "bytes": 100_000, **asked})
    snapshot = snapshot_upto is not None
    made = Sender(opened, epoch="e", start=start, snapshot=snapshot, now=0.0, limits=limits or SenderLimits())
    if snapshot_upto is not None:
        made.snapshot_ends_at(snapshot_upto)
    return made


def sent(sender: Sender, now: float = 0.0) -> list[dict[str, Any]]:
    arrays = []
    while (array := sender.next_array(now)) is not None:
        arrays.append(msgspec.json.decode(array))
    return arrays


def seqs(arrays: list[dict[str, Any]]) -> list[int]:
    return [each["seq"] for array in arrays for each in array["rows"]]


def credit(sender: Sender, seq: int, now: float = 0.0, **other: int) -> None:
    window, bytes_ = other.get("window", 10), other.get("bytes", 100_000)
    sender.credited(Credit(run="r", ack=f"{seq}-e", window=window, bytes=bytes_), now)


def test_it_begins_with_an_empty_array_that_fixes_the_position() -> None:
    assert sent(sender(start=7)) == [{"run": "r", "start": True, "prev": "7-e", "seq": "7-e", "rows": []}]


def test_the_position_moves_over_what_does_not_concern_the_listener() -> None:
    stream = sender()
    sent(stream)
    stream.page([row(3), row(5)], 9, level=True)
    assert [(array["prev"], array["seq"], array.get("caught_up")) for array in sent(stream)] == [("0-e", "9-e", True)]


def test_without_credit_it_waits_and_an_acknowledgement_lets_it_go_on() -> None:
    stream = sender(window=2)
    sent(stream)
    stream.page([row(seq) for seq in range(1, 6)], 5, level=True)
    arrays = sent(stream)
    assert seqs(arrays) == [1, 2]
    assert arrays[-1]["seq"] == "2-e"
    credit(stream, 1, window=2)
    assert seqs(sent(stream)) == [3]
    credit(stream, 3, window=3)
    assert seqs(sent(stream)) == [4, 5]


def test_bytes_bound_it_as_rows_do_but_one_row_always_goes() -> None:
    stream = sender(bytes=500)
    sent(stream)
    stream.page([row(1, 5_000), row(2, 300), row(3, 300)], 3, level=True)
    assert seqs(sent(stream)) == [1]
    credit(stream, 1, bytes=500)
    assert seqs(sent(stream)) == [2]


def test_an_array_has_64_kib_and_a_larger_row_goes_alone() -> None:
    stream = sender(window=100, bytes=10_000_000)
    sent(stream)
    stream.page([row(1, 30_000), row(2, 30_000), row(3, 30_000), row(4, 100_000), row(5)], 5, level=True)
    assert [[each["seq"] for each in array["rows"]] for array in sent(stream)] == [[1, 2], [3], [4], [5]]


def test_a_heartbeat_is_sent_when_nothing_else_was_for_a_while() -> None:
    stream = sender(limits=SenderLimits(heartbeat_s=8))
    sent(stream)
    stream.page([], 0, level=True)
    assert [array.get("caught_up") for array in sent(stream)] == [True]
    assert sent(stream, 7.9) == []
    stream.look(4)
    assert [(a["prev"], a["seq"], a["rows"], a["caught_up"]) for a in sent(stream, 8.0)] == [("0-e", "4-e", [], True)]


def test_a_heartbeat_without_credit_says_where_the_listener_stands() -> None:
    stream = sender(window=1)
    sent(stream)
    stream.page([row(1), row(2)], 2, level=True)
    sent(stream)
    assert [(a["prev"], a["seq"], a["rows"]) for a in sent(stream, 9.0)] == [("1-e", "1-e", [])]


def test_after_silence_it_ends_and_forgets() -> None:
    stream = sender(limits=SenderLimits(silence_s=60))
    sent(stream)
    credit(stream, 0, 10.0)
    stream.tick(69.9)
    assert not stream.ending
    stream.tick(70.0)
    assert sent(stream, 70.0)[-1]["end"]["code"] == "timeout"
    assert stream.finished


def test_without_follow_it_is_done_at_the_end_and_finished_when_that_is_acknowledged() -> None:
    stream = sender(follow=False)
    sent(stream)
    stream.page([row(1)], 4, level=True)
    (array,) = sent(stream)
    assert (array["seq"], array["caught_up"], array["end"]) == ("4-e", True, {"code": "done"})
    assert not stream.finished
    credit(stream, 4)
    assert stream.finished
    assert stream.cursor == 4


def test_who_is_done_and_says_nothing_is_forgotten_without_its_cursor_moving() -> None:
    stream = sender(follow=False)
    sent(stream)
    stream.page([row(1)], 4, level=True)
    sent(stream)
    stream.tick(60.0)
    assert stream.finished
    assert stream.cursor == 0


def test_a_snapshot_is_framed_and_moves_the_cursor_at_its_end_only() -> None:
    stream = sender(snapshot_upto=4)
    assert sent(stream)[0]["snapshot"] == "start"
    stream.page([row(2)], 3, level=False)
    assert "snapshot" not in sent(stream)[0]
    credit(stream, 3)
    assert stream.cursor is None
    stream.page([row(4)], 4, level=False)
    assert sent(stream)[0]["snapshot"] == "end"
    assert stream.cursor is None
    credit(stream, 4)
    assert stream.cursor == 4


def test_the_end_of_an_empty_snapshot_moves_no_cursor() -> None:
    stream = sender(snapshot_upto=0)
    sent(stream)
    credit(stream, 0)
    assert stream.cursor is None
    stream.page([row(1)], 1, level=True)
    sent(stream)
    credit(stream, 1)
    assert stream.cursor == 1


def test_what_does_not_fit_into_the_buffer_is_let_go_and_read_again_from_the_position() -> None:
    stream = sender(window=2)
    sent(stream)
    assert stream.offer([row(1), row(2)], 2)
    assert seqs(sent(stream)) == [1, 2]
    assert stream.offer([row(3), row(4)], 4)
    assert not stream.offer([row(5)], 5)
    assert (stream.buffered, stream.looked_at, stream.room()) == (0, 2, None)
    credit(stream, 2, window=2)
    assert stream.room() is not None


def test_what_was_looked_at_before_is_not_taken_twice() -> None:
    stream = sender()
    sent(stream)
    stream.page([row(1), row(3)], 4, level=False)
    stream.offer([row(3), row(5)], 6)
    assert seqs(sent(stream)) == [1, 3, 5]


def test_an_older_word_changes_nothing_and_an_impossible_one_is_refused() -> None:
    stream = sender()
    sent(stream)
    stream.page([row(1), row(2)], 2, level=True)
    sent(stream)
    credit(stream, 2)
    credit(stream, 1, window=99)
    assert (stream.acked, stream.window) == (2, 10)
    with pytest.raises(BadRequest, match="3-e was not sent"):
        credit(stream, 3)
    with pytest.raises(BadRequest):
        stream.credited(Credit(run="r", ack="1-other", window=1, bytes=1), 0.0)


def test_an_error_ends_it_in_place_of_what_waits() -> None:
    stream = sender(window=1)
    sent(stream)
    stream.page([row(1), row(2)], 2, level=True)
    sent(stream)
    stream.fail(NotFound("The barrel was dropped."))
    (array,) = sent(stream)
    assert (array["prev"], array["seq"], array["end"]["code"]) == ("1-e", "1-e", "not_found")
    assert stream.finished
    assert sent(stream, 100.0) == []
