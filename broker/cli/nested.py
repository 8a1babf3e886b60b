"""What commands are told about nested calls, and how they tell what came of one."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from broker.cli.exits import REFUSED, with_code
from broker.cli.output import standard_output

if TYPE_CHECKING:
    from broker.cli.backend import Beyond

__all__ = [
    "Keep",
    "P2pDepth",
    "P2pFirst",
    "P2pRead",
    "P2pTimeout",
    "P2pWrite",
    "asked_beyond",
    "tell_written",
]

_PANEL = "Peers"

P2pWrite = Annotated[
    int | None,
    typer.Option(
        "--p2p-write",
        min=1,
        max=64,
        metavar="N",
        help="Pass it on until so many services have it, this one counted.",
        rich_help_panel=_PANEL,
    ),
]
P2pRead = Annotated[
    bool,
    typer.Option("--p2p-read", help="Look for it at the service's peers if it is not here.", rich_help_panel=_PANEL),
]
P2pFirst = Annotated[
    bool,
    typer.Option(
        "--p2p-first", help="The same, asking all of them at once: the first counts.", rich_help_panel=_PANEL
    ),
]
Keep = Annotated[bool, typer.Option("--keep", help="Keep here what a peer had.", rich_help_panel=_PANEL)]
P2pDepth = Annotated[
    int | None,
    typer.Option(
        "--p2p-depth",
        min=1,
        max=8,
        metavar="N",
        help="Steps from here at most. Default: 3.",
        rich_help_panel=_PANEL,
    ),
]
P2pTimeout = Annotated[
    float | None,
    typer.Option(
        "--p2p-timeout",
        min=0.001,
        max=60.0,
        metavar="SECONDS",
        help="For all of it. Default: 10.",
        rich_help_panel=_PANEL,
    ),
]


def asked_beyond(
    write: int | None = None,
    *,
    read: Literal["order", "first"] | None = None,
    depth: int | None,
    timeout: float | None,
    keep: bool = False,
) -> Beyond:
    """What peers are asked for; wrong use where it says nothing."""
    from broker.cli.backend import Beyond

    if write is None and read is None and (keep or depth is not None or timeout is not None):
        raise typer.BadParameter("--keep, --p2p-depth and --p2p-timeout go with --p2p-write or --p2p-read")
    return Beyond(write, read, depth, None if timeout is None else max(1, round(timeout * 1000)), keep)


def tell_written(written: Mapping[str, Any], sentence: str) -> None:
    """Tell of a write, and who else has it; exit code 1 where that are fewer than were asked for."""
    told: Mapping[str, Any] | None = written.get("p2p")
    if told is None:
        standard_output().told(written, sentence)
        return
    holders = ", ".join(holder["peer"] for holder in told["holders"])
    standard_output().told(written, f"{sentence}, and {told['reached']} of {told['wanted']} have it: {holders}")
    if told["complete"]:
        return
    print(f"spile: {told['reached']} of {told['wanted']} have it", file=sys.stderr)
    for miss in told["failed"]:
        doing = " could not be asked to pass it on" if miss["step"] == "pass_on" else ""
        unknown = " It may have it." if miss.get("unknown") else ""
        print(f"  {miss['peer']}{doing}: {with_code(miss['reason'], miss['error'])}{unknown}", file=sys.stderr)
    raise typer.Exit(REFUSED)
