"""Answers that travel compressed, for clients that say they take that: browsers, PouchDB, and most others do.

Lists, changes and whole batches only. Small ones are not worth it, live ones have to arrive line by line, and what
has an entity tag is to stay the same bytes for everyone.
"""

from __future__ import annotations

import zlib
from typing import Final

from broker.http.answers import JSON, Answer, AnyAnswer, Chunks, Header, Streamed
from broker.http.call import Call

_SMALL_BYTES: Final = 16 << 10
_LEVEL: Final = 1  # the fastest, which makes a fifth of JSON
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
_VARY: Final[Header] = (b"vary", b"accept-encoding")
_PACKED: Final[Header] = (b"content-encoding", b"gzip")


async def packed_answer(call: Call, answer: AnyAnswer) -> AnyAnswer:
    """The answer, compressed where that is worth it and wanted."""
    if answer.content_type != JSON or any(name in (b"etag", b"content-encoding") for name, _ in answer.headers):
        return answer
    if isinstance(answer, Streamed):
        if answer.live:
            return answer
    elif len(answer.body) < _SMALL_BYTES:
        return answer
    answer.headers.append(_VARY)
    if not _takes_gzip(call.header(b"accept-encoding")):
        return answer
    answer.headers.append(_PACKED)
    if isinstance(answer, Streamed):
        answer.chunks = _Packed(call, answer.chunks)
        return answer
    return Answer(answer.status, await call.in_thread(_packed, answer.body), answer.headers)


def _takes_gzip(accepted: str | None) -> bool:
    for each in (accepted or "").lower().split(","):
        name, _, weight = each.replace(" ", "").partition(";")
        if name == "gzip":
            return weight not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _packed(body: bytes) -> bytes:
    packer = zlib.compressobj(_LEVEL, wbits=_GZIP_WINDOW)
    return packer.compress(body) + packer.flush()


class _Packed:
    """Chunks, each compressed by itself so that it can be read once it is there."""

    def __init__(self, call: Call, chunks: Chunks) -> None:
        self._call = call
        self._chunks = chunks
        self._packer = zlib.compressobj(_LEVEL, wbits=_GZIP_WINDOW)
        self._is_ended = False

    async def next(self) -> bytes | None:
        if self._is_ended:
            return None
        piece = await self._chunks.next()
        if piece is None:
            self._is_ended = True
            return self._packer.flush()
        return await self._call.in_thread(self._step, piece)

    async def close(self) -> None:
        await self._chunks.close()

    def _step(self, piece: bytes) -> bytes:
        return self._packer.compress(piece) + self._packer.flush(zlib.Z_SYNC_FLUSH)
