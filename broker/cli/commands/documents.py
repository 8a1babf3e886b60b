"""Writing, reading and deleting single documents."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from broker.cli.nested import (
    Keep,
    P2pDepth,
    P2pFirst,
    P2pRead,
    P2pTimeout,
    P2pWrite,
    asked_beyond,
    tell_written,
)
from broker.cli.options import BarrelName, DatabaseOption, RevOption, UrlOption, backend_of, examples
from broker.cli.output import standard_output

app = typer.Typer()
PANEL = "Documents"

DocumentId = Annotated[str, typer.Argument(metavar="ID", help="The document's id.")]


@app.command(
    rich_help_panel=PANEL,
    epilog=examples(
        "spile put geo FR france.json",
        """echo '{"name": "France"}' | spile put geo FR --update""",
        """echo '{"area": 551695}' | spile put geo FR --merge""",
        "spile put geo FR france.json --p2p-write 3",
    ),
)
def put(
    barrel: BarrelName,
    doc_id: DocumentId,
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="The document; - is standard input.")] = "-",
    rev: RevOption = None,
    update: Annotated[bool, typer.Option("--update", help="Extend the document whatever its revision is.")] = False,
    merge: Annotated[
        bool, typer.Option("--merge", help="The file is a merge patch: change only what it names.")
    ] = False,
    p2p_write: P2pWrite = None,
    p2p_depth: P2pDepth = None,
    p2p_timeout: P2pTimeout = None,
    url: UrlOption = None,
    database: DatabaseOption = None,
) -> None:
    """Store a document. To change one, give its _rev in the document or by --rev, or use --update."""
    if update and (merge or rev is not None):
        raise typer.BadParameter("--update does without --merge and --rev")
    beyond = asked_beyond(p2p_write, depth=p2p_depth, timeout=p2p_timeout)
    body = read_file(file)
    with backend_of(url, database) as backend:
        if merge:
            written = backend.merge(barrel, doc_id, body, rev=rev, beyond=beyond)
        else:
            written = backend.put(barrel, doc_id, body, rev=rev, update=update, beyond=beyond)
        tell_written(written, f"{written['id']} is at {written['rev']}")


@app.command(
    rich_help_panel=PANEL,
    epilog=examples(
        "spile get geo FR", "spile get geo FR --history", "spile get geo FR | jq .name", "spile get geo FR --p2p-read"
    ),
)
def get(
    barrel: BarrelName,
    doc_id: DocumentId,
    rev: Annotated[str | None, typer.Option(metavar="REV", help="This revision instead of the winner.")] = None,
    revs: Annotated[bool, typer.Option("--revs", help="With the revisions it descends from.")] = False,
    conflicts: Annotated[bool, typer.Option("--conflicts", help="With the revisions in conflict.")] = False,
    history: Annotated[bool, typer.Option("--history", help="With every revision and its state.")] = False,
    p2p_read: P2pRead = False,
    p2p_first: P2pFirst = False,
    keep: Keep = False,
    p2p_depth: P2pDepth = None,
    p2p_timeout: P2pTimeout = None,
    url: UrlOption = None,
    database: DatabaseOption = None,
) -> None:
    """Show a document."""
    from broker.cli.backend import GetQuery

    order: Literal["order", "first"] | None = "first" if p2p_first else "order" if p2p_read else None
    beyond = asked_beyond(read=order, keep=keep, depth=p2p_depth, timeout=p2p_timeout)
    with backend_of(url, database) as backend:
        standard_output().document(backend.get(barrel, doc_id, GetQuery(rev, revs, conflicts, history), beyond))


@app.command(
    rich_help_panel=PANEL,
    epilog=examples("spile delete geo FR", "spile delete geo FR --rev 3-5d41402abc4b2a76b9719d911017c592"),
)
def delete(
    barrel: BarrelName,
    doc_id: DocumentId,
    rev: Annotated[
        str | None, typer.Option(metavar="REV", help="Only if the document is at this revision. Default: as it is.")
    ] = None,
    p2p_write: P2pWrite = None,
    p2p_depth: P2pDepth = None,
    p2p_timeout: P2pTimeout = None,
    url: UrlOption = None,
    database: DatabaseOption = None,
) -> None:
    """Delete a document; the deletion is a revision, and is replicated."""
    beyond = asked_beyond(p2p_write, depth=p2p_depth, timeout=p2p_timeout)
    with backend_of(url, database) as backend:
        if rev is None:
            import msgspec

            from broker.cli.backend import GetQuery

            rev = str(msgspec.json.decode(backend.get(barrel, doc_id, GetQuery()))["_rev"])
        written = backend.delete(barrel, doc_id, rev=rev, beyond=beyond)
        tell_written(written, f"{written['id']} is deleted at {written['rev']}")


@app.command(rich_help_panel=PANEL, epilog=examples("spile purge geo FR"))
def purge(
    barrel: BarrelName,
    doc_id: DocumentId,
    revs: Annotated[list[str] | None, typer.Argument(metavar="REV", help="Only these leaves; default: all.")] = None,
    url: UrlOption = None,
    database: DatabaseOption = None,
) -> None:
    """Remove a document here alone, history and all; other replicas keep it."""
    with backend_of(url, database) as backend:
        standard_output().told(backend.purge(barrel, doc_id, revs or []), f"{doc_id} is purged")


def read_file(file: str) -> bytes:
    """What a file holds, or standard input for `-`."""
    from feeds.errors import BadRequest, NotFound

    if file == "-":
        if sys.stdin.isatty():
            print("Type the document, and end it with Ctrl-D.", file=sys.stderr)
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except FileNotFoundError as error:
        raise NotFound(f"the file {file} is not there", hint="Check the path; - is standard input.") from error
    except OSError as error:
        raise BadRequest(f"{file} cannot be read: {error.strerror}", hint="Check the path.") from error
