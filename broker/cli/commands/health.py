"""Asking a running service how its parts are: for people, and for what watches over containers."""

from __future__ import annotations

from typing import Any

import typer

from broker.cli.exits import NO_SERVICE
from broker.cli.options import UrlOption, examples
from broker.cli.output import standard_output

app = typer.Typer()

ANSWER_S_MAX = 5.0  # a probe that waits longer tells too late


@app.command(rich_help_panel="Service", epilog=examples("spile health", "spile health --url http://127.0.0.1:8080"))
def health(url: UrlOption = None) -> None:
    """Show how the parts of the running service are. Needs no token.

    The exit code is 0 while the service does what it is there for, also while a part waits for something that is
    away, and 3 when a part fails or nobody answers.
    """
    told = _asked(url)
    output = standard_output()
    if output.is_terminal:
        rows = [{"part": name, **part} for name, part in told["parts"].items()]
        output.table(("part", "state", "since", "failure", "hint"), rows)
    else:
        output.json_line(told)
    if not told["ok"]:
        raise typer.Exit(NO_SERVICE)


def _asked(url: str | None) -> dict[str, Any]:
    """What the service says at `/health`, well or not."""
    from broker.cli.over_http import HttpBackend

    with HttpBackend.at(url) as service:
        return service.health(ANSWER_S_MAX)
