"""Checking, backing up and restoring a store; for this the command opens it itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import examples
from broker.cli.output import standard_output

if TYPE_CHECKING:
    from feeds import Store

app = typer.Typer()
PANEL = "Keeping"

Data = Annotated[Path | None, typer.Option(metavar="DIR", help="The data directory. Default: SPILE_DATA, else data.")]
Database = Annotated[str | None, typer.Option(metavar="URL", help="The store itself, instead of a data directory.")]


@app.command(rich_help_panel=PANEL, epilog=examples("spile check", "spile check --data /var/lib/spile --repair"))
def check(
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be worked out again.")] = False,
    data: Data = None,
    database: Database = None,
) -> None:
    """Verify a store: trees, log, index, blobs. The service must not run meanwhile."""
    from broker.cli.exits import REFUSED

    output = standard_output()
    with _store(data, database) as store:
        report = store.check(repair=repair)
    if output.is_terminal:
        output.facts(report.counted)
        for problem in report.problems:
            output.text(f"problem: {problem}")
        output.text(_verdict(len(report.problems), report.repaired))
    else:
        output.json_line({"problems": report.problems, "counted": report.counted, "repaired": report.repaired})
    if len(report.problems) > report.repaired:
        raise typer.Exit(REFUSED)


@app.command(rich_help_panel=PANEL, epilog=examples("spile backup /backups/spile-monday.db"))
def backup(
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="The file to write; it must not be there.")],
    data: Data = None,
    database: Database = None,
) -> None:
    """Write a consistent copy of a store. The service may run meanwhile."""
    from broker.cli.progress import shown_progress
    from feeds import Store

    with shown_progress("backing up") as progress:
        Store.backup_of(_url(data, database), target, progress=lambda done, total: progress.show(done, total))
    standard_output().told({"backup": str(target)}, f"{target} is written")


@app.command(rich_help_panel=PANEL, epilog=examples("spile restore /backups/spile-monday.db --data /var/lib/spile"))
def restore(
    copy: Annotated[Path, typer.Argument(metavar="BACKUP", help="A file that `spile backup` wrote.")],
    data: Data = None,
) -> None:
    """Make a data directory of a backup. Its barrels get new epochs, so that every listener notices."""
    from broker.settings import load_settings
    from feeds import Store

    target = data if data is not None else load_settings().data
    Store.restore(copy, target)
    standard_output().told({"restored": str(copy), "data": str(target)}, f"{target} holds what {copy} held")


@app.command(
    name="begin-anew",
    rich_help_panel=PANEL,
    epilog=examples("spile begin-anew --database postgresql://spile@db.example.org/restored"),
)
def begin_anew(database: Database = None, data: Data = None) -> None:
    """Give every barrel a new epoch, after the database was restored with tools of its own (pg_dump).

    What was written after the copy is gone, and listeners would not notice: with new epochs each is sent a snapshot.
    No process may have the store open meanwhile.
    """
    from feeds import Store

    barrels = Store.begin_anew(_url(data, database))
    standard_output().told({"barrels": barrels}, f"{barrels} barrels begin anew")


def _store(data: Path | None, database: str | None) -> Store:
    """The store that is meant, which is there already."""
    from broker.cli.direct import open_store

    return open_store(_url(data, database))


def _url(data: Path | None, database: str | None) -> str:
    from broker.settings import load_settings

    if data is not None and database is not None:
        raise typer.BadParameter("--data and --database exclude each other")
    return database or load_settings({"data": data}).database_url


def _verdict(problems: int, repaired: int) -> str:
    if not problems:
        return "The store is sound."
    if repaired:
        return f"{problems} problems, {repaired} of them mended."
    return f"{problems} problems; --repair mends what can be worked out again."
