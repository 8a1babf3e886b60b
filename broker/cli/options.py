"""Arguments and options that several commands share, checked before anything is asked."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from broker.cli.backend import Backend
    from feeds.errors import SpileError

__all__ = [
    "BarrelName",
    "BlobsOption",
    "DatabaseOption",
    "DocsOption",
    "MqttOption",
    "OptionalBarrelName",
    "PathPattern",
    "Patterns",
    "RevOption",
    "Since",
    "UrlOption",
    "backend_of",
    "examples",
    "finite",
    "told",
]


def backend_of(url: str | None, database: str | None, *, create: bool = False, blobs: str | None = None) -> Backend:
    """What answers this command; giving both is wrong use. With `create` a missing database is made."""
    if blobs is not None and database is None:
        raise typer.BadParameter("--blobs goes with --database")
    if url is not None and database is not None:
        raise typer.BadParameter("--url and --database exclude each other")
    from broker.cli.connecting import connect

    return connect(url, database, create=create, blobs=blobs)


def examples(*lines: str) -> str:
    """The end of a command's help."""
    return "\n".join(("[bold]Examples[/bold]", *("  " + line.replace("[", "\\[") for line in lines)))


def told(error: SpileError) -> str:
    """Reason and hint as sentences of one paragraph."""
    return " ".join(part if part.endswith((".", "!", "?")) else f"{part}." for part in (error.reason, error.hint))


def _checked(check: Callable[[Any], object]) -> Callable[[Any], Any]:
    """A callback that turns what `check` refuses into wrong use."""

    def callback(value: Any) -> Any:
        if value is None:
            return None
        from feeds.errors import BadRequest

        try:
            check(value)
        except BadRequest as error:
            raise typer.BadParameter(told(error)) from error
        return value

    return callback


def _check_url(url: str) -> None:
    from broker.cli.urls import service_url

    service_url(url)


def _check_mqtt_url(url: str) -> None:
    from broker.cli.urls import check_mqtt_url

    check_mqtt_url(url)


def _check_path(path: str) -> None:
    from broker.cli.backend import FindQuery

    FindQuery(path).levels()


def _check_barrel(name: str) -> None:
    from feeds.barrels import check_barrel_name

    check_barrel_name(name)


def _check_patterns(patterns: list[str]) -> None:
    from feeds.patterns import parse_patterns

    parse_patterns(patterns)


def _check_blobs(place: str) -> None:
    from broker.contents_place import check_place

    check_place(place)


def _check_since(since: str) -> None:
    from feeds.positions import parse_since

    parse_since(since)


def finite(value: float | None) -> float | None:
    """A callback: `nan` and `inf` are numbers to the parser, but no number of seconds."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no number of seconds")
    return value


UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        show_default="SPILE_URL, else http://127.0.0.1:8000",
        help="The running service to speak to.",
        callback=_checked(_check_url),
        rich_help_panel="Which store",
    ),
]
MqttOption = Annotated[
    str | None,
    typer.Option(
        "--mqtt",
        metavar="URL",
        help="Listen over MQTT, as in mqtt://127.0.0.1:1883.",
        callback=_checked(_check_mqtt_url),
    ),
]
DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL|DIR",
        help="Open this store itself instead of speaking to a service.",
        rich_help_panel="Which store",
    ),
]
BlobsOption = Annotated[
    str | None,
    typer.Option(
        "--blobs",
        metavar="DIR|URL",
        show_default="SPILE_BLOBS, else blobs in the data directory",
        help="Where the store's attachments are, with --database.",
        callback=_checked(_check_blobs),
        rich_help_panel="Which store",
    ),
]
BarrelName = Annotated[
    str, typer.Argument(metavar="BARREL", help="The barrel's name.", callback=_checked(_check_barrel))
]
OptionalBarrelName = Annotated[
    str | None,
    typer.Argument(
        metavar="BARREL",
        help="The barrel's name; none: all of them.",
        callback=_checked(_check_barrel),
        show_default=False,
    ),
]
PathPattern = Annotated[
    str,
    typer.Argument(
        metavar="PATH", help="Where to look; + is any segment, a last # all below.", callback=_checked(_check_path)
    ),
]
Patterns = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PATTERN",
        help="Paths to hear, such as region/+/name or region/#; none: everything.",
        callback=_checked(_check_patterns),
        show_default=False,
    ),
]
Since = Annotated[
    str,
    typer.Option(
        "--since",
        metavar="P",
        help="Begin after this position, at the first change, or now.",
        callback=_checked(_check_since),
    ),
]
RevOption = Annotated[str | None, typer.Option("--rev", metavar="REV", help="The revision that this write extends.")]
DocsOption = Annotated[bool, typer.Option("--docs", help="With the documents.")]
