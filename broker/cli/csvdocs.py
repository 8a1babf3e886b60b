"""Making documents of the rows of a CSV file.

Pure: takes chunks of bytes, gives pieces as `elements` does. The first row names the fields.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator

import msgspec

from broker.cli.elements import PIECE_BYTES_MAX, Piece, lines
from broker.cli.inputs import BadInput

__all__ = ["DELIMITERS", "csv_documents"]

DELIMITERS = ",;\t"
"""What may stand between fields; the one that the first row has most of is taken."""

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?").fullmatch
_WORDS = {"true": msgspec.Raw(b"true"), "false": msgspec.Raw(b"false")}


def csv_documents(chunks: Iterable[bytes], *, as_text: bool = False) -> Iterator[Piece]:
    """One JSON object for each row: its fields by the names of the first row, empty ones left out.

    What is written like a JSON number becomes that number, digit by digit, and `true` and `false` become
    booleans, unless `as_text` asks for text alone; `007` and `+33` stay text, and so do `_id` and `_rev`.
    A row with more fields than names comes as a piece with a `problem`. Raises BadInput for a
    first row without usable names, for bytes that are not UTF-8 and for quotes that do not end.
    """
    text = _text_lines(chunks)
    first = next(text, "")
    delimiter = max(DELIMITERS, key=first.count)
    csv.field_size_limit(PIECE_BYTES_MAX)
    rows = csv.reader(_again(first, text), delimiter=delimiter, strict=True)
    encode = msgspec.json.Encoder().encode
    line = 1
    try:
        names = _names(next(rows, []))
        always_text = tuple(as_text or name in ("_id", "_rev") for name in names)
        line = rows.line_num + 1
        for row in rows:
            if len(row) > len(names):
                problem = f"the row has {len(row)} fields, the first row names {len(names)}"
                yield Piece(line, b"", problem)
            elif row:
                cells = zip(names, always_text, row, strict=False)
                document = {name: cell if is_text else _value(cell) for name, is_text, cell in cells if cell}
                yield Piece(line, encode(document))
            line = rows.line_num + 1
    except csv.Error as error:
        raise BadInput(line, f"it is not CSV: {error}", skippable=False) from error


def _value(cell: str) -> str | msgspec.Raw:
    if _NUMBER(cell):
        return msgspec.Raw(cell.encode())
    return _WORDS.get(cell, cell)


def _names(row: list[str]) -> list[str]:
    names = [name.strip() for name in row]
    twice = sorted({name for name in names if names.count(name) > 1})
    if "" in names and any(names):
        raise BadInput(1, f"field {names.index('') + 1} of the first row has no name", skippable=False)
    if twice:
        raise BadInput(1, f"the first row names {', '.join(twice)} twice", skippable=False)
    return names


def _again(first: str, rest: Iterable[str]) -> Iterator[str]:
    yield first
    yield from rest


def _text_lines(chunks: Iterable[bytes]) -> Iterator[str]:
    for line, raw, _ in lines(chunks, blank=True):
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise BadInput(line, "it is not UTF-8", skippable=False) from error
        yield text + "\n"
