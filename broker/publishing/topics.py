"""Which messages a committed change makes on MQTT.

Pure: takes an entry of the log, returns messages. What nobody could hear is left out before it is encoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from broker.mqtt.contract import Message
from feeds.barrels import BarrelSettings
from feeds.matcher import Matcher
from feeds.paths import ATTACHMENTS, document_leaves, encode_segment, fits, id_levels, leaf_path
from feeds.patterns import parse_patterns
from feeds.rows import LogEntry, Row, document_json

ID_QOS = 1

_encode = msgspec.json.Encoder().encode
_raw = msgspec.Raw


class IdMessage(Row, omit_defaults=True, kw_only=True):
    """A change as it stands on `_id`: the row, and which life of the barrel it belongs to."""

    epoch: str


class PathMessage(msgspec.Struct, omit_defaults=True):
    """A document on one of its paths."""

    seq: int
    id: str
    rev: str
    path: str
    value: Any
    entered: bool = False
    removed: bool = False


class ConflictMessage(msgspec.Struct):
    """A document that came into conflict, or out of it (then without any)."""

    seq: int
    id: str
    rev: str
    conflicts: list[str]


class BarrelTopics:
    """The topics of one barrel under its present settings."""

    def __init__(self, name: str, epoch: str, settings: BarrelSettings, bytes_max: int) -> None:
        self.base = f"barrels/{encode_segment(name)}"
        self.head = f"{self.base}/_head"
        self.lag = f"{self.base}/_lag"
        self._id_base = f"{self.base}/_id/"
        self._epoch = epoch
        self._retain = settings.retain
        self._path_qos = settings.path_qos
        self._bytes_max = bytes_max
        self._published: Matcher[int] | None = None
        self._first: frozenset[str] | None = None  # levels that published paths begin with; None: any
        if settings.publish is not None:
            self._published = Matcher()
            patterns = parse_patterns(settings.publish)
            for pattern in patterns:
                self._published.add(pattern.levels, 0)
            first = frozenset(pattern.levels[0] for pattern in patterns)
            self._first = None if first & {"+", "#"} else first

    def publishes(self, path: str) -> bool:
        """Whether the barrel's settings let a path be published."""
        published = self._published
        return published is None or bool(published.match(path.split("/")))

    def retains(self, document_id: str) -> bool:
        """Whether the newest change of a document is retained."""
        return self._retain and self.publishes("_id/" + id_levels(document_id))

    def head_message(self, seq: int) -> Message:
        """Where the log is, for whoever wants to know without following it."""
        return Message(self.head, _encode({"seq": seq, "epoch": self._epoch}), ID_QOS, True)

    def id_topic(self, document_id: str) -> str:
        """The topic of a document's changes."""
        return self._id_base + id_levels(document_id)

    def clear(self, document_id: str) -> Message:
        """What clears a retained message of a document."""
        return Message(self.id_topic(document_id), b"", ID_QOS, True)

    def messages(self, entry: LogEntry, wanted: Wanted) -> list[Message]:
        """The messages of one change, `_id` first."""
        found: list[Message] = []
        if not entry.purged:
            levels = id_levels(entry.id)
            if self._published is None or self.publishes("_id/" + levels):
                self._add_id(found, entry, levels)
        elif self._retain:
            found.append(self.clear(entry.id))
        if entry.conflicts_changed:
            found.extend(self._conflicts(entry))
        if wanted.any:
            if not entry.purged:
                found.extend(self._standing(entry, wanted))
            found.extend(self._left(entry, wanted))
        return found

    def state(self, row: Row) -> Message:
        """A document's newest state on `_id`, from a row with its document."""
        told = IdMessage(
            row.seq, row.id, row.rev, row.changes, deleted=row.deleted, expired=row.expired, epoch=self._epoch
        )
        told.doc_omitted = row.doc_omitted
        told.attachments = row.attachments
        if not isinstance(row.doc, msgspec.UnsetType):
            around = len(document_json(row.id, row.rev, b"{}", row.deleted)) - 1  # the limit is on the body alone
            if len(bytes(row.doc)) - around > self._bytes_max:
                told.doc_omitted = True
            else:
                told.doc = row.doc
        return Message(self.id_topic(row.id), _Lazy(told), ID_QOS, self._retain and not row.deleted)

    def newest(self, row: Row, wanted: Wanted) -> Iterator[Message]:
        """The messages of a document's newest state, where the changes that led to it are not kept."""
        document = b"" if isinstance(row.doc, msgspec.UnsetType) else bytes(row.doc)
        levels = id_levels(row.id)
        if self.publishes("_id/" + levels):
            yield self.state(row)
            if self._retain and row.deleted:
                yield self.clear(row.id)
        if row.deleted or not document or row.id.startswith("_design/"):
            return
        for leaf in document_leaves(msgspec.json.decode(document)):
            if wanted.segment(leaf[0].partition("/")[0]) and fits(leaf) and self.publishes(path := leaf_path(leaf)):
                at = PathMessage(row.seq, row.id, row.rev, path, leaf[2])
                yield Message(f"{self.base}/{path}", _Lazy(at), self._path_qos)

    def wanted(self, heard: frozenset[str] | None) -> Wanted:
        """What to ask about keys while a page is told; `heard` are the levels that somebody hears (None: any)."""
        first = self._first
        return Wanted(heard if first is None else first if heard is None else heard & first)

    def _conflicts(self, entry: LogEntry) -> Iterator[Message]:
        levels = id_levels(entry.id)
        if self.publishes("_conflicts/" + levels):
            told = ConflictMessage(entry.seq, entry.id, entry.rev, entry.conflicts)
            yield Message(f"{self.base}/_conflicts/{levels}", _Lazy(told), ID_QOS)

    def _add_id(self, found: list[Message], entry: LogEntry, levels: str) -> None:
        if entry.body is None and not entry.deleted:
            return  # superseded and compacted since: the newest change is still to come
        topic = self._id_base + levels
        retain = self._retain and not entry.deleted
        found.append(Message(topic, lambda: self.id_payload(entry), ID_QOS, retain))
        if self._retain and entry.deleted:
            found.append(Message(topic, b"", ID_QOS, True))

    def id_payload(self, entry: LogEntry) -> bytes:
        """The row of a change with its document, or with a word that this is too large for a message."""
        told = IdMessage(
            entry.seq,
            entry.id,
            entry.rev,
            list(entry.changes),
            deleted=entry.deleted,
            expired=entry.expired,
            epoch=self._epoch,
            attachments=entry.attachments or msgspec.UNSET,
        )
        body = entry.body if entry.body is not None else b"{}"
        if len(body) > self._bytes_max:
            told.doc_omitted = True
        else:
            told.doc = _raw(document_json(entry.id, entry.rev, body, entry.deleted))
        return _encode(told)

    def _standing(self, entry: LogEntry, wanted: Wanted) -> Iterator[Message]:
        if not any(wanted[key] for key in entry.data):
            return
        entered: frozenset[str] | None = None
        for leaf in entry.leaves:
            if not wanted.segment(leaf[0].partition("/")[0]):
                continue
            path = leaf_path(leaf)
            if not self.publishes(path):
                continue
            if entered is None:
                entered = entry.entered
            told = PathMessage(entry.seq, entry.id, entry.rev, path, leaf[2], entered=entry.fresh or path in entered)
            yield Message(f"{self.base}/{path}", _Lazy(told), self._path_qos)

    def _left(self, entry: LogEntry, wanted: Wanted) -> Iterator[Message]:
        for path, value in entry.gone:
            if wanted.segment(path.partition("/")[0]) and self.publishes(path):
                told = PathMessage(entry.seq, entry.id, entry.rev, path, value, removed=True)
                yield Message(f"{self.base}/{path}", _Lazy(told), self._path_qos)


class Wanted(dict[str, bool]):
    """Which of a barrel's top-level keys are published and heard by somebody; `any` says whether there are such.

    For one page: with a narrow `publish`, or narrow subscriptions, most documents are out by this unread.
    """

    def __init__(self, among: frozenset[str] | None) -> None:
        self._among = among
        self.any = among is None or any(level == ATTACHMENTS or not level.startswith("_") for level in among)

    def __missing__(self, key: str) -> bool:
        found = self[key] = self.segment(encode_segment(key))
        return found

    def segment(self, segment: str) -> bool:
        """As by key, for a key that is encoded already."""
        return self._among is None or segment in self._among


class _Lazy:
    """Encodes a message when somebody is going to receive it."""

    __slots__ = ("_told",)

    def __init__(self, told: msgspec.Struct) -> None:
        self._told = told

    def __call__(self) -> bytes:
        return _encode(self._told)
