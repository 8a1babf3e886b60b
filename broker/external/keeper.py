"""Keeping a connection: made once at the start, and again whenever it is lost, with growing waits and without end.

None is made without asking first whether this process may: several processes of one store share a client id, the
broker ends the older connection, and the one that was ended must not take it back by itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from broker.external.connection import Connection, Ended
from broker.external.limits import ExternalLimits
from broker.external.reasons import Refuses
from broker.external.state import Link
from feeds.errors import Unavailable
from listeners.backoff import Backoff

log = logging.getLogger("spile.mqtt")

START_TRIES = 3  # a broker that is just starting or stopping may close what it would take a moment later
START_S = 0.5


class Standby(Unavailable):
    """Another process of this store serves the broker."""

    hint = "Nothing is to be done: this process takes over when that one ends."


class Keeper:
    """Has the connection while there is one. `connect` makes one, `on_ended` hears how each ended."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        may_connect: Callable[[], Awaitable[bool]],
        on_ended: Callable[[Ended], None],
        limits: ExternalLimits,
    ) -> None:
        self.connection: Connection | None = None
        self.link = Link()
        self._acknowledged = 0
        self._connect = connect
        self._may_connect = may_connect
        self._on_ended = on_ended
        self._limits = limits
        self._connected = asyncio.Event()
        self._wake = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._backoff = Backoff(limits.retry_first_s, limits.retry_max_s)

    @property
    def acknowledged(self) -> int:
        """Messages that the broker has acknowledged since the start."""
        return self._acknowledged + (self.connection.acknowledged if self.connection else 0)

    async def start(self) -> None:
        """Connect once, and then keep at it whatever came of that.

        Raises Unauthorized or BadRequest for what only an operator can mend.
        """
        first: Connection | None = None
        try:
            first = await self._first()
            self._take(first)
        except Standby as fault:
            log.info("MQTT: %s", fault.reason)
        except Unavailable as fault:
            log.warning("MQTT: %s The service starts all the same, and tries again.", fault.reason)
        self._task = asyncio.create_task(self._run(first), name="spile-mqtt-external")

    async def have(self, wait_s: float) -> Connection:
        """The connection, waited for so long; Unavailable says why there is none."""
        if self.connection is None and wait_s and not self._stopping:
            try:
                async with asyncio.timeout(wait_s):
                    await self._connected.wait()
            except TimeoutError:
                pass
        if self.connection is None:
            raise Unavailable(self.link.reason, hint=self.link.hint)
        return self.connection

    async def stands(self) -> None:
        """Return once there is a connection, or nobody shall wait for one any more."""
        await self._connected.wait()

    def wake(self) -> None:
        """Try to connect now, however long the present wait is, and soon again if that fails."""
        self._backoff.reset()
        self._wake.set()

    def hurry(self) -> None:
        """Nobody shall wait for a connection any more."""
        self._stopping = True
        self._connected.set()

    async def stop(self) -> None:
        """Close the connection, and make no other."""
        self.hurry()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self.connection is not None:
            await self.connection.close()

    async def failed(self) -> BaseException:
        """Return only when no connection is made any more, and why: never, unless there is a bug."""
        assert self._task is not None
        await asyncio.wait([self._task])
        if self._task.cancelled():
            return asyncio.CancelledError()
        return self._task.exception() or RuntimeError("the connection's task has ended")

    async def _first(self) -> Connection:
        for tries_left in reversed(range(START_TRIES)):
            try:
                return await self._try()
            except Refuses as refused:
                if not (tries_left and refused.may_pass):
                    raise refused.at_start() from None
                await asyncio.sleep(START_S)
        raise AssertionError("there is at least one try")

    async def _run(self, first: Connection | None) -> None:
        while True:
            await self._again(first)
            first = None

    async def _again(self, first: Connection | None) -> None:
        """Connect, as often as it takes, and stay until a connection that has worked is lost."""
        self._backoff.reset()
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(Unavailable),
            wait=lambda _state: self._backoff.next(),
            before_sleep=self._note_wait,
            sleep=self._rest,
        ):
            with attempt:
                connection, first = first, None
                await self._live(connection or await self._try())

    async def _try(self) -> Connection:
        self._wake.clear()
        try:
            if not await self._may_connect():
                raise Standby
            return await self._connect()
        except Unavailable as fault:
            self.link.down(time.time(), fault.reason, fault.hint)
            raise

    async def _live(self, connection: Connection) -> None:
        """Stay until the connection ends; Unavailable if that was too soon to try again at once."""
        self._take(connection)
        await asyncio.shield(connection.ended)
        lasted_s = time.monotonic() - connection.began_at
        if lasted_s < self._limits.settled_s and not connection.acknowledged:
            raise Unavailable(self.link.reason)
        if lasted_s < self._limits.settled_s:
            await self._rest(self._limits.retry_first_s)  # else two of one client id would end each other without end

    def _take(self, connection: Connection) -> None:
        if connection is self.connection or connection.ended.done():
            return
        self.connection = connection
        connection.on_ended = self._lost
        self.link.up(time.time())
        self._connected.set()
        log.info("MQTT through %s", connection.address)

    def _lost(self, ended: Ended) -> None:
        connection, self.connection = self.connection, None
        assert connection is not None
        self._acknowledged += connection.acknowledged
        if not self._stopping:
            self._connected.clear()
        self.link.down(time.time(), f"The connection to {connection.address} was lost: {ended.reason}.")
        log.log(logging.INFO if self._stopping else logging.WARNING, "MQTT: %s", self.link.reason)
        self._on_ended(ended)

    def _note_wait(self, state: RetryCallState) -> None:
        wait_s = state.next_action.sleep if state.next_action else 0.0
        fault = state.outcome.exception() if state.outcome else None
        # The 1st, 2nd, 4th, 8th…
        if state.attempt_number & (state.attempt_number - 1) == 0 and not isinstance(fault, Standby):
            log.warning("MQTT: %s Tried again in %.1f s.", self.link.reason, wait_s)
        self.link.waits(state.attempt_number, time.time() + wait_s)

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
