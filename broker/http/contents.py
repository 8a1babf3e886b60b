"""Answering with a content: whole or a part of it, with what HTTP and browsers are to know of it.

Damaged bytes are never sent. What cannot be read from the start is told by an error; what turns out in the middle
cuts the connection, so that the client sees that something is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from broker.http.answers import Answer, AnyAnswer, Header, Streamed, revisions_in
from broker.http.call import Call
from broker.http.digests import digest_headers
from broker.http.disposition import browser_headers
from broker.http.outflow import Pieces
from broker.http.ranges import Part, asked_part
from feeds.attachments.stubs import Content
from feeds.errors import PreconditionFailed

SMALL_BYTES: Final = 64 << 10  # answered whole, without a place among the downloads

FRESH: Final = b"private, no-cache"
"""To be asked for again before it is used: an attachment of that name may be another one by then."""
IMMUTABLE: Final = b"private, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Found:
    """A content that is to be sent: what it is, and how it is read from an offset on, so many bytes."""

    content: Content
    name: str
    content_type: str
    read: Callable[[int, int], Iterator[bytes]]
    more: tuple[Header, ...] = ()
    cache: bytes = FRESH
    tagged_by: Literal["sha256", "md5"] = "sha256"

    @property
    def digest(self) -> str:
        """What it is called in tags: the same bytes have the same, wherever they are attached."""
        return self.content.md5 if self.tagged_by == "md5" else self.content.digest

    @property
    def tag(self) -> bytes:
        """Its entity tag."""
        return b'"%b"' % self.digest.encode()


async def content_answer(call: Call, found: Found) -> AnyAnswer:
    """The content, or the part of it that is asked for, or that the client has it already."""
    content = found.content
    headers: list[Header] = [(b"etag", found.tag), (b"cache-control", found.cache), *found.more]
    expected, held = call.header(b"if-match"), call.header(b"if-none-match")
    if expected is not None and not _names(expected, found.digest):
        raise PreconditionFailed(f"The attachment is {found.digest} now.")
    if held is not None and _names(held, found.digest):
        return Answer(304, b"", headers)
    part = None
    if call.method == "GET":
        part = asked_part(call.header(b"range"), call.header(b"if-range"), found.tag, content.length)
    headers += [(b"accept-ranges", b"bytes"), *digest_headers(content, whole=part is None)]
    headers += browser_headers(found.name, found.content_type)
    kind = found.content_type.encode("latin-1")
    status = 200 if part is None else 206
    whole = part or Part(0, content.length, content.length)
    if part is not None:
        headers.append((b"content-range", part.header))
    if call.method == "HEAD":
        return Streamed(_Nothing(), kind, [*headers, _length(whole)], status=status)
    pieces = found.read(whole.offset, whole.length)
    if whole.length <= SMALL_BYTES:
        return Answer(status, await call.in_step(b"".join, pieces), headers, kind)
    chunks = Pieces(call, pieces)
    await chunks.begin()
    return Streamed(chunks, kind, [*headers, _length(whole)], status=status)


class _Nothing:
    """The body of an answer to HEAD."""

    async def next(self) -> bytes | None:
        return None

    async def close(self) -> None:
        pass


def _names(header: str, digest: str) -> bool:
    tags = revisions_in(header)
    return digest in tags or "*" in tags


def _length(part: Part) -> Header:
    return b"content-length", b"%d" % part.length
