"""`spile replicate`: bringing what is in one barrel into another, in this command or by the service."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli.options import DatabaseOption, UrlOption, backend_of, examples, told
from broker.cli.output import standard_output

if TYPE_CHECKING:
    from broker.cli.replicating import Replicating
    from listeners.replication import Filter

app = typer.Typer()

PANEL = "Replication"
_NAMED_MAX = 20


@app.command(
    rich_help_panel=PANEL,
    epilog=examples(
        "spile replicate geo http://hub:8000/geo",
        "spile replicate http://hub:8000/geo geo --continuous --pattern 'region/Europe/#'",
        "spile replicate geo mqtt://hub:1883/geo --both --database /var/lib/spile",
        "spile replicate /var/lib/spile#geo copy#geo --create-target",
        "spile replicate geo http://hub:8000/geo --continuous --background",
    ),
)
def replicate(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A barrel's name, http://HOST:PORT/BARREL, mqtt://HOST:PORT/BARREL or DIR#BARREL."
        ),
    ],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Another one.")],
    continuous: Annotated[
        bool, typer.Option("--continuous", help="Go on with what comes, until interrupted.")
    ] = False,
    both: Annotated[bool, typer.Option("--both", help="There and back.")] = False,
    pattern: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="Only documents that stand under it, as region/#; repeated: any of them."
        ),
    ] = None,
    ids: Annotated[
        list[str] | None, typer.Option("--ids", metavar="ID", help="Only the document of this id; repeated.")
    ] = None,
    ids_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|-", help="Only documents whose ids are in this file, one a line.", allow_dash=True
        ),
    ] = None,
    selector: Annotated[
        str | None,
        typer.Option(
            metavar="JSON", help="""Only documents that this selector matches, as '{"year": {"$gt": 2000}}'."""
        ),
    ] = None,
    purge_left: Annotated[
        bool, typer.Option("--purge-left", help="Purge a document at the target when it matches no more.")
    ] = False,
    create_target: Annotated[
        bool, typer.Option("--create-target", help="Create the target's barrel if it is not there.")
    ] = False,
    background: Annotated[
        bool,
        typer.Option("--background", help="Have the service do it, also after a restart; see `spile replications`."),
    ] = False,
    source_token: Annotated[
        str | None, typer.Option(metavar="TOKEN", envvar="SPILE_SOURCE_TOKEN", help="The token of SOURCE's service.")
    ] = None,
    target_token: Annotated[
        str | None, typer.Option(metavar="TOKEN", envvar="SPILE_TARGET_TOKEN", help="The token of TARGET's service.")
    ] = None,
    url: UrlOption = None,
    database: DatabaseOption = None,
) -> None:
    """Bring what is in one barrel into another: every revision, conflicts, deletions and attachments.

    What the target has besides stays. It goes on where an earlier run came to. A barrel that is named alone is one
    of the service (--url), or of the store (--database). Ctrl-C ends it in order. Documents that the target refuses
    are counted and named, and the others go over.
    """
    if url is not None and database is not None:
        raise typer.BadParameter("--url and --database exclude each other")
    chosen = _filter(pattern or [], _ids(ids, ids_file), selector)
    if background:
        asked: dict[str, Any] = {
            **{"source": source, "target": target, "continuous": continuous, "both": both},
            **{"create_target": create_target, "leaves": "purge" if purge_left else "ignore"},
            **_asked(chosen, selector),
            **{"source_token": source_token, "target_token": target_token},
        }
        with backend_of(url, database) as backend:
            given = backend.replications().create(asked)
        sentence = f"The service replicates {given['source']} to {given['target']}, as {given['id'][:8]}"
        standard_output().told(given, sentence)
        return
    from broker.cli.replicating import Replicating, end_of
    from listeners.replication import Options

    replicating = Replicating(
        end_of(source, source_token, url, database),
        end_of(target, target_token, url, database),
        Options(filter=chosen, continuous=continuous, leaves="purge" if purge_left else "ignore"),
        both,
        create_target,
    )
    _run(replicating)


def _run(replicating: Replicating) -> None:
    import asyncio

    from broker.cli.exits import INTERRUPTED, REFUSED
    from broker.cli.progress import shown_progress
    from feeds.errors import SpileError

    with shown_progress(f"{replicating.source} to {replicating.target}") as shown:
        try:
            asyncio.run(replicating.run(shown))
        except SpileError as error:
            done = replicating.done
            if done["written"]:
                error.reason = f"{error.reason.removesuffix('.')}; {_counted(done['written'])} written before"
            _name_refused(done)
            raise
    done = replicating.done
    _name_refused(done)
    sentence = f"{done['source']} to {done['target']}: {_counted(done['written'])} written"
    sentence += f" in {done['seconds']:,.1f} s ({done['rate']:,}/s)"
    if done["refused"]:
        sentence += f", {done['refused']:,} refused"
    standard_output().told(done, sentence)
    if replicating.interrupted:
        raise typer.Exit(INTERRUPTED)
    if done["refused"]:
        raise typer.Exit(REFUSED)


def _name_refused(done: dict[str, Any]) -> None:
    refusals = done["refusals"]
    for each in refusals[:_NAMED_MAX]:
        print(f"spile: {each['id']} {each['rev']}: {each['reason']} [{each['error']}]", file=sys.stderr)
    if done["refused"] > len(refusals[:_NAMED_MAX]):
        print(f"spile: and {done['refused'] - _NAMED_MAX:,} more", file=sys.stderr)


def _counted(count: int) -> str:
    return f"{count:,} revision{'' if count == 1 else 's'}"


def _ids(ids: list[str] | None, file: Path | None) -> list[str] | None:
    """The ids that were given and those of the file; None where all documents are meant."""
    if file is None:
        return ids or None
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{file} cannot be read: {error}") from error
    found = [*(ids or []), *filter(None, text.splitlines())]
    if not found:
        raise typer.BadParameter(f"there are no ids in {file}")
    return found


def _filter(patterns: list[str], ids: list[str] | None, selector: str | None) -> Filter:
    """What of the barrel is meant; wrong use where it makes no sense."""
    from feeds.errors import BadRequest
    from listeners.replication import Filter

    try:
        return Filter.of(patterns=patterns, ids=ids, selector=None if selector is None else _json(selector))
    except BadRequest as error:
        raise typer.BadParameter(told(error)) from error


def _asked(chosen: Filter, selector: str | None) -> dict[str, Any]:
    """The filter as the service is asked for it."""
    asked: dict[str, Any] = {"patterns": list(chosen.patterns)}
    asked["ids"] = None if chosen.ids is None else sorted(chosen.ids)
    asked["selector"] = None if selector is None else _json(selector)
    return asked


def _json(text: str) -> Any:
    import msgspec

    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise typer.BadParameter(f"the selector is no JSON: {error}") from error
