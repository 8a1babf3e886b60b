"""`spile listeners`: who follows which barrel and how far everyone is behind; forgetting a listener."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli.options import DatabaseOption, OptionalBarrelName, UrlOption, backend_of, examples
from broker.cli.output import standard_output

if TYPE_CHECKING:
    from broker.cli.backend import Backend

app = typer.Typer()

_COLUMNS = ("kind", "barrel", "name", "seq_behind", "seconds_behind", "snapshot", "client", "at", "dead_letters")


@app.command(
    rich_help_panel="Feeds",
    epilog=examples(
        "spile listeners",
        "spile listeners geo | jq 'select(.seconds_behind > 60)'",
        "spile listeners geo --forget alarm",
        "spile listeners --database /var/lib/spile",
    ),
)
def listeners(
    barrel: OptionalBarrelName = None,
    forget: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Forget where this listener of the barrel stands: it begins anew."),
    ] = None,
    url: UrlOption = None,
    database: DatabaseOption = None,
) -> None:
    """Show who follows a barrel, or every barrel, and how far everyone is behind the newest change.

    A listener has a name and a place that is kept; a stream is somebody who follows without a name; a publisher is
    what tells a broker. A client is shown while it is connected to the service that answers. With snapshot the
    place does not hold any more: the listener will be told everything anew.
    """
    if forget is not None and barrel is None:
        raise typer.BadParameter("--forget NAME needs the BARREL in which it listens")
    with backend_of(url, database) as backend:
        if forget is not None and barrel is not None:
            backend.forget(barrel, forget)
            standard_output().told({"forgotten": forget, "barrel": barrel}, f"{forget} is forgotten in {barrel}")
            return
        standard_output().table(_COLUMNS, list(_rows(backend, barrel)), if_none="Nobody follows anything here.")


def _rows(backend: Backend, barrel: str | None) -> Iterator[dict[str, Any]]:
    """Everyone as a row; a stream with a name is its listener's."""
    found = backend.listeners(barrel)
    for each in found["listeners"]:
        yield {"kind": "listener", **each}
    for each in found["streams"]:
        if each["name"] is None:
            yield {"kind": "stream", **each}
    for each in found["publishers"]:
        yield {"kind": "publisher", "name": each["broker"], **each}
