"""What commands show: tables and pretty documents for people on a terminal, JSON lines in a pipe."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from broker.cli.exits import OutputFailed, PipeClosed

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Output", "flush_standard_output", "standard_output"]

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""All but tabs and ends of lines. In JSON these are escapes already, or may be."""


class Output:
    """Standard output, as a terminal or as a pipe.

    Writing to a closed pipe raises PipeClosed, and what else fails OutputFailed.
    """

    def __init__(self, stream: BinaryIO, *, is_terminal: bool) -> None:
        self.is_terminal = is_terminal
        self._stream = stream

    def json_line(self, value: object) -> None:
        """One JSON value on one line; `bytes` and `Raw` are JSON already."""
        raw = bytes(value) if isinstance(value, bytes | msgspec.Raw) else msgspec.json.encode(value)
        if b"\n" in raw:
            raw = msgspec.json.format(raw, indent=-1)
        self._write(raw + b"\n")

    def json_lines(self, values: Iterable[object]) -> None:
        for value in values:
            self.json_line(value)

    def document(self, raw: bytes) -> None:
        """A JSON document: over several lines with colours for people, one line in a pipe."""
        if not self.is_terminal:
            self.json_line(raw)
            return
        from rich.highlighter import JSONHighlighter

        text = _harmless(msgspec.json.format(raw, indent=2).decode())
        self._console().print(JSONHighlighter()(text), soft_wrap=True)

    def told(self, value: Mapping[str, Any], sentence: str) -> None:
        """The outcome of a command: a sentence for people, an object in a pipe."""
        if self.is_terminal:
            self.text(sentence)
        else:
            self.json_line(value)

    def text(self, line: str) -> None:
        """A line for people."""
        self._write(_harmless(line).encode("utf-8", "replace") + b"\n")

    def facts(self, value: Mapping[str, Any]) -> None:
        """One thing and what is known of it: name and value a line, or an object."""
        if not self.is_terminal:
            self.json_line(value)
            return
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for name, held in value.items():
            table.add_row(name, _cell(held))
        self._console().print(table)

    def table(self, columns: Sequence[str], rows: Iterable[Mapping[str, Any]], if_none: str = "") -> None:
        """Several things of one kind: a table of these columns, or an object a line with everything.

        With `if_none` people see this sentence instead of an empty table.
        """
        if not self.is_terminal:
            self.json_lines(rows)
            return
        from rich import box
        from rich.table import Table

        rows = list(rows)
        if not rows and if_none:
            self.text(if_none)
            return
        table = Table(box=box.SIMPLE_HEAD)
        for column in columns:
            counts = all(isinstance(row.get(column), int) for row in rows) and bool(rows)
            table.add_column(column, justify="right" if counts else "left", overflow="fold")
        for row in rows:
            table.add_row(*(_cell(row.get(column)) for column in columns))
        self._console().print(table)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise _failure(error) from error

    def _write(self, data: bytes) -> None:
        try:
            self._stream.write(data)
        except OSError as error:
            raise _failure(error) from error

    def _console(self) -> Console:
        from rich.console import Console

        self.flush()
        return Console(markup=False, emoji=False)


def standard_output() -> Output:
    """The output of this process."""
    return Output(sys.stdout.buffer, is_terminal=sys.stdout.isatty())


def flush_standard_output() -> None:
    """Write what is held back, also by `print`; raises as Output does."""
    try:
        sys.stdout.flush()
    except OSError as error:
        raise _failure(error) from error


def _failure(error: OSError) -> PipeClosed | OutputFailed:
    return PipeClosed() if isinstance(error, BrokenPipeError) else OutputFailed(error.strerror)


def _harmless(text: str) -> str:
    """The text without what would command a terminal: a document may hold anything."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _cell(value: object) -> str:
    return _harmless(_cell_text(value))


def _cell_text(value: object) -> str:
    if value is None or value is False:
        return ""
    if isinstance(value, bool):
        return "yes"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return " ".join(f"{name}={msgspec.json.encode(held).decode()}" for name, held in value.items())
    return msgspec.json.encode(value).decode()
