"""How a change is shown: in columns for people, as the row it is in a pipe."""

from __future__ import annotations

from typing import Any

import msgspec

from broker.cli.output import Output

__all__ = ["show_row"]

_FLAGS = ("entered", "removed", "deleted", "expired")


def show_row(output: Output, raw: bytes | msgspec.Raw) -> None:
    """Show one row of a feed, or the edge of a snapshot, given as JSON."""
    if output.is_terminal:
        output.text(_columns(msgspec.json.decode(raw)))
    else:
        output.json_line(raw)


def _columns(row: dict[str, Any]) -> str:
    if "id" not in row:
        return "-- " + ", ".join(f"{name} {value}" for name, value in row.items())
    words = [flag for flag in _FLAGS if row.get(flag)]
    if len(row.get("changes", ())) > 1:
        words.append(f"{len(row['changes'])} leaves")
    words += row.get("paths", ())
    line = f"{row['seq']:>8}  {_short(row['rev']):<14}  {row['id']:<24}  {' '.join(words)}".rstrip()
    if "doc" in row:
        line += "\n          " + msgspec.json.encode(row["doc"]).decode()
    return line


def _short(rev: str) -> str:
    generation, _, digest = rev.partition("-")
    return f"{generation}-{digest[:8]}…" if len(digest) > 9 else rev
