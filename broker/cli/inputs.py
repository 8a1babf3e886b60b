"""What is wrong with an input that documents are read from: a line of it, or all that follows a place."""

from __future__ import annotations

from feeds.errors import BadRequest

__all__ = ["BadInput", "BrokenInput"]


class BadInput(BadRequest):
    """The input holds something that is no document."""

    hint = "Correct the line, or go on without such lines with --skip-bad."

    def __init__(self, line: int, problem: str, *, skippable: bool = True) -> None:
        """`line` counts from 1; `skippable` is False where what follows cannot be told any more."""
        hint = None if skippable else "Correct the input; what follows this place cannot be read."
        super().__init__(f"line {line:,}: {problem}", hint=hint)
        self.line = line
        self.problem = problem
        self.skippable = skippable


class BrokenInput(BadRequest):
    """The input cannot be read to its end."""

    hint = "Fetch it again; a packed file can be tested with gzip -t, xz -t or bzip2 -t."
