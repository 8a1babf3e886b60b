"""One barrel: documents in and out, its changes, its index. Every call may come from any thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import msgspec

from feeds.attachments.documents import Attachment, BarrelAttachments, Source
from feeds.attachments.stubs import Content
from feeds.barrels import BarrelInfo, BarrelSettings, barrel_info, settings_of
from feeds.errors import EpochChanged, NotFound, SpileError
from feeds.patterns import Pattern
from feeds.positions import FIRST, Mark, Position
from feeds.rows import ChangesPage, FindPage, LogEntry, Row, Start
from feeds.storage.asking import page_rows
from feeds.storage.bulk import bulk_writes, read_bulk
from feeds.storage.conflicts import Conflicts
from feeds.storage.entries import log_entry
from feeds.storage.find import Finder, Order, Query
from feeds.storage.local import LocalDocuments
from feeds.storage.reading import Document, Reader, Wanted
from feeds.storage.replay import Replay
from feeds.writes import Outcome, Token, Write, Written

if TYPE_CHECKING:
    from feeds.store import Store

_PAGE = 1_000

Contents = Mapping[str, Content]
NO_CONTENTS: Contents = {}


class Barrel:
    """A named set of documents with its own changes log; got from a `Store`."""

    def __init__(self, store: Store, key: int, name: str, epoch: str, settings: BarrelSettings) -> None:
        self._store = store
        self.key = key
        self.name = name
        self.epoch = epoch
        self.settings = settings
        self._local = LocalDocuments(store, self)
        self.conflicts = Conflicts(store, self)
        """Its documents in conflict: to be listed, looked at and resolved."""

    @property
    def store(self) -> Store:
        """The store that it is in."""
        return self._store

    def __repr__(self) -> str:
        return f"<Barrel {self.name} {self.epoch}>"

    # -- about it

    def info(self) -> BarrelInfo:
        """Counts, head, epoch and settings."""
        self._sweep()
        with self._store.database.reading() as connection:
            row = connection.exec_driver_sql(self._store.queries.barrel_by_key, (self.key,)).first()
        if row is None:
            raise self._gone()
        return barrel_info(row)

    def _sweep(self) -> None:
        """Delete what has expired, so that no reader is told of it as living."""
        if self.settings.ttl is not None or self.settings.ttl_field is not None:
            self._store.expire(self)

    def head(self) -> int:
        """The seq of the newest change, 0 before the first."""
        return int(self._head()[0])

    def forgotten(self) -> int:
        """The seq up to which log rows and left paths are not kept any more."""
        return int(self._head()[1])

    def position(self, seq: int) -> str:
        """A seq of this barrel as a position."""
        return f"{seq}-{self.epoch}"

    def _head(self) -> Any:
        with self._store.database.reading() as connection:
            row = connection.exec_driver_sql(self._store.queries.head, (self.key,)).first()
        if row is None:
            raise self._gone()
        return row

    def _gone(self) -> NotFound:
        return NotFound(f"There is no barrel {self.name!r}", hint="It was dropped; create it again if you need it.")

    # -- writing

    def submit(self, writes: Sequence[Write | SpileError], *, token: Token | None = None) -> Future[list[Outcome]]:
        """Queue writes; the future gives an outcome for each in order, and fails only as a whole. What was refused
        already comes along in its place, so that a token answers the same request with the same.

        Raises Overloaded when too much waits already. The contents that they bring along are stored already: see
        `absorb`.
        """
        return self._store.writer.write(self.key, self.name, writes, token, self._store.settings.document_bytes_max)

    def put(
        self,
        doc: bytes | str | Mapping[str, Any],
        *,
        id: str | None = None,
        rev: str | None = None,
        update: bool = False,
        token: Token | None = None,
    ) -> Written:
        """Write a document. An update names the revision it builds on, in `rev` or in the document's `_rev`;
        with `update` it extends whatever is there. Raises Conflict, BadRequest, TooLarge."""
        limit = self._store.settings.document_bytes_max
        return self.write(Write.put(doc, id=id, rev=rev, update=update, bytes_max=limit), token)

    def merge(
        self, id: str, patch: bytes | str | Mapping[str, Any], *, rev: str | None = None, token: Token | None = None
    ) -> Written:
        """Apply a JSON merge patch (RFC 7396) onto `rev`, or onto the winner."""
        limit = self._store.settings.document_bytes_max
        return self.write(Write.merge(id, patch, rev=rev, bytes_max=limit), token)

    def delete(self, id: str, *, rev: str | None = None, token: Token | None = None) -> Written:
        """Delete a document; `rev` is the leaf that goes."""
        return self.write(Write.delete(id, rev=rev), token)

    def purge(self, id: str, revs: Sequence[str] = ()) -> Written:
        """Remove a document here without a trace for replicas, or only the branches that end in `revs`."""
        return self.write(Write.purge(id, tuple(revs)), None)

    def bulk(
        self,
        docs: Sequence[bytes | str | Mapping[str, Any]],
        *,
        new_edits: bool = True,
        update: bool = False,
        token: Token | None = None,
    ) -> list[Outcome]:
        """Write many documents at once; an outcome for each in order. Some may be refused, and the others stand.

        With `new_edits=False` they are revisions made elsewhere. With `update` a document without `_rev` extends
        the winner, also one written earlier in the call.
        """
        prepared = bulk_writes(docs, new_edits, update, self._store.settings.document_bytes_max)
        return self._bulk(prepared, token)

    def bulk_json(self, body: bytes, *, token: Token | None = None) -> list[Outcome]:
        """As `bulk`, from the JSON text `{"docs": […], "new_edits"?, "update"?}`."""
        return self._bulk(read_bulk(body, self._store.settings.document_bytes_max), token)

    def _bulk(self, prepared: list[Write | SpileError], token: Token | None) -> list[Outcome]:
        if any(isinstance(each, Write) and each.is_waiting for each in prepared):
            prepared = self.absorb_each(prepared)
        return self.submit(prepared, token=token).result() if prepared else []

    def write(self, write: Write, token: Token | None = None) -> Written:
        """Do one write, with whatever contents it brings along; raises what refuses it."""
        if write.is_waiting:
            (write,) = self.absorb([write])
        (outcome,) = self.submit([write], token=token).result()
        if isinstance(outcome, SpileError):
            raise outcome
        return outcome

    # -- attachments

    def attach(
        self,
        id: str,
        name: str,
        source: Source,
        *,
        content_type: str | None = None,
        rev: str | None = None,
        length: int | None = None,
        digest: str | None = None,
        token: Token | None = None,
    ) -> Written:
        """Attach what `source` gives (bytes, a path, a file or pieces; or a content that is stored) under a name.

        It goes onto `rev`, or onto the winner, or begins the document; without `rev` Conflict where the attachment of
        that name was changed by somebody else meanwhile. The type is guessed from the name. BadRequest where the
        content has not the `length` or the `digest` (`sha256-<hex>`, `md5-<base64>`) that it should have.
        """
        return BarrelAttachments(self).attach(
            id, name, source, content_type=content_type, rev=rev, length=length, digest=digest, token=token
        )

    def detach(self, id: str, name: str, *, rev: str | None = None, token: Token | None = None) -> Written:
        """Take an attachment from `rev`, or from the winner; NotFound where it has none of that name."""
        return self.write(Write.detach(id, name, rev=rev), token)

    def attachment(self, id: str, name: str, *, rev: str | None = None) -> Attachment:
        """An attachment of the winner, or of `rev`: what it is, and its bytes. NotFound where there is none."""
        return BarrelAttachments(self).get(id, name, rev)

    def absorb(self, writes: Sequence[Write], *, follows: Contents = NO_CONTENTS, who: str = "") -> list[Write]:
        """The writes with the contents that they bring along stored: inline ones, those of `who`'s uploads, and by
        name those that `follows` them in the same request. Raises what is wrong with any of them."""
        return BarrelAttachments(self).absorb(writes, follows, who)

    def absorb_each(self, prepared: Sequence[Write | SpileError], *, who: str = "") -> list[Write | SpileError]:
        """As `absorb`, of the documents of one request: what is wrong with one stands in its place."""
        return BarrelAttachments(self).absorb_each(prepared, who)

    def inlined(self, doc: bytes, bytes_max: int, newer_than: int = 0) -> bytes:
        """A document's JSON with contents as base64 `data` in place of stubs, up to so many bytes of them together,
        of those alone that came after a generation; the others stay stubs."""
        return BarrelAttachments(self).inlined(doc, bytes_max, newer_than)

    # -- reading

    def get(
        self, id: str, *, rev: str | None = None, revs: bool = False, conflicts: bool = False, history: bool = False
    ) -> Document:
        """The document at its winner, or at `rev`; Missing, Deleted or NotFound where it cannot be read.

        `revs` adds `_revisions`, `conflicts` adds `_conflicts` where there are any. `history` adds `_history`: the
        revision and every ancestor, and whether its body is there; and where the tree has branched `_branches`: the
        same of each other leaf, as far back as the first revision that was told before.
        """
        (found,) = self.read([Wanted(id, rev, revs, conflicts, history)])
        if isinstance(found, SpileError):
            raise found
        return found

    def get_many(
        self, wanted: Sequence[tuple[str, str | None]], *, revs: bool = False
    ) -> list[Document | SpileError]:
        """Many documents at once, each by id and maybe revision; in order, with the error where one fails."""
        return self.read([Wanted(id, rev, revs) for id, rev in wanted])

    def read(self, wanted: Sequence[Wanted]) -> list[Document | SpileError]:
        """As `get_many`, each with what is wanted beside it."""
        with self._store.database.reading() as connection:
            return Reader(connection, self._store.queries, self.key, self._store.clock()).documents(wanted)

    def revs_diff(self, asked: Mapping[str, Sequence[str]]) -> dict[str, dict[str, list[str]]]:
        """Which of these revisions are not here, by document: `{id: {missing, possible_ancestors?}}`."""
        with self._store.database.reading() as connection:
            return Reader(connection, self._store.queries, self.key, self._store.clock()).revs_diff(asked)

    def find(
        self,
        path: str,
        *,
        from_: Any = msgspec.UNSET,
        to: Any = msgspec.UNSET,
        prefix: str | None = None,
        order: Order = "key",
        descending: bool = False,
        limit: int = 100,
        after: str | None = None,
        docs: bool = False,
    ) -> FindPage:
        """Documents by a path: `region`, `region/Europe`, `locations/+/country`, `name/#`.

        `from_` and `to` bound the values (both inclusive), `prefix` the texts. Key order is by path, then value;
        value order is by value over all paths. `after` is `next` of the page before. The index is written with
        the document, so that whoever wrote reads it. Under `_id` stand the documents themselves (`_id/fr/#`), whose
        values are their ids.
        """
        query = Query(Pattern.parse(path), from_, to, prefix, order, descending, limit, after, docs)
        with self._store.database.snapshot() as connection:
            return Finder(connection, self._store.queries, self.key, query, self._store.clock()).page()

    def ids_after(self, after: str, limit: int) -> list[str]:
        """Ids in order behind `after`, deleted ones too; of a dropped barrel as well, until its rows go."""
        with self._store.database.reading() as connection:
            rows = connection.exec_driver_sql(self._store.queries.ids_after, (self.key, after, limit)).all()
        return [row[0] for row in rows]

    # -- local documents

    def local_get(self, id: str) -> Document:
        """The `_local` document (its id without the prefix); Missing if there is none."""
        return self._local.get(id)

    def local_put(self, id: str, doc: bytes | str | Mapping[str, Any], *, rev: str | None = None) -> Written:
        """Write a `_local` document over what is there; with `rev` only over that revision (Conflict)."""
        return self._local.put(id, doc, rev=rev)

    def local_delete(self, id: str, *, rev: str | None = None) -> Written:
        """Remove a `_local` document; Missing if there is none."""
        return self._local.delete(id, rev=rev)

    def local_ids(self, prefix: str = "") -> list[str]:
        """The ids of `_local` documents that begin with `prefix`, in order."""
        return self._local.ids(prefix)

    # -- changes

    def resolve(self, since: Position | Mark, *, patterns: bool = False) -> Start:
        """Where a reader begins, and whether it must be sent a snapshot: its position is of another epoch, beyond
        the head, or (with patterns, since leaves are forgotten) older than what is kept."""
        head, forgotten, epoch, _ = self._head()
        if isinstance(since, Mark):
            return Start(0 if since is FIRST else head, False, since is not FIRST)
        strange = since.epoch is not None and since.epoch != epoch
        if strange or since.seq > head or (patterns and since.seq < forgotten):
            return Start(0, True, False)
        return Start(since.seq, False, True)

    def replay(
        self,
        after: int,
        patterns: Sequence[Pattern] = (),
        *,
        docs: bool = False,
        doc_bytes_max: int | None = None,
        leaves: bool = True,
        deletions: bool = False,
    ) -> Replay:
        """The newest row of each document after a seq up to the head, page by page. With `deletions` also those of
        which nobody knows any more under which patterns their documents stood: their `paths` are empty."""
        self._sweep()
        place = (self._store.database, self._store.queries, self.key, after, self.head(), patterns)
        return Replay(*place, docs=docs, doc_bytes_max=doc_bytes_max, leaves=leaves, deletions=deletions)

    def tail(self, after: int, limit: int = 500) -> list[LogEntry]:
        """Committed changes after a seq as they were then, in order; empty only at the head."""
        return self.tail_page(after, limit)[0]

    def tail_page(self, after: int, limit: int = 500) -> tuple[list[LogEntry], int]:
        """As `tail`, with the seq up to which the log was looked at (entries of purged documents are left out)."""
        with self._store.database.reading() as connection:
            parameters = (self.key, after, _SEQ_MAX, limit)
            rows, _ = page_rows(connection, self._store.queries.tail, parameters, limit, 10)
        entries = [entry for row in rows if (entry := log_entry(row)) is not None]
        return entries, rows[-1][0] if rows else after

    def changes(
        self,
        since: Position | Mark = FIRST,
        *,
        limit: int | None = None,
        descending: bool = False,
        patterns: Sequence[Pattern] = (),
        docs: bool = False,
    ) -> ChangesPage:
        """The newest row of each document after a position; EpochChanged where the position does not hold.

        With `patterns` only documents that stand under one of them, or left since. `descending` begins at the
        head and tells no leaves.
        """
        start = self.resolve(since, patterns=bool(patterns))
        if start.snapshot:
            raise EpochChanged(f"The position {since} is not one of {self.name!r} any more", epoch=self.epoch)
        if descending:
            return self._changes_back(start.after, limit, patterns, docs)
        replay = self.replay(start.after, patterns, docs=docs, leaves=start.leaves)
        rows: list[Row] = []
        at = start.after
        left = limit if limit is not None else 1 << 62
        caught_up = replay.upto <= start.after
        while not caught_up and len(rows) < left:
            page = replay.next(min(_PAGE, left - len(rows)))
            rows.extend(page.rows)
            at, caught_up = page.seq, page.caught_up
        if caught_up:
            at = max(at, replay.upto)
        return ChangesPage(rows, self.position(at), 0 if caught_up else self.pending(at, replay), self.epoch)

    def pending(self, after: int, replay: Replay | None = None) -> int:
        """How many documents changed after a seq (with patterns: how many matches are left at most)."""
        from feeds.storage.replay import pending

        known = replay.remaining if replay is not None else None
        if known is not None:
            return known
        return pending(self._store.database, self._store.queries, self.key, after)

    def _changes_back(self, after: int, limit: int | None, patterns: Sequence[Pattern], docs: bool) -> ChangesPage:
        from feeds.storage.replay import changes_back

        self._sweep()
        head = self.head()
        with self._store.database.snapshot() as connection:
            rows, at = changes_back(
                connection, self._store.queries, self.key, after, head, patterns, docs=docs, limit=limit
            )
        return ChangesPage(rows, self.position(at if at is not None else head), 0, self.epoch)

    def current_settings(self) -> BarrelSettings:
        """The settings as they stand in the database now."""
        return settings_of(self._head()[3])


_SEQ_MAX = (1 << 63) - 1
