"""What is called by name: the table of calls, and those that tell of the barrel itself: info, head, identity.

Bodies and results are those of HTTP where it has the same. The others have modules of their own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from broker.requests.administering import create, purge
from broker.requests.answers import encode_json, too_large, wrapped
from broker.requests.blobs import blob_drop, blob_put, blob_range
from broker.requests.bodies import Body
from broker.requests.bulk import bulk
from broker.requests.comparing import blobs_diff, revs_diff
from broker.requests.conflicts import conflicts, resolve
from broker.requests.local import local
from broker.requests.many import get_many
from broker.requests.nested import p2p_read, p2p_write
from broker.requests.ranges import body_range
from broker.requests.serving import Asked, Result, Serving
from broker.requests.uploads import Uploads
from feeds.errors import BadRequest


class _Nothing(msgspec.Struct, forbid_unknown_fields=True):
    pass


class Calls:
    """Serves what is called by name."""

    def __init__(self, serving: Serving) -> None:
        self.uploads = Uploads(serving)
        self._serving = serving
        self._writing: dict[str, Callable[[Serving, Asked], Awaitable[Result]]] = {
            "blob_drop": blob_drop,
            "blob_put": blob_put,
            "bulk": bulk,
            "create": create,
            "local": local,
            "purge": purge,
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


async def _identity(serving: Serving, asked: Asked, body: Body) -> bytes:
    """Who this is, for replicators: `{service, store, barrel, epoch, seq, replicate_expiry}`."""
    serving.allow(asked, "read")
    body.as_(_Nothing)
    info = await serving.in_thread(serving.barrel(asked).info)
    return encode_json(
        {
            "service": "spile",
            "store": serving.store.id,
            "barrel": info.name,
            "epoch": info.epoch,
            "seq": info.seq,
            "replicate_expiry": info.settings.replicate_expiry,
        }
    )


_Reading = Callable[[Serving, Asked, Body], Awaitable[bytes]]

_READING: Final[dict[str, _Reading]] = {
    "blob": blob_range,
    "blobs_diff": blobs_diff,
    "body": body_range,
    "conflicts": conflicts,
    "get": get_many,
    "head": _head,
    "identity": _identity,
    "info": _info,
    "p2p_read": p2p_read,
    "p2p_write": p2p_write,
    "revs_diff": revs_diff,
}
