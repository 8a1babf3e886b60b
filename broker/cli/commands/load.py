"""`spile load`: many documents from files or standard input."""

from __future__ import annotations

import sys
import uuid
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import BarrelName, DatabaseOption, UrlOption, backend_of, examples, finite
from broker.cli.output import standard_output

if TYPE_CHECKING:
    from broker.cli.backend import Backend
    from broker.cli.loading import Loader, LoadReport
    from broker.cli.progress import ShownProgress
    from broker.cli.sources import Source

app = typer.Typer()

BATCH_MAX = 10_000
"""The service takes no more documents in one request."""


def _check_format(form: str | None) -> str | None:
    if form not in (None, "ndjson", "json", "csv"):
        raise typer.BadParameter("it is ndjson, json or csv")
    return form


@app.command(
    rich_help_panel="Documents",
    epilog=examples(
        "spile load geo countries.json --id cca3",
        "spile load sensors readings.ndjson.xz --id sensor --update",
        "curl -s https://example.org/cities.csv | spile load cities - --id city",
    ),
)
def load(
    barrel: BarrelName,
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="Files to read; - is standard input.")],
    id_field: Annotated[
        str | None,
        typer.Option("--id", metavar="FIELD", help="Take each _id from this field (a.b: within a). Default: _id."),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Extend documents that are there, whatever their revision.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, max=BATCH_MAX, metavar="N", help="Documents in one request.")] = 1000,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Pass over lines that hold no document, and count them.")
    ] = False,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORM",
            callback=_check_format,
            help="ndjson, json or csv. Default: what it looks like.",
        ),
    ] = None,
    as_text: Annotated[bool, typer.Option("--text", help="CSV: keep every field as text, numbers too.")] = False,
    patience: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", callback=finite, help="How long to try again while the service cannot."
        ),
    ] = 60.0,
    url: UrlOption = None,
    database: DatabaseOption = None,
) -> None:
    """Store many documents: NDJSON, a JSON array or CSV; plain or packed with gzip, xz or bzip2.

    The barrel is made where it is missing. Documents that are refused are counted, and the first ones named.
    """
    from broker.cli.exits import INTERRUPTED, REFUSED
    from broker.cli.loading import Loader
    from broker.cli.progress import shown_progress
    from broker.cli.sources import check_files, size_bytes
    from feeds.errors import SpileError

    check_files(files)
    with backend_of(url, database, create=True) as backend:
        _make_sure_of(backend, barrel)
        with shown_progress(f"loading {barrel}", in_bytes=True) as progress:
            progress_of = _Progress(progress, size_bytes(files))
            loader = Loader(
                lambda body, key: backend.bulk(barrel, body, key),
                run_id=uuid.uuid4().hex,
                batch=batch,
                update=update,
                skip_bad=skip_bad,
                patience=patience,
                on_answer=progress_of.on_answer,
            )
            try:
                for file in files:
                    _load_file(loader, progress_of, file, form, id_field, as_text)
            except KeyboardInterrupt:
                print(f"spile: interrupted; {_stored(loader.report, loader.underway)}", file=sys.stderr)
                raise typer.Exit(INTERRUPTED) from None
            except SpileError as error:
                error.reason = f"{error.reason.removesuffix('.')}; {_stored(loader.report, loader.in_doubt)}"
                raise
            finally:
                loader.close()
    _tell(barrel, loader.report, update)
    if loader.report.refused:
        raise typer.Exit(REFUSED)


def _load_file(
    loader: Loader, progress: _Progress, file: str, form: str | None, id_field: str | None, as_text: bool
) -> None:
    from broker.cli.identify import checker
    from broker.cli.inputs import BadInput
    from broker.cli.sources import Format, open_source

    with open_source(file, Format(form) if form else None) as source:
        progress.begin(source)
        check = checker(id_field, literal=source.format is Format.CSV)
        try:
            loader.load(source.name, source.pieces(as_text=as_text), check)
        except BadInput as bad:
            bad.reason = f"{source.name} {bad.reason}"
            raise
        finally:
            progress.end()


class _Progress:
    """Joins how far the files are read with how many documents are stored."""

    def __init__(self, shown: ShownProgress, total_bytes: int | None) -> None:
        self._shown = shown
        self._total_bytes = total_bytes
        self._before_bytes = 0
        self._source: Source | None = None

    def begin(self, source: Source) -> None:
        self._source = source

    def end(self) -> None:
        if self._source is not None:
            self._before_bytes += self._source.taken_bytes
            self._source = None

    def on_answer(self, report: LoadReport) -> None:
        taken = self._before_bytes + (self._source.taken_bytes if self._source is not None else 0)
        told = f"{report.stored:,} documents, {report.rate:,.0f}/s"
        if report.refused:
            told += f", {report.refused:,} refused"
        self._shown.show(taken, self._total_bytes, told)


def _make_sure_of(backend: Backend, barrel: str) -> None:
    from feeds.errors import Exists, NotFound

    try:
        backend.info(barrel)
    except NotFound:
        try:
            backend.create(barrel, {})
        except Exists:
            # Somebody else made it in this moment.
            return


def _stored(report: LoadReport, maybe: int) -> str:
    """What was stored before a load ended early, and how many more may have been."""
    more = f", {maybe:,} more may have been" if maybe else ""
    if not report.stored:
        return f"nothing was stored{more}"
    return f"{_counted(report.stored, 'document')} {'was' if report.stored == 1 else 'were'} stored before{more}"


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _tell(barrel: str, report: LoadReport, update: bool) -> None:
    for refusal in report.first_refusals:
        print(f"spile: {refusal}", file=sys.stderr)
    untold = report.refused + report.skipped - len(report.first_refusals)
    if untold > 0:
        print(f"spile: and {untold:,} more", file=sys.stderr)
    if not update and any(refusal.error == "conflict" for refusal in report.first_refusals):
        print("  hint: With --update documents that are there already are extended.", file=sys.stderr)
    told = [f"{barrel}: nothing stored"]
    if report.stored:
        documents = _counted(report.stored, "document")
        told = [f"{barrel}: {documents} stored in {report.seconds:,.1f} s ({report.rate:,.0f}/s)"]
    if report.refused:
        told.append(f"{report.refused:,} refused")
    if report.skipped:
        told.append(f"{_counted(report.skipped, 'line')} skipped")
    standard_output().told(
        {
            "barrel": barrel,
            "stored": report.stored,
            "refused": report.refused,
            "skipped": report.skipped,
            "seq": report.last_seq,
            "seconds": round(report.seconds, 3),
            "rate": round(report.rate),
        },
        ", ".join(told),
    )
