"""The command `spile`: all its commands together, and how it ends.

Imports little, so that help and completion come at once; each command imports what it needs when it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

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
from broker.cli.streams import make_usable
from broker.cli.version import version_text

if TYPE_CHECKING:
    from feeds.errors import SpileError

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
    make_usable()
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

        told = error if isinstance(error, SpileError) else _of_the_system(error)
        if told is None:
            raise
        flush_standard_output()
        report(told)
        return exit_code(told)
    return DONE


def _of_the_system(error: Exception) -> SpileError | None:
    """What the system refused a command, as an error that says so; None for what is a fault of the program."""
    from feeds.errors import BadRequest

    if isinstance(error, BrokenPipeError):
        return None
    if isinstance(error, OSError) and error.filename is not None:
        hint = "Check the path and its rights."
        return BadRequest(f"{os.fsdecode(error.filename)} cannot be used: {error.strerror}", hint=hint)
    if isinstance(error, UnicodeEncodeError) and "\udc80" <= error.object[error.start] <= "\udcff":
        return BadRequest(f"{error.object!r:.100} is not UTF-8", hint="Names and values are UTF-8 text.")
    return None


if __name__ == "__main__":
    main()
