"""Documents that are read with the bytes of their attachments: inline as base64, or behind them in one answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from broker.http.answers import AnyAnswer, Header, Streamed, encode_json
from broker.http.call import Call
from broker.http.outflow import Pieces
from broker.http.related import RELATED, new_boundary, write_related
from feeds import Barrel
from feeds.attachments.blobs import MENDED_BY
from feeds.attachments.given import INLINE_BYTES_MAX
from feeds.attachments.stubs import Stub
from feeds.errors import BadChecksum
from feeds.faults import shown

_JSON: Final = "application/json"
_stubs = msgspec.json.Decoder(dict[str, Stub]).decode


class _Attached(msgspec.Struct):
    stubs: msgspec.Raw = msgspec.field(name="_attachments", default=msgspec.Raw(b"{}"))


async def inlined_answer(call: Call, barrel: Barrel, doc: bytes, headers: list[Header]) -> AnyAnswer:
    """The document with `data` in place of stubs, up to as much as a document may bring along; the rest stay stubs.

    It is made in memory, so that it has a place among the downloads until the client has taken it.
    """

    def made() -> Iterator[bytes]:
        yield barrel.inlined(doc, INLINE_BYTES_MAX)

    return await _streamed(call, made(), _JSON, headers)


async def related_answer(call: Call, barrel: Barrel, doc: bytes, headers: list[Header]) -> AnyAnswer:
    """The document as `multipart/related`, the contents of all its attachments behind it.

    One that is known to be damaged is told before anything is sent; what turns out on the way cuts the connection.
    """
    stubs = _stubs(msgspec.json.decode(doc, type=_Attached).stubs)
    there = {name: stub for name, stub in stubs.items() if stub.sha256 is not None}
    if there:
        await call.in_thread(_refuse_damaged, barrel, there)
        whole: dict[str, Any] = msgspec.json.decode(doc)
        for name in there:
            told = whole["_attachments"][name]
            del told["stub"]
            told["follows"] = True
        doc = encode_json(whole)
    boundary = new_boundary()
    pieces = write_related(doc, there, lambda sha256: barrel.store.blobs.read(sha256), boundary)
    kind = f'{RELATED}; type="{_JSON}"; boundary="{boundary.decode()}"'
    return await _streamed(call, pieces, kind, headers)


def _refuse_damaged(barrel: Barrel, stubs: dict[str, Stub]) -> None:
    found = barrel.store.blobs.rows.find(str(stub.sha256) for stub in stubs.values())
    for name, stub in stubs.items():
        if (blob := found.get(str(stub.sha256))) is not None and blob.is_damaged:
            raise BadChecksum(
                f"The content {blob.content.digest} of {shown(name)} is damaged", hint=MENDED_BY, digest=stub.digest
            )


def wants_related(accept: str | None) -> bool:
    """Whether `Accept` names multipart/related, and prefers nothing plainer to it."""
    if accept is None or RELATED not in accept.lower():
        return False
    weights = dict(_weighed(each) for each in accept.lower().split(","))
    mine = weights.get(RELATED, 0.0)
    return mine > 0 and mine >= weights.get(_JSON, 0.0)


def _weighed(given: str) -> tuple[str, float]:
    kind, *parameters = (each.strip() for each in given.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return kind, float(value)
            except ValueError:
                return kind, 0.0
    return kind, 1.0


async def _streamed(call: Call, pieces: Iterator[bytes], kind: str, headers: list[Header]) -> AnyAnswer:
    chunks = Pieces(call, pieces)
    await chunks.begin()
    return Streamed(chunks, kind.encode(), headers)
