"""How far a nested call may go, and what it is to come to: checked values with bounds on all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from feeds.errors import BadRequest

WANTED_MAX = 64
"""More replicas than that are brought together by replication; asking each within one call would take too long."""
DEPTH = 3
DEPTH_MAX = 8
SECONDS = 10.0
SECONDS_MAX = 60.0
"""A client that waits for longer has mostly given up, and a place is held meanwhile."""

Order: TypeAlias = Literal["order", "first"]
"""Peers one after another, in their order; or all at once, and the first that has it counts."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What a write that is passed on is to come to. Raises BadRequest for what cannot be meant."""

    wanted: int
    """How many barrels shall have it, the one here counted."""
    depth: int = DEPTH
    """Steps from here: 1 is one's own peers, 2 also theirs."""
    seconds: float = SECONDS
    """For all of it."""

    def __post_init__(self) -> None:
        _check("wanted", self.wanted, 1, WANTED_MAX)
        _check("depth", self.depth, 1, DEPTH_MAX)
        _check("seconds", self.seconds, 0, SECONDS_MAX)


@dataclass(frozen=True, slots=True)
class Search:
    """How a document is looked for. Raises BadRequest for what cannot be meant."""

    order: Order = "order"
    depth: int = DEPTH
    """Steps from here; 0 looks here alone."""
    seconds: float = SECONDS
    keep: bool = False
    """Whether what is found is written here."""

    def __post_init__(self) -> None:
        if self.order not in ("order", "first"):
            raise BadRequest(f"Peers are asked in `order`, or all at once (`first`), not {self.order!r:.80}")
        _check("depth", self.depth, 0, DEPTH_MAX)
        _check("seconds", self.seconds, 0, SECONDS_MAX)


def _check(name: str, value: float, least: int, most: float) -> None:
    if not least <= value <= most:
        raise BadRequest(
            f"The {name} of a nested call cannot be {value}", hint=f"It lies between {least} and {most}."
        )
