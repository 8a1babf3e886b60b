"""Many documents read in one request: the call `get`, with the body and the result of HTTP's `_get`."""

from __future__ import annotations

import msgspec

from broker.requests.answers import encode_json, too_large
from broker.requests.bodies import Body
from broker.requests.serving import Asked, Serving
from feeds import Barrel, Document
from feeds.errors import SpileError

_READ_TOGETHER = 50  # so that an answer which is too large is noticed before all of it is in memory
_FRAME_BYTES = 1024  # of an answer beside its results: the names of its fields, and an escaped token


class _Wanted(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    rev: str | None = None
    revs: bool = False


class _Get(msgspec.Struct, forbid_unknown_fields=True):
    docs: list[_Wanted]
    fit: bool = False


async def get_many(serving: Serving, asked: Asked, body: Body) -> bytes:
    """Read `{docs: [{id, rev?, revs?}], fit?}` in this order: `{doc}` each, or `{id, error, reason}`.

    TooLarge where all of it is more than a message takes. With `fit` the answer then ends with the last one that
    fits, so that the client asks for the others next; a document that fits into no message stands as `too_large`
    in its own place.
    """
    serving.allow(asked, "read")
    wanted = body.as_(_Get)
    bytes_max = serving.limits.answer_bytes_max
    if wanted.fit:
        room = max(bytes_max - _FRAME_BYTES, bytes_max // 2)
        return await serving.in_thread(_read_fitting, serving.barrel(asked), wanted.docs, room)
    return await serving.in_thread(_read_all, serving.barrel(asked), wanted.docs, bytes_max)


def _read_all(barrel: Barrel, wanted: list[_Wanted], bytes_max: int) -> bytes:
    results: list[bytes] = []
    size = 0
    for start in range(0, len(wanted), _READ_TOGETHER):
        for result in _read_some(barrel, wanted[start : start + _READ_TOGETHER]):
            results.append(result)
            size += len(result) + 1
            if size > bytes_max:
                hint = 'Ask for fewer at a time, and for a large one in ranges: call "body".'
                raise too_large(size, bytes_max, hint, exact=False, fitting=len(results) - 1)
    return _told(results)


def _read_fitting(barrel: Barrel, wanted: list[_Wanted], bytes_max: int) -> bytes:
    results: list[bytes] = []
    size = 0
    for start in range(0, len(wanted), _READ_TOGETHER):
        part = wanted[start : start + _READ_TOGETHER]
        for one, result in zip(part, _read_some(barrel, part), strict=True):
            if len(result) > bytes_max:
                hint = 'Read it in ranges: call "body" with {id, rev, revs, offset, length}.'
                result = _refused(one, too_large(len(result), bytes_max, hint))
            size += len(result) + 1
            if results and size > bytes_max:
                return _told(results)
            results.append(result)
    return _told(results)


def _told(results: list[bytes]) -> bytes:
    return b'{"results":[' + b",".join(results) + b"]}"


def _read_some(barrel: Barrel, wanted: list[_Wanted]) -> list[bytes]:
    found: dict[int, Document | SpileError] = {}
    for revs in (False, True):
        places = [place for place, one in enumerate(wanted) if one.revs is revs]
        if places:
            asked_for = [(wanted[place].id, wanted[place].rev) for place in places]
            found.update(zip(places, barrel.get_many(asked_for, revs=revs), strict=True))
    return [_one_read(one, found[place]) for place, one in enumerate(wanted)]


def _one_read(wanted: _Wanted, found: Document | SpileError) -> bytes:
    return b'{"doc":' + found.json() + b"}" if isinstance(found, Document) else _refused(wanted, found)


def _refused(wanted: _Wanted, error: SpileError) -> bytes:
    rev = {"rev": wanted.rev} if wanted.rev is not None else {}
    return encode_json({"id": wanted.id, **rev, **error.as_dict()})
