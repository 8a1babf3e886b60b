"""Documents from the rows of a CSV file."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.cli.csvdocs import csv_documents
from broker.cli.inputs import BadInput

cells = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n,\"' "), max_size=8)


def documents(data: bytes, *, as_text: bool = False) -> list[object]:
    return [json.loads(piece.raw) for piece in csv_documents([data], as_text=as_text)]


@given(st.lists(st.lists(cells, min_size=2, max_size=2).filter(any), max_size=5), st.sampled_from([",", ";", "\t"]))
def test_every_cell_comes_back_as_text(rows: list[list[str]], delimiter: str) -> None:
    written = io.StringIO(newline="")
    csv.writer(written, delimiter=delimiter, lineterminator="\n").writerows([["a", "b"], *rows])
    expected = [{name: cell for name, cell in zip("ab", row, strict=True) if cell} for row in rows]
    assert documents(written.getvalue().encode(), as_text=True) == expected


def test_numbers_and_booleans_are_told_by_how_they_are_written() -> None:
    data = b"n,x,t,zip,phone,empty\n12,-1.50,true,007,+33,\n"
    assert documents(data) == [{"n": 12, "x": -1.5, "t": True, "zip": "007", "phone": "+33"}]


def test_numbers_are_kept_digit_by_digit() -> None:
    pieces = list(csv_documents([b"a,b\n1.10,12345678901234567890123\n"]))
    assert pieces[0].raw == b'{"a":1.10,"b":12345678901234567890123}'


def test_ids_and_revisions_stay_text() -> None:
    assert documents(b"_id,_rev,n\n1,2,3\n") == [{"_id": "1", "_rev": "2", "n": 3}]


def test_a_cell_over_several_lines_counts_the_lines() -> None:
    pieces = list(csv_documents([b'a,b\n"x\ny",1\nz,2\n']))
    assert [(piece.line, json.loads(piece.raw)["a"]) for piece in pieces] == [(2, "x\ny"), (4, "z")]


def test_a_file_without_rows_holds_no_documents() -> None:
    assert documents(b"a,b\n") == []
    assert documents(b"") == []


def test_blank_lines_are_passed_over_and_short_rows_lack_their_last_fields() -> None:
    assert documents(b"a,b\r\n1,2\r\n\r\n3\r\n") == [{"a": 1, "b": 2}, {"a": 3}]


def test_a_row_with_too_many_fields_is_a_problem_of_that_line_alone() -> None:
    pieces = list(csv_documents([b"a,b\n1,2,3\n4,5\n"]))
    assert pieces[0].line == 2
    assert "3 fields" in pieces[0].problem
    assert json.loads(pieces[1].raw) == {"a": 4, "b": 5}


@pytest.mark.parametrize(
    ("data", "line", "told"),
    [
        (b"a,,c\n1,2,3\n", 1, "has no name"),
        (b"a,b,a\n1,2,3\n", 1, "twice"),
        (b'a,b\n1,2\n"no end,2\n', 3, "not CSV"),
        (b"a,b\n1,2\n1,\xff\n", 3, "not UTF-8"),
    ],
)
def test_what_cannot_be_read_names_the_line(data: bytes, line: int, told: str) -> None:
    with pytest.raises(BadInput, match=told) as caught:
        documents(data)
    assert caught.value.line == line
