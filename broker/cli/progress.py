"""Progress on standard error, for people; nothing where nobody watches."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["ShownProgress", "shown_progress"]


class ShownProgress(Protocol):
    """How far something is."""

    def show(self, done: int, total: int | None, told: str = "") -> None:
        """`done` of `total` (None: not known) in the progress's unit, and a few words."""


class _Nobody:
    def show(self, done: int, total: int | None, told: str = "") -> None:
        """Nobody watches."""


@contextmanager
def shown_progress(what: str, *, in_bytes: bool = False) -> Iterator[ShownProgress]:
    """A bar with speed and time left while the block runs, if standard error is a terminal."""
    if not sys.stderr.isatty():
        yield _Nobody()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn() if in_bytes else MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None, told="")

        class _Bar:
            def show(self, done: int, total: int | None, told: str = "") -> None:
                bar.update(task, completed=done, total=total, told=told)

        yield _Bar()
