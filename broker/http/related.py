"""`multipart/related`: a document, and behind it the contents of the attachments that say `follows: true`.

The parts come from `listeners.parts`; here they are given their meaning.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from email.utils import collapse_rfc2231_value
from typing import Final

import msgspec
from python_multipart.exceptions import FormParserError

from broker.http.disposition import disposition
from feeds import Barrel, Write
from feeds.attachments.given import Given
from feeds.attachments.inflating import Inflating
from feeds.attachments.stubs import Content, Stub
from feeds.blobs.contents import Incoming
from feeds.errors import BadRequest, TooLarge
from feeds.faults import shown
from listeners.parts import PartReader, boundary_in, header

RELATED: Final = "multipart/related"
_HINT: Final = "Send the document first, and a part for each attachment with `follows`, in the document's order."
_GZIP: Final = "gzip"
_AS_IS: Final = ("", "binary", "8bit", "7bit", "identity")


@dataclass(frozen=True, slots=True)
class Related:
    """A document that came with contents, which are stored."""

    write: Write
    text: bytes
    follows: dict[str, Content]


def boundary_of(content_type: str | None) -> str | None:
    """The boundary of a `multipart/related`; None for any other type, BadRequest where there is none."""
    if content_type is None or not content_type.lower().startswith(RELATED):
        return None
    boundary = boundary_in(content_type)
    if boundary is None:
        raise BadRequest("The multipart/related has no boundary of 1 to 70 characters.", hint=_HINT)
    return boundary


def read_related(
    body: Iterable[bytes],
    boundary: str,
    barrel: Barrel,
    prepare: Callable[[bytes], Write],
    text_bytes_max: int,
    inflated_bytes_max: int = 0,
) -> Related:
    """Take a body in, storing its contents; `prepare` makes a write of the document's text. Blocks.

    Parts that come compressed (gzip) are taken where they may have `inflated_bytes_max` together, and stored plain.

    Raises what is wrong with it, after which nothing of the part that was coming in is left; contents that were
    complete by then are given up by the collector, as no document names them.
    """
    parts = _Parts(barrel, prepare, text_bytes_max, inflated_bytes_max)
    try:
        parser = parts.parser(boundary)
        for piece in body:
            parser.write(piece)
    except FormParserError as error:
        raise BadRequest(f"The multipart/related cannot be read: {error}.", hint=_HINT) from error
    finally:
        parts.close()
    return parts.result()


class _Parts(PartReader):
    """What the parser finds, part by part."""

    def __init__(
        self, barrel: Barrel, prepare: Callable[[bytes], Write], text_bytes_max: int, inflated_bytes_max: int
    ) -> None:
        super().__init__()
        self._blobs = barrel.store.blobs
        self._prepare = prepare
        self._text_bytes_max = text_bytes_max
        self._text = bytearray()
        self._write: Write | None = None
        self._awaited: dict[str, Given] = {}
        self._follows: dict[str, Content] = {}
        self._name = ""
        self._incoming: Incoming | None = None
        self._takes_compressed = inflated_bytes_max > 0
        self._inflated_left = inflated_bytes_max
        self._inflating: Inflating | None = None

    def result(self) -> Related:
        """What came, once the body has ended."""
        if not self.is_ended or self._write is None:
            raise BadRequest("The multipart/related ends before its last boundary.", hint="Send all of it.")
        return Related(self._write, bytes(self._text), self._follows)

    def close(self) -> None:
        """Undo the part that was coming in, if it did not come to its end."""
        if self._incoming is not None:
            self._incoming.abort()

    def headers_finished(self) -> None:
        is_compressed = self._head.get("content-encoding", "").lower() == _GZIP and self._takes_compressed
        if is_compressed and self._write is not None:
            del self._head["content-encoding"]
        for name in ("content-encoding", "content-transfer-encoding"):
            if self._head.get(name, "").lower() not in _AS_IS:
                raise BadRequest(
                    f"A part with {name}: {shown(self._head[name])} is not read.", hint="Send it as it is."
                )
        if self._write is None:
            return
        self._name, given = self._next()
        if given.content_type is None and "content-type" in self._head:
            self._set(self._name, replace(given, content_type=self._head["content-type"]))
        self._incoming = self._blobs.contents.begin(given.length)
        self._inflating = Inflating(self._name, self._inflated_left) if is_compressed else None

    def part_data(self, data: bytes, start: int, end: int) -> None:
        if self._incoming is not None and self._inflating is not None:
            for piece in self._inflating.plain(data[start:end]):
                self._incoming.write(piece)
            return
        if self._incoming is not None:
            with memoryview(data) as view:
                self._incoming.write(view[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > self._text_bytes_max:
            raise TooLarge(f"The document has more than {self._text_bytes_max} bytes.", limit=self._text_bytes_max)

    def part_end(self) -> None:
        if self._incoming is None:
            self._write = self._prepare(bytes(self._text))
            named = (self._write.attachments or {}).items()
            self._awaited = {name: each for name, each in named if each is not None and each.follows}
            return
        if self._inflating is not None:
            self._inflating.end()
            self._inflated_left -= self._incoming.size
        stored = self._incoming.finish()
        self._incoming = None
        given = self._awaited.pop(self._name)
        self._follows[self._name] = self._blobs.accept(stored, given, self._name)

    def _next(self) -> tuple[str, Given]:
        """Whose content comes now: the one that the part names, else the next one in the document's order."""
        named = _file_name(self._head.get("content-disposition"))
        if named is not None and named in self._awaited:
            return named, self._awaited[named]
        for name, given in self._awaited.items():
            return name, given
        raise BadRequest("There are more parts than attachments that follow the document.", hint=_HINT)

    def _set(self, name: str, given: Given) -> None:
        assert self._write is not None and self._write.attachments is not None
        self._awaited[name] = given
        self._write = msgspec.structs.replace(self._write, attachments={**self._write.attachments, name: given})


def write_related(
    doc: bytes, stubs: dict[str, Stub], read: Callable[[str], Iterator[bytes]], boundary: bytes
) -> Iterator[bytes]:
    """The body of an answer: the document's JSON, and the contents of these attachments, in order. Blocks.

    What stands before a content comes with its first piece, so that one that cannot be read spoils nothing before.
    """
    head = b"--%b\r\nContent-Type: application/json\r\n\r\n%b" % (boundary, doc)
    for name, stub in stubs.items():
        sha256 = stub.sha256
        assert sha256 is not None and isinstance(stub.length, int)
        head += b"\r\n--%b\r\nContent-Disposition: %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (
            boundary,
            disposition("attachment", name),
            str(stub.content_type).encode("latin-1"),
            stub.length,
        )
        pieces = read(sha256)
        yield head + next(pieces, b"")
        yield from pieces
        head = b""
    yield head + b"\r\n--%b--\r\n" % boundary


def new_boundary() -> bytes:
    """One that no content holds."""
    return secrets.token_hex(16).encode()


def _file_name(value: str | None) -> str | None:
    """The name in a `Content-Disposition`: the one with a charset (`filename*`) before the plain one (RFC 6266)."""
    if value is None:
        return None
    told = header("content-disposition", value).get_params(header="content-disposition") or []
    names = [text for key, text in told if key.lower() == "filename"]
    names.sort(key=lambda each: not isinstance(each, tuple))
    return collapse_rfc2231_value(names[0]) if names else None
