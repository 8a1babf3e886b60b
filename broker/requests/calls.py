"""What is called by name: the table of calls, and those that read: get, revs_diff, info, head.

Bodies and results are those of HTTP. `blobs`, `bulk`, `conflicts`, `local`, `ranges` and `uploads` have modules of
their own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from broker.requests.answers import encode_json, too_large, wrapped
from broker.requests.blobs import blob_put, blob_range
from broker.requests.bodies import Body
from broker.requests.bulk import bulk
from broker.requests.conflicts import conflicts, resolve
from broker.requests.local import local
from broker.requests.ranges import body_range
from broker.requests.serving import Asked, Result, Serving
from broker.requests.uploads import Uploads
from feeds import Barrel, Document
from feeds.errors import BadRequest, SpileError

_READ_TOGETHER = 50  # so that an answer which is too large is noticed before all of it is in memory


class _Wanted(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    rev: str | None = None
    revs: bool = False


class _Get(msgspec.Struct, forbid_unknown_fields=True):
    docs: list[_Wanted]


class _Nothing(msgspec.Struct, forbid_unknown_fields=True):
    pass


class Calls:
    """Serves what is called by name."""

    def __init__(self, serving: Serving) -> None:
        self.uploads = Uploads(serving)
        self._serving = serving
        self._writing: dict[str, Callable[[Serving, Asked], Awaitable[Result]]] = {
            "blob_put": blob_put,
            "bulk": bulk,
            "local": local,
            "resolve": resolve,
            "body_put": self.uploads.take,
        }

    async def call(self, serving: Serving, asked: Asked) -> bytes:
        """Serve a call from its topic and body; returns the answer on `result`."""
        name = asked.place.name("call")
        if name in self._writing:
            result, token = await self._writing[name](serving, asked)
        elif name in _READING:
            result, token = await self._read(_READING[name], asked)
        else:
            known = ", ".join(sorted((*self._writing, *_READING)))
            raise BadRequest(f"There is no call {name[:100]!r}.", hint=f"Calls are {known}.")
        answer = wrapped("result", result, token)
        if len(answer) > serving.limits.answer_bytes_max:
            raise too_large(len(answer), serving.limits.answer_bytes_max, "Ask for less at a time.")
        return answer

    async def _read(self, read: _Reading, asked: Asked) -> Result:
        """What reads sees what its client wrote before."""
        async with self._serving.lanes.after_writes(asked.client.name):
            body = await self._serving.body(asked)
            return await read(self._serving, asked, body), body.token


async def _get(serving: Serving, asked: Asked, body: Body) -> bytes:
    """Read `{docs: [{id, rev?, revs?}]}` in this order: `{doc}` each, or `{id, error, reason}`."""
    serving.allow(asked, "read")
    wanted = body.as_(_Get).docs
    return await serving.in_thread(_read_many, serving.barrel(asked), wanted, serving.limits.answer_bytes_max)


async def _revs_diff(serving: Serving, asked: Asked, body: Body) -> bytes:
    """Which of the revisions in `{id: [rev, …]}` are not known here."""
    serving.allow(asked, "read")
    revisions = body.as_(dict[str, list[str]])
    return encode_json(await serving.in_thread(serving.barrel(asked).revs_diff, revisions))


async def _info(serving: Serving, asked: Asked, body: Body) -> bytes:
    """What is told about the barrel: counts, head, epoch, settings."""
    serving.allow(asked, "read")
    body.as_(_Nothing)
    return encode_json(await serving.in_thread(serving.barrel(asked).info))


async def _head(serving: Serving, asked: Asked, body: Body) -> bytes:
    """Where the barrel's log ends: `{seq, epoch}`."""
    serving.allow(asked, "read")
    body.as_(_Nothing)
    barrel = serving.barrel(asked)
    return encode_json({"seq": await serving.in_thread(barrel.head), "epoch": barrel.epoch})


def _read_many(barrel: Barrel, wanted: list[_Wanted], bytes_max: int) -> bytes:
    results: list[bytes] = []
    size = 0
    for start in range(0, len(wanted), _READ_TOGETHER):
        for result in _read_some(barrel, wanted[start : start + _READ_TOGETHER]):
            results.append(result)
            size += len(result) + 1
            if size > bytes_max:
                hint = 'Ask for fewer at a time, and for a large one in ranges: call "body".'
                raise too_large(size, bytes_max, hint, exact=False, fitting=len(results) - 1)
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
    if isinstance(found, Document):
        return b'{"doc":' + found.json() + b"}"
    rev = {"rev": wanted.rev} if wanted.rev is not None else {}
    return encode_json({"id": wanted.id, **rev, **found.as_dict()})


_Reading = Callable[[Serving, Asked, Body], Awaitable[bytes]]

_READING: Final[dict[str, _Reading]] = {
    "blob": blob_range,
    "body": body_range,
    "conflicts": conflicts,
    "get": _get,
    "head": _head,
    "info": _info,
    "revs_diff": _revs_diff,
}
