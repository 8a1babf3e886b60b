"""`spile changes`: what changed in a barrel, and what changes from now on."""

from __future__ import annotations

from typing import Annotated

import typer

from broker.cli.options import (
    BarrelName,
    DatabaseOption,
    DocsOption,
    Patterns,
    Since,
    UrlOption,
    backend_of,
    examples,
)
from broker.cli.output import standard_output
from broker.cli.rows import show_row

app = typer.Typer()


@app.command(
    rich_help_panel="Feeds",
    epilog=examples(
        "spile changes geo",
        "spile changes geo 'region/Europe' --docs",
        "spile changes geo --since now --follow",
        "spile changes geo --descending --limit 10",
    ),
)
def changes(
    barrel: BarrelName,
    patterns: Patterns = None,
    since: Since = "first",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay, and show what comes.")] = False,
    docs: DocsOption = False,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most so many.")] = None,
    descending: Annotated[bool, typer.Option("--descending", help="The newest first; needs --limit.")] = False,
    url: UrlOption = None,
    database: DatabaseOption = None,
) -> None:
    """Show the newest state of each document that changed, in the order of the log."""
    if descending and (follow or limit is None):
        raise typer.BadParameter("--descending goes with --limit, and without --follow")
    from broker.cli.backend import ChangesQuery

    output = standard_output()
    query = ChangesQuery(since, tuple(patterns or ()), docs, descending)
    with backend_of(url, database) as backend:
        if follow:
            for told, row in enumerate(backend.follow(barrel, query), 1):
                show_row(output, row)
                output.flush()
                if told == limit:
                    break
            return
        for row in backend.changes(barrel, query, limit=limit):
            show_row(output, row)
