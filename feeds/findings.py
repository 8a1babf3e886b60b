"""What a check of a store, or of its blob files, found, in words and for who mends it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

PROBLEMS_MAX = 10_000  # told in full; of a store that is damaged throughout, more would only fill the memory

Progress = Callable[[int, int], None]
"""Told from time to time of a check: how many documents were looked at, and of how many."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found. `counted` is what was looked at; `repaired` how many of the problems are gone now."""

    problems: list[str]
    counted: dict[str, int]
    repaired: int = 0


@dataclass(slots=True)
class Findings:
    """Problems as text, and what a repair has to look at."""

    problems: list[str] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)
    broken: bool = False  # the file itself: nothing in it can be mended by us
    leaves: list[tuple[int, str, str]] = field(default_factory=list)  # barrel, its name, document id
    index: set[int] = field(default_factory=set)  # barrels
    counts: set[int] = field(default_factory=set)  # barrels
    logs: set[int] = field(default_factory=set)  # barrels
    refs: set[int] = field(default_factory=set)  # barrels
    damaged: list[str] = field(default_factory=list)  # places of contents
    sound: list[str] = field(default_factory=list)  # the same, told as damaged before

    def add(self, problem: str) -> None:
        """Tell a problem, as long as there are not too many."""
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(problem)

    def count(self, what: str, number: int = 1) -> None:
        """So many more were looked at."""
        self.counted[what] = self.counted.get(what, 0) + number
