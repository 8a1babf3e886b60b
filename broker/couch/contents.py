"""Documents with the bytes of their attachments behind them: `multipart/related`, several in `multipart/mixed`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from msgspec import UNSET

from broker.couch import stubs
from broker.couch.reading import Beside, Told, held_generation
from broker.http.answers import AnyAnswer, Header, Streamed, encode_json
from broker.http.call import Call
from broker.http.disposition import disposition
from broker.http.outflow import Pieces
from broker.http.related import new_boundary
from feeds import Barrel, Document
from feeds.attachments.stubs import DEFAULT_TYPE, Stubs, stubs_of


async def multipart_document(
    call: Call, barrel: Barrel, document: Document, beside: Beside, headers: list[Header]
) -> AnyAnswer:
    """One document as `multipart/related`."""
    boundary = new_boundary()
    kind = b'multipart/related; boundary="%b"' % boundary
    return await _streamed(call, _related(barrel, document, beside, boundary), kind, headers)


async def multipart_revisions(call: Call, barrel: Barrel, found: Iterable[list[Told]], beside: Beside) -> AnyAnswer:
    """Several revisions as `multipart/mixed`: each a `multipart/related`, or JSON where it has no attachments."""
    boundary = new_boundary()
    return await _streamed(
        call, _mixed(barrel, found, beside, boundary), b'multipart/mixed; boundary="%b"' % boundary
    )


def _mixed(barrel: Barrel, found: Iterable[list[Told]], beside: Beside, boundary: bytes) -> Iterator[bytes]:
    for each in chain.from_iterable(found):
        yield b"\r\n--%b\r\n" % boundary
        if isinstance(each, tuple):
            yield b'Content-Type: application/json; error="true"\r\n\r\n' + encode_json({"missing": each[0]})
        elif stubs_of(each.body):
            inner = new_boundary()
            yield b'Content-Type: multipart/related; boundary="%b"\r\n\r\n' % inner
            yield from _related(barrel, each, beside, inner)
        else:
            yield b"Content-Type: application/json\r\n\r\n" + each.json()
    yield b"\r\n--%b--" % boundary


def _related(barrel: Barrel, document: Document, beside: Beside, boundary: bytes) -> Iterator[bytes]:
    follows = _following(barrel, document, beside)
    (doc,) = stubs.told(barrel, [document.json()], follows=follows)
    yield b"--%b\r\nContent-Type: application/json\r\n\r\n%b\r\n--%b" % (boundary, doc, boundary)
    for name, stub in follows.items():
        if stub.sha256 is None:
            continue  # a link, which stands in the document
        kind = DEFAULT_TYPE if stub.content_type is UNSET else stub.content_type
        yield b"\r\nContent-Disposition: %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (
            disposition("attachment", name),
            kind.encode("latin-1"),
            stub.length or 0,
        )
        yield from barrel.store.blobs.read(stub.sha256)
        yield b"\r\n--%b" % boundary
    yield b"--"


def _following(barrel: Barrel, document: Document, beside: Beside) -> Stubs:
    """The attachments whose contents are sent: all, or those that came since."""
    held = held_generation(barrel, document, beside.atts_since)
    return {name: stub for name, stub in stubs_of(document.body).items() if stub.revpos > held}


async def _streamed(
    call: Call, pieces: Iterator[bytes], kind: bytes, headers: list[Header] | None = None
) -> AnyAnswer:
    chunks = Pieces(call, pieces)
    await chunks.begin()
    return Streamed(chunks, kind, headers or [])
