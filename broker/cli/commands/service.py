"""The service itself, what can be set about it, and which version it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from broker.cli.options import examples, told
from broker.cli.output import standard_output
from broker.cli.version import version_text

app = typer.Typer()

Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", envvar="SPILE_CONFIG", help="TOML file of settings, by their names."),
]


@app.command(
    rich_help_panel="Service",
    epilog=examples(
        "spile serve",
        "spile serve --data /var/lib/spile --http 127.0.0.1:8080",
        "SPILE_TOKEN=… spile serve --http 0.0.0.0:8000 --config spile.toml",
    ),
)
def serve(
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Directory of the store. Default: data.")] = None,
    database: Annotated[
        str | None, typer.Option(metavar="URL", help="The store itself. Default: spile.db in the data directory.")
    ] = None,
    blobs: Annotated[
        str | None,
        typer.Option(metavar="DIR|URL", help="Where attachments are. Default: blobs in the data directory."),
    ] = None,
    http: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Default: 127.0.0.1:8000.")] = None,
    mqtt: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="The embedded broker. Default: 127.0.0.1:1883.")
    ] = None,
    mqtt_ws: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="MQTT over WebSocket. Default: off.")
    ] = None,
    broker: Annotated[
        str | None, typer.Option(metavar="URL", help="Another broker instead of it: mqtt://HOST:PORT or mqtts://…")
    ] = None,
    config: Config = None,
    log_level: Annotated[str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(metavar="FORM", help="text or json.")] = None,
) -> None:
    """Run the service: HTTP, and MQTT by the embedded broker or through another.

    Every setting can also be given in the environment (SPILE_…) or in a TOML file; `spile settings` lists them.
    It listens on this machine alone unless a token is configured.
    """
    from broker.logs import set_up_logging
    from broker.settings import load_settings
    from feeds.errors import BadRequest

    flags = {
        "data": data,
        "database": database,
        "blobs": blobs,
        "http": http,
        "mqtt": mqtt,
        "mqtt_ws": mqtt_ws,
        "broker": broker,
        "log_level": log_level,
        "log_format": log_format,
    }
    try:
        settings = load_settings(flags, config)
    except BadRequest as error:
        raise typer.BadParameter(told(error)) from error
    set_up_logging(settings.log_level, settings.log_format)
    from broker.serve import run

    run(settings)


@app.command(
    rich_help_panel="Service",
    epilog=examples("spile settings", "spile settings --config spile.toml"),
)
def settings(config: Config = None) -> None:
    """List every setting of the service: its value now, its variable, and what it means."""
    from broker.settings import describe_settings, load_settings
    from feeds.errors import BadRequest

    try:
        values = load_settings({}, config).model_dump(mode="json")
    except BadRequest as error:
        raise typer.BadParameter(told(error)) from error
    rows = [
        {
            "setting": setting.name,
            "value": _shown(values[setting.name]),
            "default": setting.default,
            "variable": setting.variable,
            "meaning": setting.description,
        }
        for setting in describe_settings()
    ]
    standard_output().table(("setting", "value", "variable", "meaning"), rows)


def _shown(value: object) -> object:
    from broker.addresses import without_password

    return without_password(value) if isinstance(value, str) and "://" in value else value


@app.command(rich_help_panel="Service")
def version() -> None:
    """Show the version."""
    standard_output().text(f"spile {version_text()}")
