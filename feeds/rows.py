"""Changes as they are told: rows of a feed, entries of the log, and pages of both.

Pure values. Rows encode to the wire as they are; a document inside one is spliced in as bytes, never parsed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from feeds.attachments.stubs import Moves
from feeds.paths import Leaf, document_leaves, fits, leaf_path

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
read_moves = msgspec.json.Decoder(Moves).decode


class Row(msgspec.Struct, omit_defaults=True):
    """One change as a reader is told it. `rev` is the winner, `changes` every leaf with the winner first."""

    seq: int
    id: str
    rev: str
    changes: list[str]
    paths: list[str] | UnsetType = UNSET
    """Those that matched the reader's patterns; left out where it gave none."""
    entered: bool = False
    removed: bool = False
    deleted: bool = False
    expired: bool = False
    doc: Raw | UnsetType = UNSET
    doc_omitted: bool = False
    attachments: Moves | UnsetType = UNSET
    """How they differ from those of the winner before; left out where none came, changed or went."""


def document_json(document_id: str, rev: str, body: bytes, deleted: bool = False) -> bytes:
    """A stored body as a whole document, with `_id` and `_rev` in front."""
    head = b'{"_id":%b,"_rev":"%b"' % (_encode(document_id), rev.encode())
    if deleted:
        head += b',"_deleted":true'
    return head + b"}" if body == b"{}" else head + b"," + body[1:]


def with_document(row: Row, body: bytes | None, bytes_max: int | None = None) -> Row:
    """The row with its document, or with a word that it was left out for its size or is not kept any more."""
    if body is None:
        if not row.deleted:
            row.doc_omitted = True
            return row
        body = b"{}"
    if bytes_max is not None and len(body) > bytes_max:
        row.doc_omitted = True
    else:
        row.doc = Raw(document_json(row.id, row.rev, body, row.deleted))
    return row


class LogEntry(msgspec.Struct, eq=False):
    """One committed change as it was then, with what a publisher and a hub need to tell it.

    `body` is the winner's canonical body as of this change, None when it was compacted since. `entered` are the
    path texts that came with the change (all, if `fresh`), `gone` those that left, with their values. `first` says
    that the document itself came with the change.
    """

    seq: int
    id: str
    rev: str
    changes: Sequence[str]
    _live_leaves: int
    deleted: bool
    expired: bool
    fresh: bool
    conflicts_changed: bool
    purged: bool
    newest: bool
    body: bytes | None
    _entered: bytes | None
    _gone: bytes | None
    at: int
    first: bool
    _attached: bytes | None = None
    _data: dict[str, Any] | None = None
    _leaves: list[Leaf] | None = None
    _paths: list[tuple[str, Any]] | None = None

    @property
    def data(self) -> dict[str, Any]:
        """What of the winner has paths that are told: its keys; none of a deletion or of a compacted body."""
        if self._data is None:
            untold = self.deleted or self.body is None or self.id.startswith("_design/")
            self._data = {} if untold else _decode(self.body or b"{}")
        return self._data

    @property
    def leaves(self) -> list[Leaf]:
        """The winner's leaves within the limits for paths."""
        if self._leaves is None:
            self._leaves = [leaf for leaf in document_leaves(self.data) if fits(leaf)]
        return self._leaves

    @property
    def paths(self) -> list[tuple[str, Any]]:
        """The winner's paths as (text, value)."""
        if self._paths is None:
            self._paths = [(leaf_path(leaf), leaf[2]) for leaf in self.leaves]
        return self._paths

    @property
    def entered(self) -> frozenset[str]:
        """The texts of the paths that came with this change."""
        if self.fresh:
            return frozenset(path for path, _ in self.paths)
        return frozenset(_decode(self._entered)) if self._entered else frozenset()

    @property
    def gone(self) -> list[tuple[str, Any]]:
        """The paths that left with this change as (text, value); long texts as they were cut."""
        return [(path, value) for path, value in _decode(self._gone)] if self._gone else []

    @property
    def is_untold_deletion(self) -> bool:
        """Whether it is a deletion of which nothing tells what was deleted, as where that was never here."""
        return self.deleted and self._gone is None

    @property
    def attachments(self) -> Moves | None:
        """Which attachments came, changed and went with this change; None where all stayed."""
        return None if self._attached is None else read_moves(self._attached)

    @property
    def conflicts(self) -> list[str]:
        """The live leaves beside the winner after this change."""
        return list(self.changes[1 : self._live_leaves]) if self._live_leaves > 1 else []

    def doc_json(self) -> bytes | None:
        """The document as it was then, None when its body is not kept any more."""
        if self.body is None and not self.deleted:
            return None
        return document_json(self.id, self.rev, self.body or b"{}", self.deleted)

    def row(self, docs: bool = False, doc_bytes_max: int | None = None) -> Row:
        """The change as a row, without paths."""
        row = Row(self.seq, self.id, self.rev, list(self.changes), deleted=self.deleted, expired=self.expired)
        if self._attached is not None:
            row.attachments = read_moves(self._attached)
        return with_document(row, self.body, doc_bytes_max) if docs else row


@dataclass(slots=True)
class FeedPage:
    """Some rows of a feed; `seq` says how far the log has been looked at for them."""

    rows: list[Row]
    seq: int
    caught_up: bool


@dataclass(frozen=True, slots=True)
class ChangesPage:
    """Rows for a reader who asked once. `last_seq` is a position to go on from."""

    results: list[Row]
    last_seq: str
    pending: int
    epoch: str


@dataclass(frozen=True, slots=True)
class Start:
    """Where a reader begins."""

    after: int
    snapshot: bool
    """It has to be sent everything there is, since its position does not hold any more."""
    leaves: bool
    """It may know documents from before, so that it has to be told of those that left."""


class Found(msgspec.Struct, omit_defaults=True):
    """One hit of `find`: the document, the path text without its value, and the value."""

    id: str
    path: str
    value: Any
    doc: Raw | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class FindPage:
    """Hits in order; `next` goes on behind the last one, None at the end."""

    results: list[Found]
    next: str | None


class InConflict(msgspec.Struct, omit_defaults=True):
    """A document in conflict: its winner, and the other live leaves, the greatest first."""

    id: str
    rev: str
    conflicts: list[str]
    seq: int
    reason: str | None = None
    """Why the barrel's merge rule leaves it, where it was asked and that is remembered."""


class ConflictsPage(msgspec.Struct):
    """Some documents in conflict, in the order of their ids; `next` goes on behind them, None at the end."""

    results: list[InConflict]
    next: str | None = None
