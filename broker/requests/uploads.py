"""A document larger than a message, sent in ranges: the call `body_put`.

Keeps what has come so far, within bounds, and how finished uploads ended, for ranges that come again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from hashlib import sha256
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from broker.requests.answers import encode_json, written_fields
from broker.requests.assembly import Assembly
from broker.requests.attached import with_contents
from broker.requests.bodies import read_part
from broker.requests.nested import PassingOn, passing_on
from broker.requests.serving import Asked, Prepared, Result, Serving, document_path
from feeds import Outcome, Token, Write, Written
from feeds.errors import BadRequest, Overloaded, SpileError, TooLarge
from feeds.writes import same

_Key = tuple[str, str, str]  # client, barrel, upload
_Purpose = tuple[str, str, str, int]


class _Part(msgspec.Struct, forbid_unknown_fields=True):
    upload: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    verb: Literal["put", "set", "merge", "replicate"]
    id: str
    digest: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    offset: Annotated[int, msgspec.Meta(ge=0)]
    total: Annotated[int, msgspec.Meta(ge=1)]
    data: str

    @property
    def purpose(self) -> _Purpose:
        return self.verb, self.id, self.digest, self.total


class _Taken(NamedTuple):
    told: dict[str, Any]
    id: str
    rev: str | None
    """What was written; None until all has come."""
    token: str | None


class _Upload:
    def __init__(self, purpose: _Purpose, assembly: Assembly) -> None:
        self.assembly = assembly
        self.purpose = purpose
        self.used_at = _now()
        self.written: Future[list[Outcome]] | None = None  # once every range has come

    def check(self, part: _Part) -> None:
        """Refuse a range of something else under the same name."""
        if self.purpose != part.purpose:
            raise BadRequest(
                f"The upload {part.upload!r} was begun with another verb, id, digest or total.",
                hint="Give every upload a name of its own.",
            )
        self.used_at = _now()


class Uploads:
    """The uploads of all clients. To be used on one event loop."""

    def __init__(self, serving: Serving) -> None:
        self._limits = serving.limits
        self._document_bytes_max = serving.document_bytes_max
        self._uploads: dict[_Key, _Upload] = {}
        self._finished: dict[_Key, tuple[_Purpose, float, dict[str, Any]]] = {}  # the oldest first
        self._client_uploads: Counter[str] = Counter()
        self._client_bytes: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def stats(self) -> dict[str, int]:
        """Uploads begun and remembered, and the bytes they hold."""
        return {
            "uploads": len(self._uploads),
            "upload_bytes": self._client_bytes.total(),
            "uploads_remembered": len(self._finished),
        }

    def close(self) -> None:
        """Forget every upload."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for key in list(self._uploads):
            self._let_go(key)
        self._finished.clear()

    async def take(self, serving: Serving, asked: Asked) -> Result:
        """Take `{upload, verb, id, digest, offset, total, data}`.

        `digest` is the sha256 of the whole text, `data` base64 of its bytes from `offset` on. The result is
        `{upload, received}` until all has come, then that of the write, whose token is the last range's, and so is
        what it says about passing on. A refusal of the write ends the upload, unless to send any range again can
        help.
        """
        with passing_on(serving, asked) as passing:
            told, id, rev, token = await self._take(serving, asked, passing)
            if rev is not None and (p2p := await passing.done(asked, id, rev)) is not None:
                told = {**told, "p2p": p2p}
            return encode_json(told), token

    async def _take(self, serving: Serving, asked: Asked, passing: PassingOn) -> _Taken:
        with serving.lanes.lane(asked.client.name) as lane:
            async with lane.turn:
                part, data, token = await serving.checked(
                    len(asked.payload), lambda: read_part(asked.payload, _Part, passing.take)
                )
                with _about(part.upload):
                    serving.allow(asked, "write", _path(part))
                    barrel = serving.barrel(asked)
                    key = (asked.client.name, barrel.name, part.upload)
                    done = self._finished.get(key)
                    if done is not None and done[0] == part.purpose:
                        return _Taken(done[2], part.id, done[2]["rev"], token)
                    upload = self._uploads.get(key) or self._begin(key, part, len(data))
                    upload.check(part)
                    if upload.written is None:
                        upload.assembly.add(part.offset, data)
                        if not upload.assembly.complete:
                            received = {"upload": part.upload, "received": upload.assembly.received}
                            return _Taken(received, part.id, None, token)
                        with self._ending(key, upload):
                            write, bound = await self._prepared(serving, asked, part, upload, token)
                            write = await with_contents(serving, asked, barrel, write)
                            lane.last = upload.written = barrel.submit((write,), token=bound)
            with _about(part.upload), self._ending(key, upload):
                outcome = (await serving.outcomes(asked, upload.written))[0]
                if isinstance(outcome, SpileError):
                    raise outcome
        return _Taken(self._finish(key, upload, outcome), outcome.id, str(outcome.rev), token)

    async def _prepared(
        self, serving: Serving, asked: Asked, part: _Part, upload: _Upload, token: str | None
    ) -> Prepared:
        bytes_max = self._document_bytes_max
        return await serving.checked(
            part.total, lambda: _prepare(asked, part, upload.assembly.whole(), token, bytes_max)
        )

    def _begin(self, key: _Key, part: _Part, length: int) -> _Upload:
        client, limits, total = key[0], self._limits, part.total
        if total > self._document_bytes_max:
            raise TooLarge(f"The document has {total} bytes; {self._document_bytes_max} are allowed.")
        if part.offset + length > total:
            raise BadRequest(f"The range ends at {part.offset + length}, and the document at {total}.")
        count, held = self._client_uploads[client], self._client_bytes[client]
        if count >= limits.uploads_per_client or (held and held + total > limits.upload_bytes_per_client):
            raise Overloaded(
                f"You have {count} uploads begun, of {held} bytes; "
                f"{limits.uploads_per_client} may be, of {limits.upload_bytes_per_client} bytes.",
                hint=f"Finish one; what is not gone on with is forgotten after {limits.upload_s:.0f} s.",
            )
        held = self._client_bytes.total()
        if held and held + total > limits.upload_bytes_max:
            raise Overloaded(f"Uploads of all clients hold {held} bytes; {limits.upload_bytes_max} may be.")
        upload = self._uploads[key] = _Upload(part.purpose, Assembly(total, limits.upload_pieces_max))
        self._client_uploads[client] += 1
        self._client_bytes[client] += total
        if self._timer is None:
            self._arm()
        return upload

    @contextmanager
    def _ending(self, key: _Key, upload: _Upload) -> Iterator[None]:
        """What is refused for good ends the upload; else any range that comes again tries it again."""
        try:
            yield
        except BaseException as error:
            upload.written = None
            if not (isinstance(error, SpileError) and error.retryable) and self._uploads.get(key) is upload:
                self._let_go(key)
            raise

    def _finish(self, key: _Key, upload: _Upload, written: Written) -> dict[str, Any]:
        answer = {"upload": key[2], **written_fields(written)}
        if self._uploads.get(key) is upload:
            self._let_go(key)
            self._finished.pop(key, None)
            self._finished[key] = (upload.purpose, _now(), answer)
            if len(self._finished) > self._limits.uploads_remembered:
                del self._finished[next(iter(self._finished))]
        return answer

    def _let_go(self, key: _Key) -> None:
        upload, client = self._uploads.pop(key), key[0]
        self._client_uploads[client] -= 1
        self._client_bytes[client] -= upload.assembly.total
        if not self._client_uploads[client]:
            del self._client_uploads[client], self._client_bytes[client]

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._limits.upload_s / 4, self._sweep)

    def _sweep(self) -> None:
        before = _now() - self._limits.upload_s
        for key in [key for key, upload in self._uploads.items() if upload.used_at <= before]:
            self._let_go(key)
        for key in [key for key, (_, at, _) in self._finished.items() if at <= before]:
            del self._finished[key]
        self._timer = None
        if self._uploads or self._finished:
            self._arm()


def _now() -> float:
    return asyncio.get_running_loop().time()


@contextmanager
def _about(upload: str) -> Iterator[None]:
    """Refusals name the upload, since all uploads of a client are answered on one topic."""
    try:
        yield
    except SpileError as error:
        error.details.setdefault("upload", upload)
        raise


def _path(part: _Part) -> str:
    """What has to be allowed: all of the barrel where stubs may name whatever any of its documents has."""
    return "#" if part.verb == "replicate" else document_path(part.id)


def _prepare(asked: Asked, part: _Part, whole: bytes, token: str | None, bytes_max: int) -> Prepared:
    digest = sha256(whole).hexdigest()
    if digest != part.digest:
        raise BadRequest(
            f"What came has the sha256 {digest}, and `digest` says {part.digest}.",
            hint="Send every range again.",
        )
    if part.verb == "merge":
        write = Write.merge(part.id, whole, bytes_max=bytes_max)
    elif part.verb == "replicate":
        write = Write.replicate(whole, bytes_max=bytes_max)
        same("_id", part.id, write.id)
    else:
        write = Write.put(whole, id=part.id, update=part.verb == "set", bytes_max=bytes_max)
    if token is None or part.verb == "replicate":
        return write, None
    return write, Token.of(token, asked.client.name, part.verb, asked.place.barrel, part.id, whole)
