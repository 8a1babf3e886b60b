"""Contents of attachments over MQTT: read in ranges, sent in parts, gone on with where they broke off."""

from __future__ import annotations

import asyncio
import logging
import secrets
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, NamedTuple

import msgspec

from feeds.attachments.given import read_digest
from feeds.errors import BadRequest, Conflict, NotFound, SpileError, Unavailable
from listeners.backoff import Backoff
from listeners.replication.answers import parts, whole
from listeners.replication.errors import BadPeer, Unfit
from listeners.replication.over_mqtt_calls import Calls
from listeners.replication.peer import Blob, Read

log = logging.getLogger("spile.replication")

AHEAD = 4  # ranges on their way at once: the way there and back is spent once for them
_RESUMES_MAX = 5  # of one content without getting any further
_RESTS_S = (0.2, 5.0)
_BROKEN_MAX = 100  # uploads that may be gone on with; of older ones the service forgets what came

_encode = msgspec.json.Encoder().encode


class _Range(msgspec.Struct):
    offset: int
    total: int
    data: str


class _Received(msgspec.Struct):
    id: str
    received: Annotated[int, msgspec.Meta(ge=0)]
    digest: str | None = None


_Going = tuple[int, "asyncio.Task[_Received]"]
"""Up to where a part reaches, and its way."""


class _Dropped(msgspec.Struct):
    dropped: bool


async def blob_read(calls: Calls, blob: Blob, offset: int) -> AsyncGenerator[bytes, None]:
    """The bytes of a content from an offset on."""
    rests = _Rests()
    size = 0  # of a range, as the service makes them
    while offset < blob.length:
        starts = [offset + number * size for number in range(AHEAD if size else 1)]
        asked = [_range(calls, blob, start) for start in starts if start < blob.length]
        for told in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(told, SpileError):
                await rests.after(told)
                break
            if isinstance(told, BaseException):
                raise told
            if not told:
                raise Unfit(f"The source gave {offset} of the {blob.length} bytes of {blob.digest}")
            yield told
            offset += len(told)
            size = size or len(told)
            rests.goes_on()
            if len(told) != size:
                break


async def _range(calls: Calls, blob: Blob, offset: int) -> bytes:
    told = await calls.ask("blob", _encode({"digest": blob.digest, "offset": offset}), _Range)
    try:
        data = b64decode(told.data, validate=True)
    except ValueError as error:
        raise BadPeer(f"{calls.name} gives a range that is not base64: {error}") from None
    if told.offset != offset:
        raise BadPeer(f"{calls.name} was asked for what is at {offset}, and gave what is at {told.offset}")
    if told.total != blob.length:
        raise Unfit(f"{blob.digest} has {told.total} bytes at the source, and is told to have {blob.length}")
    return data


class Reached(NamedTuple):
    """How far an upload is, and what it is called."""

    upload: str
    id: str | None = None
    """Its name with the service, which outlives ours."""
    offset: int = 0


class Broken:
    """Uploads that broke off, by digest."""

    def __init__(self) -> None:
        self._places: dict[str, Reached] = {}

    def take(self, digest: str) -> Reached:
        """The one to go on with, which nobody else goes on with meanwhile; a new one where there is none."""
        return self._places.pop(digest, None) or Reached(secrets.token_hex(8))

    def keep(self, digest: str, reached: Reached) -> None:
        """Whoever sends this content the next time goes on with this upload."""
        self._places[digest] = reached
        if len(self._places) > _BROKEN_MAX:
            del self._places[next(iter(self._places))]


async def blob_written(calls: Calls, blob: Blob, read: Read, part_bytes: int, broken: Broken) -> str:
    """Send a content in parts of a size; the id of its upload."""
    if read_digest(blob.digest)[0] is None:
        raise BadRequest(f"{blob.digest} is no sha256", hint="The source names contents as the target does not.")
    sending = _Sending(calls, blob, read, part_bytes, broken.take(blob.digest))
    try:
        return await sending.run()
    except NotFound as gone:
        if sending.reached.id is None:
            raise
        raise Unavailable(gone.reason) from None  # it was given up: it is begun anew
    except SpileError as error:
        if error.retryable:
            broken.keep(blob.digest, sending.reached)
        else:
            await sending.give_up()
        raise
    except asyncio.CancelledError:
        broken.keep(blob.digest, sending.reached)
        raise


class _Sending:
    """One content on its way."""

    def __init__(self, calls: Calls, blob: Blob, read: Read, part_bytes: int, reached: Reached) -> None:
        self._calls = calls
        self._blob = blob
        self._read = read
        self._part_bytes = part_bytes
        self._upload = reached.upload
        self._id = reached.id
        self._offset = self._furthest = reached.offset
        self._rests = _Rests()

    @property
    def reached(self) -> Reached:
        """Where whoever goes on with it begins."""
        return Reached(self._upload, self._id, self._offset)

    async def run(self) -> str:
        if self._blob.length <= self._part_bytes:
            self._read = await _held(self._read, self._blob)
        while True:
            try:
                id = await self._parts()
            except Conflict as error:
                # The service stands elsewhere, or was started anew and knows only the upload's id.
                self._upload = self._id or self._upload
                self._offset = max(0, int(error.details.get("size", 0)))
                await self._rests.after(error, helps=True)
            except SpileError as error:
                await self._rests.after(error)
            else:
                if id is not None:
                    return id

    async def _parts(self) -> str | None:
        """Send what is missing; the upload's id when all is there, None where it is to be gone on with elsewhere."""
        going: deque[_Going] = deque()
        try:
            async with aclosing(self._ahead(going)) as waiting:
                async for end, task in waiting:
                    told = await task
                    self._id, self._offset = told.id, told.received
                    if self._offset > self._furthest:
                        self._furthest = self._offset
                        self._rests.goes_on()
                    if told.digest is not None:
                        return told.id
                    if told.received != end:
                        return None
        finally:
            for _, task in going:
                task.cancel()
            await asyncio.gather(*(task for _, task in going), return_exceptions=True)
        raise Unfit(f"The source gave {self._offset} of the {self._blob.length} bytes of {self._blob.digest}")

    async def _ahead(self, going: deque[_Going]) -> AsyncGenerator[_Going, None]:
        """Parts in order, some of which are on their way already."""
        blob = self._blob
        async with aclosing(parts(self._read, self._offset, blob.length, self._part_bytes)) as pieces:
            async for at, data in pieces:
                sending = asyncio.create_task(self._send(at, data), name=f"spile replication part {blob.digest[:20]}")
                going.append((at + len(data), sending))
                if len(going) == AHEAD:
                    yield going[0]
                    going.popleft()
        while going:
            yield going[0]
            going.popleft()

    async def _send(self, offset: int, data: bytes) -> _Received:
        blob = self._blob
        about = {"upload": self._upload, "digest": blob.digest, "offset": offset, "total": blob.length}
        return await self._calls.ask("blob_put", _encode({**about, "data": b64encode(data).decode()}), _Received)

    async def give_up(self) -> None:
        """Let the service forget what has come; it does so by itself, but later."""
        if self._id is None:
            return
        try:
            await self._calls.ask("blob_drop", _encode({"upload": self._upload}), _Dropped)
        except SpileError as error:
            log.info("%s may keep a part of %s for a while: %s", self._calls.name, self._blob.digest, error.reason)


async def _held(read: Read, blob: Blob) -> Read:
    """All of a small content, to be read again and again."""
    content = await whole(read, blob)
    if len(content) != blob.length:
        raise Unfit(f"The source gave {len(content)} of the {blob.length} bytes of {blob.digest}")

    async def again(offset: int) -> AsyncGenerator[bytes, None]:
        yield content[offset:]

    return again


class _Rests:
    """The waits of a transfer that does not get any further, until there were too many of them."""

    def __init__(self) -> None:
        self._backoff = Backoff(*_RESTS_S)
        self._tries = 0

    async def after(self, error: SpileError, *, helps: bool = False) -> None:
        """Wait, if to go on may help; raises the error where not."""
        self._tries += 1
        if not (error.retryable or helps):
            raise error
        if self._tries > _RESUMES_MAX:
            raise error if error.retryable else Unavailable(error.reason)
        await asyncio.sleep(self._backoff.next())

    def goes_on(self) -> None:
        """It got further."""
        self._tries = 0
        self._backoff.reset()
