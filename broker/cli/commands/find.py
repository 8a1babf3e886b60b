"""`spile find`: documents by what stands under a path."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from broker.cli.options import (
    BarrelName,
    DatabaseOption,
    DocsOption,
    PathPattern,
    UrlOption,
    backend_of,
    examples,
)
from broker.cli.output import standard_output

app = typer.Typer()

PAGE_MAX = 1000


@app.command(
    rich_help_panel="Feeds",
    epilog=examples(
        "spile find geo region/Europe",
        "spile find geo area --from 500000 --order value --descending --limit 5",
        "spile find geo 'languages/+' --prefix Fr --docs",
    ),
)
def find(
    barrel: BarrelName,
    path: PathPattern,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="VALUE", help="Values from here on: JSON, else text.")
    ] = None,
    to: Annotated[str | None, typer.Option(metavar="VALUE", help="Values up to here: JSON, else text.")] = None,
    prefix: Annotated[str | None, typer.Option(metavar="TEXT", help="Text values that begin so.")] = None,
    order: Annotated[
        Literal["key", "value"], typer.Option(help="Sort by path and then value, or by value alone.")
    ] = "key",
    descending: Annotated[bool, typer.Option("--descending", help="The other way round.")] = False,
    docs: DocsOption = False,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")] = 100,
    url: UrlOption = None,
    database: DatabaseOption = None,
) -> None:
    """Find documents by the values under a path."""
    import msgspec

    from broker.cli.backend import FindQuery

    output = standard_output()
    query = FindQuery(path, from_, to, prefix, order, descending, docs)
    shown: list[dict[str, object]] = []
    after: str | None = None
    with backend_of(url, database) as backend:
        left = limit
        while left > 0:
            page = backend.find(barrel, query, limit=min(left, PAGE_MAX), after=after)
            left -= len(page.results)
            if output.is_terminal:
                shown += [msgspec.json.decode(found, type=dict[str, object]) for found in page.results]
            else:
                output.json_lines(page.results)
            after = page.next
            if after is None or not page.results:
                break
    if output.is_terminal:
        columns = ("id", "path", "value", "doc") if docs else ("id", "path", "value")
        output.table(columns, shown, if_none=f"Nothing is found under {path}.")
        if after is not None:
            output.text("There is more: raise --limit to see it.")
