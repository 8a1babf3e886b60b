"""Checking that a text is a document, and giving it its id."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.cli.elements import Piece
from broker.cli.identify import checker
from broker.cli.inputs import BadInput
from feeds.errors import BadRequest

keys = st.text(max_size=6).filter(lambda key: not key.startswith("_"))
documents = st.dictionaries(keys, st.none() | st.integers() | st.text() | st.lists(st.integers()), max_size=5)


@given(documents, st.text(min_size=1, max_size=20), st.sampled_from([None, 1]))
def test_the_id_is_put_in_and_all_else_stays(doc: dict[str, object], name: str, indent: int | None) -> None:
    doc = {**doc, "name": name}
    raw = json.dumps(doc, indent=indent, ensure_ascii=False).encode("utf-8", "surrogatepass")
    assert json.loads(checker("name")(Piece(1, raw))) == {"_id": name, **doc}


@given(documents)
def test_without_a_field_a_document_goes_on_byte_by_byte(doc: dict[str, object]) -> None:
    raw = json.dumps(doc).encode()
    assert checker()(Piece(1, raw)) is raw


@pytest.mark.parametrize(
    ("field", "raw", "identity"),
    [
        ("n", b'{"n": 7}', "7"),
        ("n", b'{"n": 1.50}', "1.50"),
        ("name.common", b'{"name": {"common": "France", "official": "R"}}', "France"),
        ("a.b.c", b'{"a": {"b": {"c": "deep"}, "x": 1}}', "deep"),
        ("n", b'{"_id": "7", "n": 7}', "7"),
        ("_id", b'{"_id": "own"}', "own"),
        ("n", rb'{"n": "caf\u00e9"}', "café"),
    ],
)
def test_the_id_is_taken_from_text_or_number(field: str, raw: bytes, identity: str) -> None:
    assert json.loads(checker(field)(Piece(1, raw)))["_id"] == identity


def test_a_field_of_a_csv_file_may_have_dots_in_its_name() -> None:
    assert json.loads(checker("a.b", literal=True)(Piece(1, b'{"a.b": "x"}')))["_id"] == "x"


@pytest.mark.parametrize(
    ("field", "raw", "told"),
    [
        ("n", b'{"m": 1}', "it has no n"),
        ("n", b'{"n": null}', "it has no n"),
        ("n", b'{"n": ""}', "it has no n"),
        ("n", b'{"n": [1]}', "neither text nor a number"),
        ("n", b'{"n": true}', "neither text nor a number"),
        ("a.b", b'{"a": 1}', "it has no a.b"),
        ("a.b", b'{"a": null}', "it has no a.b"),
        ("a.b", b'{"a": {}}', "it has no a.b"),
        ("n", b'{"_id": "x", "n": "y"}', 'its _id is "x", its n "y"'),
        ("_id", b"{}", "it has no _id"),
        ("_id", b'{"_id": 3}', "its _id is not text"),
        (None, b"not json", "it is not JSON"),
        (None, b'{"a": NaN}', "it is not JSON"),
        (None, b'{"a": 1},{"a": 2}', "it is not JSON"),
        (None, b'{"a": 1', "it is not JSON"),
        (None, b"[1]", "it is not a JSON object"),
        (None, b'{"a": "\xff"}', "it is not UTF-8"),
        (None, b'{"a":' * 100_000, "it is"),
    ],
)
def test_what_is_no_document_is_named_with_its_line(field: str | None, raw: bytes, told: str) -> None:
    with pytest.raises(BadInput) as caught:
        checker(field)(Piece(1234, raw))
    assert caught.value.reason.startswith("line 1,234: it")
    assert told in caught.value.reason


def test_a_problem_that_a_reader_found_is_told_as_it_is() -> None:
    with pytest.raises(BadInput, match="line 3: too many fields"):
        checker("n")(Piece(3, b"", "too many fields"))


@pytest.mark.parametrize("field", ["", '"', "\\", "a\nb"])
def test_a_field_that_cannot_be_looked_for_is_refused(field: str) -> None:
    with pytest.raises(BadRequest, match="ids cannot be taken"):
        checker(field)
