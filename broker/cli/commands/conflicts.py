"""`spile conflicts` and `spile resolve`: documents whose replicas were changed apart from each other."""

from __future__ import annotations

from typing import Annotated

import typer

from broker.cli.commands.documents import DocumentId, read_file
from broker.cli.options import BarrelName, DatabaseOption, UrlOption, backend_of, examples
from broker.cli.output import standard_output

app = typer.Typer()
PANEL = "Documents"
PAGE = 1000


@app.command(rich_help_panel=PANEL, epilog=examples("spile conflicts geo", "spile conflicts geo FR"))
def conflicts(
    barrel: BarrelName,
    doc_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="Show the revisions of this document.", show_default=False)
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most so many. Default: all.")] = None,
    url: UrlOption = None,
    database: DatabaseOption = None,
) -> None:
    """List the documents in conflict, or the live revisions of one of them, the winner first."""
    output = standard_output()
    with backend_of(url, database) as backend:
        if doc_id is not None:
            for leaf in backend.conflict(barrel, doc_id):
                output.document(leaf)
            return
        shown: list[dict[str, object]] = []
        after, left = "", limit
        while left is None or left > 0:
            page = backend.conflicts(barrel, limit=PAGE if left is None else min(left, PAGE), after=after)
            left = None if left is None else left - len(page["results"])
            if output.is_terminal:
                shown += page["results"]
            else:
                output.json_lines(page["results"])
            after = page["next"]
            if after is None:
                break
    if output.is_terminal:
        reasons = ("reason",) if any("reason" in row for row in shown) else ()
        none = f"No document of {barrel} is in conflict."
        output.table(("id", "rev", "conflicts", *reasons), shown, if_none=none)
        if after is not None:
            output.text("There is more: raise --limit to see it.")


@app.command(
    rich_help_panel=PANEL,
    epilog=examples(
        "spile resolve geo FR 3-5d41402abc4b2a76b9719d911017c592",
        """echo '{"name": "France"}' | spile resolve geo FR --doc -""",
    ),
)
def resolve(
    barrel: BarrelName,
    doc_id: DocumentId,
    rev: Annotated[
        str | None, typer.Argument(metavar="REV", help="The revision that stands.", show_default=False)
    ] = None,
    doc: Annotated[
        str | None,
        typer.Option(
            "--doc", metavar="FILE|-", help="The document that stands in place of all; - is standard input."
        ),
    ] = None,
    leaf: Annotated[
        list[str] | None,
        typer.Option(
            "--leaf",
            metavar="REV",
            help="A live revision that you saw; repeated. Refused where there are others by now. Default: unchecked.",
        ),
    ] = None,
    url: UrlOption = None,
    database: DatabaseOption = None,
) -> None:
    """End a conflict: one revision stands, or a merged document does, and the others are deleted."""
    if (rev is None) is (doc is None):
        raise typer.BadParameter("give the REV that stands, or --doc with what stands in place of all")
    body = None if doc is None else read_file(doc)
    with backend_of(url, database) as backend:
        written = backend.resolve(barrel, doc_id, rev=rev, doc=body, leaves=leaf or [])
        standard_output().told(written, f"{written['id']} is at {written['rev']}")
