"""The command `spile`: all its commands together, and how it ends.

Imports little, so that help and completion come at once; each command imports what it needs when it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from broker.cli.commands import (
    attachments,
    barrels,
    changes,
    conflicts,
    documents,
    find,
    health,
    keeping,
    listen,
    listeners,
    load,
    replicate,
    replications,
    service,
)
from broker.cli.exits import (
    DONE,
    EXIT_MEANINGS,
    INTERRUPTED,
    PIPE_CLOSED,
    OutputFailed,
    PipeClosed,
    exit_code,
    report,
)
from broker.cli.options import DatabaseOption, UrlOption
from broker.cli.output import flush_standard_output, standard_output
from broker.cli.placement import Commands, hand_down
from broker.cli.version import version_text

__all__ = ["app", "main", "run"]

app = typer.Typer(
    name="spile",
    help="Documents in, changes out on MQTT.",
    epilog=f"Exit codes: {EXIT_MEANINGS}.",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (
    service,
    health,
    barrels,
    documents,
    conflicts,
    attachments,
    load,
    find,
    changes,
    listen,
    listeners,
    replicate,
    replications,
    keeping,
):
    app.add_typer(part.app)


def _show_version(wanted: bool) -> None:
    if wanted:
        standard_output().text(f"spile {version_text()}")
        raise typer.Exit


@app.callback()
def spile(
    context: typer.Context,
    url: UrlOption = None,
    database: DatabaseOption = None,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Documents in, changes out on MQTT."""
    hand_down(context, {"url": url, "database": database})


def main() -> None:
    """Run the command line of this process, and exit."""
    sys.exit(run())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line, by default this process's, and give its exit code."""
    try:
        code = _command(arguments)
        flush_standard_output()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except (PipeClosed, BrokenPipeError):
        _let_go_of_output()
        return PIPE_CLOSED
    except OutputFailed as failed:
        from feeds.errors import SpileError

        _let_go_of_output()
        error = SpileError(
            f"the output cannot be written: {failed}", hint="Look at where it goes, and the space there."
        )
        report(error)
        return exit_code(error)


def _let_go_of_output() -> None:
    """Python flushes once more at its end, and would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _command(arguments: Sequence[str] | None) -> int:
    try:
        app(arguments, prog_name="spile")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:
        # The package of the errors takes long to import; help and completion do without it.
        from feeds.errors import SpileError

        if not isinstance(error, SpileError):
            raise
        flush_standard_output()
        report(error)
        return exit_code(error)
    return DONE


if __name__ == "__main__":
    main()
