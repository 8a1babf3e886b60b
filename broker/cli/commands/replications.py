"""`spile replications`: those that the service runs, and pausing, resuming and cancelling them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli.commands.replicate import PANEL
from broker.cli.options import DatabaseOption, UrlOption, backend_of, examples
from broker.cli.output import standard_output

if TYPE_CHECKING:
    from broker.cli.output import Output

app = typer.Typer()

_COLUMNS = ("id", "source", "target", "state", "written", "refused", "behind", "reason")
_ACTIONS = ("list", "show", "pause", "resume", "cancel")
_DONE = {"pause": "is paused", "resume": "is wanted to run", "cancel": "is cancelled"}


def _check_action(action: str) -> str:
    if action not in _ACTIONS:
        raise typer.BadParameter(f"it is one of {', '.join(_ACTIONS)}")
    return action


@app.command(
    rich_help_panel=PANEL,
    epilog=examples(
        "spile replications",
        "spile replications show 3f2a",
        "spile replications pause 3f2a",
        "spile replications list | jq 'select(.progress.refused > 0)'",
    ),
)
def replications(
    action: Annotated[
        str,
        typer.Argument(
            metavar="ACTION", callback=_check_action, help="list, show, pause, resume or cancel; list by itself."
        ),
    ] = "list",
    id: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="Which one; the beginning of its id will do.", show_default=False),
    ] = None,
    url: UrlOption = None,
    database: DatabaseOption = None,
) -> None:
    """List the replications that the service runs; show, pause, resume or cancel one of them.

    `spile replicate … --background` creates one. A resumed one begins at once, also where it waited or has ended.
    Cancelling forgets it; what was replicated stays.
    """
    if (id is None) is not (action == "list"):
        raise typer.BadParameter(f"{action} takes no ID" if action == "list" else f"{action} needs an ID")
    output = standard_output()
    with backend_of(url, database) as backend:
        found = backend.replications()
        if id is None:
            _list(output, found.list())
            return
        from broker.cli.replications import whole_id

        id = whole_id(found, id)
        if action == "show":
            _show(output, found.get(id))
            return
        told = getattr(found, action)(id)
        output.told(told, f"{told['source']} to {told['target']} {_DONE[action]}")


def _list(output: Output, rows: list[dict[str, Any]]) -> None:
    """Every one: a table for people, everything in a pipe."""
    if not output.is_terminal:
        output.json_lines(rows)
        return
    shown = []
    for row in rows:
        counts = {name: row["progress"][name] for name in ("written", "refused", "behind")}
        shown.append({**row, **counts, "id": row["id"][:8], "source": _arrow(row)})
    reasons = [name for name in _COLUMNS if name != "reason" or any(row["reason"] for row in rows)]
    output.table(reasons, shown, if_none="The service runs no replication.")


def _arrow(row: dict[str, Any]) -> str:
    return f"{row['source']} {'<->' if row['both'] else '->'}"


def _show(output: Output, told: dict[str, Any]) -> None:
    """Everything about one."""
    if output.is_terminal:
        progress = {name: value for name, value in told["progress"].items() if name != "refusals"}
        refusals = [f"{each['id']} {each['rev']}: {each['reason']}" for each in told["progress"]["refusals"]]
        facts = {name: value for name, value in told.items() if name not in ("progress", "directions")}
        told = {name: value for name, value in {**facts, **progress}.items() if value not in (None, [], False)}
        if refusals:
            told["refusals"] = "\n".join(refusals)
    output.facts(told)
