"""Making, listing, setting up and dropping barrels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from broker.cli.options import BarrelName, DatabaseOption, UrlOption, backend_of, examples, finite
from broker.cli.output import standard_output

app = typer.Typer()
PANEL = "Barrels"

Retain = Annotated[
    bool | None,
    typer.Option("--retain/--no-retain", help="Keep each document's newest change as a retained message."),
]
Ttl = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", callback=finite, help="Documents expire this long after they were written."),
]
TtlField = Annotated[
    str | None, typer.Option(metavar="KEY", help="Documents expire at the time that this key of theirs holds.")
]
Publish = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Publish only these paths; may be repeated. Default: everything."),
]
PathQos = Annotated[
    int | None, typer.Option(min=0, max=1, metavar="0|1", help="Quality of service of messages on paths.")
]
RevsLimit = Annotated[int | None, typer.Option(min=1, metavar="N", help="Revisions remembered for each branch.")]
LogKept = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", callback=finite, help="How long old rows of the log are kept for listeners."),
]
ReplicateExpiry = Annotated[
    bool | None,
    typer.Option("--replicate-expiry/--no-replicate-expiry", help="Whether deletions by expiry are replicated."),
]
PeerNames = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Nested calls ask this peer of the service; may be repeated. Default: all."),
]
Merge = Annotated[
    str | None,
    typer.Option(
        metavar="RULE",
        help="How conflicts are merged: newest:FIELD, fields, python:NAME, or none.",
    ),
]


def _takes_settings(name: str, about: str, settle: Callable[..., None], *lines: str) -> None:
    """Add a command that takes the settings of a barrel, hands `settle` those that were given, and is shown so."""

    @app.command(name, help=about, rich_help_panel=PANEL, epilog=examples(*lines))
    def command(
        barrel: BarrelName,
        retain: Retain = None,
        ttl: Ttl = None,
        ttl_field: TtlField = None,
        publish: Publish = None,
        path_qos: PathQos = None,
        revs_limit: RevsLimit = None,
        log_kept: LogKept = None,
        replicate_expiry: ReplicateExpiry = None,
        merge: Merge = None,
        peer: PeerNames = None,
        url: UrlOption = None,
        database: DatabaseOption = None,
    ) -> None:
        settings = {
            "retain": retain,
            "ttl": ttl,
            "ttl_field": ttl_field,
            "publish": publish or None,
            "path_qos": path_qos,
            "revs_limit": revs_limit,
            "log_kept": log_kept,
            "replicate_expiry": replicate_expiry,
            "peers": peer or None,
        }
        given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
        if merge is not None:
            given["merge"] = _merge_rule(merge)
        settle(barrel, given, url, database)


def _merge_rule(text: str) -> dict[str, str] | None:
    """The setting that a rule on the command line means."""
    rule, _, about = text.partition(":")
    if text == "none":
        return None
    if text == "fields":
        return {"rule": rule}
    key = {"newest": "field", "python": "name"}.get(rule)
    if key is None or not about:
        raise typer.BadParameter(f"--merge is newest:FIELD, fields, python:NAME or none, not {text!r}")
    return {"rule": rule, key: about}


def _create(barrel: str, settings: dict[str, Any], url: str | None, database: str | None) -> None:
    with backend_of(url, database, create=True) as backend:
        standard_output().told(backend.create(barrel, settings), f"{barrel} is made")


def _configure(barrel: str, settings: dict[str, Any], url: str | None, database: str | None) -> None:
    if not settings:
        raise typer.BadParameter("nothing to change: name at least one setting")
    with backend_of(url, database) as backend:
        standard_output().told(backend.configure(barrel, settings), f"{barrel} is set up")


_takes_settings(
    "create",
    "Make a barrel.",
    _create,
    "spile create geo",
    "spile create sensors --retain --ttl 86400",
    "spile create 'a/b' --publish _id/#",
)
_takes_settings(
    "configure",
    "Change the settings of a barrel; those not named stay.",
    _configure,
    "spile configure geo --retain",
    "spile configure geo --merge newest:changed_at",
    "spile configure geo --publish '_id/#' --publish 'region/#'",
)


@app.command(rich_help_panel=PANEL, epilog=examples("spile barrels", "spile barrels | jq .name"))
def barrels(url: UrlOption = None, database: DatabaseOption = None) -> None:
    """List the barrels."""
    with backend_of(url, database) as backend:
        columns = ("name", "doc_count", "deleted_count", "seq", "bytes")
        none = "There are no barrels yet; `spile create NAME` makes one."
        standard_output().table(columns, backend.barrels(), if_none=none)


@app.command(rich_help_panel=PANEL, epilog=examples("spile info geo"))
def info(barrel: BarrelName, url: UrlOption = None, database: DatabaseOption = None) -> None:
    """Tell what is known of a barrel."""
    with backend_of(url, database) as backend:
        standard_output().facts(backend.info(barrel))


@app.command(rich_help_panel=PANEL, epilog=examples("spile drop geo"))
def drop(barrel: BarrelName, url: UrlOption = None, database: DatabaseOption = None) -> None:
    """Drop a barrel with everything in it; this cannot be undone."""
    with backend_of(url, database) as backend:
        backend.drop(barrel)
        standard_output().told({"dropped": barrel}, f"{barrel} is dropped")
