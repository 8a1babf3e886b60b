"""The attachments of one barrel's documents: put there, taken away, read."""

from __future__ import annotations

import mimetypes
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET

from feeds.attachments.blobs import Blobs
from feeds.attachments.given import Given, check_name, check_type, read_digest
from feeds.attachments.stubs import DEFAULT_TYPE, Content, Stub, stubs_of
from feeds.blobs.contents import PIECE_BYTES_MAX
from feeds.body import check_id
from feeds.errors import BadRequest, Deleted, Missing, MissingStub, NotFound, SpileError
from feeds.faults import shown
from feeds.writes import Token, Write, Written

if TYPE_CHECKING:
    from feeds.barrel import Barrel

Source = bytes | Path | IO[bytes] | Iterable[bytes] | Content

_types = mimetypes.MimeTypes()  # those that Python knows: the same on every machine
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Attachment:
    """One attachment of one revision. A link has neither length nor digests, and cannot be read here."""

    document: str
    rev: str
    """The document's revision that it was read from."""
    name: str
    content_type: str | None
    length: int | None
    digest: str | None
    """`sha256-<64 hex>`, which the content has wherever it is attached."""
    md5: str | None
    """base64, as in `Content-MD5`."""
    revpos: int
    link: str | None = None
    _blobs: Blobs | None = field(default=None, repr=False, compare=False)

    def read(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Its bytes, or a range of them, verified, in pieces of at most 1 MiB.

        BadRequest for a range that begins beyond its end and for a link; BadChecksum or PartialRead, maybe in the
        middle, where the bytes are damaged.
        """
        if self._blobs is None or self.digest is None:
            raise BadRequest(f"{shown(self.name)} is a link to {self.link}", hint="Fetch it from there.")
        return self._blobs.read(self.digest.removeprefix("sha256-"), offset, length)

    def bytes(self) -> bytes:
        """All of it, in memory."""
        return b"".join(self.read())

    def save(self, path: Path) -> None:
        """Write it to a file, which is there only when it is whole."""
        aside = path.with_name(f".{path.name}.part")
        try:
            with aside.open("wb") as file:
                file.writelines(self.read())
            aside.replace(path)
        finally:
            with suppress(FileNotFoundError):
                aside.unlink()


class BarrelAttachments:
    """Works on one barrel. Every call blocks, and may come from any thread."""

    def __init__(self, barrel: Barrel) -> None:
        self._barrel = barrel

    @property
    def _blobs(self) -> Blobs:
        return self._barrel.store.blobs

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
        """See `Barrel.attach`."""
        check_id(id)
        check_name(name)
        if content_type is None:
            named = source.name if isinstance(source, Path) else name
            content_type = _types.guess_type(named, strict=False)[0] or DEFAULT_TYPE
        check_type(content_type)
        sha256, md5 = read_digest(digest) if digest is not None else (None, None)
        instead = self._now(id, name) if rev is None else None
        announced = Given(sha256=sha256, md5=md5, length=length)
        content = self._stored(name, source, announced)
        write = Write.attach(id, name, content, content_type=content_type, rev=rev, instead=instead)
        return self._barrel.write(write, token)

    def _stored(self, name: str, source: Source, announced: Given) -> Content:
        if isinstance(source, Content):
            announced.check(name, source)
            return source
        if isinstance(source, bytes):
            (content,) = self._blobs.keep([source])
            announced.check(name, content)
            return content
        if isinstance(source, Path):
            with source.open("rb") as file:
                return self._blobs.receive(_pieces(file), length=announced.length, announced=announced, name=name)
        pieces = _pieces(source) if hasattr(source, "read") else source  # type: ignore[arg-type]
        return self._blobs.receive(pieces, length=announced.length, announced=announced, name=name)

    def _now(self, id_: str, name: str) -> str:
        """The sha256 or the link that stands under a name now; "" for nothing."""
        try:
            stub = stubs_of(self._barrel.get(id_).body).get(name)
        except (Missing, Deleted):
            return ""
        return "" if stub is None else stub.meaning[1]

    def get(self, id: str, name: str, rev: str | None) -> Attachment:
        """See `Barrel.attachment`."""
        document = self._barrel.get(id, rev=rev)
        stub = stubs_of(document.body).get(name)
        if stub is None:
            raise NotFound(
                f"{id!r} has no attachment {shown(name)}", hint="Read the document for those it has.", missing=True
            )
        return self._attachment(document.id, document.rev, name, stub)

    def _attachment(self, id_: str, rev: str, name: str, stub: Stub) -> Attachment:
        kind = None if stub.content_type is UNSET else stub.content_type
        sha256 = stub.sha256
        if sha256 is None:
            link = None if stub.link is UNSET else stub.link
            return Attachment(id_, rev, name, kind, None, None, None, stub.revpos, link)
        content = self._blobs.find(sha256).content
        told = (kind, content.length, content.digest, content.md5, stub.revpos, None)
        return Attachment(id_, rev, name, *told, self._blobs)

    def absorb(self, writes: Iterable[Write], follows: Mapping[str, Content], who: str) -> list[Write]:
        """See `Barrel.absorb`."""
        given = list(writes)
        inline = [
            each.data
            for write in given
            for each in (write.attachments or {}).values()
            if each is not None and each.data is not None and each.content is None
        ]
        kept = iter(self._blobs.keep(inline)) if inline else iter(())
        return [self._absorbed(write, kept, follows, who) if write.is_waiting else write for write in given]

    def absorb_each(self, prepared: Sequence[Write | SpileError], who: str) -> list[Write | SpileError]:
        """See `Barrel.absorb_each`."""
        try:
            done = iter(self.absorb([each for each in prepared if isinstance(each, Write)], {}, who))
            return [next(done) if isinstance(each, Write) else each for each in prepared]
        except (BadRequest, NotFound, MissingStub):
            return [each if isinstance(each, SpileError) else self._absorbed_alone(each, who) for each in prepared]

    def _absorbed_alone(self, write: Write, who: str) -> Write | SpileError:
        try:
            return self.absorb([write], {}, who)[0]
        except (BadRequest, NotFound, MissingStub) as refusal:
            refusal.details.setdefault("id", write.id)
            return refusal

    def _absorbed(self, write: Write, kept: Iterator[Content], follows: Mapping[str, Content], who: str) -> Write:
        found: dict[str, Given | None] = {}
        for name, each in (write.attachments or {}).items():
            if each is None or not each.is_waiting:
                found[name] = each
                continue
            if each.data is not None:
                content = next(kept)
            elif each.upload is not None:
                content = self._uploaded(write.id, name, each.upload, who)
            elif name in follows:
                content = follows[name]
            else:
                raise MissingStub(f"The content of {shown(name)} did not follow the document", name=name)
            each.check(name, content)
            found[name] = replace(each, content=content, data=None)
        return msgspec.structs.replace(write, attachments=found)

    def _uploaded(self, id_: str, name: str, upload: str, who: str) -> Content:
        found = self._barrel.store.uploads.get(self._barrel.key, upload, who)
        if found.doc is not None and found.doc != id_:
            raise BadRequest(
                f"The upload for {shown(name)} was begun for the document {shown(found.doc)}",
                hint="Name it there, or begin one for this document.",
                name=name,
            )
        if found.content is None:
            raise MissingStub(
                f"The upload for {shown(name)} is not finished: {found.size} bytes are here",
                hint="Send the rest of it, finish it, and then write the document.",
                name=name,
            )
        return found.content

    def inlined(self, doc: bytes, bytes_max: int, newer_than: int) -> bytes:
        """See `Barrel.inlined`."""
        if b'"_attachments"' not in doc:
            return doc
        whole: dict[str, Any] = msgspec.json.decode(doc)
        left = bytes_max
        for told in (whole.get("_attachments") or {}).values():
            length = told.get("length")
            if not told.get("stub") or length > left or told["revpos"] <= newer_than:
                continue
            left -= length
            data = b"".join(self._blobs.read(told["digest"].removeprefix("sha256-")))
            del told["stub"]
            told["data"] = b64encode(data).decode()
        return _encode(whole)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(PIECE_BYTES_MAX):
        yield piece
