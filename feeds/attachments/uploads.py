"""Uploads that can be gone on with: started, sent in parts at their offsets, finished into a content.

An upload belongs to one barrel and one caller, and where it was begun for a document to that, which alone may name it
then. It survives a restart with what was durable by then; one that nobody touched for a day is given up.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from feeds.attachments.blobs import Blobs
from feeds.attachments.given import Given, read_digest
from feeds.attachments.stubs import Content
from feeds.blobs.contents import Incoming
from feeds.body import check_id
from feeds.errors import BadRequest, Conflict, NotFound, Overloaded, SpileError, TooLarge
from feeds.naming import new_id
from feeds.storage.database import Database
from feeds.storage.statements import Statements
from feeds.storage.transaction import Transaction
from feeds.storage.uploadrows import upload_statements
from feeds.storage.writer import Writer

logger = logging.getLogger("spile.blobs")

UPLOADS_KEPT = 24 * 3600.0  # seconds without a word: a client that was offline overnight goes on
OPEN_MAX = 32  # kept open between requests, so that going on needs no reading; each has threads of its own
TOUCH_EVERY = 60.0  # seconds: a row need not be written for every part
PAGE_MAX = 1_000
UNFINISHED_MAX = 10_000  # of one caller in one barrel
LABEL_BYTES_MAX = 256
_STEP = 200
_ODD = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters, lone surrogates


@dataclass(frozen=True, slots=True)
class Upload:
    """How far an upload is."""

    id: str
    size: int
    """Bytes that are here; where the next part begins."""
    length: int | None
    content: Content | None = None
    """Once it is finished."""
    doc: str | None = None
    """The id of the only document that may name it; None: any may."""


@dataclass(frozen=True, slots=True)
class Begun:
    """An upload as its caller began it, without a look at its bytes."""

    id: str
    length: int | None
    doc: str | None
    label: str | None
    """The caller's own text for it."""
    touched: float
    """When it was gone on with last, within a minute, as Unix time in seconds."""
    is_finished: bool


@dataclass(slots=True, eq=False)
class _Open:
    incoming: Incoming
    touched: float
    used: threading.Lock = field(default_factory=threading.Lock)


class Uploads:
    """The uploads of one store. Thread-safe; one request at a time goes on with each."""

    def __init__(
        self,
        blobs: Blobs,
        database: Database,
        statements: Statements,
        writer: Writer,
        clock: Callable[[], float],
    ) -> None:
        self._blobs = blobs
        self._database = database
        self._writer = writer
        self._clock = clock
        self._sql = upload_statements(statements)
        self._guard = threading.Lock()
        self._open: dict[str, _Open] = {}

    def start(
        self,
        barrel: int,
        who: str = "",
        *,
        length: int | None = None,
        digest: str | None = None,
        doc: str | None = None,
        label: str | None = None,
    ) -> Upload:
        """Begin one for a barrel (its key); `length` and `digest` are what it has to be in the end.

        `doc` is the id of the only document that may name it then, and `label` a text by which `find` tells it from
        the caller's others. Overloaded where the caller has begun too many.
        """
        sha256, md5 = read_digest(digest) if digest is not None else (None, None)
        if md5 is not None:
            raise BadRequest("An upload is announced with its sha256", hint="Send an md5 when it is finished.")
        if doc is not None:
            check_id(doc)
        if label is not None:
            _check_label(label)
        incoming = self._blobs.contents.begin(length)
        now, id_ = self._clock(), new_id()
        row = (id_, barrel, who, doc, label, now, now, length, sha256, incoming.state, None)

        def insert(transaction: Transaction) -> None:
            ((count,),) = transaction.execute(self._sql.unfinished, barrel, who)
            if count >= UNFINISHED_MAX:
                raise _too_many(int(count))
            transaction.execute(self._sql.insert, *row)

        try:
            self._writer.call(insert)
        except BaseException:
            incoming.abort()
            raise
        self._put_aside(id_, _Open(incoming, now))
        return Upload(id_, 0, length, doc=doc)

    def find(self, barrel: int, id: str, who: str = "") -> Begun:
        """What it was begun as; NotFound where this caller has no such upload."""
        return _begun(self._row(barrel, id, who))

    def page(
        self, barrel: int, who: str = "", *, doc: str | None = None, after: str = "", limit: int = PAGE_MAX
    ) -> list[Begun]:
        """The caller's uploads, or those for one document, by their ids: the oldest first, from behind `after` on."""
        limit = min(limit, PAGE_MAX)
        values: tuple[object, ...] = (barrel, who, after, limit)
        sql = self._sql.all_own
        if doc is not None:
            sql, values = self._sql.own_of_doc, (barrel, who, after, doc, limit)
        with self._database.reading() as connection:
            return [_begun(row) for row in connection.exec_driver_sql(sql, values)]

    def get(self, barrel: int, id: str, who: str = "") -> Upload:
        """How far it is; NotFound where this caller has no such upload."""
        row = self._row(barrel, id, who)
        if row.blob is not None:
            content = self._content(row.blob)
            return Upload(id, content.length, row.length, content, row.doc)
        with self._guard:
            known = self._open.get(id)
            if known is not None:
                return Upload(id, known.incoming.size, row.length, doc=row.doc)
        opened = self._take(row)
        size = opened.incoming.size
        self._let_go(id, opened)
        return Upload(id, size, row.length, doc=row.doc)

    def append(self, barrel: int, id: str, offset: int, pieces: bytes | Iterable[bytes], who: str = "") -> int:
        """Take the bytes from `offset` on; how many there are now.

        Conflict with `size` in its details where the upload stands elsewhere, or another request goes on with it.
        What came before `pieces` failed stays, so that it can be gone on with.
        """
        row = self._row(barrel, id, who)
        if row.blob is not None:
            raise Conflict(f"The upload {id} is finished", hint="Start another one.")
        opened = self._take(row)
        try:
            if offset != opened.incoming.size:
                raise Conflict(
                    f"The upload {id} has {opened.incoming.size} bytes, and you sent what follows on {offset}",
                    hint="Go on at its size.",
                    size=opened.incoming.size,
                )
            for piece in (pieces,) if isinstance(pieces, bytes) else pieces:
                self._write(id, opened, piece)
            return opened.incoming.size
        finally:
            if opened.used.locked():
                self._let_go(id, opened)
                self._touch(id, opened)

    def finish(self, barrel: int, id: str, who: str = "", *, digest: str | None = None) -> Content:
        """The content that it is; a document may name it by the upload's id from now on. To be repeated freely.

        BadRequest where it is not what was announced, now or at the start: shorter, and it can be gone on with;
        other bytes, and it is given up.
        """
        row = self._row(barrel, id, who)
        if row.blob is not None:
            return self._content(row.blob)
        sha256, md5 = read_digest(digest) if digest is not None else (None, None)
        opened = self._take(row)
        try:
            stored = opened.incoming.finish()
        except BadRequest:
            self._let_go(id, opened)
            raise
        except BaseException:
            self._break_off(id, opened)
            raise
        self._forget(id, opened)
        announced = Given(sha256=row.sha256 or sha256, md5=md5, length=row.length)
        if sha256 is not None and row.sha256 is not None and sha256 != row.sha256:
            announced = Given(sha256=sha256)
        try:
            content = self._blobs.accept(stored, announced)
        except BadRequest:
            self._delete(id)
            raise
        self._writer.call(
            lambda transaction: transaction.execute(self._sql.finish, self._clock(), content.sha256, id)
        )
        return content

    def abort(self, barrel: int, id: str, who: str = "") -> None:
        """Give it up."""
        row = self._row(barrel, id, who)
        if row.blob is None:
            opened = self._take(row)
            self._forget(id, opened)
            opened.incoming.abort()
        self._delete(id)

    def expire(self) -> int:
        """Give up what nobody touched for a day; how many."""
        given_up = 0
        before = self._clock() - UPLOADS_KEPT
        with self._database.reading() as connection:
            old = connection.exec_driver_sql(self._sql.old, (before, _STEP)).all()
        for id_, state, blob in old:
            with self._guard:
                opened = self._open.get(id_)
                if opened is not None and not opened.used.acquire(blocking=False):
                    continue
                self._open.pop(id_, None)
            try:
                if opened is not None:
                    opened.incoming.abort()
                elif blob is None:
                    self._blobs.contents.remove(state)
            except SpileError as error:
                logger.warning("an upload that nobody goes on with stays for now: %s", error)
                continue
            self._delete(id_)
            given_up += 1
        return given_up

    def close(self) -> None:
        """Make durable what came so far, so that it can be gone on with."""
        with self._guard:
            left, self._open = self._open, {}
        for opened in left.values():
            with opened.used:
                _suspend(opened)

    # -- one at a time

    def _write(self, id_: str, opened: _Open, piece: bytes) -> None:
        try:
            opened.incoming.write(piece)
        except (TooLarge, BadRequest):
            raise
        except BaseException:
            self._break_off(id_, opened)
            raise

    def _break_off(self, id_: str, opened: _Open) -> None:
        """It cannot be written to any more as it is; what became durable can be gone on with."""
        with self._guard:
            self._open.pop(id_, None)
        _suspend(opened)
        opened.used.release()

    def _row(self, barrel: int, id_: str, who: str) -> Any:
        with self._database.reading() as connection:
            row = connection.exec_driver_sql(self._sql.find, (id_,)).first()
        if row is None or (row.barrel, row.who) != (barrel, who):
            raise NotFound(f"There is no upload {id_}", hint="Start one; after a day without a word it is given up.")
        return row

    def _content(self, digest: str) -> Content:
        return self._blobs.find(digest).content

    def _take(self, row: Any) -> _Open:
        with self._guard:
            opened = self._open.get(row.id)
            if opened is not None:
                if not opened.used.acquire(blocking=False):
                    raise _busy(row.id)
                return opened
        incoming = self._blobs.contents.resume(row.state, row.length)  # Conflict where another request was quicker
        opened = _Open(incoming, row.touched)
        opened.used.acquire()
        with self._guard:
            self._open[row.id] = opened
        return opened

    def _let_go(self, id_: str, opened: _Open) -> None:
        self._put_aside(id_, opened)
        opened.used.release()

    def _put_aside(self, id_: str, opened: _Open) -> None:
        """Keep it open as the newest one, and let the oldest go where there are too many."""
        with self._guard:
            self._open.pop(id_, None)
            self._open[id_] = opened
            surplus = []
            for old in list(self._open)[: max(0, len(self._open) - OPEN_MAX)]:
                if self._open[old].used.acquire(blocking=False):
                    surplus.append(self._open.pop(old))
        for each in surplus:
            _suspend(each)

    def _forget(self, id_: str, opened: _Open) -> None:
        with self._guard:
            self._open.pop(id_, None)
        opened.used.release()

    def _touch(self, id_: str, opened: _Open) -> None:
        now = self._clock()
        if now - opened.touched >= TOUCH_EVERY:
            opened.touched = now
            self._writer.call(lambda transaction: transaction.execute(self._sql.touch, now, id_))

    def _delete(self, id_: str) -> None:
        self._writer.call(lambda transaction: transaction.execute(self._sql.delete, id_))


def _begun(row: Any) -> Begun:
    return Begun(row.id, row.length, row.doc, row.label, row.touched, row.blob is not None)


def _check_label(label: str) -> None:
    if not 1 <= len(label.encode(errors="replace")) <= LABEL_BYTES_MAX or _ODD.search(label):
        raise BadRequest(
            f"The label of an upload is text of 1 to {LABEL_BYTES_MAX} bytes without control characters",
            hint="Send a shorter one, or none.",
        )


def _too_many(count: int) -> Overloaded:
    return Overloaded(
        f"You have begun {count} uploads in this barrel; {UNFINISHED_MAX} may be",
        hint="Finish some, or give them up; a day without a word does that too.",
    )


def _busy(id_: str) -> Conflict:
    return Conflict(
        f"Another request goes on with the upload {id_}",
        hint="Let one request at a time send it; ask how far it is, and go on from there.",
    )


def _suspend(opened: _Open) -> None:
    try:
        opened.incoming.suspend()
    except SpileError as error:
        logger.warning("of an upload only what was durable before stays: %s", error)
        opened.incoming.suspend()  # broken now: it lets go of what did not become durable
