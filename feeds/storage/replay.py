"""The past of a feed: the newest row of each document in a stretch of the log, in seq order, page by page.

Without patterns the documents are read by their newest seq. With patterns it takes the cheaper of two ways: the
index (what stands under the patterns, and what left them), or the log since the position.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection

from feeds.errors import EpochChanged
from feeds.matching import PathFilter
from feeds.patterns import Pattern
from feeds.rows import FeedPage, LogEntry, Row
from feeds.storage.asking import PAGE_BYTES_MAX, page_rows, rows_of
from feeds.storage.database import Database
from feeds.storage.entries import log_entry, row_of
from feeds.storage.queries import Queries
from feeds.storage.schema import DELETED
from feeds.storage.selection import Bounds, Selection, select

SHAPES_MIN = 64  # looked up in any case
SHAPES_A_CHANGE = 8  # a row of the log costs as much as some ten look-ups: its document is read and matched
SHAPES_MAX = 200_000  # held in memory for one replay by index
MATCHES_MAX = 50_000  # held in memory for one replay by index; with more, the log is read instead
_PAGE = 500  # documents or log rows read at a time
_PAGE_PLAIN = 2_000  # the same without bodies
_SHAPES = 4_096  # looked up in one statement

_decode = msgspec.json.Decoder().decode


class Replay:
    """Newest rows of documents with a seq in (after, upto], in order; ask with `next` until `caught_up`.

    For one thread at a time. Holds no transaction between pages: a document that changes meanwhile moves behind
    `upto`, and is left to whoever follows the log from there.
    """

    def __init__(
        self,
        database: Database,
        queries: Queries,
        barrel: int,
        after: int,
        upto: int,
        patterns: Sequence[Pattern],
        *,
        docs: bool,
        doc_bytes_max: int | None,
        leaves: bool,
        deletions: bool = False,
    ) -> None:
        self.upto = upto
        self._database = database
        self._queries = queries
        self._barrel = barrel
        self._since = after
        self._at = after
        self._docs = docs
        self._bytes_max = doc_bytes_max
        self._leaves = leaves
        self._deletions = deletions
        self._filter = PathFilter(patterns) if patterns else None
        self._matches: list[tuple[int, int]] | None = None  # (seq, doc), still to come
        self._match_at = 0
        self._chunk = 50  # matches read at a time: more while their documents are small
        self._page_size = 1  # rows read at a time
        self._stood: set[int] = set()  # documents that matched already at `after`
        self._came: set[int] = set()  # in a replay by log: those that did not, and are to be told at a later row
        self._ready: list[tuple[Row, int]] = []  # rows read but not told yet, with their sizes
        self._ready_at = 0
        self._read_upto = after
        if patterns and upto > after:
            self._matches = self._by_index(patterns)

    @property
    def remaining(self) -> int | None:
        """How many matches are left at most, where that is known."""
        if self._matches is None:
            return None
        return len(self._matches) - self._match_at + len(self._ready) - self._ready_at

    def next(self, rows_max: int, bytes_max: int = 1 << 62) -> FeedPage:
        """Up to so many rows and bytes of documents (one row at least, if there is one); may be empty before the
        end, when what was looked at did not match."""
        if self._ready_at >= len(self._ready) and self._read_upto < self.upto:
            self._read_more(rows_max)
        rows: list[Row] = []
        size = 0
        while self._ready_at < len(self._ready) and len(rows) < rows_max:
            row, bytes_ = self._ready[self._ready_at]
            size += bytes_
            if rows and size > bytes_max:
                break
            rows.append(row)
            self._ready_at += 1
        if self._ready_at >= len(self._ready):
            self._ready, self._ready_at = [], 0
            self._at = self._read_upto
        elif rows:
            self._at = rows[-1].seq
        return FeedPage(rows, self._at, self._at >= self.upto)

    def close(self) -> None:
        """Drop what is held; nothing else is open between pages."""
        self._ready, self._matches = [], None

    # -- reading

    def _read_more(self, wanted: int) -> None:
        if self._matches is not None:
            self._read_matches()
        elif self._filter is not None and self._leaves:
            self._read_log(self._page_of(wanted, _PAGE))
        else:
            bodies = self._docs or self._filter is not None
            self._read_documents(bodies, self._page_of(wanted, _PAGE if bodies else _PAGE_PLAIN))

    def _page_of(self, wanted: int, most: int) -> int:
        """How many rows are read now: what is wanted, and more each time for whoever goes on."""
        page = max(1, min(most, max(wanted, self._page_size)))
        self._page_size = 2 * page
        return page

    def _rows(self, statement: str, *parameters: Any) -> Sequence[Any]:
        with self._database.reading() as connection:
            return rows_of(connection, statement, parameters)

    def _read_documents(self, bodies: bool, limit: int) -> None:
        """Documents by their newest seq, matched one by one where there are patterns."""
        statement = self._queries.changes_with_docs if bodies else self._queries.changes
        rows, more = self._page(statement, 9 if bodies else None, limit)
        for row in rows:
            paths = None
            if self._filter is not None:
                paths = self._filter.matching(row[2], row[9], bool(row[5] & DELETED))
                if not paths and not (self._deletions and row[5] & DELETED):
                    continue
            self._add(row, paths)
        self._read_upto = rows[-1][1] if more else self.upto

    def _page(self, statement: str, body: int | None, limit: int) -> tuple[list[Any], bool]:
        """The rows behind what was read, and whether there may be more; column `body` is what is large."""
        with self._database.reading() as connection:
            parameters = (self._barrel, self._read_upto, self.upto, limit)
            return page_rows(connection, statement, parameters, limit, body)

    def _add(self, row: Any, paths: list[str] | None, seq: int | None = None, removed: bool = False) -> None:
        told = row_of(row, self._docs, self._bytes_max)
        if seq is not None:
            told.seq = seq
        if paths is not None:
            told.paths = paths
        if removed:
            told.removed = True
        elif self._since and self._matches is not None and row[0] not in self._stood:
            told.entered = True
        size = len(row[9]) if self._docs and row[9] is not None and not told.doc_omitted else 0
        self._ready.append((told, size))

    def _by_index(self, patterns: Sequence[Pattern]) -> list[tuple[int, int]] | None:
        """All matches as (seq, doc) from the index, in seq order; None where the log is cheaper."""
        changes = self.upto - self._since
        budget = min(MATCHES_MAX, changes)
        with self._database.snapshot() as connection:
            if self._leaves:
                self._check_kept(connection, self._since)
            shapes_max = max(SHAPES_MIN, min(SHAPES_MAX, SHAPES_A_CHANGE * changes))
            selection = select(connection, self._queries, self._barrel, patterns, shapes_max)
            if selection is None:
                return None  # it may be anywhere, or there is more to look up than there are changes

            def run(statement: str, *parameters: Any) -> Sequence[Any]:
                return rows_of(connection, statement, parameters)

            standing = self._standing(run, selection, budget)
            left = self._left(run, selection, budget) if standing is not None else None
            if standing is None or left is None:
                return None
            found = []
            numbers = list(standing)
            for begin in range(0, len(numbers), _PAGE):
                chunk = self._queries.as_list(numbers[begin : begin + _PAGE])
                for row in run(self._queries.seqs_by_number, self._barrel, chunk):
                    if self._since < row[1] <= self.upto:
                        found.append((row[1], row[0]))
            found.extend((seq, doc) for doc, seq in left.items() if doc not in standing and seq <= self.upto)
        found.sort()
        return found

    def _standing(self, run: Any, selection: Selection, budget: int) -> dict[int, int] | None:
        found: dict[int, int] = {}
        for (low, high), numbers in _chunks(selection, self._queries.as_list):
            rows = run(self._queries.paths_between, numbers, low, high, budget + 1)
            for doc, seq in rows:
                found[doc] = min(seq, found.get(doc, seq))
            if len(rows) > budget or len(found) > budget:
                return None
        for low_id, high_id in selection.id_spans:
            rows = run(self._queries.docs_between, self._barrel, low_id, high_id, budget + 1)
            found.update((row[0], row[0]) for row in rows)
            if len(rows) > budget or len(found) > budget:
                return None
        if selection.ids:
            for row in run(self._queries.docs_by_id, self._barrel, self._queries.as_list(selection.ids)):
                found[row[0]] = row[0]
        self._stood = {doc for doc, seq in found.items() if seq <= self._since}
        return found

    def _left(self, run: Any, selection: Selection, budget: int) -> dict[int, int] | None:
        found: dict[int, int] = {}
        if not self._leaves:
            return found
        for (low, high), numbers in _chunks(selection, self._queries.as_list):
            rows = run(self._queries.gone_between, numbers, low, high, self._since, budget + 1)
            for doc, seq in rows:
                found[doc] = max(seq, found.get(doc, seq))
            if len(rows) > budget:
                return None
        self._stood.update(found)
        return found

    def _read_matches(self) -> None:
        """The next documents from the index, read as they are now and matched again."""
        assert self._matches is not None and self._filter is not None
        chunk = self._matches[self._match_at : self._match_at + self._chunk]
        upto = chunk[-1][0] if self._match_at + len(chunk) < len(self._matches) else self.upto
        deletions: list[tuple[Row, int]] = []
        if self._deletions:
            deletions, upto = self._untold_deletions(upto)
            chunk = [match for match in chunk if match[0] <= upto]
        self._match_at += len(chunk)
        numbers = self._queries.as_list([doc for _, doc in chunk])
        found = {row[0]: row for row in self._rows(self._queries.docs_by_number, self._barrel, numbers)}
        small = sum(len(row[9] or b"") for row in found.values()) < PAGE_BYTES_MAX // 4
        self._chunk = min(_PAGE, self._chunk * 2) if small else max(1, self._chunk // 2)
        for seq, doc in chunk:
            row = found.get(doc)
            if row is None:
                continue  # purged meanwhile
            paths = self._filter.matching(row[2], row[9], bool(row[5] & DELETED))
            if row[1] == seq and paths:
                self._add(row, paths)
            elif not paths and self._leaves:
                self._add(row, [], seq, removed=True)  # also if it changed beyond `upto`: no later change tells it
        if deletions:
            self._ready = sorted([*self._ready, *deletions], key=lambda ready: ready[0].seq)
        self._read_upto = upto

    def _untold_deletions(self, upto: int) -> tuple[list[tuple[Row, int]], int]:
        """The deletions up to there that the index does not tell of, or some of them; and how far they go."""
        assert self._filter is not None
        with self._database.reading() as connection:
            parameters = (self._barrel, self._read_upto, upto, _PAGE)
            rows, more = page_rows(connection, self._queries.deletions, parameters, _PAGE, 9)
        told = []
        for row in rows:
            if self._filter.matching(row[2], None, True) or (row[10] is not None and self._leaves):
                continue  # the index has it under its id, or under what it left
            left = self._filter.among([path for path, _ in _decode(row[10])]) if row[10] is not None else []
            if left or row[10] is None:
                deletion = row_of(row, self._docs, self._bytes_max)
                deletion.paths, deletion.removed = left, bool(left)
                told.append((deletion, len(row[9] or b"") if self._docs else 0))
        return told, rows[-1][1] if more else upto

    def _read_log(self, page: int) -> None:
        """Log rows since the position: documents that stand under the patterns, and leaves."""
        with self._database.snapshot() as connection:
            self._check_kept(connection, self._read_upto)
            parameters = (self._barrel, self._read_upto, self.upto, page)
            rows, more = page_rows(connection, self._queries.tail, parameters, page, 10)
        entries = [(entry, row) for row in rows if (entry := log_entry(row)) is not None and not entry.purged]
        present = self._present({row[11] for entry, row in entries if not entry.newest})
        for entry, row in entries:
            self._add_entry(entry, row[11], present.get(row[11]))
        self._read_upto = rows[-1][0] if more else self.upto

    def _check_kept(self, connection: Connection, after: int) -> None:
        head = connection.exec_driver_sql(self._queries.head, (self._barrel,)).first()
        if head is None or head[1] > after:
            raise EpochChanged("What is still to be told was forgotten, as it is older than log_kept")

    def _add_entry(self, entry: LogEntry, doc: int, present: Any) -> None:
        assert self._filter is not None
        gone = self._filter.among([path for path, _ in entry.gone])
        if entry.newest:
            stood = self._stood_before(entry, doc, gone)
            self._stood.discard(doc)
            self._came.discard(doc)
            paths = self._filter.matching(entry.id, entry.body, entry.deleted)
            if not paths and not gone and not (self._deletions and entry.is_untold_deletion):
                return
            told = entry.row(self._docs, self._bytes_max)
            told.entered = bool(paths) and not stood
            size = len(entry.body or b"")
        else:
            (self._stood if self._stood_before(entry, doc, gone) else self._came).add(doc)
            if not gone or present is None:
                return
            if self._filter.matching(present[2], present[9], bool(present[5] & DELETED)):
                return  # it came back, and is told at its newest seq
            # Told where it left, since a cursor may stop short of its newest change, and as it is now.
            paths = []
            told = row_of(present, self._docs, self._bytes_max)
            told.seq = entry.seq
            size = len(present[9] or b"")
        told.paths = paths or gone
        told.removed = bool(gone) and not paths
        self._ready.append((told, size if self._docs else 0))

    def _stood_before(self, entry: LogEntry, doc: int, gone: list[str]) -> bool:
        """Whether the document matched at the position that the replay began at: its first entry since tells."""
        assert self._filter is not None
        if doc in self._stood or doc in self._came:
            return doc in self._stood
        if entry.seq == doc:
            return False  # a document's number is the seq of its first change
        if gone or (entry.body is None and not entry.fresh):
            return True  # or nobody knows: its body was compacted
        return not entry.entered.issuperset(self._filter.matching(entry.id, entry.body, entry.deleted))

    def _present(self, numbers: set[int]) -> dict[int, Any]:
        if not numbers:
            return {}
        chunk = self._queries.as_list(sorted(numbers))
        return {row[0]: row for row in self._rows(self._queries.docs_by_number, self._barrel, chunk)}


def pending(database: Database, queries: Queries, barrel: int, after: int) -> int:
    """How many documents changed after a seq. Those before it are counted where that is the shorter way."""
    with database.snapshot() as connection:
        rows = rows_of(connection, queries.counts, (barrel,))
        if not rows:
            return 0
        ((head, documents),) = rows
        if after > head // 2:
            return int(rows_of(connection, queries.count_after, (barrel, after))[0][0])
        return int(documents - rows_of(connection, queries.count_upto, (barrel, after))[0][0])


def _chunks(selection: Selection, as_list: Any) -> Iterator[tuple[Bounds, Any]]:
    """The numbers of shapes, as many as are looked up at once, with the bounds of values on them."""
    for bounds, numbers in selection.shapes.items():
        for begin in range(0, len(numbers), _SHAPES):
            yield bounds, as_list(numbers[begin : begin + _SHAPES])


def changes_back(
    connection: Connection,
    queries: Queries,
    barrel: int,
    after: int,
    upto: int,
    patterns: Sequence[Pattern],
    *,
    docs: bool,
    limit: int | None,
    whole: bool = True,
) -> tuple[list[Row], int | None]:
    """Newest rows from `upto` back to (not including) `after`; and the seq of the last one told.

    Without `whole` they may be fewer than `limit`: no more than one page of bodies is held.
    """
    filtered = PathFilter(patterns) if patterns else None
    statement = queries.changes_back_with_docs if docs or filtered else queries.changes_back
    found: list[Row] = []
    while upto > after and (limit is None or len(found) < limit):
        page = _PAGE if limit is None else min(_PAGE, limit - len(found) + 1)
        parameters = (barrel, after, upto, page)
        rows, more = page_rows(connection, statement, parameters, page, 9 if docs or filtered else None)
        for row in rows:
            paths = None if filtered is None else filtered.matching(row[2], row[9], bool(row[5] & DELETED))
            if paths == [] or (limit is not None and len(found) >= limit):
                continue
            told = row_of(row, docs)
            if paths is not None:
                told.paths = paths
            found.append(told)
        if not more or (found and not whole):
            break
        upto = rows[-1][1] - 1
    return found, found[-1].seq if found else None
