"""`spile listen`: follow a barrel, acknowledge what was handled, and go on there next time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli.options import (
    BarrelName,
    DatabaseOption,
    DocsOption,
    MqttOption,
    Patterns,
    Since,
    UrlOption,
    backend_of,
    examples,
    finite,
)
from broker.cli.output import standard_output

if TYPE_CHECKING:
    from broker.cli.running import ChangeCommand

app = typer.Typer()


@app.command(
    rich_help_panel="Feeds",
    epilog=examples(
        "spile listen geo 'region/#' --since now",
        "spile listen sensors --name alarm --exec 'python handle.py' --docs",
        "spile listen sensors --exec 'sh -c \"echo $SPILE_ID >> heard.txt\"'",
        "spile listen sensors '#' --mqtt mqtt://broker:1883 --name archive --once",
    ),
)
def listen(
    barrel: BarrelName,
    patterns: Patterns = None,
    since: Since = "first",
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Keep the place under this name, and go on there next time.")
    ] = None,
    execute: Annotated[
        str | None,
        typer.Option(
            "--exec",
            metavar="COMMAND",
            help="Run this program for each change, without a shell (for $VARIABLES and pipes: sh -c '…'): "
            "JSON on standard input, SPILE_BARREL, SPILE_ID, SPILE_REV, SPILE_SEQ, SPILE_PATH set.",
        ),
    ] = None,
    attempts: Annotated[int, typer.Option(min=1, metavar="N", help="How often a failing command is tried.")] = 5,
    dead_letters: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Append changes whose command keeps failing here, and go on. Default: stop."
        ),
    ] = None,
    docs: DocsOption = False,
    contents: Annotated[
        bool, typer.Option("--contents", help="With the documents, and in them small attachments as base64.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="End when everything so far was told.")] = False,
    patience: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", callback=finite, help="How long to try until a service answers first."
        ),
    ] = 10.0,
    mqtt: MqttOption = None,
    url: UrlOption = None,
    database: DatabaseOption = None,
) -> None:
    """Follow a barrel: every document's newest state, at least once, in order, through lost connections.

    A change is acknowledged when it was shown, or when its command has ended with 0. A command is told the rows
    of a snapshot (`"snapshot": true`), not its edges.
    """
    if dead_letters is not None and execute is None:
        raise typer.BadParameter("--dead-letters goes with --exec")
    if mqtt is not None and (url is not None or database is not None):
        raise typer.BadParameter("--mqtt excludes --url and --database")
    from broker.cli.running import ChangeCommand

    command = None
    if execute is not None:
        command = ChangeCommand(execute, barrel=barrel, attempts=attempts, dead_letters=dead_letters)
    asked: dict[str, Any] = {"since": since, "name": name, "follow": not once, "patience_s": patience}
    asked |= {"docs": docs or contents, "attachments": "contents" if contents else "stubs"}
    if mqtt is not None:
        _listen(_over_mqtt(mqtt, barrel), patterns, asked, command)
        return
    with backend_of(url, database) as backend:
        _listen(backend.listening_to(barrel), patterns, asked, command)


def _over_mqtt(url: str, barrel: str) -> str:
    """Where `listeners` hears the barrel over MQTT; SPILE_TOKEN is the password if the URL names nobody."""
    from urllib.parse import quote, urlsplit

    parts = urlsplit(url)
    token = os.environ.get("SPILE_TOKEN")
    if token and "@" not in parts.netloc:
        parts = parts._replace(netloc=f"token:{quote(token, safe='')}@{parts.netloc}")
    return parts._replace(path=f"{parts.path.rstrip('/')}/{quote(barrel, safe='')}").geturl()


def _listen(target: Any, patterns: list[str] | None, asked: dict[str, Any], command: ChangeCommand | None) -> None:
    """Handle each change, and acknowledge it then."""
    import msgspec

    from broker.cli.rows import show_row
    from listeners import Snapshot
    from listeners import listen as changes_of

    output = standard_output()

    def show(row: bytes) -> None:
        show_row(output, row)
        output.flush()

    def edge(boundary: str) -> Callable[[Snapshot], None] | None:
        if command is not None:
            return None
        return lambda snapshot: show(msgspec.json.encode({"snapshot": boundary, "position": snapshot.position}))

    handle = show if command is None else command.run
    following = changes_of(
        target,
        patterns or [],
        token=os.environ.get("SPILE_TOKEN"),
        on_snapshot_start=edge("start"),
        on_snapshot_end=edge("end"),
        **asked,
    )
    with following as changes:
        for change in changes:
            handle(change.json())
            changes.acknowledge()
