"""What a selector comes to: conditions on fields, joined by and and or.

Pure. Negations are pushed down to the conditions, as CouchDB does, so that a field that is missing is missing under
`$not` too. Joins are flat: an `Every` has no `Every` within, and neither has fewer than two parts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Constant:
    """Matches everything, or nothing."""

    holds: bool


@dataclass(frozen=True, slots=True)
class Condition:
    """One operator on the value of one field.

    No path is the value itself, as within `$elemMatch`, whose argument is a `Node`. `negated` is set only where no
    operator says the opposite; the field has to be there all the same.
    """

    path: tuple[str, ...]
    operator: str
    argument: Any
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Every:
    """Matches what all parts match."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """Matches what at least one part matches."""

    parts: tuple[Node, ...]


Node: TypeAlias = Constant | Condition | Every | Some

EVERYTHING = Constant(True)
NOTHING = Constant(False)


def every(parts: Iterable[Node]) -> Node:
    """All of the parts together, in the simplest form; of no parts, everything."""
    flat: list[Node] = []
    for part in parts:
        if part == NOTHING:
            return NOTHING
        if isinstance(part, Every):
            flat += part.parts
        elif part != EVERYTHING:
            flat.append(part)
    return _joined(flat, Every, EVERYTHING)


def some(parts: Iterable[Node]) -> Node:
    """Any of the parts, in the simplest form; of no parts, nothing."""
    flat: list[Node] = []
    for part in parts:
        if part == EVERYTHING:
            return EVERYTHING
        if isinstance(part, Some):
            flat += part.parts
        elif part != NOTHING:
            flat.append(part)
    return _joined(flat, Some, NOTHING)


def _joined(parts: list[Node], join: type[Every] | type[Some], empty: Node) -> Node:
    if not parts:
        return empty
    return parts[0] if len(parts) == 1 else join(tuple(parts))
