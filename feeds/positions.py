"""Places in a barrel's log, as text and as values.

Pure: whether a position belongs to the barrel's present life is asked by those who hold the log.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from feeds.errors import BadRequest

SEQ_MAX = 2**63 - 1

_POSITION = re.compile(r"(0|[1-9][0-9]{0,18})(?:-([0-9a-z]{1,32}))?")
_SHOWN_CHARACTERS_MAX = 80


class Mark(Enum):
    """The two places that every log has, whatever its epoch."""

    FIRST = "first"
    NOW = "now"

    def __str__(self) -> str:
        return self.value


FIRST = Mark.FIRST
NOW = Mark.NOW


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a log: everything up to `seq` has been told.

    Without `epoch` (a bare integer) nobody can see that the barrel was created again meanwhile.
    """

    seq: int
    epoch: str | None = None

    @classmethod
    def parse(cls, value: object) -> Position:
        """The position written as `<seq>-<epoch>` or as a bare integer; BadRequest if it is none."""
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= SEQ_MAX:
            return cls(value)
        found = _POSITION.fullmatch(value) if isinstance(value, str) else None
        if found is None or (seq := int(found[1])) > SEQ_MAX:
            raise BadRequest(
                f"{repr(value)[:_SHOWN_CHARACTERS_MAX]} is not a position.",
                hint="Give a position as Spile gave it (<seq>-<epoch>), an integer, `first` or `now`.",
            )
        return cls(seq, found[2])

    def __str__(self) -> str:
        return str(self.seq) if self.epoch is None else f"{self.seq}-{self.epoch}"


def parse_since(value: str | int | None, default: Position | Mark = FIRST) -> Position | Mark:
    """Where a reader wants to begin: `default` for None, else a mark or a position.

    `first`, `"0"` and `0` are FIRST, `now` is NOW; BadRequest names everything that is no place in a log.
    """
    if value is None:
        return default
    if value == "first":
        return FIRST
    if value == "now":
        return NOW
    position = Position.parse(value)
    return FIRST if position == Position(0) else position
