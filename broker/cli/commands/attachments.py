"""Attaching files to documents, fetching them, and taking them away."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import BarrelName, BlobsOption, DatabaseOption, RevOption, UrlOption, backend_of, examples
from broker.cli.output import standard_output

if TYPE_CHECKING:
    from broker.cli.files import Tell
    from broker.cli.progress import ShownProgress

app = typer.Typer()
PANEL = "Attachments"

DocumentId = Annotated[str, typer.Argument(metavar="ID", help="The document's id.")]
AttachmentName = Annotated[str, typer.Argument(metavar="NAME", help="The attachment's name.")]


@app.command(
    rich_help_panel=PANEL,
    epilog=examples(
        "spile attach geo FR flag.png map.pdf",
        "spile attach geo FR scan-0017.tif --name map --type image/tiff",
        "pg_dump geo | spile attach backups monday - --name geo.sql",
    ),
)
def attach(
    barrel: BarrelName,
    doc_id: DocumentId,
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="The files; - is standard input.")],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Its name in the document. Default: the file's.")
    ] = None,
    content_type: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="Its content type. Default: guessed from the name.")
    ] = None,
    rev: RevOption = None,
    url: UrlOption = None,
    database: DatabaseOption = None,
    blobs: BlobsOption = None,
) -> None:
    """Attach files to a document, which begins with them if it is not there. A name that is there is replaced.

    Large files go on where they were after a cut connection, and after a stop when the same command is given again.
    What arrived is compared by its sha256.
    """
    if name is not None and len(files) > 1:
        raise typer.BadParameter("--name goes with one file")
    if name is None and "-" in files:
        raise typer.BadParameter("standard input needs a --name")
    from broker.cli.files import opened
    from broker.cli.progress import shown_progress

    output = standard_output()
    with backend_of(url, database, blobs=blobs) as backend:
        for path in files:
            called = name if name is not None else Path(path).name
            with opened(path) as file, shown_progress(f"attaching {called}", in_bytes=True) as progress:
                tell = _telling(progress)
                told = backend.attach(barrel, doc_id, called, file, content_type=content_type, rev=rev, tell=tell)
            rev = str(told["rev"]) if rev is not None else None
            told["name"] = called
            output.told(told, f"{told['id']} is at {told['rev']} with {called}, {told['length']:,} bytes")


@app.command(
    rich_help_panel=PANEL,
    epilog=examples(
        "spile fetch geo FR flag.png",
        "spile fetch geo FR map.pdf -o france.pdf",
        "spile fetch backups monday geo.sql -o - | psql geo",
    ),
)
def fetch(
    barrel: BarrelName,
    doc_id: DocumentId,
    name: AttachmentName,
    out: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE|-", help="Where to write it. Default: its name, here."),
    ] = None,
    rev: Annotated[str | None, typer.Option(metavar="REV", help="Of this revision instead of the winner.")] = None,
    url: UrlOption = None,
    database: DatabaseOption = None,
    blobs: BlobsOption = None,
) -> None:
    """Fetch an attachment into a file, which is there only when all of it has come and its sha256 is right."""
    from broker.cli.files import written
    from broker.cli.progress import shown_progress

    target = out if out is not None else _file_name(name)
    with (
        backend_of(url, database, blobs=blobs) as backend,
        written(target) as into,
        shown_progress(f"fetching {name}", in_bytes=True) as progress,
    ):
        fetched = backend.fetch(barrel, doc_id, name, into, rev=rev, tell=_telling(progress))
    if target != "-":
        told = {"file": target, "length": fetched.length, "digest": fetched.digest}
        told |= {"content_type": fetched.content_type, "rev": fetched.rev}
        standard_output().told(told, f"{target} has {fetched.length:,} bytes, {fetched.content_type}")


@app.command(rich_help_panel=PANEL, epilog=examples("spile detach geo FR flag.png"))
def detach(
    barrel: BarrelName,
    doc_id: DocumentId,
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="The attachments' names.")],
    rev: RevOption = None,
    url: UrlOption = None,
    database: DatabaseOption = None,
) -> None:
    """Take attachments from a document; older revisions keep theirs until they are compacted."""
    output = standard_output()
    with backend_of(url, database) as backend:
        for name in names:
            told = backend.detach(barrel, doc_id, name, rev=rev)
            rev = str(told["rev"]) if rev is not None else None
            told["name"] = name
            output.told(told, f"{told['id']} is at {told['rev']} without {name}")


def _telling(progress: ShownProgress) -> Tell:
    """Bytes so far, of all, and how many come in a second; what came before does not count for that."""
    began = time.monotonic()
    before: int | None = None

    def tell(done: int, total: int | None) -> None:
        nonlocal before
        before = done if before is None else before
        seconds = time.monotonic() - began
        progress.show(done, total, f"{(done - before) / seconds / 1e6:,.0f} MB/s" if seconds > 0.5 else "")

    return tell


def _file_name(name: str) -> str:
    """The file that an attachment of this name becomes; its levels are not folders here."""
    last = name.rpartition("/")[2]
    if last in ("", ".", ".."):
        raise typer.BadParameter(f"{name!r} is no name for a file: give one with -o")
    return f"./{last}" if last == "-" else last
