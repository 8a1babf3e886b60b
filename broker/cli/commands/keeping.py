"""Checking, backing up and restoring a store; for this the command opens it itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import BlobsOption, examples
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
    blobs: BlobsOption = None,
) -> None:
    """Verify a store: trees, log, index, attachments and their bytes. The service must not run meanwhile."""
    from broker.cli.exits import REFUSED
    from broker.cli.progress import shown_progress

    output = standard_output()
    with shown_progress("checking") as progress, _store(data, database, blobs) as store:
        report = store.check(repair=repair, progress=lambda done, total: progress.show(done, total))
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
    blobs: BlobsOption = None,
) -> None:
    """Write a consistent copy of a store, its attachments included. The service may run meanwhile."""
    from broker.cli.exits import REFUSED
    from broker.cli.progress import shown_progress
    from feeds import Store

    url, place = _place(data, database, blobs)
    with shown_progress("backing up") as progress:
        written = Store.backup_of(url, target, lambda done, total: progress.show(done, total), place)
    lost = len(written.damaged)
    lacks = f", without {lost} contents of attachments that are damaged: `spile check` names them" if lost else ""
    name = os.fsencode(target).decode("utf-8", "replace")
    standard_output().told({"backup": name, "damaged": written.damaged}, f"{name} is written{lacks}")
    if lost:
        raise typer.Exit(REFUSED)


@app.command(rich_help_panel=PANEL, epilog=examples("spile restore /backups/spile-monday.db --data /var/lib/spile"))
def restore(
    copy: Annotated[Path, typer.Argument(metavar="BACKUP", help="A file that `spile backup` wrote.")],
    data: Data = None,
    blobs: BlobsOption = None,
) -> None:
    """Make a data directory of a backup. Its barrels get new epochs, so that every listener notices."""
    from broker.cli.progress import shown_progress
    from broker.settings import load_settings
    from feeds import Store

    settings = load_settings({"data": data, "blobs": blobs})
    target = settings.data
    place = settings.blobs_place if settings.blobs else None
    with shown_progress("restoring") as progress:
        Store.restore(copy, target, place, lambda done, total: progress.show(done, total))
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


def _store(data: Path | None, database: str | None, blobs: str | None) -> Store:
    """The store that is meant, which is there already."""
    from broker.cli.direct import open_store

    url, place = _place(data, database, blobs)
    return open_store(url, blobs=None if place is None else str(place))


def _place(data: Path | None, database: str | None, blobs: str | None) -> tuple[str, str | Path | None]:
    """The store that is meant, and where its attachments are."""
    from broker.cli.direct import place_of
    from broker.settings import load_settings

    url = _url(data, database)
    return url, place_of(url, blobs, load_settings({"data": data}).data)


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
