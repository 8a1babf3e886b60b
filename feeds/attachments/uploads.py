"""Uploads that can be gone on with: started, sent in parts at their offsets, finished into a content.

An upload belongs to one barrel and one caller, and where it was begun for a document to that, which alone may name it
then. It survives a restart with what was durable by then; one that nobody touched for a day is given up.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from feeds.attachments.blobs import Blobs
from feeds.attachments.given import Given, read_digest
from feeds.attachments.stubs import Content
from feeds.attachments.uploads_open import Opened, OpenUploads
from feeds.blobs.contents import Stored
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
        self._open = OpenUploads()

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
        self._open.put_aside(id_, Opened(incoming, now))
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
        size = self._open.size(id)
        if size is None:
            opened = self._take(row)
            size = opened.incoming.size
            self._open.give_back(id, opened)
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
            self._touch(id, opened)
            if offset != opened.incoming.size:
                raise Conflict(
                    f"The upload {id} has {opened.incoming.size} bytes, and you sent what follows on {offset}",
                    hint="Go on at its size.",
                    size=opened.incoming.size,
                )
            for piece in (pieces,) if isinstance(pieces, bytes) else pieces:
                self._write(id, opened, piece)
                self._touch(id, opened)
            return opened.incoming.size
        finally:
            if opened.used.locked():
                self._open.give_back(id, opened)

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
            self._touch(id, opened)
            stored = opened.incoming.finish()
        except (BadRequest, NotFound):
            self._open.give_back(id, opened)
            raise
        except BaseException:
            self._open.break_off(id, opened)
            raise
        try:
            return self._finished(row, stored, sha256, md5)
        finally:
            self._open.let_go(id, opened)  # nobody was to take it for one that goes on, and give its bytes up

    def _finished(self, row: Any, stored: Stored, sha256: str | None, md5: str | None) -> Content:
        is_ = stored.sha256.hex()
        wrong = next((said for said in (row.sha256, sha256) if said not in (None, is_)), None)

        def note(transaction: Transaction) -> None:
            if not transaction.execute(self._sql.finish, self._clock(), is_, row.id):
                raise _ended(row.id)

        try:
            return self._blobs.accept(stored, Given(sha256=wrong, md5=md5, length=row.length), first=note)
        except BadRequest:
            self._delete(row.id)
            raise

    def abort(self, barrel: int, id: str, who: str = "") -> None:
        """Give it up."""
        state = self._row(barrel, id, who).state
        self._give_up(id, state, lambda transaction: transaction.execute(self._sql.delete, id))

    def expire(self) -> int:
        """Give up what nobody touched for a day; how many."""
        before = self._clock() - UPLOADS_KEPT
        with self._database.reading() as connection:
            old = connection.exec_driver_sql(self._sql.old, (before, _STEP)).all()
        return sum(self._expired(id_, state, before) for id_, state in old)

    def _expired(self, id_: str, state: str, before: float) -> bool:
        try:
            return self._give_up(
                id_, state, lambda transaction: transaction.execute(self._sql.delete_old, id_, before)
            )
        except Conflict:
            return False

    def close(self) -> None:
        """Make durable what came so far, so that it can be gone on with."""
        self._open.close()

    # -- one at a time

    def _write(self, id_: str, opened: Opened, piece: bytes) -> None:
        try:
            opened.incoming.write(piece)
        except (TooLarge, BadRequest):
            raise
        except BaseException:
            self._open.break_off(id_, opened)
            raise

    def _row(self, barrel: int, id_: str, who: str) -> Any:
        with self._database.reading() as connection:
            row = connection.exec_driver_sql(self._sql.find, (id_,)).first()
        if row is None or (row.barrel, row.who) != (barrel, who):
            raise _unknown(id_)
        return row

    def _content(self, digest: str) -> Content:
        return self._blobs.find(digest).content

    def _take(self, row: Any) -> Opened:
        def resume() -> Opened:
            if self._row(row.barrel, row.id, row.who).blob is not None:
                raise _ended(row.id)
            return Opened(self._blobs.contents.resume(row.state, row.length), row.touched)

        return self._open.take(row.id, resume)

    def _give_up(self, id_: str, state: str, delete: Callable[[Transaction], list[Any]]) -> bool:
        """Delete its row, and with it what it has so far; whether it was deleted. Conflict while a request goes on
        with it. The row goes first: whoever finds it may count on the bytes."""
        with self._open.alone(id_) as opened:
            gone = self._writer.call(delete)
            if gone:
                self._open.forget(id_)
            if gone and gone[0][0] is None:
                self._remove(state, opened)
        return bool(gone)

    def _remove(self, state: str, opened: Opened | None) -> None:
        try:
            if opened is not None:
                opened.incoming.abort()
            else:
                self._blobs.contents.remove(state)
        except SpileError as error:
            logger.warning("what came of an upload stays until leftovers are removed: %s", error)

    def _touch(self, id_: str, opened: Opened) -> None:
        """Say that it is gone on with, before anything is done: nobody gives it up then."""
        now = self._clock()
        if now - opened.touched >= TOUCH_EVERY:
            if not self._writer.call(lambda transaction: transaction.execute(self._sql.touch, now, id_)):
                raise _unknown(id_)
            opened.touched = now

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


def _unknown(id_: str) -> NotFound:
    return NotFound(f"There is no upload {id_}", hint="Start one; after a day without a word it is given up.")


def _ended(id_: str) -> Conflict:
    return Conflict(
        f"The upload {id_} was finished or given up meanwhile", hint="Ask how far it is, and go on from there."
    )
