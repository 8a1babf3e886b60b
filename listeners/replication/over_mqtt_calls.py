"""Calls to a Spile over MQTT: what is asked under `from/<client>/call/…`, and what comes back for it.

A call has a token by which its answer is known. What was lost on the way is asked again; a connection that is lost is
made again by the next call.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from feeds.errors import SpileError, Timeout
from feeds.paths import encode_segment
from listeners.errors import LinkLost, error_of
from listeners.links.address import Address
from listeners.links.mqtt_connection import MqttConnection, client_levels
from listeners.replication.errors import BadPeer

T = TypeVar("T")

CALLS_MAX = 8
"""On their way at once: with packets of 256 KiB some seconds of a slow link, and 2 MiB of memory."""
WRITES_MAX = 4
"""Of these, such as wait for the writer: so many a service never refuses because of waiting alone."""


@dataclass(frozen=True, slots=True)
class CallTimes:
    """How long answers are waited for, in seconds."""

    first: float = 10.0
    """For a first answer of this service, so that a wrong address is told soon."""
    answer: float = 60.0
    again: float = 10.0
    """After which a call that the broker has taken is sent again: it may be lost, or its answer."""


TIMES = CallTimes()


class _Answer(msgspec.Struct):
    token: str | None = None
    result: Raw | UnsetType = UNSET
    error: str | None = None
    reason: str | None = None
    hint: str | None = None
    size: int | None = None
    retry_after: float | None = None


_WRITING = frozenset(("blob_put", "body_put", "bulk", "create", "local", "purge"))
_read = msgspec.json.Decoder(_Answer).decode


@dataclass(slots=True, eq=False)
class _Call:
    """One call that waits for its answer."""

    answer: asyncio.Future[Raw]
    again_at: float = math.inf
    """When to send it again; known once the broker has taken it."""


class Calls:
    """Calls about one barrel, over one connection that is made when there is none."""

    def __init__(self, address: Address, times: CallTimes = TIMES) -> None:
        """Nothing is sent yet."""
        self._times = times
        self._address = address
        self._client_id = f"spile-replicate-{secrets.token_hex(6)}"
        client = client_levels(address, self._client_id)
        barrel = encode_segment(address.barrel)
        self._topic = f"{address.prefix}from/{client}/call/{barrel}/"
        # Refusals of another kind are told by the service too: of a name that it does not take.
        self._filters = [f"{address.prefix}to/{client}/{kind}/#" for kind in ("result", "rejected")]
        self._connection: MqttConnection | None = None
        self._connecting = asyncio.Lock()
        self._slots = asyncio.Semaphore(CALLS_MAX)
        self._writes = asyncio.Semaphore(WRITES_MAX)
        self._calls: dict[str, _Call] = {}
        self._sent: dict[int, _Call] = {}
        self._tokens = 0
        self._closing: set[asyncio.Task[None]] = set()
        self._answered = False

    @property
    def name(self) -> str:
        """Where they go, without secrets."""
        return str(self._address)

    async def ask(self, name: str, body: bytes, kind: type[T]) -> T:
        """The result of a call, read as what it has to be: BadPeer where it is something else.

        `body` is a JSON object. What the service refuses is raised as the error that it is, with `size` and
        `retry_after` in its details. A call that is lost and may be made again raises Timeout or Unavailable.
        """
        async with self._writes if name in _WRITING else nullcontext(), self._slots:
            result = await self._answer(name, body)
        try:
            return msgspec.json.decode(result, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BadPeer(f"{self.name} answers, but not as a Spile does: {str(error)[:120]}") from None

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
        if self._closing:
            await asyncio.wait(self._closing)

    async def _answer(self, name: str, body: bytes) -> Raw:
        loop = asyncio.get_running_loop()
        self._tokens += 1
        token = f"{self._tokens:x}"
        payload = b'{"_token":"%b"%b' % (token.encode(), b"," + body[1:] if len(body) > 2 else b"}")
        call = self._calls[token] = _Call(loop.create_future())
        try:
            await self._connected()
            until = loop.time() + (self._times.answer if self._answered else self._times.first)
            while not call.answer.done():
                await self._send(call, self._topic + name, payload)
                while not call.answer.done() and loop.time() < (again := min(until, call.again_at)):
                    await asyncio.wait([call.answer], timeout=min(again - loop.time(), self._times.again))
                if loop.time() >= until and not call.answer.done():
                    raise self._silence()
            return call.answer.result()
        finally:
            del self._calls[token]
            if not call.answer.cancel() and not call.answer.cancelled():
                call.answer.exception()  # nobody waits for it any more, and that is no fault

    async def _send(self, call: _Call, topic: str, payload: bytes) -> None:
        connection = await self._connected()
        call.again_at = math.inf
        try:
            mid = connection.publish(topic, payload)
        except LinkLost as error:
            # One that ended in the moment in which it came about had nobody yet to tell that to.
            if connection is self._connection:
                self.lost(error)
            raise
        self._sent[mid] = call

    def _silence(self) -> Timeout:
        return Timeout(
            f"No Spile answers at {self.name}.",
            hint="It is asked again; see that the service runs, and that the broker lets this user publish under "
            "its from/ and read its to/.",
        )

    # -- the connection

    async def _connected(self) -> MqttConnection:
        async with self._connecting:
            if self._connection is None:
                connection = MqttConnection(self._address, self._client_id, self._filters, self)
                try:
                    await connection.connect()
                except BaseException:
                    await asyncio.shield(connection.close())
                    raise
                self._connection = connection
            return self._connection

    def message(self, topic: str, payload: bytes) -> None:
        """An answer came."""
        try:
            told = _read(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            # Under `to/` only the service publishes: whatever this is, it is no Spile.
            self._fail(BadPeer(f"{self.name} answers, but not as a Spile does: {str(error)[:120]}"))
            return
        call = self._calls.get(told.token or "")
        if call is None or call.answer.done():
            return  # it was answered already, or nobody waits any more
        self._answered = True
        if isinstance(told.result, Raw):
            call.answer.set_result(told.result)
        elif told.error is not None:
            call.answer.set_exception(_refusal(told))
        else:
            call.answer.set_exception(BadPeer(f"{self.name} answers with neither a result nor an error"))

    def taken(self, mid: int) -> None:
        """The broker has a call."""
        call = self._sent.pop(mid, None)
        if call is not None:
            call.again_at = asyncio.get_running_loop().time() + self._times.again

    def lost(self, error: SpileError) -> None:
        """The connection has ended: every call on its way is to be made again."""
        connection, self._connection = self._connection, None
        self._sent.clear()
        self._fail(error)
        if connection is not None:
            closing = asyncio.create_task(connection.close(), name="spile replication link")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _fail(self, error: SpileError) -> None:
        for call in self._calls.values():
            if not call.answer.done():
                call.answer.set_exception(type(error)(error.reason, hint=error.hint))


def _refusal(told: _Answer) -> SpileError:
    error = error_of(told.error or "error", told.reason, told.hint)
    if told.size is not None:
        error.details["size"] = told.size
    if told.retry_after is not None:
        error.details["retry_after"] = told.retry_after
    return error
