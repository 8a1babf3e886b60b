"""Statements that are run for many rows, in the forms that carry many rows well.

Pure text; `session` sends them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Float, Integer, LargeBinary, SmallInteger, Table


@dataclass(frozen=True, slots=True)
class Copy:
    """PostgreSQL's COPY into a table: its text, the types of the columns, and which of them holds bodies."""

    text: str
    types: tuple[str, ...]
    body: int | None


class Many(str):
    """The text for one row's parameters; beside it what PostgreSQL takes for many rows at once.

    `arrays` takes an array for each parameter. `copy` is there where rows are only added.
    """

    arrays: str | None
    copy: Copy | None

    def __new__(cls, one: str, arrays: str | None = None, copy: Copy | None = None) -> Many:
        made = super().__new__(cls, one)
        made.arrays = arrays
        made.copy = copy
        return made


def copy_of(table: Table) -> Copy:
    """COPY of rows given as tuples of all columns."""
    names = [column.name for column in table.c]
    listed = ", ".join(f'"{name}"' for name in names)
    return Copy(
        f'COPY "{table.name}" ({listed}) FROM STDIN (FORMAT BINARY)',
        tuple(_type(column.type) for column in table.c),
        names.index("body") if "body" in names else None,
    )


def _type(kind: Any) -> str:
    # SmallInteger and BigInteger are Integers too.
    for each, name in (
        (SmallInteger, "int2"),
        (BigInteger, "int8"),
        (Integer, "int4"),
        (Float, "float8"),
        (LargeBinary, "bytea"),
    ):
        if isinstance(kind, each):
            return name
    return "text"
