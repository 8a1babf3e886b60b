"""Places in a log, as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.errors import BadRequest
from feeds.positions import FIRST, NOW, SEQ_MAX, Mark, Position, parse_since

seqs = st.integers(0, SEQ_MAX)
epochs = st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=32)


@given(seqs, st.none() | epochs)
def test_a_position_reads_back_from_its_text(seq: int, epoch: str | None) -> None:
    position = Position(seq, epoch)
    assert Position.parse(str(position)) == position


@given(seqs.filter(bool), st.none() | epochs)
def test_a_reader_may_begin_at_any_position(seq: int, epoch: str | None) -> None:
    assert parse_since(str(Position(seq, epoch))) == Position(seq, epoch)
    assert parse_since(seq) == Position(seq)


@pytest.mark.parametrize("text", ["first", "0", 0])
def test_zero_is_first(text: str | int) -> None:
    assert parse_since(text) is FIRST


def test_zero_of_an_epoch_keeps_the_epoch_so_that_it_can_be_checked() -> None:
    assert parse_since("0-e5") == Position(0, "e5")


def test_now_is_now_and_nothing_is_the_default() -> None:
    assert parse_since("now") is NOW
    assert parse_since(None) is FIRST
    assert parse_since(None, NOW) is NOW
    assert parse_since(None, Position(7, "e")) == Position(7, "e")


@pytest.mark.parametrize("mark", Mark)
def test_a_mark_reads_back_from_its_text(mark: Mark) -> None:
    assert parse_since(str(mark)) is mark


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            "-",
            "-1",
            "+1",
            "01",
            "00",
            " 1",
            "1 ",
            "1\n",
            "1.0",
            "1e3",
            "0x1",
            "١",
            "last",
            "First",
            "NOW",
        ),
        *("5-", "5-E", "5-é", "5-a-b", "5_a", "-a", "5-" + "a" * 33, str(SEQ_MAX + 1), "9" * 30),
        *(-1, SEQ_MAX + 1, True, False, 1.0, [], {}, b"5"),
    ],
)
def test_what_is_no_position_is_refused_by_name(value: str | int) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_since(value)
    assert repr(value) in refused.value.reason
    assert refused.value.hint
