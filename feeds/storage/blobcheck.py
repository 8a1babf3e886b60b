"""Whether attachments fit together: stubs in bodies, references, the rows of contents, and their bytes.

References are compared as a count and a sum of digests, as the index is; only where these differ are rows compared.
A reference whose revision has no body any more is no fault: the collector has not come by yet.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from hashlib import md5, sha256
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Connection, and_, func, select

from feeds.attachments.stubs import MARK, contents_of, stubs_of
from feeds.blobs.contents import LOST
from feeds.errors import SpileError
from feeds.storage.schema import blob_refs, blob_trash, blobs, revs
from feeds.storage.session import streamed

if TYPE_CHECKING:
    from feeds.store import Store

Ref = tuple[int, int, str, str]  # doc, generation, digest of the revision, sha256

_ALL = (1 << 64) - 1
_SHOWN = 20  # rows told by name; the rest is counted
_PAGE = 500

_revision = and_(*(revs.c[name] == blob_refs.c[name] for name in ("barrel", "doc", "generation", "digest")))
_columns = (blob_refs.c.doc, blob_refs.c.generation, blob_refs.c.digest, blob_refs.c.blob)


class RefCheck:
    """The references of one barrel, against bodies that are told one after the other."""

    def __init__(self, connection: Connection, barrel: int) -> None:
        self._connection = connection
        self._barrel = barrel
        self._count = 0
        self._sum = 0
        self.rows = 0

    def expect(self, doc: int, generation: int, digest: str, body: bytes | None) -> None:
        """This revision has this body."""
        for blob in named_in(body):
            self._count += 1
            self._sum = (self._sum + hash((doc, generation, digest, blob))) & _ALL

    def problems(self) -> Iterator[str]:
        """What does not agree."""
        there = 0
        for row in streamed(self._connection, _standing(self._barrel)):
            self.rows += 1
            there = (there + hash(tuple(row))) & _ALL
        if (self.rows, there) == (self._count, self._sum):
            return
        yield f"there are {self.rows} references to contents, and {self._count} are right"
        for lacking, _ in zip(missing_refs(self._connection, self._barrel), range(_SHOWN), strict=False):
            doc, generation, _, blob = lacking
            yield f"the reference of document number {doc} at generation {generation} to sha256-{blob} is missing"
        for extra, _ in zip(extra_refs(self._connection, self._barrel), range(_SHOWN), strict=False):
            doc, generation, _, blob = extra
            yield f"document number {doc} at generation {generation} refers to sha256-{blob} and does not name it"


def named_in(body: bytes | None) -> set[str]:
    """The contents that a stored body names; none if it cannot be read."""
    try:
        return contents_of(stubs_of(body))
    except (msgspec.MsgspecError, ValueError):
        return set()


def _standing(barrel: int) -> Any:
    return (
        select(*_columns)
        .select_from(blob_refs.join(revs, _revision))
        .where(blob_refs.c.barrel == barrel, revs.c.body.isnot(None))
    )


def missing_refs(connection: Connection, barrel: int) -> Iterator[Ref]:
    """The references that bodies give and that are not there."""
    bodies = select(revs.c.doc, revs.c.generation, revs.c.digest, revs.c.body).where(
        revs.c.barrel == barrel, func.substr(revs.c.body, 1, len(MARK)) == MARK
    )
    for doc, generation, digest, body in streamed(connection, bodies):
        mine = select(blob_refs.c.blob).where(
            blob_refs.c.barrel == barrel,
            blob_refs.c.doc == doc,
            blob_refs.c.generation == generation,
            blob_refs.c.digest == digest,
        )
        there = {row[0] for row in connection.execute(mine)}
        yield from ((doc, generation, digest, blob) for blob in sorted(named_in(body) - there))


def extra_refs(connection: Connection, barrel: int) -> Iterator[Ref]:
    """The references whose revision has a body that does not name the content."""
    for row in streamed(connection, _standing(barrel).add_columns(revs.c.body)):
        if row[3] not in named_in(row[4]):
            yield row[0], row[1], row[2], row[3]


def stray_problems(connection: Connection) -> Iterator[str]:
    """What is wrong with the rows of contents themselves."""
    unknown = (
        select(blob_refs.c.blob)
        .select_from(blob_refs.outerjoin(blobs, blobs.c.digest == blob_refs.c.blob))
        .where(blobs.c.digest.is_(None))
        .distinct()
    )
    for (digest,) in connection.execute(unknown.limit(_SHOWN)):
        yield f"the content sha256-{digest} is referred to, and not here"
    both = select(func.count()).select_from(blobs.join(blob_trash, blob_trash.c.place == blobs.c.place))
    number = connection.execute(both).scalar()
    if number:
        yield f"{number} contents are used and stand in the trash"


class ContentCheck:
    """The bytes of every content, read from end to end."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.damaged: list[str] = []
        """The places of those that are not what they were."""
        self.sound: list[str] = []
        """The places of those that are, and were told as damaged."""
        self.looked_at = 0

    def problems(self, tell: Callable[[int], None]) -> Iterator[str]:
        """What is wrong; `tell` is called with each content."""
        service = self._store.blobs
        if not self._store.blobs.rows.is_used():
            return
        try:
            contents = service.contents
        except SpileError as error:
            yield f"the contents of attachments were not looked at: {error.reason}"
            return
        with service.holding():
            yield from (f"contents: {problem}" for problem in contents.check())
            for row in self._rows():
                try:
                    problem = self._problem(contents, row)
                except SpileError as error:  # its place is away, maybe: that says nothing of the content
                    yield f"the content sha256-{row.digest} was not looked at: {error.reason}"
                    continue
                finally:
                    self.looked_at += 1
                    tell(1)
                if problem is not None and service.rows.find([row.digest]):
                    self.damaged.append(row.place)
                    yield f"the content sha256-{row.digest}: {problem}"
                elif problem is None and row.flags:
                    self.sound.append(row.place)

    def _rows(self) -> Iterator[Any]:
        mark = ""
        while True:
            with self._store.database.reading() as connection:
                page = connection.execute(
                    select(blobs).where(blobs.c.digest > mark).order_by(blobs.c.digest).limit(_PAGE)
                ).all()
            yield from page
            if len(page) < _PAGE:
                return
            mark = page[-1].digest

    def _problem(self, contents: Any, row: Any) -> str | None:
        content, brief = sha256(), md5(usedforsecurity=False)
        try:
            for piece in contents.read(row.place, 0, row.length):
                content.update(piece)
                brief.update(piece)
        except LOST as error:
            return error.reason
        if content.hexdigest() != row.digest:
            return f"its bytes are those of sha256-{content.hexdigest()}"
        return None if b64encode(brief.digest()).decode() == row.md5 else "its md5 is another one"
